// The nodes as bars over time (a Gantt chart), planned nodes included.

import { h, fill } from "../shared/elements.js";
import { elapsedMs, formatDuration, msOf } from "../shared/formats.js";
import { markOf } from "../shared/status.js";
import { VirtualList } from "../shared/virtual.js";
import { describeStatuses, groupByFamily, keyOf, nodeTitle, worstStatus } from "./nodes.js";

const ROW_HEIGHT = 28;
const GROUPED_FROM = 100;
const BARS_OF_GROUP = 400;
const STEPS_MS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5];

export class Timeline {
  #nodes = [];
  #rows = [];
  #open = new Set();
  #isGrouped = null;
  #selected = null;
  #span = { from: 0, to: 1 };
  #zoom = 1;
  #select;
  #axis = h("div", { class: "axis", "aria-hidden": "true" });
  #tools = h("div", { class: "tools" });
  #plot = h("div", { class: "plot" });
  #list;

  /** `select(node)` is called when a node is selected. */
  constructor(select) {
    this.#select = select;
    this.#list = new VirtualList({ rowHeight: ROW_HEIGHT, makeRow: (index) => this.#makeRow(this.#rows[index]), label: "Nodes by time" });
    this.element = h("section", { class: "timeline", "aria-label": "Timeline" }, this.#tools, this.#plot);
    this.#plot.append(this.#axis, this.#list.element);
    this.element.addEventListener("keydown", (event) => this.#keys(event));
  }

  /** Draw the nodes of a run. */
  show(run, nodes) {
    this.#nodes = nodes;
    if (nodes.length >= GROUPED_FROM) this.#isGrouped ??= true;
    this.#span = spanOf(run, nodes);
    this.#draw();
  }

  /** Extend the bars of running nodes to the current time. */
  grow(run) {
    if (!this.#nodes.some((node) => node.status === "running")) return;
    this.#span = spanOf(run, this.#nodes);
    this.#draw();
  }

  /** Mark a node and scroll to it. */
  mark(node) {
    this.#selected = node ? keyOf(node) : null;
    if (node && this.#isGrouped) {
      for (const [name, members] of groupByFamily(this.#nodes)) if (members.some((each) => keyOf(each) === this.#selected)) this.#open.add(name);
    }
    this.#draw();
    const index = this.#rows.findIndex((row) => row.node && keyOf(row.node) === this.#selected);
    if (index >= 0) this.#list.reveal(index);
  }

  #draw() {
    this.#rows = this.#isGrouped ? this.#groupedRows() : this.#nodes.map((node) => ({ node }));
    this.element.style.setProperty("--rows", Math.min(this.#rows.length, 22));
    this.element.style.setProperty("--zoom", this.#zoom);
    this.#drawTools();
    fill(this.#axis, h("div", { class: "label" }), h("div", { class: "track" }, ticks(this.#span, this.#zoom).map(({ at, text }) =>
      h("span", { class: "tick", css: { left: `${at}%` } }, text))));
    this.#list.show(this.#rows.length);
  }

  #groupedRows() {
    return [...groupByFamily(this.#nodes)].flatMap(([name, members]) => {
      if (members.length === 1) return [{ node: members[0] }];
      const isOpen = this.#open.has(name);
      return [{ name, members, isOpen }, ...(isOpen ? members.map((node) => ({ node, isInner: true })) : [])];
    });
  }

  #drawTools() {
    this.#plot.hidden = !this.#nodes.length;
    if (!this.#nodes.length) {
      fill(this.#tools, h("p", { class: "empty" }, "This run has no nodes."));
      return;
    }
    const zoomBy = (factor) => () => { this.#zoom = Math.min(64, Math.max(1, this.#zoom * factor)); this.#draw(); };
    fill(this.#tools,
      h("span", { class: "faint" }, `${this.#nodes.length} ${this.#nodes.length === 1 ? "attempt" : "attempts"}: ${describeStatuses(this.#nodes) || "none"}`),
      h("span", { class: "spacer" }),
      h("label", { class: "switch" }, h("input", { type: "checkbox", checked: this.#isGrouped, onchange: (event) => { this.#isGrouped = event.target.checked; this.#draw(); } }), "Group by name"),
      h("button", { type: "button", class: "quiet", "aria-label": "Zoom out", disabled: this.#zoom === 1, onclick: zoomBy(0.5) }, "−"),
      h("button", { type: "button", class: "quiet", "aria-label": "Zoom in", disabled: this.#zoom === 64, onclick: zoomBy(2) }, "+"));
  }

  #makeRow(row) {
    return row.node ? this.#nodeRow(row) : this.#groupRow(row);
  }

  #nodeRow({ node, isInner }) {
    const isSelected = keyOf(node) === this.#selected;
    const elapsed = elapsedMs(node);
    return h("div", { class: `line ${isInner ? "inner-line" : ""} ${isSelected ? "selected" : ""}` },
      h("button", { type: "button", class: "label", "aria-pressed": String(isSelected), title: nodeTitle(node), onclick: () => this.#select(node) },
        h("span", { class: `mark ${node.status}`, "aria-hidden": "true" }, markOf(node.status)),
        h("span", { class: "text" }, nodeTitle(node)), h("span", { class: "hidden" }, `, ${node.status}`)),
      h("div", { class: "track", onclick: () => this.#select(node) }, this.#bar(node),
        h("span", { class: "length", css: { left: `${this.#percent(endOf(node) ?? this.#span.from)}%` } },
          node.started_at ? formatDuration(elapsed) : node.status === "pending" ? "planned" : node.status)));
  }

  #groupRow({ name, members, isOpen }) {
    const toggle = () => { if (isOpen) this.#open.delete(name); else this.#open.add(name); this.#draw(); };
    const status = worstStatus(members);
    const step = Math.ceil(members.length / BARS_OF_GROUP);
    const shown = members.filter((node, index) => index % step === 0 || node.status === "failed");
    return h("div", { class: "line group" },
      h("button", { type: "button", class: "label", "aria-expanded": String(isOpen), title: `${name}: ${describeStatuses(members)}`, onclick: toggle },
        h("span", { class: "twisty", "aria-hidden": "true" }, isOpen ? "▾" : "▸"),
        h("span", { class: `mark ${status}`, "aria-hidden": "true" }, markOf(status)),
        h("span", { class: "text" }, name), h("span", { class: "count" }, `× ${members.length}`)),
      h("div", { class: "track", onclick: toggle }, shown.map((node) => this.#bar(node))));
  }

  #bar(node) {
    if (!node.started_at) return null;
    const from = this.#percent(msOf(node.started_at));
    const width = this.#percent(endOf(node)) - from;
    return h("span", { class: `bar ${node.status}`, css: { left: `${from}%`, width: `max(2px, ${width}%)` } });
  }

  #percent(at) {
    const { from, to } = this.#span;
    return Math.min(100, Math.max(0, ((at - from) / (to - from)) * 100));
  }

  #keys(event) {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const row = event.target.closest(".virtual-row");
    if (!row) return;
    event.preventDefault();
    const index = Number(row.getAttribute("aria-posinset")) - 1 + (event.key === "ArrowDown" ? 1 : -1);
    if (index >= 0 && index < this.#rows.length) this.#list.focus(index);
  }
}

function endOf(node) {
  if (node.finished_at) return msOf(node.finished_at);
  return node.started_at ? Math.max(Date.now(), msOf(node.started_at)) : null;
}

function spanOf(run, nodes) {
  let from = Infinity;
  let to = -Infinity;
  for (const item of [run, ...nodes]) {
    if (item.started_at) from = Math.min(from, msOf(item.started_at));
    const end = item.started_at || item.finished_at ? (item.finished_at || item.status === "running" ? endOf(item) : null) : null;
    if (end !== null) to = Math.max(to, end);
  }
  if (from === Infinity) return { from: 0, to: 1 };
  return { from, to: Math.max(to, from + 0.01) };
}

function ticks({ from, to }, zoom) {
  const wanted = 6 * zoom;
  const length = to - from;
  const step = STEPS_MS.find((each) => length / each <= wanted) ?? Math.ceil(length / wanted / 864e5) * 864e5;
  const found = [];
  for (let at = 0; at <= length && found.length < 500; at += step) found.push({ at: (at / length) * 100, text: at ? formatDuration(at) : "0" });
  return found;
}
