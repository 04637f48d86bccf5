// A chart on the page: title, picture, the values as a table, and buttons that save the picture.

import { el } from "./dom.js";
import { forest } from "./forest.js";
import { legend, tip } from "./frame.js";
import { matrix } from "./matrix.js";
import { points } from "./points.js";
import { savePng, saveSvg } from "./save.js";
import { boxes, histogram } from "./shares.js";
import { dataTable } from "./table.js";
import { written } from "./text.js";

const KINDS = { points, forest, histogram, boxes, matrix };

/** The figure of any chart but curves. */
export function figure(chart) {
  return framed(chart, (width, hint) => KINDS[chart.kind](chart, width, hint)).node;
}

/**
 * A figure whose picture is drawn by `draw(width, hint)`, again for every width of the page.
 * Returns {node, redraw}.
 */
export function framed(chart, draw) {
  const hint = tip();
  const stage = el("div", { class: "stage" });
  let width = 0;
  const redraw = () => {
    if (width === 0) return;
    hint.hide();
    const old = stage.querySelector("svg");
    const hadFocus = old !== null && old === document.activeElement;
    const fresh = draw(width, hint);
    stage.replaceChildren(fresh, hint.node);
    if (hadFocus) fresh.focus();
  };
  new ResizeObserver(([entry]) => {
    const found = Math.floor(entry.contentRect.width);
    if (found === 0 || found === width) return;
    width = found;
    redraw();
  }).observe(stage);
  const now = () => stage.querySelector("svg");
  const node = el(
    "figure",
    { class: `chart ${chart.kind}`, id: `chart-${chart.id}` },
    el("figcaption", {}, el("h3", {}, chart.title), chart.note === "" ? null : el("p", { class: "note" }, chart.note)),
    legend(chart.kind === "histogram" ? [] : chart.series ?? []),
    stage,
    el(
      "div",
      { class: "tools" },
      values(chart),
      button("Save SVG", chart, () => saveSvg(now(), chart.id)),
      button("Save PNG", chart, () => savePng(now(), chart.id)),
    ),
  );
  return { node, redraw };
}

function button(words, chart, onclick) {
  return el("button", { type: "button", onclick, "aria-label": `${words} of ${chart.title}` }, words);
}

/** The numbers for those who do not see the picture; the table is made when it is opened. */
function values(chart) {
  const node = el("details", {}, el("summary", { "aria-label": `Values of ${chart.title}` }, "Values"));
  node.addEventListener("toggle", () => {
    if (node.open && node.childElementCount === 1) node.append(dataTable(rowsOf[chart.kind](chart)));
  });
  return node;
}

const rowsOf = {
  points: (chart) => ({
    header: ["", ...chart.series.flatMap((s) => [s.name, "95% interval"])],
    rows: chart.x.map((label, i) => [
      label,
      ...chart.series.flatMap((s) => [written(s.values[i]), s.low[i] === null ? "" : `${written(s.low[i])} to ${written(s.high[i])}`]),
    ]),
  }),
  forest: (chart) => ({
    header: ["", chart.unit, "95% interval"],
    rows: chart.rows.map(({ name, value, low, high }) => [name, written(value), low === null ? "" : `${written(low)} to ${written(high)}`]),
  }),
  histogram: (chart) => ({
    header: [chart.unit, ...chart.series.map((s) => `${s.name}, %`)],
    rows: chart.edges.slice(1).map((edge, i) => [
      `${written(chart.edges[i])} to ${written(edge)}`,
      ...chart.series.map((s) => String(s.shares[i])),
    ]),
  }),
  boxes: (chart) => ({
    header: ["", "", "5%", "25%", "50%", "75%", "95%"],
    rows: chart.series.flatMap((s) =>
      s.boxes.map((box, i) => [s.name, chart.x[i], ...(box ?? Array(5).fill(null)).map(written)]),
    ),
    left: 2,
  }),
  matrix: (chart) => ({
    header: ["", ...chart.labels],
    rows: chart.labels.map((label, i) => [label, ...chart.cells[i].map(written)]),
  }),
  curves: (chart) => {
    const steps = [...new Set(chart.series.flatMap((s) => s.x))].sort((a, b) => a - b);
    const of = chart.series.map((s) => new Map(s.x.map((step, i) => [step, s.y[i]])));
    const rows = steps.map((step) => [String(step), ...of.map((found) => written(found.get(step)))]);
    return { header: ["step", ...chart.series.map((s) => s.name)], rows: rows.filter((row) => row.slice(1).some(Boolean)) };
  },
};
