// The third view: what each iteration was trained on, and what was dropped.

import { conversation, foreign } from "./compare.js";
import { choice, el, field } from "./dom.js";
import { rowList } from "./rows.js";
import { counted, oneLine, visible, written } from "./text.js";

const ROLES = [["", "all"], ["chosen", "chosen"], ["rejected", "rejected"], ["neither", "neither"]];

/** Fill the section. Returns {open, move, search} for keys. */
export function showPairs(section, { pairs }) {
  const wanted = { iteration: 0, text: "", role: "" };
  const count = el("p", { class: "count", role: "status" });
  const detail = el("div", { class: "detail" });
  const dropped = el("div", { class: "part dropped" });
  const panes = el("div", { class: "panes" });
  const list = rowList({
    label: "training pairs",
    height: 62,
    draw: (row) => [
      el("span", { class: "row-text", dir: "auto" }, oneLine(row.prompt.at(-1)?.content ?? "")),
      el("span", { class: "row-facts" }, el("span", { class: `tag ${row.explored.role}` }, `explored: ${row.explored.role}`), marginOf(row)),
    ],
    onChoose: show,
  });

  function show(row) {
    detail.replaceChildren(
      el("h3", {}, "Prompt ", el("bdi", {}, oneLine(row.id, 24))),
      el("div", { class: "prompt" }, conversation(row.prompt)),
      el("div", { class: "columns" }, ["chosen", "rejected", "explored"].map((side) => column(row, side))),
    );
  }
  function refresh(isOther = false) {
    const now = pairs[wanted.iteration];
    const found = passing(now.rows, wanted);
    panes.hidden = now.all === 0;
    count.textContent = now.note || `${found.length.toLocaleString("en")} of ${counted(now.all, "pair")}`;
    list.setRows(found);
    if (isOther) dropped.replaceChildren(...droppedRows(now));
    if (list.chosen() === undefined) {
      detail.replaceChildren();
      list.choose(0);
    }
  }
  const search = el("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  search.addEventListener("input", () => {
    wanted.text = search.value;
    refresh();
  });
  const labels = pairs.map((each, i) => [String(i), several(pairs) ? `${each.run}, ${each.label}` : each.label]);
  section.append(el("h2", { class: "unseen" }, "Pairs"));
  if (pairs.length > 0) {
    const set = (key, made, isOther) => (value) => {
      wanted[key] = made(value);
      refresh(isOther);
    };
    section.append(
      el(
        "form",
        { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
        choice("Iteration", labels, "0", set("iteration", Number, true)),
        field("Text in prompt or answers", search, "wide"),
        choice("Explored answer was", ROLES, "", set("role", String, false)),
      ),
      count,
      panes,
      dropped,
    );
    panes.append(el("div", { class: "side" }, list.node), detail);
    refresh(true);
  } else {
    section.append(el("p", {}, "There are no training pairs in this page."));
  }
  return { open: () => {}, move: list.move, turn: () => {}, search: () => search.focus() };
}

function several(pairs) {
  return new Set(pairs.map((each) => each.run)).size > 1;
}

/** The pairs whose texts hold the sought one and whose explored answer had the role. */
export function passing(rows, { text, role }) {
  const sought = text.trim().toLowerCase();
  return rows.filter((row) => {
    if (role !== "" && row.explored.role !== role) return false;
    const texts = [row.id, ...row.prompt.map((turn) => turn.content), row.chosen.text, row.rejected.text, row.explored.text ?? ""];
    return sought === "" || texts.some((each) => each.toLowerCase().includes(sought));
  });
}

function marginOf(row) {
  const { chosen, rejected } = row;
  if (chosen.score === null || rejected.score === null) return el("span", {}, "");
  return el("span", {}, `margin ${written(chosen.score - rejected.score)}`);
}

function column(row, side) {
  const { text, by, score, cut, role } = row[side];
  const facts = [by, score === null ? "" : `score ${written(score)}`, cut ? "cut at the limit" : ""].filter(Boolean);
  const same = role === "chosen" || role === "rejected";
  return el(
    "article",
    { class: `column ${side}`, "aria-label": side },
    el("h4", {}, side),
    el("p", { class: "facts-of-answer" }, facts.map((words) => el("span", {}, words))),
    same ? el("p", { class: "note" }, `It is the ${role} answer.`) : foreign(text),
  );
}

function droppedRows(now) {
  const total = now.dropped.reduce((sum, each) => sum + each.count, 0);
  const head = el("h3", {}, `Dropped rows of ${now.label}`);
  if (total === 0) return [head, el("p", {}, "None.")];
  const most = Math.max(...now.dropped.map((each) => each.count));
  return [
    head,
    ...now.dropped.map((each) => {
      const meter = el("meter", { min: 0, max: most, value: each.count, "aria-hidden": "true" });
      const title = el("summary", {}, meter, `${counted(each.count, "row")}: ${visible(each.reason)} (${each.stage})`);
      return el("details", {}, title, each.examples.length > 0 ? each.examples.map(example) : firstOf(each));
    }),
  ];
}

function firstOf(each) {
  return el("p", { class: "note" }, each.first === "" ? "No example was kept." : ["The first one: ", el("bdi", {}, visible(each.first))]);
}

function example({ id, prompt, texts }) {
  return el(
    "div",
    { class: "example" },
    el("p", { class: "note" }, "Prompt ", el("bdi", {}, oneLine(id, 80))),
    conversation(prompt),
    el("div", { class: "columns" }, texts.map(({ text, by }) => el("article", { class: "column", "aria-label": by }, el("h4", {}, by), foreign(text)))),
  );
}
