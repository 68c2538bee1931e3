// Keyboard focus when one view replaces another.

/** Remember the focused field; the returned function restores the focus in the new view. */
export function keepFocus(root) {
  const was = root.contains(document.activeElement) ? document.activeElement : null;
  return () => {
    if (!was || was.isConnected) return;
    const same = was.name ? [...root.querySelectorAll("input, select")].find((each) => each.name === was.name && (each.type !== "checkbox" || each.value === was.value)) : null;
    (same ?? root).focus({ preventScroll: true });
  };
}
