// Live updates over server-sent events. The browser reconnects by itself and sends its position
// (Last-Event-ID), so no change is lost or repeated. It gives up after an error response, such as
// 503 while the database is down; then this module connects again.
//
// A browser opens at most six connections to a server, so hidden pages close theirs.

import { parse, withQuery } from "./api.js";

const RECONNECT_MS = 2000;
const CLOSE_HIDDEN_AFTER_MS = 10_000;

/**
 * Subscribe to a stream until `signal` is aborted. `handlers`: one per event name, called with its
 * data, and `state("live" | "waiting")`. After a pause the server sends a new `snapshot`.
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
      timer = setTimeout(openIfVisible, RECONNECT_MS);
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

  function openIfVisible() {
    if (!document.hidden) open();
    else timer = setTimeout(close, CLOSE_HIDDEN_AFTER_MS);
  }

  document.addEventListener("visibilitychange", () => { clearTimeout(timer); openIfVisible(); }, { signal });
  // A page in the back/forward cache holds no connection.
  addEventListener("pagehide", close, { signal });
  addEventListener("pageshow", openIfVisible, { signal });
  signal.addEventListener("abort", close);
  openIfVisible();
}
