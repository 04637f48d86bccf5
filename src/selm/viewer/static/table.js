// Tables of numbers, and of what was counted.

import { el } from "./dom.js";
import { visible } from "./text.js";

/** A table that scrolls by itself where it is wider than the page. */
export function dataTable({ title, header, rows, left = 1, texts = [] }) {
  const align = (i) => (i < left || texts.includes(i) ? null : "number");
  const head = el("tr", {}, header.map((words, i) => el("th", { scope: "col", class: align(i) }, visible(words))));
  const body = rows.map((row) =>
    el("tr", {}, row.map((words, i) => (i === 0 ? el("th", { scope: "row" }, inBdi(words)) : el("td", { class: align(i) }, inBdi(words))))),
  );
  const table = el("table", {}, title ? el("caption", { class: "unseen" }, title) : null, el("thead", {}, head), el("tbody", {}, body));
  // With a tab stop, so that arrow keys can scroll it.
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title ?? "Values" }, table);
}

/** Foreign text, whose direction must not change that of its neighbours. */
function inBdi(words) {
  return el("bdi", {}, visible(words));
}
