// All workflows with their figures, the statuses of their last runs, and a chart of runs per day.

import { get, runPath, withQuery } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { formatCount, formatDuration, formatPercent, timeElement } from "../shared/formats.js";
import { markOf } from "../shared/status.js";
import { sparkline } from "../stats/charts.js";

const RECENT = 20;
const DAYS = 14;
const DAY_MS = 86_400_000;

export async function showWorkflows(root, context) {
  const { query, signal } = context;
  context.title("Workflows");
  const page = await get("workflows", { project: query.get("project"), limit: 100, cursor: query.get("cursor") }, { signal });
  const body = h("tbody");
  // A row reads its last runs once it scrolls into view.
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      fillRow(target, signal);
    }
  }, { rootMargin: "200px" });
  signal.addEventListener("abort", () => seen.disconnect());

  fill(root, h("div", { class: "heading" }, h("h1", null, "Workflows"), query.get("project") && h("span", null, "of ", query.get("project"), " ", h("a", { href: "/workflows" }, "all projects"))),
    page.workflows.length ? h("table", { class: "list workflows" },
      h("caption", { class: "hidden" }, "Workflows by name"),
      h("thead", null, h("tr", null, [["Workflow", ""], ["Last runs", ""], [`Runs per day, ${DAYS} days`, ""], ["Runs", "number"], ["Success", "number"], ["p50", "number"], ["p95", "number"], ["Last run", ""]].map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
      body) : empty(),
    page.next_cursor && h("nav", { class: "pager", "aria-label": "Pages" }, h("a", { class: "button quiet", rel: "next", href: withQuery("/workflows", { project: query.get("project"), cursor: page.next_cursor }) }, "More ›")));
  for (const workflow of page.workflows) {
    const row = makeRow(workflow);
    body.append(row);
    seen.observe(row);
  }
}

function makeRow(each) {
  const scope = { project: each.project, workflow: each.workflow };
  return h("tr", { "data-project": each.project, "data-workflow": each.workflow },
    h("th", { scope: "row", class: "name" }, h("a", { href: withQuery("/", scope) }, each.workflow), h("span", { class: "id" }, h("a", { class: "plain", href: withQuery("/workflows", { project: each.project }) }, each.project))),
    h("td", { class: "strip", "data-label": "Last runs" }), h("td", { class: "spark", "data-label": "Runs per day" }),
    h("td", { class: "number", "data-label": "Runs" }, formatCount(each.total)),
    h("td", { class: "number", "data-label": "Success" }, h("a", { class: "plain", href: withQuery("/stats", scope) }, formatPercent(each.success_rate))),
    h("td", { class: "number", "data-label": "p50" }, formatDuration(each.duration_ms.p50)),
    h("td", { class: "number", "data-label": "p95" }, formatDuration(each.duration_ms.p95)),
    h("td", { "data-label": "Last run" }, timeElement(each.last_run_at)));
}

async function fillRow(row, signal) {
  const scope = { project: row.dataset.project, workflow: row.dataset.workflow };
  const today = Math.floor(Date.now() / DAY_MS) * DAY_MS;
  const since = today - (DAYS - 1) * DAY_MS;
  try {
    const [list, stats] = await Promise.all([
      get("runs", { ...scope, limit: RECENT }, { signal }),
      get("stats", { ...scope, since: new Date(since).toISOString(), bucket: "day" }, { signal }),
    ]);
    fill(row.querySelector(".strip"), h("span", { class: "marks" }, list.runs.reverse().map((run) =>
      h("a", { class: `block ${run.status}`, href: runPath(run.id, "/runs"), title: `${run.status}, ${formatDuration(run.duration_ms)}`, "aria-label": `${run.status} run ${run.id}` }, h("span", { "aria-hidden": "true" }, markOf(run.status))))));
    const counts = new Map(stats.buckets.map((bucket) => [Date.parse(bucket.start), bucket.total]));
    const values = Array.from({ length: DAYS }, (_, index) => counts.get(since + index * DAY_MS) ?? 0);
    fill(row.querySelector(".spark"), sparkline(values, `${formatCount(stats.total)} runs in ${DAYS} days, at most ${formatCount(Math.max(...values))} per day`));
  } catch (error) {
    if (error.name !== "AbortError") fill(row.querySelector(".strip"), h("span", { class: "faint" }, "could not be loaded"));
  }
}

function empty() {
  return h("section", { class: "empty" }, h("h2", null, "No workflows yet"), h("p", null, "A workflow is listed once it has a run:"), h("pre", null, "runfold exec --workflow nightly -- ./report.sh"));
}
