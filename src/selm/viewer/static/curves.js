// Curves of training: a part of the steps can be looked at more closely, in all charts at once.

import { svg } from "./dom.js";
import { below, MARGIN, picture, valueAxis } from "./frame.js";
import { extent, linear, tickLabel, ticks } from "./scale.js";
import { written } from "./text.js";

const HEIGHT = 230;

/** The first and the last step of all charts. */
export function wholeRange(charts) {
  const [low, high] = extent(charts.flatMap((chart) => chart.series.flatMap((s) => [s.x[0], s.x.at(-1)])), 0);
  return [low - 0.5, high + 0.5];
}

/**
 * The picture of a chart of kind `curves` between two steps.
 * `onRange` is called with [from, to] when a part is drawn over with the pointer, with null for
 * all steps.
 */
export function curves(chart, width, hint, range, onRange) {
  const seen = chart.series.map((series) => withinRange(series, range));
  const domain = extent(seen.flatMap((s) => s.y), 0.1);
  const y = linear(domain, [HEIGHT - MARGIN.bottom, MARGIN.top + 12]);
  const x = linear(range, [MARGIN.left, width - MARGIN.right]);
  const label = `${chart.title}; arrow keys read values, plus and minus zoom, 0 shows all steps`;
  const node = picture(width, HEIGHT, label, { tabindex: "0", class: "curves" });
  node.append(...valueAxis(y, domain, width, 4), ...stepAxis(x, range), ...iterations(chart, x, range, width));
  seen.forEach((series, k) => node.append(...drawn(series, x, y, k)));
  addCursor(node, chart, { seen, x, y, width, range, hint, onRange });
  return node;
}

function withinRange(series, [low, high]) {
  const kept = series.x.map((step, i) => i).filter((i) => series.x[i] >= low && series.x[i] <= high);
  return { name: series.name, x: kept.map((i) => series.x[i]), y: kept.map((i) => series.y[i]) };
}

function stepAxis(x, range) {
  const all = ticks(range[0], range[1], 6).filter(Number.isInteger);
  return all.map((step) => below(x(step), HEIGHT, tickLabel(step, all)));
}

/** A line where an iteration begins, and its name. */
function iterations(chart, x, range, width) {
  return chart.marks.flatMap(({ at, label }, k) => {
    const next = chart.marks[k + 1]?.at ?? Infinity;
    const from = Math.max(at + 0.5, range[0]);
    if (next <= range[0] || at >= range[1]) return [];
    const left = x(from);
    const room = x(Math.min(next, range[1])) - left;
    const name = room < 76 ? label.replace(/^iteration /, "") : label;
    const text = svg("text", { class: "iteration", x: (left + 5).toFixed(1), y: MARGIN.top + 2 }, room < 14 ? "" : name);
    const ends = { x1: left.toFixed(1), x2: left.toFixed(1), y1: MARGIN.top - 8, y2: HEIGHT - MARGIN.bottom };
    return at + 0.5 > range[0] && at > 0 ? [svg("line", { class: "boundary", ...ends }), text] : [text];
  });
}

/** Faint dots for the logged values, a line for their running mean; it breaks between iterations. */
function drawn(series, x, y, k) {
  const runs = [[]];
  series.y.forEach((value, i) => {
    if (value === null) runs.push([]);
    else runs.at(-1).push([series.x[i], value]);
  });
  return runs.filter((run) => run.length > 0).flatMap((run) => {
    const place = ([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
    const dots = run.map((each) => `M${place(each)}h0`).join("");
    const means = smooth(run.map(([, value]) => value)).map((value, i) => [run[i][0], value]);
    return [
      svg("path", { class: `values s${k}`, d: dots }),
      svg("polyline", { class: `line s${k}`, points: means.map(place).join(" ") }),
    ];
  });
}

/** Centred running mean over five values; shorter at the ends. */
export function smooth(values) {
  return values.map((_, i) => {
    const some = values.slice(Math.max(0, i - 2), i + 3);
    return some.reduce((sum, value) => sum + value, 0) / some.length;
  });
}

/** The line under the pointer with the values there, the part that is drawn over, the keys. */
function addCursor(node, chart, { seen, x, y, width, range, hint, onRange }) {
  const top = { y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom };
  const cursor = svg("line", { class: "cursor", ...top, visibility: "hidden" });
  const part = svg("rect", { class: "part", y: MARGIN.top, height: HEIGHT - MARGIN.top - MARGIN.bottom, visibility: "hidden" });
  node.append(part, cursor);
  const steps = [...new Set(seen.flatMap((s) => s.x.filter((_, i) => s.y[i] !== null)))].sort((a, b) => a - b);
  const step = linear([MARGIN.left, width - MARGIN.right], range);
  let at = null;
  let pressed = null;

  const show = (index) => {
    if (steps.length === 0) return;
    at = Math.max(0, Math.min(index, steps.length - 1));
    const place = x(steps[at]).toFixed(1);
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.setAttribute("visibility", "visible");
    const iteration = chart.marks.findLast((each) => each.at < steps[at]);
    const lines = [`step ${steps[at]}, ${iteration?.label ?? ""}`];
    for (const series of seen) {
      const i = series.x.findIndex((each, n) => each === steps[at] && series.y[n] !== null);
      if (i >= 0) lines.push(`${series.name} ${written(series.y[i])}`);
    }
    hint.show(lines, Number(place), MARGIN.top + 40, width);
    node.setAttribute("aria-label", `${chart.title}: ${lines.join(", ")}`);
  };
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    hint.hide();
  };
  const nearest = (place) => {
    const wanted = step(place);
    const after = steps.findIndex((each) => each >= wanted);
    if (after <= 0) return after === 0 ? 0 : steps.length - 1;
    return wanted - steps[after - 1] < steps[after] - wanted ? after - 1 : after;
  };
  const placeOf = (event) => Math.max(MARGIN.left, Math.min(event.clientX - node.getBoundingClientRect().left, width - MARGIN.right));

  node.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    show(nearest(place));
    if (pressed === null) return;
    part.setAttribute("x", Math.min(pressed, place));
    part.setAttribute("width", Math.abs(place - pressed));
    part.setAttribute("visibility", "visible");
  });
  node.addEventListener("pointerleave", hide);
  node.addEventListener("blur", hide);
  node.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch") return; // a finger scrolls the page
    pressed = placeOf(event);
    node.setPointerCapture(event.pointerId);
  });
  node.addEventListener("pointerup", (event) => {
    const [from, to] = [pressed, placeOf(event)];
    pressed = null;
    part.setAttribute("visibility", "hidden");
    if (from !== null && Math.abs(to - from) > 6) onRange([step(Math.min(from, to)), step(Math.max(from, to))]);
  });
  node.addEventListener("dblclick", () => onRange(null));
  node.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in moves) show(at === null ? 0 : at + moves[event.key]);
    else if (event.key === "+") onRange(zoomed(range, 0.5, at === null ? null : steps[at]));
    else if (event.key === "-") onRange(zoomed(range, 2, at === null ? null : steps[at]));
    else if (event.key === "0") onRange(null);
    else return;
    event.preventDefault();
  });
}

/** A range that is `factor` times as wide, around a step or its own middle. */
export function zoomed([low, high], factor, around = null) {
  const middle = around ?? (low + high) / 2;
  return [middle - (middle - low) * factor, middle + (high - middle) * factor];
}
