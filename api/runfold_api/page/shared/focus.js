// Where the keyboard is, when a view takes the place of another.

/** Call before; the function that it returns, called after, brings the focus to where it was. */
export function keepFocus(root) {
  const was = root.contains(document.activeElement) ? document.activeElement : null;
  return () => {
    if (!was || was.isConnected) return;
    const same = was.name ? [...root.querySelectorAll("input, select")].find((each) => each.name === was.name && (each.type !== "checkbox" || each.value === was.value)) : null;
    (same ?? root).focus({ preventScroll: true });
  };
}
