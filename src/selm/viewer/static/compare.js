// One prompt with every policy's answer beside the others.

import { diff } from "./diff.js";
import { el } from "./dom.js";
import { gainOf, outcomeOf } from "./prompts.js";
import { counted, signed, visible, written } from "./text.js";

const SIGNS = { won: "▲ won", lost: "▼ lost", tied: "= tied" };

/** A text of a model or a dataset as it is: white space stays, its script decides the direction. */
export function foreign(text, attributes = {}) {
  return el("div", { class: "foreign", dir: "auto", ...attributes }, text === "" ? el("em", {}, "(empty)") : visible(text));
}

/** The turns of a prompt; a single one needs no name. */
export function conversation(prompt) {
  return prompt.map((turn) =>
    el("div", { class: `turn ${turn.role === "user" ? "" : "other"}` }, prompt.length === 1 ? null : el("div", { class: "role" }, visible(turn.role)), foreign(turn.content)),
  );
}

/** A sign, a word and a number: never colour alone. */
export function gainMark(answer) {
  const outcome = outcomeOf(answer);
  if (outcome === "") return el("span", { class: "gain" }, "no score");
  return el("span", { class: `gain ${outcome}` }, `${SIGNS[outcome]} ${signed(gainOf(answer))}`);
}

/** The answers side by side; those of columns `from` and `to` have their differences marked. */
export function sideBySide(prompt, policies, { from, to, baselines }) {
  const [left, right] = [prompt.answers[from], prompt.answers[to]];
  const marks = from !== to && left !== null && right !== null ? diff(left.text, right.text) : null;
  const note = marks === null || marks.complete ? null : el("p", { class: "note" }, "These two answers differ so much that all between their common ends is marked.");
  const columns = policies.map((policy, i) => {
    const answer = prompt.answers[i];
    let text = answer === null ? el("p", { class: "note" }, "No answer.") : foreign(answer.text);
    if (marks !== null && i === from) text = marked(marks.left, "del");
    if (marks !== null && i === to) text = marked(marks.right, "ins");
    return el(
      "article",
      { class: `column${marks !== null && (i === from || i === to) ? " compared" : ""}`, "aria-label": policy.label },
      el("h4", {}, policy.label),
      answer === null ? null : factsOf(answer, baselines.includes(i)),
      text,
      answer === null ? null : verdicts(answer.said),
    );
  });
  return [note, el("div", { class: "columns" }, columns)];
}

function factsOf(answer, isBaseline) {
  const reward = answer.reward === null ? "no reward" : `reward ${written(answer.reward)}`;
  const length = `${counted(answer.tokens, "token")}${answer.cut ? ", cut at the limit" : ""}`;
  return el("p", { class: "facts-of-answer" }, isBaseline ? null : gainMark(answer), el("span", {}, reward), el("span", {}, length));
}

/** Words that only this text has are marked by colour and by a line. */
function marked(runs, tag) {
  const parts = runs.map(([text, isShared]) => (isShared ? visible(text) : el(tag, {}, visible(text))));
  return el("div", { class: "foreign", dir: "auto" }, parts.length === 0 ? el("em", {}, "(empty)") : parts);
}

/** What judges said, in both orders. */
function verdicts(said) {
  if (said.length === 0) return null;
  const entries = said.map((one) =>
    el(
      "li",
      {},
      el("span", { class: `gain ${one.outcome}` }, SIGNS[one.outcome] ?? visible(one.outcome)),
      one.shown === "" ? " by " : ` shown ${one.shown}, by `,
      el("bdi", {}, visible(one.who)),
      one.text === "" ? null : el("details", {}, el("summary", {}, "what it said"), foreign(one.text)),
    ),
  );
  return el("ul", { class: "verdicts", "aria-label": "Verdicts against the base model" }, entries);
}
