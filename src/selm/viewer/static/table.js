// Tables of numbers, and of what was counted.

import { el } from "./dom.js";
import { visible } from "./text.js";

const LONG = 36; // characters of a cell that may have several lines

/** A table that scrolls by itself where it is wider than the page. */
export function dataTable({ title, header, rows, left = 1, texts = [] }) {
  const align = (i) => (i < left || texts.includes(i) ? null : "number");
  const head = el("tr", {}, header.map((words, i) => el("th", { scope: "col", class: align(i) }, visible(words))));
  const body = rows.map((row) =>
    el("tr", {}, row.map((words, i) => cell(words, i === 0, align(i)))),
  );
  const table = el("table", {}, title ? el("caption", { class: "unseen" }, title) : null, el("thead", {}, head), el("tbody", {}, body));
  // With a tab stop, so that arrow keys can scroll it.
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title ?? "Values" }, table);
}

function cell(words, isFirst, side) {
  const attributes = { class: words.length > LONG ? "words" : side, scope: isFirst ? "row" : null };
  return el(isFirst ? "th" : "td", attributes, inBdi(words));
}

/** Foreign text, whose direction must not change that of its neighbours. */
function inBdi(words) {
  return el("bdi", {}, visible(words));
}
