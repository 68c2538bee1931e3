// JSON as a collapsible tree; collapsed parts have no elements.

import { stringify } from "./api.js";
import { h } from "./elements.js";

const FIRST_CHILDREN = 100;
const LONG_TEXT = 400;

/** The tree of a value, expanded to `depth`, with a copy button. */
export function jsonElement(value, { depth = 2 } = {}) {
  return h("div", { class: "json" }, copyButton(() => stringify(value, 2)), node(null, value, depth));
}

/** A button that copies text to the clipboard. */
export function copyButton(text, label = "Copy") {
  const button = h("button", { type: "button", class: "quiet copy", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copying is blocked";
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  } }, label);
  return button;
}

function node(key, value, depth) {
  if (value === null || typeof value !== "object") {
    return h("div", { class: "leaf" }, keyElement(key), leaf(value));
  }
  const entries = Array.isArray(value) ? value.map((each, index) => [index, each]) : Object.entries(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (!entries.length) return h("div", { class: "leaf" }, keyElement(key), open + close);
  const children = h("div", { class: "children" });
  const details = h("details", { open: depth > 0, ontoggle: () => draw() },
    h("summary", null, keyElement(key), h("span", { class: "faint" }, `${open} ${entries.length} ${close}`)), children);
  let isDrawn = false;
  if (depth > 0) draw();
  return details;

  function draw() {
    if (isDrawn || !details.open) return;
    isDrawn = true;
    addFrom(0);
  }

  function addFrom(start) {
    const end = Math.min(entries.length, start + FIRST_CHILDREN);
    children.append(...entries.slice(start, end).map(([name, each]) => node(name, each, depth - 1)));
    if (end < entries.length) {
      const more = h("button", { type: "button", class: "quiet", onclick: () => { more.remove(); addFrom(end); } },
        `${entries.length - end} more …`);
      children.append(more);
    }
  }
}

const keyElement = (key) => (key === null ? null : [h("span", { class: "key" }, key), h("span", { class: "faint" }, ": ")]);

function leaf(value) {
  if (typeof value !== "string") return h("span", { class: value === null ? "null" : typeof value }, String(value));
  if (value.length <= LONG_TEXT) return h("span", { class: "string" }, JSON.stringify(value));
  const text = h("span", { class: "string" }, JSON.stringify(value.slice(0, LONG_TEXT)));
  const more = h("button", { type: "button", class: "quiet", onclick: () => { text.textContent = JSON.stringify(value); more.remove(); } },
    `Show all ${value.length.toLocaleString()} characters`);
  return [text, " ", more];
}
