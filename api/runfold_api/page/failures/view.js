// The most frequent failures, grouped by fingerprint, each with a link to its runs.

import { get, runPath, withQuery } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { formatCount, timeElement } from "../shared/formats.js";

const SPANS = { "24h": ["Last 24 hours", 86_400_000], "7d": ["Last 7 days", 7 * 86_400_000], "30d": ["Last 30 days", 30 * 86_400_000], all: ["All time", null] };

export async function showFailures(root, context) {
  const { query, signal } = context;
  context.title("Failures");
  const last = Object.hasOwn(SPANS, query.get("last") ?? "") ? query.get("last") : "7d";
  const scope = { project: query.get("project"), workflow: query.get("workflow") };
  const length = SPANS[last][1];
  const since = length === null ? null : new Date(Date.now() - length).toISOString();
  const page = await get("failures", { ...scope, since, limit: 100 }, { signal });
  const form = h("form", { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault(), onchange: () => context.go(withQuery("/failures", new FormData(form))) },
    h("label", null, h("span", null, "Ended"), h("select", { name: "last" }, Object.entries(SPANS).map(([name, [label]]) => h("option", { value: name, selected: name === last }, label)))),
    ["project", "workflow"].map((name) => h("label", null, h("span", null, name === "project" ? "Project" : "Workflow"), h("input", { type: "text", name, value: scope[name] ?? "", maxlength: 200, autocomplete: "off" }))));
  fill(root, h("div", { class: "heading" }, h("h1", null, "Failures")), form,
    page.failures.length ? [
      page.relation !== "exact" && h("p", { class: "notice" }, "Only the newest failures are counted, so each number is a lower bound."),
      h("table", { class: "list failures" },
        h("caption", { class: "hidden" }, "Groups of failures, most frequent first"),
        h("thead", null, h("tr", null, [["Error", ""], ["Node", ""], ["Runs", "number"], ["Node attempts", "number"], ["First", ""], ["Last", ""], ["Example", ""]].map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
        h("tbody", null, page.failures.map((each) => makeRow(each, scope))))]
      : h("section", { class: "empty" }, h("h2", null, "No failures"), h("p", null, `No run or node failed ${length === null ? "at any time" : `in the ${SPANS[last][0].toLowerCase()}`}. Choose a longer period or other filters.`)));
}

function makeRow(each, scope) {
  const runs = withQuery("/", { ...scope, fingerprint: each.fingerprint });
  return h("tr", null,
    h("th", { scope: "row", class: "name" }, h("a", { href: runs }, each.error_type ?? "Error"), h("span", { class: "why", title: each.message }, each.message ?? "")),
    h("td", { "data-label": "Node" }, each.node ?? h("span", { class: "faint" }, "–")),
    h("td", { class: "number", "data-label": "Runs" }, each.runs ? h("a", { class: "plain", href: runs }, formatCount(each.runs)) : "0"),
    h("td", { class: "number", "data-label": "Attempts" }, formatCount(each.node_attempts)),
    h("td", { "data-label": "First" }, timeElement(each.first_seen_at)),
    h("td", { "data-label": "Last" }, timeElement(each.last_seen_at)),
    h("td", { "data-label": "Example" }, each.example_run && h("a", { href: withQuery(runPath(each.example_run, "/runs"), { node: each.node }) }, "Open run")));
}
