// Changes as they come, over server-sent events. The browser reconnects by itself and tells the
// server where it was (Last-Event-ID), so nothing is missed and nothing comes twice. It gives up
// where the service answers with an error, as it does without its database; then we ask again.
//
// A browser has six connections for all pages of a server: who does not look gives up his.

import { parse, withQuery } from "./api.js";

const AGAIN_MS = 2000;
const HIDDEN_MS = 10_000;

/**
 * Watch an address until `signal` is aborted. `handlers`: one for each event's name, given its
 * data, and `state("live" | "waiting")`; after a pause a new `snapshot` comes.
 */
export function watch(path, query, handlers, signal) {
  let source = null;
  let timer = null;

  function open() {
    clearTimeout(timer);
    if (signal.aborted || source) return;
    source = new EventSource(withQuery(path, query));
    source.addEventListener("open", () => handlers.state?.("live"));
    source.addEventListener("error", () => {
      handlers.state?.("waiting");
      if (source?.readyState !== EventSource.CLOSED) return;
      close();
      timer = setTimeout(look, AGAIN_MS);
    });
    for (const [name, handle] of Object.entries(handlers)) {
      if (name !== "state") source.addEventListener(name, (event) => handle(parse(event.data)));
    }
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  function look() {
    if (!document.hidden) open();
    else timer = setTimeout(close, HIDDEN_MS);
  }

  document.addEventListener("visibilitychange", () => { clearTimeout(timer); look(); }, { signal });
  // A page that is being left, or kept for Back, holds no connection.
  addEventListener("pagehide", close, { signal });
  addEventListener("pageshow", look, { signal });
  signal.addEventListener("abort", close);
  look();
}
