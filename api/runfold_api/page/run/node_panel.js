// The panel of one node attempt: its error, inputs, outputs and output.

import { h } from "../shared/elements.js";
import { durationElement, formatCost, formatCount, timeElement } from "../shared/formats.js";
import { copyButton, jsonElement } from "../shared/json_tree.js";
import { statusElement } from "../shared/status.js";
import { nodeTitle } from "./nodes.js";

/** The panel of a node attempt; it calls `close()` to close itself, `choose(id)` to open a parent. */
export function nodePanel(node, { attempts, close, choose, showLog }) {
  return h("aside", { class: "panel", "aria-label": `Node ${node.node}` },
    h("div", { class: "heading" },
      h("h2", null, nodeTitle(node)), statusElement(node.status), h("span", { class: "spacer" }),
      copyButton(() => location.href, "Copy link"),
      h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: close }, "✕")),
    attempts.length > 1 && h("p", null, "Attempts: ", attempts.map((each) =>
      h("button", { type: "button", class: `quiet mark ${each.status}`, "aria-pressed": String(each === node), onclick: () => choose(each.node, each.attempt) }, `${each.attempt} ${each.status}`))),
    node.error && errorElement(node.error),
    h("dl", { class: "facts" },
      fact("Node", node.node), fact("Type", node.node_type),
      timeFacts(node), usageFacts(node),
      fact("After", node.parents.length ? node.parents.slice(0, 20).map((parent) => [h("button", { type: "button", class: "link", onclick: () => choose(parent) }, parent), " "]) : null)),
    payload("Inputs", node.inputs), payload("Outputs", node.outputs),
    h("p", null, h("button", { type: "button", class: "quiet", onclick: showLog }, "Show output")));
}

/** Type, message and stack of an error; the stack is open. */
export function errorElement(error, where = null) {
  return h("section", { class: "error", "aria-label": "Error" },
    h("p", null, h("strong", null, error.type ?? "Error"), error.message && [": ", h("span", { class: "message" }, error.message)], where),
    error.stack && h("details", { open: true }, h("summary", null, "Stack", copyButton(() => error.stack)), h("pre", { tabindex: "0" }, error.stack)));
}

/** A row of a list of facts, or null without a value. */
export function fact(name, value) {
  return value === null || value === undefined || value === "" || value === false ? null : h("div", null, h("dt", null, name), h("dd", null, value));
}

/** When a run or node started and finished, and its duration. */
export function timeFacts(item) {
  const at = (name, time) => fact(name, time && timeElement(time, { absolute: true }));
  return [at("Queued", item.queued_at), at("Started", item.started_at), at("Finished", item.finished_at), fact("Duration", durationElement(item))];
}

/** The tokens and the cost of a run or node. */
export function usageFacts({ usage }) {
  return [fact("Tokens", usage.total_tokens ? `${formatCount(usage.input_tokens)} in, ${formatCount(usage.output_tokens)} out` : null),
    fact("Cost", usage.cost_usd ? formatCost(usage.cost_usd) : null)];
}

/** A payload under its name, or null if there is none. */
export function payload(name, value) {
  return value === null || value === undefined ? null : h("section", { class: "payload", "aria-label": name }, h("h3", null, name), jsonElement(value));
}
