// The graph of the nodes, if their parents are known. Many nodes are drawn as one box per name.

import { h, fill, svg } from "../shared/elements.js";
import { elapsedMs, formatDuration } from "../shared/formats.js";
import { markOf } from "../shared/status.js";
import { layOut } from "./layout.js";
import { describeStatuses, familyOf, groupByFamily, nodeTitle, worstStatus } from "./nodes.js";

const WIDTH = 190;
const HEIGHT = 44;
const GAP_X = 60;
const GAP_Y = 14;
const MAX_BOXES = 120;

export class Graph {
  #select;
  #nodes = [];
  #selected = null;
  #isGrouped = null;
  #tools = h("div", { class: "tools" });
  #area = h("div", { class: "area", tabindex: "0", "aria-label": "Graph; scrolls" });

  constructor(select) {
    this.#select = select;
    this.element = h("section", { class: "graph", "aria-label": "Graph" }, this.#tools, this.#area);
  }

  show(run, nodes) {
    this.#nodes = lastAttempts(nodes);
    this.#isGrouped ??= this.#nodes.length > MAX_BOXES;
    this.#draw();
  }

  mark(node) {
    this.#selected = node?.node ?? null;
    this.#draw();
  }

  #draw() {
    if (!this.#nodes.some((node) => node.parents.length)) {
      fill(this.#tools);
      fill(this.#area, h("p", { class: "empty" }, "The parents of the nodes are unknown, so there is no graph. ",
        "Send ", h("code", null, "parents"), " with ", h("code", null, "node_started"), ", or with the planned ", h("code", null, "nodes"), " of ", h("code", null, "started"), "."));
      return;
    }
    fill(this.#tools, h("span", { class: "spacer" }),
      h("label", { class: "switch" }, h("input", { type: "checkbox", checked: this.#isGrouped, onchange: (event) => { this.#isGrouped = event.target.checked; this.#draw(); } }), "One box per name"));
    fill(this.#area, this.#picture(this.#isGrouped ? groupedBoxes(this.#nodes) : singleBoxes(this.#nodes)));
  }

  #picture(boxes) {
    const { places, edges, layers, widest, sizes } = layOut(boxes);
    const width = layers * (WIDTH + GAP_X) - GAP_X + 4;
    const height = widest * (HEIGHT + GAP_Y) - GAP_Y + 4;
    const at = (key) => {
      const { layer, index } = places.get(key);
      const top = (height - 4 - (sizes[layer] * (HEIGHT + GAP_Y) - GAP_Y)) / 2;
      return { x: 2 + layer * (WIDTH + GAP_X), y: 2 + top + index * (HEIGHT + GAP_Y) };
    };
    return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${boxes.length} boxes` },
      edges.map(([from, to]) => edge(at(from), at(to))),
      boxes.map((box) => this.#box(box, at(box.key))));
  }

  #box(box, { x, y }) {
    const choose = () => this.#select(pick(box.members));
    const isSelected = box.members.some((node) => node.node === this.#selected);
    return svg("g", {
      class: `box ${box.status} ${isSelected ? "selected" : ""}`, transform: `translate(${x} ${y})`, tabindex: "0", role: "button", "aria-label": `${box.title}: ${box.status}`,
      onclick: choose, onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } },
    },
    svg("title", null, `${box.title}\n${box.under}`),
    svg("rect", { width: WIDTH, height: HEIGHT, rx: 6 }),
    svg("text", { x: 12, y: 18, class: "mark" }, markOf(box.status)),
    svg("text", { x: 30, y: 18 }, cut(box.title, 22)),
    svg("text", { x: 30, y: 34, class: "under" }, cut(box.under, 26)));
  }
}

function lastAttempts(nodes) {
  const last = new Map();
  for (const node of nodes) if (!last.has(node.node) || last.get(node.node).attempt < node.attempt) last.set(node.node, node);
  return [...last.values()];
}

function singleBoxes(nodes) {
  return nodes.map((node) => ({
    key: node.node, parents: node.parents, members: [node], title: nodeTitle(node), status: node.status,
    under: node.started_at ? formatDuration(elapsedMs(node)) : node.status,
  }));
}

function groupedBoxes(nodes) {
  const families = new Map(nodes.map((node) => [node.node, familyOf(node)]));
  return [...groupByFamily(nodes)].map(([name, members]) => ({
    key: name, members, title: members.length > 1 ? `${name} × ${members.length}` : nodeTitle(members[0]), status: worstStatus(members),
    parents: [...new Set(members.flatMap((node) => node.parents.map((parent) => families.get(parent))))].filter(Boolean),
    under: describeStatuses(members),
  }));
}

const pick = (members) => members.find((node) => node.status === worstStatus(members)) ?? members[0];

function edge(from, to) {
  const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
  const bend = Math.max(20, (x2 - x1) / 2);
  return svg("path", { class: "edge", d: `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` });
}

const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
