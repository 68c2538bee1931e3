// A run as it goes on.

import { get, runPath } from "../shared/api.js";
import { watch } from "../shared/live.js";

const AT_MOST_EVERY_MS = 500;
const MOST_PAUSE_MS = 5000;
const ENDED = ["completed", "failed", "cancelled"];

/**
 * `handlers.changed(run, nodes)` is given the run anew whenever it has changed, and the nodes that
 * have written something (null: the run itself), or null if that is not known.
 */
export function follow(id, first, context, handlers) {
  let isDue = false;
  let wrote = new Set();
  let last = 0;
  let busy = false;

  const due = (nodes = []) => {
    isDue = true;
    if (nodes === null) wrote = null;
    else for (const node of nodes) wrote?.add(node);
    tick();
  };
  let isFirst = true;
  const over = new AbortController();
  watch(`${runPath(id)}/live`, {}, {
    state: handlers.state,
    snapshot: () => {
      if (!isFirst || !ENDED.includes(first.status)) due(null); // it may have changed meanwhile
      isFirst = false;
    },
    changed: () => due(),
    nodes: () => due(),
    logged: ({ events }) => due(events.map((event) => event.node ?? null)),
    deleted: () => { over.abort(); handlers.deleted(); },
  }, AbortSignal.any([context.signal, over.signal]));
  context.every(AT_MOST_EVERY_MS, tick);

  async function tick() {
    if (!isDue || busy || document.hidden || Date.now() - last < AT_MOST_EVERY_MS) return;
    busy = true;
    isDue = false;
    const nodes = wrote;
    wrote = new Set();
    const began = Date.now();
    try {
      handlers.changed(await get(runPath(id), {}, { signal: context.signal }), nodes);
    } catch {
      isDue = !context.signal.aborted;
      wrote = null;
    }
    // A large run is read less often: at most a tenth of the time goes into reading, unless that is
    // so slow that nobody would see it go on.
    last = Date.now() + Math.min(MOST_PAUSE_MS, 9 * (Date.now() - began));
    busy = false;
  }
}
