// Differences of two texts word by word, with the algorithm of Myers (1986), "An O(ND) Difference
// Algorithm and Its Variations".

// Scripts without spaces between words are compared by character.
const WORDS =
  /\s+|[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{M}\p{N}_]+|./gsu;

// Edits that are looked for; the memory grows with the square. Texts with more have little in
// common, and marks on every word would not help to read them.
const MOST_EDITS = 2000;

/**
 * What two texts share, and what each has alone.
 * Returns {left, right, complete}: two lists of [text, isShared] that make up the texts. Where
 * `complete` is false the texts differ too much, and all between their common ends is marked.
 */
export function diff(before, after) {
  const a = before.match(WORDS) ?? [];
  const b = after.match(WORDS) ?? [];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  const most = Math.min(a.length, b.length) - start;
  while (end < most && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const inA = a.slice(start, a.length - end);
  const inB = b.slice(start, b.length - end);
  const shared = sharedWords(inA, inB);
  const pairs = shared ?? [];
  const tail = a.slice(a.length - end);
  return {
    left: joined(a.slice(0, start), inA, new Set(pairs.map(([i]) => i)), tail),
    right: joined(b.slice(0, start), inB, new Set(pairs.map(([, j]) => j)), tail),
    complete: shared !== null,
  };
}

/** Index pairs of a longest common subsequence, or null if more than MOST_EDITS are needed. */
function sharedWords(a, b) {
  const furthest = new Map([[1, 0]]);
  const trace = [];
  const most = Math.min(a.length + b.length, MOST_EDITS);
  for (let edits = 0; edits <= most; edits += 1) {
    const reached = new Int32Array(2 * edits + 1);
    for (let k = -edits; k <= edits; k += 2) {
      let x = isDown(furthest, k, edits) ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      furthest.set(k, x);
      reached[k + edits] = x;
      if (x >= a.length && x - k >= b.length) {
        trace.push(reached);
        return walkedBack(trace, a, b);
      }
    }
    trace.push(reached);
  }
  return null;
}

/** Whether the furthest path to diagonal k comes from the one above it, by a word of b. */
function isDown(furthest, k, edits) {
  return k === -edits || (k !== edits && furthest.get(k - 1) < furthest.get(k + 1));
}

function walkedBack(trace, a, b) {
  const pairs = [];
  let x = a.length;
  let y = b.length;
  for (let edits = trace.length - 1; edits >= 0; edits -= 1) {
    const k = x - y;
    let previous = null;
    if (edits > 0) {
      const before = trace[edits - 1];
      const at = (diagonal) => before[diagonal + edits - 1];
      const down = k === -edits || (k !== edits && at(k - 1) < at(k + 1));
      const from = down ? k + 1 : k - 1;
      previous = [at(from), at(from) - from, down];
    }
    const [px, py, down] = previous ?? [0, 0, null];
    const startX = down === null ? 0 : px + (down ? 0 : 1);
    while (x > startX) pairs.push([(x -= 1), (y -= 1)]);
    [x, y] = [px, py];
  }
  return pairs;
}

/** Runs of words that are all shared or all alone, as [text, isShared]. */
function joined(head, middle, shared, tail) {
  const runs = [];
  const add = (word, isShared) => {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === isShared) last[0].push(word);
    else runs.push([[word], isShared]);
  };
  head.forEach((word) => add(word, true));
  middle.forEach((word, i) => add(word, shared.has(i)));
  tail.forEach((word) => add(word, true));
  return bridged(runs).map(([words, isShared]) => [words.join(""), isShared]);
}

/** A space between two marked words is marked, too: one long mark reads better than many. */
function bridged(runs) {
  const found = [];
  runs.forEach(([words, isShared], i) => {
    const isGap = isShared && i > 0 && i < runs.length - 1 && words.every((word) => /^[ \t]+$/.test(word));
    if (found.length > 0 && found.at(-1)[1] === (isShared && !isGap)) found.at(-1)[0].push(...words);
    else found.push([[...words], isShared && !isGap]);
  });
  return found;
}
