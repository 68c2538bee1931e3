// Live updates of one run.

import { get, runPath } from "../shared/api.js";
import { watch } from "../shared/live.js";

const MIN_INTERVAL_MS = 500;
const MAX_PAUSE_MS = 5000;
const ENDED = ["completed", "failed", "cancelled"];

/**
 * Call `handlers.changed(run, nodes)` with the newly read run whenever it has changed, and with the
 * names of the nodes that have written output (null for the run itself), or null if unknown.
 */
export function follow(id, first, context, handlers) {
  let isPending = false;
  let writers = new Set();
  let readAt = 0;
  let isReading = false;

  const request = (nodes = []) => {
    isPending = true;
    if (nodes === null) writers = null;
    else for (const node of nodes) writers?.add(node);
    readIfPending();
  };
  let isFirst = true;
  const deletion = new AbortController();
  watch(`${runPath(id)}/live`, {}, {
    state: handlers.state,
    snapshot: () => {
      if (!isFirst || !ENDED.includes(first.status)) request(null); // it may have changed since it was read
      isFirst = false;
    },
    changed: () => request(),
    nodes: () => request(),
    logged: ({ events }) => request(events.map((event) => event.node ?? null)),
    deleted: () => { deletion.abort(); handlers.deleted(); },
  }, AbortSignal.any([context.signal, deletion.signal]));
  context.every(MIN_INTERVAL_MS, readIfPending);

  async function readIfPending() {
    if (!isPending || isReading || document.hidden || Date.now() - readAt < MIN_INTERVAL_MS) return;
    isReading = true;
    isPending = false;
    const nodes = writers;
    writers = new Set();
    const began = Date.now();
    try {
      handlers.changed(await get(runPath(id), {}, { signal: context.signal }), nodes);
    } catch {
      isPending = !context.signal.aborted;
      writers = null;
    }
    // Reading takes at most a tenth of the time, so a large run is read less often; but the pause
    // is bounded, so that the page keeps moving.
    readAt = Date.now() + Math.min(MAX_PAUSE_MS, 9 * (Date.now() - began));
    isReading = false;
  }
}
