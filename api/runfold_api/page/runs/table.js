// The rows of a list of runs: drawn, and changed in place when a run does.

import { h } from "../shared/elements.js";
import { durationElement, formatCost, formatShort, timeElement } from "../shared/formats.js";
import { progressElement, statusElement } from "../shared/status.js";
import { runPath, withQuery } from "../shared/api.js";

const HEADS = [
  ["Status", ""], ["Run", ""], ["Project", ""], ["Started", ""], ["Duration", "number"],
  ["Nodes", ""], ["Trigger", ""], ["Tokens", "number"], ["Cost", "number"],
];

export class RunTable {
  #rows = new Map();
  #body = h("tbody");
  #selected;

  /** `selectionChanged(ids)` is told which runs are ticked. */
  constructor(selectionChanged) {
    this.#selected = new Set();
    this.#body.addEventListener("change", (event) => {
      const { id } = event.target.closest("tr").dataset;
      if (event.target.checked) this.#selected.add(id);
      else this.#selected.delete(id);
      selectionChanged([...this.#selected]);
    });
    this.#body.addEventListener("click", (event) => {
      if (event.target.closest("a, input, label, button") || String(getSelection())) return;
      event.target.closest("tr")?.querySelector("a").click();
    });
    this.element = h("table", { class: "runs" },
      h("caption", { class: "hidden" }, "Runs, newest first"),
      h("thead", null, h("tr", null,
        h("th", { scope: "col", class: "tick" }, h("span", { class: "hidden" }, "Select")),
        HEADS.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
      this.#body);
  }

  get size() {
    return this.#rows.size;
  }

  has(id) {
    return this.#rows.has(id);
  }

  /** Show these and no others. */
  show(runs) {
    this.#rows.clear();
    this.#selected.clear();
    this.#body.replaceChildren(...runs.map((run) => this.#make(run)));
  }

  /** Change a row that is there, or put a new one first; `limit` rows stay. */
  put(run, limit) {
    const known = this.#rows.get(run.id);
    const row = this.#make(run);
    row.classList.add(known ? "changed" : "new");
    if (known) {
      const hadFocus = known.contains(document.activeElement);
      known.replaceWith(row);
      if (hadFocus) row.querySelector("a").focus();
      return;
    }
    this.#body.prepend(row);
    while (this.#rows.size > limit) this.remove(this.#body.lastElementChild.dataset.id);
  }

  remove(id) {
    this.#rows.get(id)?.remove();
    this.#rows.delete(id);
    this.#selected.delete(id);
  }

  /** Move the focus by so many rows; `tick` the one that has it. */
  move(step) {
    const rows = [...this.#body.children];
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement?.closest?.("tr"));
    const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + step))];
    next.querySelector("a").focus();
    next.scrollIntoView({ block: "nearest" });
  }

  tick() {
    document.activeElement?.closest?.("tr")?.querySelector("input[type=checkbox]")?.click();
  }

  #make(run) {
    const row = makeRow(run, this.#selected.has(run.id));
    this.#rows.set(run.id, row);
    return row;
  }
}

function makeRow(run, isSelected) {
  return h("tr", { "data-id": run.id, "data-status": run.status },
    h("td", { class: "tick" }, h("input", { type: "checkbox", checked: isSelected, "aria-label": `Select ${run.id}` })),
    h("td", { "data-label": "Status" }, statusElement(run.status)),
    h("td", { class: "name", "data-label": "Run" },
      h("a", { href: runPath(run.id, "/runs") }, h("strong", null, run.workflow), h("br"), h("span", { class: "id" }, run.id)),
      h("span", { class: "tags" }, Object.entries(run.tags).map(([key, value]) =>
        h("a", { class: "tag", href: withQuery("/", { tag: `${key}:${value}` }) }, value ? `${key}: ${value}` : key))),
      run.error && h("span", { class: "why", title: run.error.message }, [run.error.type, run.error.message].filter(Boolean).join(": "))),
    h("td", { "data-label": "Project" }, h("a", { class: "plain", href: withQuery("/", { project: run.project }) }, run.project)),
    h("td", { "data-label": "Started" }, timeElement(run.started_at ?? run.queued_at)),
    h("td", { class: "number", "data-label": "Duration" }, durationElement(run)),
    h("td", { "data-label": "Nodes" }, progressElement(run.nodes)),
    h("td", { "data-label": "Trigger" }, [run.trigger_type, run.user].filter(Boolean).join(" · ") || h("span", { class: "faint" }, "–")),
    h("td", { class: "number", "data-label": "Tokens" }, run.usage.total_tokens ? formatShort(run.usage.total_tokens) : h("span", { class: "faint" }, "–")),
    h("td", { class: "number", "data-label": "Cost" }, formatCost(run.usage.cost_usd)));
}
