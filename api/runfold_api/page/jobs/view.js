// Background work (deletions, rebuilds, retention) with its progress and result.

import { get, withQuery } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { durationElement, formatCount, timeElement } from "../shared/formats.js";
import { jsonElement } from "../shared/json_tree.js";
import { Rows } from "../shared/redraw.js";
import { statusElement } from "../shared/status.js";
import { describe } from "./kinds.js";

const LIMIT = 100;
const BUSY_POLL_MS = 1000;
const IDLE_POLL_MS = 5000;
const STATUSES = ["queued", "running", "completed", "failed", "cancelled"];

export async function showJobs(root, context) {
  const { query, signal } = context;
  const status = STATUSES.includes(query.get("status")) ? query.get("status") : null;
  context.title("Jobs");
  const body = h("tbody");
  const state = h("span", { class: "live", role: "status" });
  const rowsElement = h("div", { class: "rows" });
  const table = h("table", { class: "list jobs" },
    h("caption", { class: "hidden" }, "Jobs, newest first"),
    h("thead", null, h("tr", null, [["Status", ""], ["Job", ""], ["Progress", ""], ["Requested", ""], ["Took", "number"]].map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
    body);
  const rows = new Rows(body, (job) => job.id, makeRow);
  const form = h("form", { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault(), onchange: () => context.go(withQuery("/jobs", new FormData(form))) },
    h("label", null, h("span", null, "Status"), h("select", { name: "status" }, h("option", { value: "" }, "all"),
      STATUSES.map((name) => h("option", { value: name, selected: name === status }, name)))));

  let jobs = (await read()).jobs;
  let readAt = Date.now();
  let isReading = false;
  fill(root, h("div", { class: "heading" }, h("h1", null, "Jobs"), state), form, rowsElement);
  draw();
  context.every(BUSY_POLL_MS, async () => {
    const isBusy = jobs.some((job) => job.status === "running" || job.status === "queued");
    if (document.hidden || isReading || (!isBusy && Date.now() - readAt < IDLE_POLL_MS)) return;
    isReading = true;
    try {
      ({ jobs } = await read());
      draw();
      fill(state);
    } catch (error) {
      if (!signal.aborted) fill(state, h("span", { class: "bad" }, error.message));
    }
    readAt = Date.now();
    isReading = false;
  });

  function read() {
    return get("jobs", { status, limit: LIMIT }, { signal });
  }

  function draw() {
    rows.show(jobs);
    const content = jobs.length ? table : empty(status);
    if (rowsElement.firstChild !== content) rowsElement.replaceChildren(content);
  }
}

function makeRow(job, previous) {
  const { title, subject, share, progress } = describe(job);
  return h("tr", { "data-id": job.id, "data-status": job.status },
    h("td", { "data-label": "Status" }, statusElement(job.status)),
    h("th", { scope: "row", class: "name" }, h("strong", null, title), " ", subject,
      job.error && h("span", { class: "why", title: job.error }, job.error),
      h("details", { open: previous?.querySelector("details").open }, h("summary", null, h("span", { class: "id" }, job.id)), jsonElement({ arguments: job.arguments, progress: job.progress, result: job.result }, { depth: 5 }))),
    h("td", { class: "progress-cell", "data-label": "Progress" },
      job.status === "running" && h("progress", share === null ? { "aria-label": title } : { value: share, max: 1, "aria-label": title }),
      h("span", null, progress || (job.status === "queued" ? waiting(job) : ""))),
    h("td", { "data-label": "Requested" }, timeElement(job.created_at)),
    h("td", { class: "number", "data-label": "Took" }, durationElement({ ...job, duration_ms: took(job) })));
}

const waiting = (job) => (job.background ? "waiting for a worker (runfold worker)" : "interrupted; run the same command again to continue");

const took = (job) => (job.started_at && job.finished_at ? Date.parse(job.finished_at) - Date.parse(job.started_at) : null);

function empty(status) {
  return h("section", { class: "empty" }, h("h2", null, status ? `No ${status} jobs` : "No jobs yet"),
    h("p", null, "Large deletions, rebuilds and retention run as jobs in the background. If a worker is killed, another one continues its job."),
    h("pre", null, "runfold rebuild --background\nrunfold retention run"));
}
