// What a run wrote, line by line, the newest in sight while it goes on.

import { get, runPath } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { copyButton } from "../shared/json_tree.js";
import { VirtualList } from "../shared/virtual.js";

const PAGE = 1000;
const PAGES_AT_ONCE = 10;
const ROW_HEIGHT = 20;
const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;

export class Log {
  #run;
  #signal;
  #node = null;
  #lines = [];
  #partial = new Map();
  #cursor = null;
  #seen = new Set();
  #hasMore = true;
  #tools = h("div", { class: "tools" });
  #list = new VirtualList({ rowHeight: ROW_HEIGHT, makeRow: (index) => makeLine(this.#shown()[index], this.#node === null), label: "Output" });
  #filtered = null;
  #reading = null;

  constructor(run, signal) {
    this.#run = run;
    this.#signal = signal;
    this.element = h("section", { class: "log", "aria-label": "Output" }, this.#tools, this.#list.element);
  }

  /** Only the lines of one node, or all. */
  only(node) {
    this.#node = node;
    this.#filtered = null;
    this.#draw(true);
  }

  /** Read on from where the last reading ended. */
  async read() {
    this.#reading ??= this.#readOn().finally(() => { this.#reading = null; });
    await this.#reading;
  }

  async #readOn() {
    const wasAtEnd = this.#lines.length === 0 || this.#list.isAtEnd;
    for (let pages = 0; pages < PAGES_AT_ONCE; pages += 1) {
      const page = await get(`${runPath(this.#run)}/events`, { types: "logged", limit: PAGE, after: this.#cursor }, { signal: this.#signal });
      for (const event of page.events) this.#add(event);
      this.#hasMore = page.next_cursor !== null;
      if (!this.#hasMore) break;
      this.#cursor = page.next_cursor;
    }
    this.#draw(wasAtEnd);
  }

  #add(event) {
    const key = String(event.id);
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    this.#filtered = null;
    // A chunk may end within a line; what follows on the same stream goes on with it.
    const stream = `${event.node ?? ""}\u0000${event.stream}`;
    const pieces = event.text.split("\n");
    const open = event.stream === "log" ? null : this.#partial.get(stream);
    if (open) open.text += pieces.shift();
    for (const [index, text] of pieces.entries()) {
      if (index === pieces.length - 1 && text === "") break;
      this.#lines.push({ at: event.at, node: event.node ?? null, stream: event.stream, level: event.level ?? null, text });
    }
    if (event.text.endsWith("\n") || event.stream === "log") this.#partial.delete(stream);
    else this.#partial.set(stream, pieces.length ? this.#lines.at(-1) : open);
  }

  #shown() {
    this.#filtered ??= this.#node === null ? this.#lines : this.#lines.filter((line) => line.node === this.#node);
    return this.#filtered;
  }

  #draw(toEnd) {
    const lines = this.#shown();
    this.element.style.setProperty("--rows", Math.max(1, Math.min(lines.length, 28)));
    fill(this.#tools,
      h("span", { class: "faint", role: "status" }, lines.length ? `${lines.length.toLocaleString()} lines` : "Nothing was written", this.#node !== null && ` of ${this.#node}`),
      this.#node !== null && h("button", { type: "button", class: "quiet", onclick: () => this.only(null) }, "All nodes"),
      h("span", { class: "spacer" }),
      this.#hasMore && lines.length > 0 && h("button", { type: "button", class: "quiet", onclick: () => this.read() }, "Read on"),
      lines.length > 0 && copyButton(() => this.#shown().map((line) => line.text).join("\n")));
    this.#list.show(lines.length);
    if (toEnd) this.#list.toEnd();
  }
}

function makeLine(line, showsNode) {
  const isBad = line.stream === "stderr" || ["error", "critical", "fatal"].includes(line.level?.toLowerCase());
  return h("div", { class: `text-line ${isBad ? "bad" : ""}`, title: line.at },
    h("span", { class: "at", "aria-hidden": "true" }, new Date(line.at).toLocaleTimeString(undefined, { hourCycle: "h23" })),
    showsNode && line.node && h("span", { class: "node" }, line.node),
    line.level && h("span", { class: "level" }, line.level),
    h("code", null, line.text.replace(ESCAPES, "").replace(/^.*\r(?=.)/, "")));
}
