// Keyboard shortcuts: each view registers its own; `?` lists them.

import { h, fill } from "./elements.js";

const PAGES = { r: ["runs", "/"], w: ["workflows", "/workflows"], f: ["failures", "/failures"], s: ["statistics", "/stats"], j: ["jobs", "/jobs"] };
const GENERAL = [
  ...Object.entries(PAGES).map(([key, [name]]) => ({ keys: [`g ${key}`], label: `go to ${name}` })),
  { keys: ["?"], label: "show these shortcuts", act: () => open() },
];

let registered = [];
let pending = "";
const dialog = h("dialog", { class: "sheet", "aria-label": "Keyboard shortcuts" });

export function initKeys(button) {
  document.body.append(dialog);
  button.addEventListener("click", open);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  addEventListener("keydown", press);
}

/** Register `shortcuts` ([{keys: ["j"], label, act}]) until the signal is aborted. */
export function useKeys(shortcuts, signal) {
  registered.push(...shortcuts);
  signal.addEventListener("abort", () => {
    registered = registered.filter((each) => !shortcuts.includes(each));
  });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  if (pending === "g" && Object.hasOwn(PAGES, event.key)) {
    pending = "";
    document.querySelector(`header nav a[href="${PAGES[event.key][1]}"]`).click();
    return;
  }
  pending = event.key === "g" ? "g" : "";
  const found = [...registered, ...GENERAL].find((each) => each.keys.includes(event.key));
  if (found && found.act(event) !== false) event.preventDefault();
}

const isTyping = (target) => target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]") !== null;

function open() {
  fill(dialog, h("h2", null, "Keyboard shortcuts"),
    h("dl", { class: "keys" }, [...registered, ...GENERAL].map((each) => [
      h("dt", null, each.keys.map((key) => h("kbd", null, NAMES[key] ?? key))), h("dd", null, each.label)])),
    h("form", { method: "dialog" }, h("button", null, "Close")));
  dialog.showModal();
}

const NAMES = { ArrowDown: "↓", ArrowUp: "↑", Enter: "↵" };
