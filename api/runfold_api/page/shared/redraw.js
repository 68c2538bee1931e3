// Redrawing of changed parts only, so that opened, selected or focused elements elsewhere stay.

import { textOf } from "./api.js";
import { fill } from "./elements.js";

const shown = new WeakMap();

/** Fill `element` with the result of `make()`, unless it already shows this `value`. */
export function redraw(element, value, make) {
  const text = textOf(value);
  if (shown.get(element) === text) return;
  shown.set(element, text);
  const { scrollTop } = element;
  const focused = element.contains(document.activeElement) ? document.activeElement.id : "";
  fill(element, make());
  element.scrollTop = scrollTop;
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}
