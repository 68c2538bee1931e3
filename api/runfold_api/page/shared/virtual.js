// A list of any length with elements only for the visible rows.

import { h } from "./elements.js";

const SPARE_ROWS = 8;

export class VirtualList {
  #count = 0;
  #drawn = new Map();
  #inner = h("div", { class: "inner", role: "presentation" });
  #rowHeight;
  #makeRow;
  #frame = 0;

  /** `makeRow(index)` creates a row; all rows are `rowHeight` pixels high. */
  constructor({ rowHeight, makeRow, label }) {
    this.#rowHeight = rowHeight;
    this.#makeRow = makeRow;
    this.element = h("div", { class: "virtual", role: "list", "aria-label": label, tabindex: "-1" }, this.#inner);
    this.element.addEventListener("scroll", () => this.#soon(), { passive: true });
    new ResizeObserver(() => this.#soon()).observe(this.element);
  }

  /** Set the number of rows and redraw the visible ones. */
  show(count) {
    this.#count = count;
    this.#inner.style.setProperty("height", `${count * this.#rowHeight}px`);
    const focused = [...this.#drawn].find(([, row]) => row.contains(document.activeElement))?.[0];
    for (const row of this.#drawn.values()) row.remove();
    this.#drawn.clear();
    this.#draw();
    if (focused !== undefined) this.#focusOf(focused)?.focus({ preventScroll: true });
  }

  /** Scroll to a row. */
  reveal(index) {
    const fitting = this.element.clientHeight / this.#rowHeight;
    this.scroll(Math.min(index, Math.max(this.firstRow, index + 1 - fitting)));
  }

  focus(index) {
    this.reveal(index);
    this.#focusOf(index)?.focus();
  }

  #focusOf(index) {
    const row = this.#drawn.get(index);
    return row?.querySelector("button, a") ?? row;
  }

  get isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    return scrollTop + clientHeight >= scrollHeight - this.#rowHeight;
  }

  /** The number of rows above the visible ones, with a fraction. */
  get firstRow() {
    return this.element.scrollTop / this.#rowHeight;
  }

  /** Make a row the first visible one, as far as there are rows below it. */
  scroll(row) {
    this.element.scrollTop = row * this.#rowHeight;
    this.#draw();
  }

  #soon() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / this.#rowHeight) - SPARE_ROWS);
    const end = Math.min(this.#count, Math.ceil((scrollTop + (clientHeight || 600)) / this.#rowHeight) + SPARE_ROWS);
    for (const [index, row] of this.#drawn) {
      if (index >= first && index < end) continue;
      row.remove();
      this.#drawn.delete(index);
    }
    for (let index = first; index < end; index += 1) {
      if (this.#drawn.has(index)) continue;
      const row = this.#makeRow(index);
      row.classList.add("virtual-row");
      row.setAttribute("role", "listitem");
      row.setAttribute("aria-setsize", this.#count);
      row.setAttribute("aria-posinset", index + 1);
      row.style.setProperty("top", `${index * this.#rowHeight}px`);
      row.style.setProperty("height", `${this.#rowHeight}px`);
      this.#drawn.set(index, row);
      this.#inner.append(row);
    }
  }
}
