// The second view: all held-out prompts, and every policy's answers to the one that is chosen.

import { conversation, gainMark, sideBySide } from "./compare.js";
import { choice, el, field } from "./dom.js";
import { disagreementOf, listed, ORDERS } from "./prompts.js";
import { rowList } from "./rows.js";
import { counted, oneLine, wellFormed } from "./text.js";

const WAIT = 120; // milliseconds after the last letter before the list is searched

/** Fill the section. Returns {open, move, turn, search} for links and keys. */
export function showAnswers(section, { policies, answers }) {
  const columns = answers.columns.map((id) => policies.find((policy) => policy.id === id));
  const { prompts, baselines } = answers;
  const last = columns.length - 1;
  const wanted = { text: "", outcome: "", column: last, order: "file" };
  const compared = { from: baselines[0] ?? 0, to: last };
  const count = el("p", { class: "count", role: "status" });
  const detail = el("div", { class: "detail" });
  const list = rowList({
    label: "held-out prompts",
    height: 62,
    draw: (prompt) => [
      el("span", { class: "row-text", dir: "auto" }, oneLine(prompt.prompt.at(-1)?.content ?? "")),
      el("span", { class: "row-facts" }, gainMark(prompt.answers[wanted.column]), lengthOf(prompt.answers[wanted.column])),
    ],
    onChoose: (prompt) => {
      show(prompt);
      history.replaceState(null, "", addressOf(prompt));
    },
  });

  function refresh() {
    const found = listed(prompts, wanted);
    count.textContent = `${found.length.toLocaleString("en")} of ${counted(prompts.length, "prompt")}`;
    list.setRows(found);
  }
  function show(prompt) {
    detail.replaceChildren(
      el("h3", {}, "Prompt ", el("a", { href: addressOf(prompt), title: "A link to this prompt" }, el("bdi", {}, oneLine(prompt.id, 24)))),
      el("div", { class: "prompt" }, conversation(prompt.prompt)),
      ...sideBySide(prompt, columns, { ...compared, baselines }).filter((node) => node !== null),
    );
  }
  const redraw = () => list.chosen() !== undefined && show(list.chosen());
  const named = columns.map((policy, i) => [String(i), policy.label]);
  const later = named.filter(([i]) => !baselines.includes(Number(i)));
  const fields = controls({ wanted, compared, named, later, prompts, refresh, redraw });
  section.append(
    el("h2", { class: "unseen" }, "Answers"),
    fields.node,
    el("div", { class: "panes" }, el("div", { class: "side" }, count, list.node), detail),
  );
  refresh();
  if (prompts.length === 0) detail.append(el("p", {}, "There are no held-out prompts in this page."));
  return {
    /** Show a prompt by its id, or the first one; the filters give way to a link. */
    open(id) {
      const sought = id === null ? list.chosen() ?? listed(prompts, wanted)[0] : prompts.find((prompt) => wellFormed(prompt.id) === id);
      if (sought === undefined) {
        if (id !== null) detail.replaceChildren(el("p", { role: "alert" }, `This page has no prompt with the id ${oneLine(id, 80)}.`));
        return;
      }
      if (!listed(prompts, wanted).includes(sought)) fields.reset();
      list.choose(listed(prompts, wanted).indexOf(sought), false);
      show(sought);
    },
    move: list.move,
    /** Compare the next or the previous policy with `from`. */
    turn(by) {
      compared.to = (compared.to + by + columns.length) % columns.length;
      fields.setTo(compared.to);
      redraw();
    },
    search: () => fields.search.focus(),
  };
}

/** The address of a prompt in this page; an id may hold any character. */
export function addressOf(prompt) {
  return `#prompt-${encodeURIComponent(wellFormed(prompt.id))}`;
}

function lengthOf(answer) {
  return el("span", {}, answer === null ? "no answer" : counted(answer.tokens, "token"));
}

function controls({ wanted, compared, named, later, prompts, refresh, redraw }) {
  const search = el("input", { type: "search", autocomplete: "off", spellcheck: "false", "aria-keyshortcuts": "/" });
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      wanted.text = search.value;
      refresh();
    }, WAIT);
  });
  const judged = prompts.some((prompt) => prompt.answers.some((answer) => disagreementOf(answer) !== null));
  const orders = Object.entries(ORDERS).map(([key, { words }]) =>
    key === "disagreement" && !judged ? [key, `disagreement (needs a second opinion)`, true] : [key, words],
  );
  const outcomes = [["", "all"], ["won", "won"], ["lost", "lost"], ["tied", "tied"]];
  const set = (target, key, after, made = String) => (value) => {
    target[key] = made(value);
    after();
  };
  const outcome = choice("against base", outcomes, "", set(wanted, "outcome", refresh));
  const order = choice("Order", orders, wanted.order, set(wanted, "order", refresh));
  const to = choice("with", named, String(compared.to), set(compared, "to", redraw, Number));
  const node = el(
    "form",
    { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
    field("Text in prompt or answers", search, "wide"),
    choice("Scores of", later.length > 0 ? later : named, String(wanted.column), set(wanted, "column", refresh, Number)),
    outcome,
    order,
    choice("Compare", named, String(compared.from), set(compared, "from", redraw, Number)),
    to,
    el("p", { class: "keys" }, "Keys: j and k or ↓ and ↑ next and previous prompt, ← and → another policy, / search"),
  );
  return {
    node,
    search,
    setTo(value) {
      to.querySelector("select").value = String(value);
    },
    reset() {
      Object.assign(wanted, { text: "", outcome: "" });
      search.value = "";
      outcome.querySelector("select").value = "";
      refresh();
    },
  };
}
