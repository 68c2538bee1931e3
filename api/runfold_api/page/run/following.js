// A run as it goes on.

import { get, runPath } from "../shared/api.js";
import { watch } from "../shared/live.js";

const AT_MOST_EVERY_MS = 500;
const ENDED = ["completed", "failed", "cancelled"];

/** `handlers.changed(run, hasOutput)` is given the run anew whenever it has changed. */
export function follow(id, first, context, handlers) {
  let isDue = false;
  let hasOutput = false;
  let last = 0;
  let busy = false;

  const due = (output = false) => { isDue = true; hasOutput ||= output; tick(); };
  let isFirst = true;
  watch(`${runPath(id)}/live`, {}, {
    snapshot: () => {
      if (!isFirst || !ENDED.includes(first.status)) due(true); // it may have changed meanwhile
      isFirst = false;
    },
    changed: () => due(),
    nodes: () => due(),
    logged: () => due(true),
    deleted: () => handlers.deleted(),
  }, context.signal);
  context.every(AT_MOST_EVERY_MS, tick);

  async function tick() {
    if (!isDue || busy || document.hidden || Date.now() - last < AT_MOST_EVERY_MS) return;
    busy = true;
    isDue = false;
    const output = hasOutput;
    hasOutput = false;
    const began = Date.now();
    try {
      handlers.changed(await get(runPath(id), {}, { signal: context.signal }), output);
    } catch {
      isDue = !context.signal.aborted;
    }
    // A large run is read less often: at most a tenth of the time goes into reading.
    last = Date.now() + 9 * (Date.now() - began);
    busy = false;
  }
}
