// Opens the page: which view an address names, keys, colours.

import { showAnswers } from "./answers.js";
import { isTyping } from "./dom.js";
import { showOverview } from "./overview.js";
import { showPairs } from "./pairs.js";
import { showTraining } from "./training.js";
import { unpack } from "./unpack.js";

const VIEWS = ["overview", "answers", "pairs", "training"];
const PROMPT = "prompt-";

const shown = new Map(); // view -> what keys and links do there
const sectionOf = (view) => document.querySelector(`[data-view="${view}"]`);

/** Each view is filled when it is first opened. */
const fill = {
  async overview(section) {
    showOverview(section, await unpack("data-overview"));
    return {};
  },
  async answers(section) {
    const [content, answers] = await Promise.all([unpack("data-overview"), unpack("data-answers")]);
    return showAnswers(section, { policies: content.policies, answers });
  },
  async pairs(section) {
    return showPairs(section, { pairs: await unpack("data-pairs") });
  },
  async training(section) {
    showTraining(section, await unpack("data-overview"));
    return {};
  },
};

/** The view and the prompt that the address names. */
function place() {
  const name = location.hash.slice(1);
  if (name.startsWith(PROMPT)) return ["answers", safelyDecoded(name.slice(PROMPT.length))];
  return [VIEWS.includes(name) ? name : "overview", null];
}

function safelyDecoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a per cent sign that somebody typed
  }
}

async function go() {
  const [view, prompt] = place();
  for (const each of VIEWS) sectionOf(each).hidden = each !== view;
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  if (!shown.has(view)) shown.set(view, fill[view](sectionOf(view)));
  const actions = await shown.get(view);
  document.getElementById("loading").hidden = true;
  actions.open?.(prompt);
  document.documentElement.dataset.ready = view; // for tests and for print
}

const KEYS = {
  j: (actions) => actions.move?.(1),
  k: (actions) => actions.move?.(-1),
  ArrowDown: (actions) => actions.move?.(1),
  ArrowUp: (actions) => actions.move?.(-1),
  ArrowLeft: (actions) => actions.turn?.(-1),
  ArrowRight: (actions) => actions.turn?.(1),
  "/": (actions) => actions.search?.(),
};

async function onKey(event) {
  if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
  const [view] = place();
  const isList = view === "answers" || view === "pairs";
  if (!isList || isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = KEYS[event.key];
  if (action === undefined || event.target.closest?.("summary, .scroll, nav")) return;
  event.preventDefault();
  action(await shown.get(view));
}

function failed(error) {
  const line = document.getElementById("loading");
  line.hidden = false;
  line.setAttribute("role", "alert");
  line.textContent = `This page cannot be shown: ${error.message} The numbers are in report.md beside it.`;
}

function setTheme() {
  document.documentElement.dataset.theme = document.getElementById("theme").value;
}

document.getElementById("theme").addEventListener("change", setTheme);
setTheme();
addEventListener("hashchange", () => go().catch(failed));
addEventListener("keydown", onKey);
go().catch(failed);
