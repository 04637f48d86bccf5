// Distributions: histograms below one another, and boxes beside one another.

import { svg } from "./dom.js";
import { below, MARGIN, mark, picture, valueAxis } from "./frame.js";
import { extent, linear, tickLabel, ticks } from "./scale.js";
import { written } from "./text.js";

const PANEL = 74;

/** One panel per policy, in the same bins; the outline is the first one's, the base model's. */
export function histogram(chart, width, hint) {
  const height = PANEL * chart.series.length + MARGIN.bottom + 6;
  const node = picture(width, height, chart.title);
  const edges = chart.edges;
  const x = linear([edges[0], edges.at(-1)], [8, width - 8]);
  const most = Math.max(...chart.series.flatMap((s) => s.shares), 1);
  chart.series.forEach((series, k) => {
    const bottom = PANEL * (k + 1);
    const y = linear([0, most], [bottom, bottom - PANEL + 22]);
    const bars = series.shares.map((share, i) => bar(chart, series, share, i, x, y, bottom, width, hint));
    node.append(svg("line", { class: "grid", x1: 8, x2: width - 8, y1: bottom, y2: bottom }), ...bars);
    if (k > 0) node.append(outline(chart.series[0].shares, edges, x, y));
    if (series.mean !== null) {
      const at = x(series.mean).toFixed(1);
      node.append(svg("line", { class: "mean", x1: at, x2: at, y1: bottom - PANEL + 22, y2: bottom }));
    }
    const words = `${series.name}, mean ${written(series.mean)}`;
    node.append(svg("text", { class: "value", x: width - 10, y: bottom - PANEL + 17, "text-anchor": "end" }, words));
  });
  const all = ticks(edges[0], edges.at(-1), width < 380 ? 3 : 5);
  const names = all.map((value, i) => `${tickLabel(value, all)}${i === all.length - 1 ? ` ${chart.unit}` : ""}`);
  all.forEach((value, i) => {
    // The outer ones stay within the picture.
    if (i === all.length - 1) node.append(below(Math.min(x(value) + 30, width - 8), height, names[i], "end"));
    else if (x(value) < 24) node.append(below(8, height, names[i], "start"));
    else node.append(below(x(value), height, names[i]));
  });
  return node;
}

function bar(chart, series, share, i, x, y, bottom, width, hint) {
  const [from, to] = [chart.edges[i], chart.edges[i + 1]];
  const box = { x: x(from) + 0.5, width: Math.max(x(to) - x(from) - 1, 0.5) };
  const shape = svg("rect", { ...box, y: y(share), height: bottom - y(share), class: "bar" });
  const target = svg("rect", { ...box, y: bottom - PANEL + 22, height: PANEL - 22, class: "target" });
  const lines = [series.name, `${chart.unit} ${written(from)} to ${written(to)}`, `${share}% of prompts`];
  const node = mark(lines, { x: x(from), y: y(share), width }, hint, target, shape);
  node.setAttribute("tabindex", "-1"); // 24 stops for each panel would be in the way; there is a table
  return node;
}

function outline(shares, edges, x, y) {
  const path = [`M${x(edges[0])} ${y(0)}`];
  shares.forEach((share, i) => path.push(`V${y(share).toFixed(1)}H${x(edges[i + 1]).toFixed(1)}`));
  return svg("path", { class: "outline", d: `${path.join("")}V${y(0)}` });
}

/** Quantiles of scores by who wrote the answer. */
export function boxes(chart, width, hint) {
  const height = 260;
  const domain = extent(chart.series.flatMap((s) => s.boxes.flatMap((box) => box ?? [])), 0.08);
  const y = linear(domain, [height - MARGIN.bottom, MARGIN.top]);
  const x = linear([-0.5, chart.x.length - 0.5], [MARGIN.left, width - MARGIN.right]);
  const node = picture(width, height, chart.title);
  node.append(...valueAxis(y, domain, width));
  chart.x.forEach((label, i) => node.append(below(x(i), height, label)));
  const room = (x(1) - x(0)) / (chart.series.length + 1);
  chart.series.forEach((series, k) => {
    series.boxes.forEach((box, i) => {
      const centre = x(i) + (k - (chart.series.length - 1) / 2) * room;
      if (box !== null) node.append(oneBox(chart, series, box, i, centre, Math.min(room * 0.8, 44), y, k, width, hint));
    });
  });
  return node;
}

function oneBox(chart, series, [p5, p25, p50, p75, p95], i, centre, wide, y, k, width, hint) {
  const lines = [
    `${series.name}, ${chart.x[i]}`,
    `median ${written(p50)}`,
    `half of them ${written(p25)} to ${written(p75)}`,
    `90% of them ${written(p5)} to ${written(p95)}`,
  ];
  const left = centre - wide / 2;
  const body = { x: left, width: wide, y: y(p75), height: Math.max(y(p25) - y(p75), 1) };
  return mark(
    lines,
    { x: centre, y: y(p95), width },
    hint,
    svg("rect", { class: "target", x: left, width: wide, y: y(p95), height: Math.max(y(p5) - y(p95), 8) }),
    svg("line", { class: `interval s${k}`, x1: centre, x2: centre, y1: y(p5), y2: y(p95) }),
    svg("rect", { class: `box s${k}`, ...body }),
    svg("line", { class: "median", x1: left, x2: left + wide, y1: y(p50), y2: y(p50) }),
  );
}
