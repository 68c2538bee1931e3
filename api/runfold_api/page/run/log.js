// What a run wrote, line by line: its end at first, and while the run goes on the newest in sight.

import { h, fill } from "../shared/elements.js";
import { formatCount } from "../shared/formats.js";
import { copyButton } from "../shared/json_tree.js";
import { VirtualList } from "../shared/virtual.js";
import { linesOf, readable } from "./lines.js";
import { Stretch } from "./stretch.js";

const PAGE = 1000;
const ROW_HEIGHT = 20;
const LONG_LINE = 5000;

export class Log {
  #run;
  #signal;
  #node = null;
  #stretch = null;
  #lines = [];
  #problem = null;
  #turn = Promise.resolve();
  #tools = h("div", { class: "tools" });
  #list = new VirtualList({ rowHeight: ROW_HEIGHT, makeRow: (index) => makeLine(this.#lines[index], this.#node === null), label: "Output" });

  constructor(run, signal) {
    this.#run = run;
    this.#signal = signal;
    this.element = h("section", { class: "log", "aria-label": "Output" }, this.#tools, this.#list.element);
  }

  /** Show the end of what one node wrote, or all of them; what is shown of it already stays. */
  open(node) {
    if (this.#stretch && this.#node === node) return this.#read((stretch) => stretch.follow());
    this.#node = node;
    this.#stretch = new Stretch(this.#run, { types: "logged", node, limit: PAGE }, this.#signal);
    return this.#read((stretch) => stretch.readEnd(), "end");
  }

  /** These nodes have written something, null among them if the run itself has; null: any may have. */
  follow(nodes) {
    if (nodes === null || (nodes.size && (this.#node === null || nodes.has(this.#node)))) this.#read((stretch) => stretch.follow());
  }

  /** One reading after the other; `place` is what is in sight then: `start`, `end`, or the same. */
  #read(act, place = null) {
    const stretch = this.#stretch;
    this.#turn = this.#turn.then(async () => {
      try {
        await act(stretch);
        this.#problem = null;
      } catch (error) {
        this.#problem = error.message;
      }
      if (stretch === this.#stretch && !this.#signal.aborted) this.#show(place);
    });
    return this.#turn;
  }

  #show(place) {
    const isAtEnd = !this.#lines.length || this.#list.isAtEnd;
    const before = this.#lines.length;
    this.#lines = linesOf(this.#stretch.events);
    this.element.style.setProperty("--rows", Math.max(1, Math.min(this.#lines.length, 28)));
    this.#drawTools();
    this.#list.show(this.#lines.length);
    if (place === "start") this.#list.toStart();
    else if (place === "above") this.#list.moveBy(this.#lines.length - before);
    else if (place === "end" || (place === null && isAtEnd)) this.#list.toEnd();
  }

  #drawTools() {
    const { hasEarlier, hasLater } = this.#stretch;
    const button = (label, act, place) => h("button", { type: "button", class: "quiet", onclick: () => this.#read(act, place) }, label);
    fill(this.#tools,
      h("span", { class: "faint", role: "status" }, this.#describe()),
      this.#node !== null && h("button", { type: "button", class: "quiet", onclick: () => this.open(null) }, "All nodes"),
      this.#problem && h("span", { class: "bad", role: "alert" }, this.#problem),
      h("span", { class: "spacer" }),
      hasEarlier && button("From the beginning", (stretch) => stretch.readStart(), "start"),
      hasEarlier && button("Earlier lines", (stretch) => stretch.readEarlier(), "above"),
      hasLater && button("Later lines", (stretch) => stretch.readLater(), "below"),
      hasLater && button("To the end", (stretch) => stretch.readEnd(), "end"),
      this.#lines.length > 0 && copyButton(() => this.#lines.map((line) => line.text).join("\n")));
  }

  #describe() {
    const { hasEarlier, hasLater } = this.#stretch;
    const of = this.#node === null ? "" : ` of ${this.#node}`;
    if (!this.#lines.length) return this.#problem ? "" : `Nothing was written${of && ` by ${this.#node}`}`;
    const count = `${formatCount(this.#lines.length)} ${this.#lines.length === 1 ? "line" : "lines"}${of}`;
    if (hasEarlier && hasLater) return `${count}, neither the first nor the last`;
    return hasEarlier ? `The last ${count}` : hasLater ? `The first ${count}` : count;
  }
}

function makeLine(line, showsNode) {
  const isBad = line.stream === "stderr" || ["error", "critical", "fatal"].includes(line.level?.toLowerCase());
  const text = readable(line.text);
  const rest = text.length - LONG_LINE;
  return h("div", { class: `text-line ${isBad ? "bad" : ""}`, title: line.at },
    h("span", { class: "at", "aria-hidden": "true" }, new Date(line.at).toLocaleTimeString(undefined, { hourCycle: "h23" })),
    showsNode && line.node && h("span", { class: "node" }, line.node),
    line.level && h("span", { class: "level" }, line.level),
    h("code", { dir: "auto" }, rest > 0 ? text.slice(0, LONG_LINE) : text),
    rest > 0 && h("span", { class: "node" }, `… and ${formatCount(rest)} characters; Copy has them`));
}
