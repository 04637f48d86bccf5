// The fourth view: curves of training. All of them show the same steps.

import { framed } from "./chart.js";
import { curves, wholeRange, zoomed } from "./curves.js";
import { el } from "./dom.js";

/** Fill the section. */
export function showTraining(section, content) {
  const charts = content.training;
  section.append(el("h2", { class: "unseen" }, "Training"));
  if (charts.length === 0) {
    section.append(el("p", {}, "No iteration has logged its training."));
    return;
  }
  const whole = wholeRange(charts);
  let range = whole;
  const said = el("span", { role: "status", class: "said" });
  const figures = charts.map((chart) => framed(chart, (width, hint) => curves(chart, width, hint, range, setRange)));

  function setRange(wanted) {
    const [low, high] = wanted ?? whole;
    range = [Math.max(low, whole[0]), Math.min(high, whole[1])];
    // Less than three steps show nothing.
    if (range[1] - range[0] < 3) return;
    said.textContent = `Steps ${Math.ceil(range[0])} to ${Math.floor(range[1])}`;
    figures.forEach((each) => each.redraw());
  }

  const tool = (words, onclick) => el("button", { type: "button", onclick }, words);
  section.append(
    el(
      "div",
      { class: "bar-of-tools" },
      tool("Zoom in", () => setRange(zoomed(range, 0.5))),
      tool("Zoom out", () => setRange(zoomed(range, 2))),
      tool("Earlier", () => setRange(moved(range, whole, -0.5))),
      tool("Later", () => setRange(moved(range, whole, 0.5))),
      tool("All steps", () => setRange(null)),
      said,
    ),
    el("p", { class: "note" }, "Draw over a part of a chart to see it more closely; a double click shows all steps. Dots: logged values; lines: running mean of five."),
    el("div", { class: "charts" }, figures.map((each) => each.node)),
  );
  setRange(null);
}

/** The range a share of its width to the left or the right, within the whole. */
function moved([low, high], [first, last], share) {
  const width = high - low;
  const start = Math.max(first, Math.min(low + share * width, last - width));
  return [start, start + width];
}
