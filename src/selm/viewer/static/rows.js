// A list that holds only the rows that are seen, so that it is as quick with 60,000 as with 60.

import { el } from "./dom.js";

const SPARE = 6; // rows above and below what is seen, so that scrolling shows no gaps

/**
 * Args: label, height of a row in pixels, draw(row) -> its content, onChoose(row).
 * Returns {node, setRows, choose, move, chosen}. The list box has the focus; the row that is
 * chosen is its active descendant.
 */
export function rowList({ label, height, draw, onChoose }) {
  const body = el("div", { class: "list-body", role: "presentation" });
  const node = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": label }, body);
  const prefix = `row-${label.replaceAll(" ", "-")}`;
  let rows = [];
  let chosen = -1;

  const render = () => {
    const first = Math.max(0, Math.floor(node.scrollTop / height) - SPARE);
    const last = Math.min(rows.length, Math.ceil((node.scrollTop + node.clientHeight) / height) + SPARE);
    const seen = [];
    for (let i = first; i < last; i += 1) seen.push(rowNode(i));
    // A screen reader needs the active row, too, when it is out of sight.
    if (chosen >= 0 && (chosen < first || chosen >= last)) seen.push(rowNode(chosen));
    body.replaceChildren(...seen);
  };
  const rowNode = (i) => {
    const row = el(
      "div",
      {
        class: `row${i === chosen ? " chosen" : ""}`,
        id: `${prefix}-${i}`,
        role: "option",
        "aria-selected": String(i === chosen),
        "aria-setsize": rows.length,
        "aria-posinset": i + 1,
        onclick: () => choose(i),
      },
      draw(rows[i]),
    );
    row.style.transform = `translateY(${i * height}px)`;
    row.style.height = `${height}px`;
    return row;
  };
  const choose = (index, tell = true) => {
    if (index < 0 || index >= rows.length) return;
    chosen = index;
    node.setAttribute("aria-activedescendant", `${prefix}-${index}`);
    const top = index * height;
    if (top < node.scrollTop) node.scrollTop = top;
    else if (top + height > node.scrollTop + node.clientHeight) node.scrollTop = top + height - node.clientHeight;
    render();
    if (tell) onChoose(rows[index]);
  };

  let waits = false;
  node.addEventListener("scroll", () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      render();
    });
  });
  new ResizeObserver(render).observe(node);

  return {
    node,
    choose,
    /** Other rows; the one that was chosen stays chosen if it is among them. */
    setRows(found) {
      const before = rows[chosen];
      rows = found;
      chosen = before === undefined ? -1 : rows.indexOf(before);
      if (chosen < 0) node.removeAttribute("aria-activedescendant");
      body.style.height = `${rows.length * height}px`;
      node.scrollTop = Math.max(0, chosen * height - node.clientHeight / 2);
      render();
    },
    move(by) {
      choose(Math.max(0, Math.min(chosen + by, rows.length - 1)));
    },
    chosen: () => rows[chosen],
  };
}
