// Which prompts are listed, and in which order: pure functions of the data.

/** How the answer of a column fared against the base model's: won, lost, tied, or empty. */
export function outcomeOf(answer) {
  const gain = gainOf(answer);
  if (gain === null) return "";
  return gain > 0 ? "won" : gain < 0 ? "lost" : "tied";
}

/** The reward minus the base model's in the same comparison; null if one is not known. */
export function gainOf(answer) {
  if (answer === null || answer.reward === null || answer.base === null) return null;
  return answer.reward - answer.base;
}

/**
 * The share of pairs of opinions on an answer that differ. Opinions are the outcome by rewards and
 * each verdict of a judge; refusals are no opinion. Null with fewer than two.
 */
export function disagreementOf(answer) {
  if (answer === null || answer.said.length === 0) return null;
  const opinions = [outcomeOf(answer), ...answer.said.map((one) => one.outcome)].filter((opinion) =>
    ["won", "lost", "tied"].includes(opinion),
  );
  let [pairs, apart] = [0, 0];
  opinions.forEach((one, i) =>
    opinions.slice(i + 1).forEach((other) => {
      pairs += 1;
      apart += one === other ? 0 : 1;
    }),
  );
  return pairs === 0 ? null : apart / pairs;
}

export const ORDERS = {
  file: { words: "order of the data", key: () => 0 },
  gain: { words: "largest gain first", key: (answer) => negative(gainOf(answer)) },
  loss: { words: "largest loss first", key: (answer) => gainOf(answer) ?? Infinity },
  longest: { words: "longest answer first", key: (answer) => negative(answer?.tokens) },
  shortest: { words: "shortest answer first", key: (answer) => answer?.tokens ?? Infinity },
  disagreement: { words: "most disagreement first", key: (answer) => negative(disagreementOf(answer)) },
};

function negative(value) {
  return value === null || value === undefined ? Infinity : -value;
}

/**
 * The prompts that pass, in order. `wanted` is {text, outcome, column, order}; outcomes and orders
 * are those of the column's answers. Text is looked for in prompts and in all answers.
 */
export function listed(prompts, { text, outcome, column, order }) {
  const sought = text.trim().toLowerCase();
  const kept = prompts.filter(
    (prompt) =>
      (outcome === "" || outcomeOf(prompt.answers[column]) === outcome) &&
      (sought === "" || haystack(prompt).includes(sought)),
  );
  if (order === "file") return kept;
  const key = ORDERS[order].key;
  const keyed = kept.map((prompt) => [key(prompt.answers[column]), prompt]);
  // Subtraction of two infinities is no number; equal keys keep the order of the data.
  keyed.sort(([a], [b]) => (a === b ? 0 : a < b ? -1 : 1));
  return keyed.map(([, prompt]) => prompt);
}

const haystacks = new WeakMap();

/** All texts of a prompt in small letters; kept, so that the second letter is found at once. */
function haystack(prompt) {
  if (!haystacks.has(prompt)) {
    const texts = [prompt.id, ...prompt.prompt.map((turn) => turn.content)];
    texts.push(...prompt.answers.map((answer) => answer?.text ?? ""));
    haystacks.set(prompt, texts.join("\n").toLowerCase());
  }
  return haystacks.get(prompt);
}
