// Statuses: each has a mark, a word and a colour, never a colour alone.

import { h } from "./elements.js";

export const RUN_STATUSES = ["queued", "running", "completed", "failed", "cancelled", "lost"];

const MARKS = {
  queued: "◌", pending: "◌", running: "◐", completed: "✓", failed: "✕",
  cancelled: "⊘", skipped: "→", lost: "?",
};

export const markOf = (status) => MARKS[status] ?? "•";

/** `✓ completed` */
export function statusElement(status) {
  return h("span", { class: `status ${status}` },
    h("span", { class: "mark", "aria-hidden": "true" }, markOf(status)), status);
}

/** The progress of a run's nodes: a bar with a part per status, and a text. */
export function progressElement(nodes) {
  if (!nodes.total) return h("span", { class: "faint" }, "–");
  const order = ["completed", "skipped", "failed", "cancelled", "running", "pending"];
  const text = order.filter((name) => nodes[name]).map((name) => `${nodes[name]} ${name}`).join(", ");
  const done = nodes.total - nodes.pending - nodes.running;
  return h("span", { class: "progress", title: text },
    h("span", { class: "track", "aria-hidden": "true" },
      order.filter((name) => nodes[name]).map((name) =>
        h("span", { class: `part ${name}`, css: { "flex-grow": nodes[name] } }))),
    h("span", { class: "number" }, `${done}/${nodes.total}`));
}
