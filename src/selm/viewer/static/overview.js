// The first view: what the run came to, and how it was made.

import { figure } from "./chart.js";
import { el } from "./dom.js";
import { dataTable } from "./table.js";
import { visible } from "./text.js";

// Tables that are read when something is in doubt.
const CLOSED = new Set(["measures", "agreement", "rankers", "win-rates", "runs", "versions", "lineage"]);

/** Fill the section. */
export function showOverview(section, content) {
  const facts = content.facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("bdi", {}, visible(value)))));
  section.append(el(
    "div",
    {},
    el("h2", { class: "unseen" }, "Overview"),
    el("div", { class: "headline" }, content.lines.map((line) => el("p", {}, visible(line)))),
    leftOut(content.left_out),
    el("dl", { class: "facts" }, facts),
    el("div", { class: "charts" }, content.charts.map(figure)),
    content.tables.map(tablePart),
    el("details", { class: "part" }, el("summary", {}, "Settings"), el("pre", { class: "settings", tabindex: "0" }, visible(content.recipe))),
  ));
}

function leftOut(lines) {
  if (lines.length === 0) return null;
  return el("ul", { class: "left-out", "aria-label": "What is left out" }, lines.map((line) => el("li", {}, visible(line))));
}

function tablePart(table) {
  const note = table.note === "" ? null : el("p", { class: "note" }, visible(table.note));
  if (!CLOSED.has(table.id)) {
    return el("div", { class: "part", id: `table-${table.id}` }, el("h3", {}, table.title), note, dataTable(table));
  }
  return el("details", { class: "part", id: `table-${table.id}` }, el("summary", {}, table.title), note, dataTable(table));
}
