// The events of a run as the ledger has them, oldest first.

import { h, fill } from "../shared/elements.js";
import { timeElement } from "../shared/formats.js";
import { jsonElement } from "../shared/json_tree.js";
import { Rows } from "../shared/redraw.js";
import { EventRange } from "./event_range.js";

const PAGE = 200;

export class Events {
  #range;
  #body = h("tbody");
  #rows = new Rows(this.#body, (event) => String(event.id), makeRow, () => null); // an event never changes
  #more = h("p", { class: "tools" });

  constructor(run, signal) {
    this.#range = new EventRange(run, { limit: PAGE }, signal);
    this.element = h("section", { class: "events", "aria-label": "Events" },
      h("table", null, h("caption", { class: "hidden" }, "Events by time"),
        h("thead", null, h("tr", null, ["At", "Type", "Node", "Event"].map((name) => h("th", { scope: "col" }, name)))), this.#body), this.#more);
  }

  /** Show the first events, or add the new ones. */
  read() {
    return this.#read((range) => (range.events.length ? range.follow() : range.readStart()));
  }

  #read(act) {
    return this.#range.run(act, (problem) => this.#draw(problem));
  }

  #draw(problem) {
    const { events, hasEarlier, hasLater } = this.#range;
    this.#rows.show(events);
    const button = (label, act) => h("button", { type: "button", onclick: () => this.#read(act) }, label);
    fill(this.#more,
      problem && h("span", { class: "bad", role: "alert" }, problem),
      hasEarlier && button("Earlier events", (range) => range.readEarlier()),
      hasLater && button("Later events", (range) => range.readLater()),
      hasLater && button("Last events", (range) => range.readEnd()),
      !events.length && !problem && h("span", { class: "empty" }, "This run has no events."));
  }
}

function makeRow(event) {
  const { type, at, run, v, ...rest } = event;
  const details = h("details", { ontoggle: () => {
    if (details.open && details.children.length === 1) details.append(jsonElement(event));
  } }, h("summary", null, h("code", null, summary(rest))));
  return h("tr", null, h("td", null, timeElement(at, { absolute: true })), h("td", null, type), h("td", null, event.node ?? ""), h("td", null, details));
}

function summary(rest) {
  const text = Object.entries(rest).filter(([name]) => name !== "node" && name !== "id")
    .map(([name, value]) => `${name}=${typeof value === "object" ? "…" : value}`).join(" ");
  return text.length > 120 ? `${text.slice(0, 119)}…` : text || "–";
}
