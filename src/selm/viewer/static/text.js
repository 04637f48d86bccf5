// How texts and numbers are written.

// Control characters, and those that change the writing direction of what follows them: they would
// be unseen, or show a text in another order than it has.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** The text with unseen characters as signs: NUL is ␀, the override to the left is [U+202E]. */
export function visible(text) {
  return wellFormed(text.replaceAll("\r\n", "\n").replace(UNSEEN, sign));
}

function sign(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
}

/** The text with halves of pairs of UTF-16 replaced, which an address cannot hold. */
export function wellFormed(text) {
  return text.replace(LONE, "\ufffd");
}

/** The start of a text on one line. */
export function oneLine(text, most = 160) {
  const start = text.slice(0, 4 * most).replace(/\s+/g, " ").trim();
  const characters = Array.from(visible(start));
  return characters.length <= most ? characters.join("") : `${characters.slice(0, most - 1).join("")}…`;
}

/** A number with about four digits that count; empty for none. */
export function written(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3).replace("-", "\u2212");
}

/** The same with its sign, for differences. */
export function signed(value) {
  return value > 0 ? `+${written(value)}` : written(value);
}

/** A count with its noun: 1 prompt, 2,000 prompts. */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
