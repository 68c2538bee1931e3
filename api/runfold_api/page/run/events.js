// The ledger's own view of a run: every event as it was sent.

import { get, runPath } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { timeElement } from "../shared/formats.js";
import { jsonElement } from "../shared/json_tree.js";

const PAGE = 200;

export class Events {
  #run;
  #signal;
  #cursor = null;
  #body = h("tbody");
  #more = h("p");

  constructor(run, signal) {
    this.#run = run;
    this.#signal = signal;
    this.element = h("section", { class: "events", "aria-label": "Events" },
      h("table", null, h("caption", { class: "hidden" }, "Events by time"),
        h("thead", null, h("tr", null, ["At", "Type", "Node", "Event"].map((name) => h("th", { scope: "col" }, name)))), this.#body), this.#more);
  }

  /** Read from the beginning. */
  async read() {
    this.#cursor = null;
    await this.#readOn(true);
  }

  async #readOn(isFirst) {
    const page = await get(`${runPath(this.#run)}/events`, { limit: PAGE, after: this.#cursor }, { signal: this.#signal });
    const rows = page.events.map(makeRow);
    if (isFirst) fill(this.#body, rows);
    else this.#body.append(...rows);
    this.#cursor = page.next_cursor;
    fill(this.#more, page.next_cursor
      ? h("button", { type: "button", onclick: () => this.#readOn(false) }, "More events")
      : !this.#body.children.length && h("span", { class: "empty" }, "The ledger has no event of it."));
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
