// What all charts share: the picture with its axes, the label that follows the pointer.

import { el, svg } from "./dom.js";
import { tickLabel, ticks } from "./scale.js";

export const MARGIN = { top: 14, right: 16, bottom: 34, left: 58 };

/** An empty picture of this size in pixels with the name that screen readers say. */
export function picture(width, height, label, attributes = {}) {
  const size = { width, height, viewBox: `0 0 ${width} ${height}` };
  return svg("svg", { ...size, role: "group", "aria-label": label, ...attributes });
}

/** Horizontal lines with their values at the left. */
export function valueAxis(y, [low, high], width, count = 5) {
  const all = ticks(low, high, count);
  return all.map((value) =>
    svg(
      "g",
      { transform: `translate(0 ${y(value).toFixed(1)})`, "aria-hidden": "true" },
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right }),
      svg("text", { class: "tick", x: MARGIN.left - 8, dy: "0.32em", "text-anchor": "end" }, tickLabel(value, all)),
    ),
  );
}

/** A text below the picture's body. */
export function below(x, height, words, anchor = "middle") {
  const at = { class: "tick", x: x.toFixed(1), y: height - MARGIN.bottom + 20 };
  return svg("text", { ...at, "text-anchor": anchor, "aria-hidden": "true" }, words);
}

/** The label beside the pointer or the focus; it is emptied when they leave. */
export function tip() {
  const node = el("div", { class: "tip", hidden: true });
  return {
    node,
    show(lines, x, y, width) {
      node.replaceChildren(...lines.map((line) => el("div", {}, line)));
      node.hidden = false;
      const left = Math.max(4, Math.min(x + 12, width - node.offsetWidth - 4));
      node.style.left = `${left}px`;
      node.style.top = `${Math.max(0, y - node.offsetHeight - 10)}px`;
    },
    hide() {
      node.hidden = true;
    },
  };
}

/** A group of marks that says `lines` under the pointer, with the focus and to screen readers. */
export function mark(lines, at, hint, ...children) {
  const show = () => hint.show(lines, at.x, at.y, at.width);
  const attributes = { class: "mark", tabindex: "0", role: "img", "aria-label": lines.join(", ") };
  const events = { onpointerenter: show, onfocus: show, onpointerleave: hint.hide, onblur: hint.hide };
  return svg("g", { ...attributes, ...events }, ...children);
}

/** Names and colours of the series; nothing if there is only one. */
export function legend(series) {
  if (series.length < 2) return null;
  const entries = series.map(({ name, dashed }, k) =>
    el("li", {}, el("span", { class: `swatch s${k}${dashed ? " dashed" : ""}` }), name),
  );
  return el("ul", { class: "legend" }, entries);
}
