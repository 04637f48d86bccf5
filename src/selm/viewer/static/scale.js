// From values to pixels.

/** The function that maps [low, high] to [from, to] in a straight line. */
export function linear([low, high], [from, to]) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

/** About `count` round values between low and high. */
export function ticks(low, high, count = 5) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

/** The least and the greatest value with a margin, so that no mark lies on the edge. */
export function extent(values, margin = 0.08) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null || value === undefined) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  const space = (high - low || Math.abs(high) || 1) * margin;
  return [low - space, high + space];
}

/** A tick's label: as many digits as the distance of the ticks needs. */
export function tickLabel(value, all) {
  const step = all.length > 1 ? Math.abs(all[1] - all[0]) : Math.abs(value) || 1;
  if (step < 1e-3 || Math.abs(value) >= 1e6) return value === 0 ? "0" : value.toExponential(1);
  let digits = 0;
  while (digits < 5 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) {
    digits += 1;
  }
  return value.toFixed(digits).replace("-", "\u2212");
}
