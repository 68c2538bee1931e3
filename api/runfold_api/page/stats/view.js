// Statistics from the rollups: counts, success rate, durations, tokens and cost over time.

import { get, withQuery } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { formatCost, formatCount, formatDuration, formatPercent, formatShort } from "../shared/formats.js";
import { chart } from "./charts.js";
import { bucketsOf, SPANS, spanOf } from "./spans.js";

const STATUSES = ["completed", "failed", "cancelled", "lost", "running", "queued"];

export async function showStats(root, context) {
  const { query, signal } = context;
  context.title("Statistics");
  const span = spanOf(query.get("last"));
  const scope = { project: query.get("project"), workflow: query.get("workflow"), since: span.since };
  const [stats, byWorkflow, byNode, names] = await Promise.all([
    get("stats", { ...scope, bucket: span.bucket, tz: span.tz }, { signal }),
    get("stats", { ...scope, group_by: "workflow" }, { signal }),
    get("stats", { ...scope, group_by: "node" }, { signal }).catch(() => ({ groups: [] })),
    get("workflows", { limit: 500 }, { signal }),
  ]);
  fill(root, h("div", { class: "heading" }, h("h1", null, scope.workflow ? `Statistics of ${scope.workflow}` : "Statistics")),
    form(query, names, context), stats.total ? [cards(stats), charts(stats, span), tables(byWorkflow, byNode, scope)] : empty(span));
}

function form(query, names, context) {
  const sorted = (field) => [...new Set(names.workflows.map((each) => each[field]))].sort();
  const element = h("form", { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault(), onchange: () => context.go(withQuery("/stats", new FormData(element))) },
    h("label", null, h("span", null, "Period"), h("select", { name: "last" }, Object.entries(SPANS).map(([name, { label }]) => h("option", { value: name, selected: spanOf(query.get("last")).name === name }, label)))),
    select("project", "Project", sorted("project"), query), select("workflow", "Workflow", sorted("workflow"), query));
  return element;
}

function select(name, label, values, query) {
  const chosen = query.get(name);
  const all = chosen && !values.includes(chosen) ? [chosen, ...values] : values;
  return h("label", null, h("span", null, label), h("select", { name }, h("option", { value: "" }, "all"),
    all.map((value) => h("option", { value, selected: value === chosen }, value))));
}

function cards(stats) {
  const { duration_ms: durations, usage } = stats;
  return h("dl", { class: "cards" },
    card("Runs", formatCount(stats.total), stats.running + (stats.queued ?? 0) ? `${formatCount(stats.running)} running, ${formatCount(stats.queued ?? 0)} queued` : null),
    card("Success", formatPercent(stats.success_rate), `${formatCount(stats.failed)} failed`),
    card("Duration p50", formatDuration(durations.p50), `p95 ${formatDuration(durations.p95)}, p99 ${formatDuration(durations.p99)}`),
    card("Tokens", usage.total_tokens ? formatShort(usage.total_tokens) : "–", usage.total_tokens ? `${formatShort(usage.input_tokens)} in, ${formatShort(usage.output_tokens)} out` : null),
    card("Cost", formatCost(usage.cost_usd), null));
}

const card = (name, value, more) => h("div", { class: "card" }, h("dt", null, name), h("dd", null, value), more && h("dd", { class: "faint" }, more));

function charts(stats, span) {
  const { starts, at } = bucketsOf(stats.buckets, span);
  const values = (pick, none = null) => starts.map((start) => (at.has(start) ? pick(at.get(start)) : none));
  const common = { starts, labelOf: span.labelOf };
  const ms = (name) => ({ name, look: name, values: values((bucket) => bucket.duration_ms[name]) });
  return h("div", { class: "charts" },
    chart({ ...common, title: "Runs", kind: "bars", format: formatShort, series: STATUSES.filter((name) => stats[name]).map((name) => ({ name, look: name, values: values((bucket) => bucket[name] ?? 0, 0) })) }),
    chart({ ...common, title: "Success rate", kind: "lines", format: formatPercent, top: 1, series: [{ name: "success", look: "completed", values: values((bucket) => bucket.success_rate) }] }),
    chart({ ...common, title: "Duration", kind: "lines", format: formatDuration, series: [ms("p50"), ms("p95"), ms("p99")] }),
    stats.usage.total_tokens > 0 && chart({ ...common, title: "Tokens", kind: "bars", format: formatShort, series: [
      { name: "input", look: "p50", values: values((bucket) => Number(bucket.usage.input_tokens), 0) }, { name: "output", look: "p95", values: values((bucket) => Number(bucket.usage.output_tokens), 0) }] }),
    stats.usage.cost_usd > 0 && chart({ ...common, title: "Cost", kind: "bars", format: formatCost, series: [{ name: "US dollars", look: "p99", values: values((bucket) => bucket.usage.cost_usd, 0) }] }));
}

function tables(byWorkflow, byNode, scope) {
  const nodes = byNode.groups;
  const slowest = nodes.filter((each) => each.duration_ms.p95 !== null).sort((a, b) => b.duration_ms.p95 - a.duration_ms.p95).slice(0, 10);
  const failing = nodes.filter((each) => each.failed).sort((a, b) => b.failed - a.failed).slice(0, 10);
  return h("div", { class: "charts" },
    !scope.workflow && figures("Workflows", byWorkflow.groups.slice(0, 50), (each) => each.workflow === null ? "(unknown)" : h("a", { href: withQuery("/stats", { ...scope, since: null, workflow: each.workflow }) }, each.workflow)),
    slowest.length > 0 && figures("Slowest nodes", slowest, (each) => each.node),
    failing.length > 0 && figures("Nodes with most failures", failing, (each) => each.node));
}

function figures(title, groups, name) {
  return h("section", { class: "chart wide" }, h("h3", null, title), h("div", { class: "scroll" }, h("table", null,
    h("caption", { class: "hidden" }, title),
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Name"), ["Total", "Failed", "Success", "p50", "p95", "p99", "Tokens", "Cost"].map((head) => h("th", { scope: "col", class: "number" }, head)))),
    h("tbody", null, groups.map((each) => h("tr", null, h("th", { scope: "row" }, name(each)),
      [formatCount(each.total), formatCount(each.failed), formatPercent(each.success_rate), formatDuration(each.duration_ms.p50), formatDuration(each.duration_ms.p95), formatDuration(each.duration_ms.p99),
        each.usage.total_tokens ? formatShort(each.usage.total_tokens) : "–", formatCost(each.usage.cost_usd)].map((text) => h("td", { class: "number" }, text))))))));
}

function empty(span) {
  return h("section", { class: "empty" }, h("h2", null, "No runs in this period"), h("p", null, `No run started ${span.since ? `in the ${span.label.toLowerCase()}` : "at any time"}. Choose a longer period or other filters.`));
}
