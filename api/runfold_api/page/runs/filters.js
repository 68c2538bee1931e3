// The filters of the list, stored in the page's address.

import { h } from "../shared/elements.js";
import { RUN_STATUSES, markOf } from "../shared/status.js";

const TEXTS = [
  ["project", "Project", { list: "projects" }],
  ["workflow", "Workflow", { list: "workflows" }],
];
const MORE = [
  ["trigger", "Trigger", {}],
  ["user", "User", {}],
  ["session", "Session", {}],
  ["tag", "Tag", { placeholder: "key:value" }],
  ["error_type", "Error type", {}],
  ["payload", "Inputs or outputs", {}],
  ["min_duration_ms", "Min. duration (ms)", { type: "number", min: 0, step: "any" }],
  ["max_duration_ms", "Max. duration (ms)", { type: "number", min: 0, step: "any" }],
  ["min_cost_usd", "Min. cost ($)", { type: "number", min: 0, step: "any" }],
  ["max_cost_usd", "Max. cost ($)", { type: "number", min: 0, step: "any" }],
];
const SPANS = { "1h": 3600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400 };
const SPAN_NAMES = { "1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days" };

/** The API's query for an address's query; `last` is a period that ends now. */
export function filtersOf(query) {
  const filters = {};
  for (const name of ["q", ...TEXTS.map(([name]) => name), ...MORE.map(([name]) => name), "fingerprint", "started_after", "started_before", "parent_run"]) {
    if (query.get(name)) filters[name] = name === "tag" ? query.getAll(name) : query.get(name);
  }
  const statuses = query.getAll("status").flatMap((value) => value.split(",")).filter(Boolean);
  if (statuses.length) filters.status = statuses;
  if (SPANS[query.get("last")]) {
    // Rounded to the minute, so that the cursor of one page fits the filters of the next.
    const after = Date.now() - SPANS[query.get("last")] * 1000;
    filters.started_after = new Date(after - (after % 60_000)).toISOString();
  }
  return filters;
}

/** Whether the query has any filter. */
export const isFiltered = (query) => Object.keys(filtersOf(query)).length > 0;

/** The form; `change(query)` receives the new query, without a cursor. */
export function filterForm(query, names, change) {
  const statuses = query.getAll("status").flatMap((value) => value.split(","));
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filters", onsubmit: (event) => { event.preventDefault(); submit(); }, onchange: submit },
    h("label", { class: "wide" }, h("span", null, "Search"),
      h("input", { type: "search", name: "q", value: query.get("q") ?? "", placeholder: "id, workflow, tag or error", maxlength: 200, autocomplete: "off" })),
    TEXTS.map((field) => textField(field, query)),
    h("label", null, h("span", null, "Started"),
      h("select", { name: "last" },
        h("option", { value: "" }, query.get("started_after") || query.get("started_before") ? "custom" : "any time"),
        Object.keys(SPANS).map((span) => h("option", { value: span, selected: query.get("last") === span }, SPAN_NAMES[span])))),
    h("fieldset", { class: "chips" }, h("legend", null, "Status"),
      RUN_STATUSES.map((status) => h("label", { class: `chip ${status}` },
        h("input", { type: "checkbox", name: "status", value: status, checked: statuses.includes(status) }),
        h("span", { class: "mark", "aria-hidden": "true" }, markOf(status)), status))),
    h("details", { class: "more", open: MORE.some(([name]) => query.get(name)) || (document.querySelector(".filters .more")?.open ?? false) },
      h("summary", null, "More filters"),
      h("div", null, MORE.map((field) => textField(field, query)))),
    isFiltered(query) && h("a", { class: "clear", href: "/" }, "Clear filters"),
    options("projects", names.projects), options("workflows", names.workflows));
  return form;

  function submit() {
    const next = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (value.trim() && name !== "status") next.append(name, value.trim());
    }
    const picked = new FormData(form).getAll("status");
    if (picked.length && picked.length < RUN_STATUSES.length) next.set("status", picked.join(","));
    for (const name of ["fingerprint", "parent_run", ...(next.get("last") ? [] : ["started_after", "started_before"])]) {
      if (query.get(name)) next.set(name, query.get(name));
    }
    change(next);
  }
}

function textField([name, label, attributes], query) {
  return h("label", null, h("span", null, label),
    h("input", { type: "text", name, value: query.get(name) ?? "", maxlength: 200, autocomplete: "off", ...attributes }));
}

const options = (id, values) => h("datalist", { id }, values.map((value) => h("option", { value })));
