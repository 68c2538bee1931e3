// The output of a run: its end first, and the newest lines in sight while the run continues.

import { h, fill } from "../shared/elements.js";
import { formatCount } from "../shared/formats.js";
import { copyButton } from "../shared/json_tree.js";
import { VirtualList } from "../shared/virtual.js";
import { EventRange } from "./event_range.js";

const PAGE = 1000;
const ROW_HEIGHT = 20;
const LONG_LINE = 5000;
const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;
const CHUNKED = ["stdout", "stderr"];

export class Log {
  #run;
  #signal;
  #node = null;
  #range = null;
  #lines = [];
  #problem = null;
  #tools = h("div", { class: "tools" });
  #list = new VirtualList({ rowHeight: ROW_HEIGHT, makeRow: (index) => makeLine(this.#lines[index], this.#node === null), label: "Output" });

  constructor(run, signal) {
    this.#run = run;
    this.#signal = signal;
    this.element = h("section", { class: "log", "aria-label": "Output" }, this.#tools, this.#list.element);
  }

  /** Show the end of the output of one node, or of all (null); lines that are shown already stay. */
  open(node) {
    if (this.#range && this.#node === node) return this.#read((range) => range.follow());
    this.#node = node;
    this.#range = new EventRange(this.#run, { types: "logged", node, limit: PAGE }, this.#signal);
    return this.#read((range) => range.readEnd(), "end");
  }

  /** Read the new output of these nodes (null in the set: the run itself); null: of all. */
  follow(nodes) {
    if (nodes === null || (nodes.size && (this.#node === null || nodes.has(this.#node)))) this.#read((range) => range.follow());
  }

  /** Read, one request after the other, then scroll to `place`: `start`, `end`, or null to stay. */
  #read(act, place = null) {
    const range = this.#range;
    return range.run(act, (problem) => {
      if (range !== this.#range) return; // another node has been opened
      this.#problem = problem;
      this.#show(place);
    });
  }

  #show(place) {
    const isAtEnd = !this.#lines.length || this.#list.isAtEnd;
    const before = this.#lines.length;
    this.#lines = linesOf(this.#range.events);
    this.element.style.setProperty("--rows", Math.max(1, Math.min(this.#lines.length, 28)));
    this.#drawTools();
    this.#list.show(this.#lines.length);
    if (place === "start") this.#list.scroll(0);
    else if (place === "above") this.#list.scroll(this.#list.firstRow + this.#lines.length - before);
    else if (place === "end" || (place === null && isAtEnd)) this.#list.scroll(this.#lines.length);
  }

  #drawTools() {
    const { hasEarlier, hasLater } = this.#range;
    const button = (label, act, place) => h("button", { type: "button", class: "quiet", onclick: () => this.#read(act, place) }, label);
    fill(this.#tools,
      h("span", { class: "faint", role: "status" }, this.#describe()),
      this.#node !== null && h("button", { type: "button", class: "quiet", onclick: () => this.open(null) }, "All nodes"),
      this.#problem && h("span", { class: "bad", role: "alert" }, this.#problem),
      h("span", { class: "spacer" }),
      hasEarlier && button("From the beginning", (range) => range.readStart(), "start"),
      hasEarlier && button("Earlier lines", (range) => range.readEarlier(), "above"),
      hasLater && button("Later lines", (range) => range.readLater(), "below"),
      hasLater && button("To the end", (range) => range.readEnd(), "end"),
      this.#lines.length > 0 && copyButton(() => this.#lines.map((line) => line.text).join("\n")));
  }

  #describe() {
    const { hasEarlier, hasLater } = this.#range;
    const of = this.#node === null ? "" : ` of ${this.#node}`;
    if (!this.#lines.length) return this.#problem ? "" : `No output${of}`;
    const count = `${formatCount(this.#lines.length)} ${this.#lines.length === 1 ? "line" : "lines"}${of}`;
    if (hasEarlier && hasLater) return `${count} from the middle`;
    return hasEarlier ? `Last ${count}` : hasLater ? `First ${count}` : count;
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
    rest > 0 && h("span", { class: "node" }, `… and ${formatCount(rest)} characters; Copy includes them`));
}

/** The lines of events. A chunk may end within a line; the next of its stream and node continues it. */
function linesOf(events) {
  const lines = [];
  const open = new Map();
  for (const event of events) {
    if (!event.text) continue;
    const stream = `${event.node ?? ""}\u0000${event.stream}`;
    const pieces = event.text.split("\n");
    const isLineOpen = pieces.at(-1) !== "" && CHUNKED.includes(event.stream);
    if (pieces.at(-1) === "") pieces.pop();
    if (open.has(stream)) open.get(stream).text += pieces.shift();
    for (const text of pieces) lines.push({ at: event.at, node: event.node ?? null, stream: event.stream ?? "log", level: event.level ?? null, text });
    if (!isLineOpen) open.delete(stream);
    else if (pieces.length) open.set(stream, lines.at(-1));
  }
  return lines;
}

/** The text without terminal escapes; of an overwritten line, its final text. */
function readable(text) {
  const plain = text.replace(ESCAPES, "").replace(/\r+$/, "");
  return plain.slice(plain.lastIndexOf("\r") + 1);
}
