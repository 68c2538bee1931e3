// Work that takes long: deletions, rebuilds, retention; how far it is, and how it ended.

import { get, textOf, withQuery } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { durationElement, formatCount, timeElement } from "../shared/formats.js";
import { jsonElement } from "../shared/json_tree.js";
import { statusElement } from "../shared/status.js";
import { describe } from "./kinds.js";

const LIMIT = 100;
const EVERY_MS = 1000;
const QUIET_EVERY_MS = 5000;
const STATUSES = ["queued", "running", "completed", "failed", "cancelled"];

export async function showJobs(root, context) {
  const { query, signal } = context;
  const status = STATUSES.includes(query.get("status")) ? query.get("status") : null;
  context.title("Jobs");
  const body = h("tbody");
  const state = h("span", { class: "live", role: "status" });
  const place = h("div", { class: "rows" });
  const table = h("table", { class: "jobs" },
    h("caption", { class: "hidden" }, "Jobs, newest first"),
    h("thead", null, h("tr", null, [["Status", ""], ["Job", ""], ["Progress", ""], ["Asked for", ""], ["Took", "number"]].map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
    body);
  const rows = new Map();
  const form = h("form", { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault(), onchange: () => context.go(withQuery("/jobs", Object.fromEntries(new FormData(form)))) },
    h("label", null, h("span", null, "Status"), h("select", { name: "status" }, h("option", { value: "" }, "all"),
      STATUSES.map((name) => h("option", { value: name, selected: name === status }, name)))));

  let jobs = (await read()).jobs;
  let readAt = Date.now();
  let isReading = false;
  fill(root, h("div", { class: "heading" }, h("h1", null, "Jobs"), state), form, place);
  draw();
  context.every(EVERY_MS, async () => {
    const isBusy = jobs.some((job) => job.status === "running" || job.status === "queued");
    if (document.hidden || isReading || (!isBusy && Date.now() - readAt < QUIET_EVERY_MS)) return;
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
    const wanted = jobs.map(rowOf);
    rows.forEach((_, id) => { if (!jobs.some((job) => job.id === id)) rows.delete(id); });
    if (wanted.length !== body.children.length || wanted.some((row, index) => row !== body.children[index])) body.replaceChildren(...wanted);
    const content = jobs.length ? table : empty(status);
    if (place.firstChild !== content) place.replaceChildren(content);
  }

  /** A row that is there stays while its job does not change, with what was opened in it. */
  function rowOf(job) {
    const text = textOf(job);
    const known = rows.get(job.id);
    if (known?.text === text) return known.row;
    const row = makeRow(job, known?.row.querySelector("details")?.open ?? false);
    rows.set(job.id, { text, row });
    return row;
  }
}

function makeRow(job, isOpen) {
  const { title, about, share, sofar } = describe(job);
  const { arguments: asked, progress, result } = job;
  return h("tr", { "data-id": job.id, "data-status": job.status },
    h("td", { "data-label": "Status" }, statusElement(job.status)),
    h("th", { scope: "row", class: "name" }, h("strong", null, title), " ", about,
      job.error && h("span", { class: "why", title: job.error }, job.error),
      h("details", { open: isOpen }, h("summary", null, h("span", { class: "id" }, job.id)), jsonElement({ arguments: asked, progress, result }, { depth: 5 }))),
    h("td", { class: "sofar", "data-label": "Progress" },
      job.status === "running" && h("progress", share === null ? { "aria-label": title } : { value: share, max: 1, "aria-label": title }),
      h("span", null, sofar || (job.status === "queued" ? waiting(job) : ""))),
    h("td", { "data-label": "Asked for" }, timeElement(job.created_at)),
    h("td", { class: "number", "data-label": "Took" }, durationElement({ ...job, duration_ms: took(job) })));
}

const waiting = (job) => (job.background ? "waits for a worker (runfold worker)" : "left; the same command goes on with it");

function took(job) {
  return job.started_at && job.finished_at ? Date.parse(job.finished_at) - Date.parse(job.started_at) : null;
}

function empty(status) {
  return h("section", { class: "empty" }, h("h2", null, status ? `No job is ${status}` : "No jobs yet"),
    h("p", null, "Large deletions, rebuilds and retention are jobs: they go on in the background, and whoever is killed at it is followed by the next worker."),
    h("pre", null, "runfold rebuild --background\nrunfold retention run"));
}
