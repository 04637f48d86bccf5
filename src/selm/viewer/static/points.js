// Values over iterations with their intervals.

import { svg } from "./dom.js";
import { below, MARGIN, mark, picture, valueAxis } from "./frame.js";
import { extent, linear } from "./scale.js";
import { written } from "./text.js";

/** The picture of a chart of kind `points`. */
export function points(chart, width, hint) {
  const height = 260;
  const all = [chart.even, ...(chart.range ?? []), ...chart.series.flatMap((s) => [...s.values, ...s.low, ...s.high])];
  const domain = extent(all, 0.14);
  const y = linear(domain, [height - MARGIN.bottom, MARGIN.top]);
  const x = linear([-0.5, chart.x.length - 0.5], [MARGIN.left, width - MARGIN.right]);
  const node = picture(width, height, chart.title);
  node.append(...valueAxis(y, domain, width));
  if (chart.even !== null) {
    const at = y(chart.even).toFixed(1);
    node.append(svg("line", { class: "even", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
  }
  node.append(...chart.x.map((label, i) => below(x(i), height, shortLabel(label, chart, width))));
  chart.series.forEach((series, k) => {
    // Two series beside each other instead of on top of each other.
    const shift = (k - (chart.series.length - 1) / 2) * 14;
    const at = (i) => x(i) + shift;
    node.append(line(series, at, y, k));
    series.values.forEach((value, i) => {
      if (value !== null) node.append(point(chart, series, i, at(i), y, k, width, hint));
    });
  });
  return node;
}

/** `iteration 2` takes more room than a narrow picture has for each. */
function shortLabel(label, chart, width) {
  return width / chart.x.length < 84 ? label.replace(/^iteration /, "") : label;
}

function line(series, at, y, k) {
  const known = series.values.map((value, i) => [value, i]).filter(([value]) => value !== null);
  const path = known.map(([value, i]) => `${at(i).toFixed(1)},${y(value).toFixed(1)}`);
  return svg("polyline", { class: `line s${k}${series.dashed ? " dashed" : ""}`, points: path.join(" ") });
}

function point(chart, series, i, x, y, k, width, hint) {
  const [value, low, high] = [series.values[i], series.low[i], series.high[i]];
  const name = chart.series.length > 1 ? `${series.name}, ` : "";
  const lines = [`${name}${chart.x[i]}`, `${series.name === chart.unit ? "" : `${chart.unit} `}${written(value)}`];
  if (chart.series.length === 1) lines[1] = `${series.name} ${written(value)}${chart.unit === "%" ? "%" : ""}`;
  if (low !== null) lines.push(`95% interval ${written(low)} to ${written(high)}`);
  const centre = { cx: x.toFixed(1), cy: y(value).toFixed(1) };
  const ends = low === null ? {} : { y1: y(low).toFixed(1), y2: y(high).toFixed(1) };
  return mark(
    lines,
    { x, y: y(high ?? value), width },
    hint,
    svg("circle", { ...centre, r: 16, class: "target" }),
    low === null ? "" : svg("line", { class: `interval s${k}`, x1: x.toFixed(1), x2: x.toFixed(1), ...ends }),
    svg("circle", { ...centre, r: 5.5, class: `dot s${k}${series.dashed ? " dashed" : ""}` }),
    // Of three series there is no room for the values; tips and the table have them.
    chart.series.length > 2 ? "" : svg("text", { class: "value", ...placeOfValue(chart.series.length, k, x, y, value, high) }, written(value)),
  );
}

/** Above the interval; of two series at their outer sides, so that one is not written on the other. */
function placeOfValue(count, k, x, y, value, high) {
  if (count === 1) return { x: x.toFixed(1), y: (y(high ?? value) - 9).toFixed(1), "text-anchor": "middle" };
  const [shift, anchor] = k === 0 ? [-9, "end"] : [9, "start"];
  return { x: (x + shift).toFixed(1), y: y(value).toFixed(1), dy: "0.32em", "text-anchor": anchor };
}
