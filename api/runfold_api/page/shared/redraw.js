// Redrawing of changed parts only, so that opened, selected or focused elements stay.

import { stringify } from "./api.js";
import { fill } from "./elements.js";

const shown = new WeakMap();

/** Fill `element` with the result of `make()`, unless it already shows this `value`. */
export function redraw(element, value, make) {
  const text = stringify(value);
  if (shown.get(element) === text) return;
  shown.set(element, text);
  const { scrollTop } = element;
  const focused = element.contains(document.activeElement) ? document.activeElement.id : "";
  fill(element, make());
  element.scrollTop = scrollTop;
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** The rows of a table: one keeps its element while its item is unchanged, so opened details stay. */
export class Rows {
  #body;
  #keyOf;
  #make;
  #versionOf;
  #known = new Map();

  /**
   * `make(item, previous)` creates a row; `previous` is the row of the item before its change, which
   * is one of `versionOf(item)`.
   */
  constructor(body, keyOf, make, versionOf = stringify) {
    this.#body = body;
    this.#keyOf = keyOf;
    this.#make = make;
    this.#versionOf = versionOf;
  }

  get size() {
    return this.#known.size;
  }

  get(key) {
    return this.#known.get(key)?.row;
  }

  /** The row of an item, a new one if the item has changed. */
  of(item) {
    const key = this.#keyOf(item);
    const version = this.#versionOf(item);
    const known = this.#known.get(key);
    if (known?.version === version) return known.row;
    const row = this.#make(item, known?.row);
    this.#known.set(key, { version, row });
    return row;
  }

  /** Show exactly these items. */
  show(items) {
    const keys = new Set(items.map(this.#keyOf));
    for (const key of [...this.#known.keys()]) if (!keys.has(key)) this.delete(key);
    const wanted = items.map((item) => this.of(item));
    const { children } = this.#body;
    if (wanted.length !== children.length || wanted.some((row, index) => row !== children[index])) this.#body.replaceChildren(...wanted);
  }

  delete(key) {
    this.get(key)?.remove();
    this.#known.delete(key);
  }
}

/** Remember the focused field; the returned function restores the focus in the new view. */
export function keepFocus(root) {
  const was = root.contains(document.activeElement) ? document.activeElement : null;
  return () => {
    if (!was || was.isConnected) return;
    const same = was.name ? [...root.querySelectorAll("input, select")].find((each) => each.name === was.name && (each.type !== "checkbox" || each.value === was.value)) : null;
    (same ?? root).focus({ preventScroll: true });
  };
}
