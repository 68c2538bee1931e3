// How many runs a list has, in words.

import { formatCount } from "../shared/formats.js";

/** `812 runs`, `about 1,200,000 runs (an estimate)`. */
export function describeTotal({ value, relation }) {
  const runs = `${formatCount(value)} ${value === 1 ? "run" : "runs"}`;
  return relation === "estimate" ? `about ${runs} (an estimate)` : runs;
}
