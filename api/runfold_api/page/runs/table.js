// The table of runs; rows are updated in place when their runs change.

import { h } from "../shared/elements.js";
import { durationElement, formatCost, formatShort, timeElement } from "../shared/formats.js";
import { Rows } from "../shared/redraw.js";
import { progressElement, statusElement } from "../shared/status.js";
import { runPath, withQuery } from "../shared/api.js";

const HEADS = [["Status", ""], ["Run", ""], ["Project", ""], ["Started", ""], ["Duration", "number"], ["Nodes", ""], ["Trigger", ""], ["Tokens", "number"], ["Cost", "number"]];

export class RunTable {
  #body = h("tbody");
  #selected = new Set();
  #rows = new Rows(this.#body, (run) => run.id, (run) => makeRow(run, this.#selected.has(run.id)));
  #selectionChanged;

  /** `selectionChanged(ids)` receives the ids of the selected runs. */
  constructor(selectionChanged) {
    this.#selectionChanged = selectionChanged;
    this.#body.addEventListener("change", (event) => {
      const { id } = event.target.closest("tr").dataset;
      if (event.target.checked) this.#selected.add(id);
      else this.#selected.delete(id);
      this.#selectionChanged([...this.#selected]);
    });
    this.#body.addEventListener("click", (event) => {
      if (event.target.closest("a, input, label, button") || String(getSelection())) return;
      event.target.closest("tr")?.querySelector("a").click();
    });
    this.element = h("table", { class: "list runs" },
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
    return Boolean(this.#rows.get(id));
  }

  /** Show exactly these runs; unchanged rows keep their elements. */
  show(runs) {
    this.#rows.show(runs);
    for (const id of [...this.#selected]) if (!this.has(id)) this.remove(id);
  }

  /** Update a row, or insert a new one by its start; at most `limit` rows remain. */
  put(run, limit) {
    const known = this.#rows.get(run.id);
    const older = known ? null : [...this.#body.children].find((row) => Number(row.dataset.began) <= beganOf(run));
    if (!known && !older && this.#rows.size >= limit) return; // it belongs to a later page
    const row = this.#rows.of(run);
    if (row === known) return;
    row.classList.add(known ? "changed" : "new");
    if (known) {
      const hadFocus = known.contains(document.activeElement);
      known.replaceWith(row);
      if (hadFocus) row.querySelector("a").focus();
      return;
    }
    this.#body.insertBefore(row, older ?? null);
    while (this.#rows.size > limit) this.remove(this.#body.lastElementChild.dataset.id);
  }

  remove(id) {
    this.#rows.delete(id);
    if (this.#selected.delete(id)) this.#selectionChanged([...this.#selected]);
  }

  /** Move the focus by `step` rows. */
  move(step) {
    const rows = [...this.#body.children];
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement?.closest?.("tr"));
    const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + step))];
    next.querySelector("a").focus();
    next.scrollIntoView({ block: "nearest" });
  }

  /** Toggle the selection of the focused row. */
  toggleSelection() {
    document.activeElement?.closest?.("tr")?.querySelector("input[type=checkbox]")?.click();
  }
}

/** Lists are ordered by the first event; a run without a known start counts as new. */
const beganOf = (run) => Math.min(...[run.queued_at, run.started_at].filter(Boolean).map(Date.parse));

function makeRow(run, isSelected) {
  return h("tr", { "data-id": run.id, "data-status": run.status, "data-began": beganOf(run) },
    h("td", { class: "tick" }, h("input", { type: "checkbox", checked: isSelected, "aria-label": `Select ${run.id}` })),
    h("td", { "data-label": "Status" }, statusElement(run.status)),
    h("td", { class: "name", "data-label": "Run" },
      h("a", { href: runPath(run.id, "/runs") }, h("strong", { title: run.workflow ?? "its start event has not arrived" }, run.workflow ?? "(incomplete)"), h("span", { class: "id" }, run.id)),
      h("span", { class: "tags" }, Object.entries(run.tags).map(([key, value]) =>
        h("a", { class: "tag", title: `${key}: ${value}`, href: withQuery("/", { tag: `${key}:${value}` }) }, value ? `${key}: ${value}` : key))),
      run.error && h("span", { class: "why", title: run.error.message }, [run.error.type, run.error.message].filter(Boolean).join(": "))),
    h("td", { "data-label": "Project" }, !run.incomplete && h("a", { class: "plain", href: withQuery("/", { project: run.project }) }, run.project)),
    h("td", { "data-label": "Started" }, timeElement(run.started_at ?? run.queued_at)),
    h("td", { class: "number", "data-label": "Duration" }, durationElement(run)),
    h("td", { "data-label": "Nodes" }, progressElement(run.nodes)),
    h("td", { "data-label": "Trigger" }, [run.trigger_type, run.user].filter(Boolean).join(" · ") || h("span", { class: "faint" }, "–")),
    h("td", { class: "number", "data-label": "Tokens" }, run.usage.total_tokens ? formatShort(run.usage.total_tokens) : h("span", { class: "faint" }, "–")),
    h("td", { class: "number", "data-label": "Cost" }, run.usage.cost_usd ? formatCost(run.usage.cost_usd) : h("span", { class: "faint" }, "–")));
}
