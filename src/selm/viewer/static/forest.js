// Values below each other with their intervals, each under its name: as many as there are.

import { svg } from "./dom.js";
import { below, MARGIN, mark, picture } from "./frame.js";
import { extent, linear, tickLabel, ticks } from "./scale.js";
import { written } from "./text.js";

const ROW = 42;
const SIDE = 14;
const LETTER = 6.8; // pixels of a letter of a name, on average

/** The picture of a chart of kind `forest`. */
export function forest(chart, width, hint) {
  const bottom = chart.rows.length * ROW + 8;
  const domain = extent([chart.even, ...chart.rows.flatMap((row) => [row.value, row.low, row.high])]);
  const x = linear(domain, [SIDE, width - SIDE]);
  const node = picture(width, bottom + MARGIN.bottom, chart.title);
  const all = ticks(...domain, width < 360 ? 3 : 5);
  all.forEach((value) => {
    const at = x(value).toFixed(1);
    node.append(svg("line", { class: "grid", x1: at, x2: at, y1: 0, y2: bottom }));
    node.append(below(x(value), bottom + MARGIN.bottom, tickLabel(value, all)));
  });
  if (chart.even !== null) {
    const at = x(chart.even).toFixed(1);
    node.append(svg("line", { class: "even", x1: at, x2: at, y1: 0, y2: bottom }));
  }
  node.append(...chart.rows.map((row, i) => rowOfForest(chart, row, x, i * ROW, width, hint)));
  return node;
}

function rowOfForest(chart, { name, value, low, high }, x, top, width, hint) {
  const lines = [name, `${chart.unit} ${written(value)}`];
  if (low !== null) lines.push(`95% interval ${written(low)} to ${written(high)}`);
  const y = top + 30;
  const ends = low === null ? null : { x1: x(low).toFixed(1), x2: x(high).toFixed(1), y1: y, y2: y };
  return mark(
    lines,
    { x: x(value), y: top + 18, width },
    hint,
    svg("rect", { class: "target", x: 0, y: top, width, height: ROW }),
    svg("text", { class: "name", x: SIDE, y: top + 15 }, shortened(name, Math.floor((width - 90) / LETTER))),
    svg("text", { class: "value", x: width - SIDE, y: top + 15, "text-anchor": "end" }, written(value)),
    ends === null ? "" : svg("line", { class: "interval s0", ...ends }),
    svg("circle", { class: "dot s0", cx: x(value).toFixed(1), cy: y, r: 5.5 }),
  );
}

/** A long name loses its middle, because its ends tell it from others. */
export function shortened(name, most) {
  const letters = Array.from(name);
  if (letters.length <= most) return name;
  const half = Math.max(1, Math.floor((most - 1) / 2));
  return `${letters.slice(0, half).join("")}…${letters.slice(-half).join("")}`;
}
