// Every iteration against every other.

import { svg } from "./dom.js";
import { mark, picture } from "./frame.js";
import { written } from "./text.js";

/** The picture of a chart of kind `matrix`: shades say who wins, the numbers how often. */
export function matrix(chart, width, hint) {
  const count = chart.labels.length;
  const left = 88;
  const top = 30;
  const side = Math.min((width - left - 8) / count, 92);
  const tall = Math.min(side, 56);
  const node = picture(width, top + tall * count + 8, chart.title);
  chart.labels.forEach((label, i) => {
    const middle = left + side * (i + 0.5);
    const short = side < 76 ? label.replace(/^iteration /, "") : label;
    node.append(svg("text", { class: "tick", x: middle, y: top - 10, "text-anchor": "middle" }, short));
    const at = { class: "tick", x: left - 10, y: top + tall * (i + 0.5), dy: "0.32em", "text-anchor": "end" };
    node.append(svg("text", at, label));
  });
  chart.cells.forEach((row, i) =>
    row.forEach((value, j) => {
      const at = { x: left + side * j, y: top + tall * i, width };
      if (value !== null) node.append(winRate(chart, value, i, j, at, side, tall, hint));
    }),
  );
  return node;
}

function winRate(chart, value, i, j, at, side, tall, hint) {
  const half = chart.half[i][j];
  const lines = [`${chart.labels[i]} against ${chart.labels[j]}`, `${written(value)}%`];
  if (half !== null) lines.push(`95% interval ${written(value - half)} to ${written(value + half)}`);
  const shade = { "fill-opacity": Math.min(Math.abs(value - 50) / 50, 1) * 0.42 };
  return mark(
    lines,
    at,
    hint,
    svg("rect", { class: "cell", x: at.x + 1, y: at.y + 1, width: side - 2, height: tall - 2 }),
    svg("rect", { class: value >= 50 ? "wins" : "loses", ...shade, x: at.x + 1, y: at.y + 1, width: side - 2, height: tall - 2 }),
    svg("text", { class: "value", x: at.x + side / 2, y: at.y + tall / 2, dy: "0.32em", "text-anchor": "middle" }, value.toFixed(1)),
  );
}
