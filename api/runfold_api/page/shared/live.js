// Changes as they come, over server-sent events. The browser reconnects by itself and tells the
// server where it was (Last-Event-ID), so nothing is missed and nothing comes twice.

import { parse, withQuery } from "./api.js";

/**
 * Watch an address until `signal` is aborted. `handlers`: one for each event's name, given its
 * data, and `state("live" | "waiting")`.
 */
export function watch(path, query, handlers, signal) {
  const source = new EventSource(withQuery(path, query));
  source.addEventListener("open", () => handlers.state?.("live"));
  source.addEventListener("error", () => handlers.state?.("waiting"));
  for (const [name, handle] of Object.entries(handlers)) {
    if (name !== "state") source.addEventListener(name, (event) => handle(parse(event.data)));
  }
  signal.addEventListener("abort", () => source.close());
  // A page that is being left, or kept for Back, holds no connection.
  addEventListener("pagehide", () => source.close(), { signal });
}
