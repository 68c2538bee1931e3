// The list of runs: filters in the address, pages by cursor, live updates on the first page.

import { get, runPath, withQuery } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { describeTotal, formatCount } from "../shared/formats.js";
import { useKeys } from "../shared/keys.js";
import { watch } from "../shared/live.js";
import { askToDelete } from "./deletion.js";
import { filterForm, filtersOf, isFiltered } from "./filters.js";
import { RunTable } from "./table.js";

const LIMIT = 50;
const TOTAL_POLL_MS = 3000;
const FIRST_TOTAL_MS = 250;

export async function showRuns(root, context) {
  const { query, signal } = context;
  const filters = filtersOf(query);
  const cursor = query.get("cursor");
  context.title("Runs");

  const [page, names] = await Promise.all([
    get("runs", { ...filters, limit: LIMIT, cursor }, { signal }),
    readNames(signal),
  ]);
  let selected = [];
  let total = page.total;
  let isStale = false;
  let askedAt = 0;

  const table = new RunTable((ids) => { selected = ids; drawTools(); });
  const count = h("span", { class: "total", "aria-live": "polite" });
  const deletion = h("button", { type: "button", class: "quiet danger", onclick: () => askToDelete({ selected, filters, total, done: () => context.go(location.pathname + location.search, { replace: true }) }) });
  const tools = h("div", { class: "tools" }, count, h("span", { class: "spacer" }),
    h("a", { class: "button quiet", download: true, href: withQuery("/api/v1/export", { format: "csv", ...filters }) }, "Export CSV"), deletion);
  const state = h("span", { class: "live", role: "status" });
  const rows = h("div", { class: "rows" });
  const form = filterForm(query, names, (next) => context.go(withQuery("/", next)));

  table.show(page.runs);
  fill(root, h("div", { class: "heading" }, h("h1", null, "Runs"), state), form, tools, rows, pager(page, query, context));
  drawRows();
  drawTools();
  if (filters.q) offerRun(filters.q);
  useKeys(shortcuts(table, form), signal);
  // Payloads are indexed after the fold, so the stream cannot report runs that match later.
  if (!cursor && !filters.payload) follow();

  function follow() {
    watch("/api/v1/live", { ...filters, limit: LIMIT }, {
      state: (name) => fill(state, name === "live" ? h("span", { class: "on" }, "● live") : h("span", { class: "off" }, "○ reconnecting")),
      snapshot: (snapshot) => {
        table.show(snapshot.runs);
        ({ total } = snapshot);
        drawRows();
        drawTools();
      },
      changed: put,
      removed: drop,
      deleted: drop,
    }, signal);
    context.every(TOTAL_POLL_MS, countAgain);
  }

  /** Mark the total as outdated: after a quiet period it is read soon, otherwise at the next interval. */
  function outdate() {
    if (!isStale && Date.now() - askedAt > TOTAL_POLL_MS) setTimeout(countAgain, FIRST_TOTAL_MS);
    isStale = true;
  }

  async function countAgain() {
    if (!isStale || document.hidden || signal.aborted) return;
    isStale = false;
    askedAt = Date.now();
    total = (await get("runs", { ...filters, limit: 1 }, { signal }).catch(() => ({ total }))).total;
    drawTools();
  }

  /** Offer a link to the run whose complete id was searched for, however old it is. */
  async function offerRun(id) {
    const run = await get(runPath(id), {}, { signal }).catch(() => null);
    if (run) tools.before(h("p", { class: "notice" }, "A run has this id: ", h("a", { href: runPath(id, "/runs") }, run.workflow ?? "(incomplete)", " ", h("span", { class: "id" }, id))));
  }

  function put(run) {
    if (!table.has(run.id)) outdate();
    table.put(run, LIMIT);
    drawRows();
  }

  function drop({ id }) {
    table.remove(id);
    outdate();
    drawRows();
  }

  function drawRows() {
    const wanted = table.size ? table.element : emptyState(query);
    if (rows.firstChild !== wanted) rows.replaceChildren(wanted);
  }

  function drawTools() {
    const many = selected.length;
    fill(count, describeTotal(total), describeSearched(page.searched));
    fill(deletion, many ? `Delete ${many} selected…` : isFiltered(query) ? "Delete all matching…" : "Delete all…");
    deletion.disabled = !many && !total.value;
  }
}

/** Which payloads were searched, if not all. */
function describeSearched(searched) {
  if (!searched) return "";
  if (searched.since) return ` since ${new Date(searched.since).toLocaleString()}; older payloads are still being indexed`;
  return searched.behind ? `; ${formatCount(searched.behind)} changes are not indexed yet` : "";
}

async function readNames(signal) {
  const page = await get("workflows", { limit: 500 }, { signal });
  const sorted = (values) => [...new Set(values)].sort();
  return {
    workflows: sorted(page.workflows.map((each) => each.workflow)),
    projects: sorted(page.workflows.map((each) => each.project)),
  };
}

function pager(page, query, context) {
  const at = (cursor) => {
    const next = new URLSearchParams(query);
    if (cursor) next.set("cursor", cursor);
    else next.delete("cursor");
    return withQuery("/", next);
  };
  return h("nav", { class: "pager", "aria-label": "Pages of the list" },
    query.get("cursor") && h("a", { class: "button quiet", href: at(null) }, "« Newest"),
    page.prev_cursor && query.get("cursor") && h("a", { class: "button quiet", href: at(page.prev_cursor), rel: "prev" }, "‹ Newer"),
    page.next_cursor && h("a", { class: "button quiet", href: at(page.next_cursor), rel: "next" }, "Older ›"));
}

function shortcuts(table, form) {
  return [
    { keys: ["j", "ArrowDown"], label: "next run", act: () => table.move(1) },
    { keys: ["k", "ArrowUp"], label: "previous run", act: () => table.move(-1) },
    { keys: ["Enter"], label: "open the run", act: () => false },
    { keys: ["x"], label: "select the run", act: () => table.toggleSelection() },
    { keys: ["/"], label: "search", act: () => form.querySelector("[name=q]").focus() },
  ];
}

function emptyState(query) {
  if (isFiltered(query)) {
    return h("section", { class: "empty" }, h("h2", null, "No runs match these filters"),
      h("p", null, h("a", { href: "/" }, "Clear the filters"), " to see all runs."));
  }
  return h("section", { class: "empty" }, h("h2", null, "No runs yet"),
    h("p", null, "Record a command and watch it here while it runs:"),
    h("pre", null, "runfold exec -- echo hello"),
    h("p", null, "Or record a run from Python:"),
    h("pre", null, "from runfold import Recorder\n\nwith Recorder().run(\"nightly-report\") as run:\n    with run.node(\"extract\"):\n        …"));
}
