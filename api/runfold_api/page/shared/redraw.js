// Drawing anew only what has changed: what somebody has opened, selected or focused elsewhere stays.

import { textOf } from "./api.js";
import { fill } from "./elements.js";

const shown = new WeakMap();

/** Fill `place` with what `make()` returns, unless it shows this `value` already. */
export function redraw(place, value, make) {
  const text = textOf(value);
  if (shown.get(place) === text) return;
  shown.set(place, text);
  const { scrollTop } = place;
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  fill(place, make());
  place.scrollTop = scrollTop;
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}
