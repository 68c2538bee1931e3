// The list of runs: filters in the address, pages by cursor, the first page live.

import { get, runPath, withQuery } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { formatCount } from "../shared/formats.js";
import { useKeys } from "../shared/keys.js";
import { watch } from "../shared/live.js";
import { askToDelete } from "./deletion.js";
import { filterForm, filtersOf, isFiltered } from "./filters.js";
import { RunTable } from "./table.js";

const LIMIT = 50;
const TOTAL_EVERY_MS = 3000;
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
  const form = filterForm(query, names, (next) => context.go(withQuery("/", Object.fromEntries(grouped(next)))));

  table.show(page.runs);
  fill(root, h("div", { class: "heading" }, h("h1", null, "Runs"), state), form, tools, rows, pager(page, query, context));
  drawRows();
  drawTools();
  if (filters.q) offerRun(filters.q);
  useKeys(shortcuts(table, form), signal);
  // Payloads are searched behind the fold: nobody is told of a run that comes to match.
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
    context.every(TOTAL_EVERY_MS, countAgain);
  }

  /** The total is no longer right: after a pause it is asked for soon, else when its turn comes. */
  function outdate() {
    if (!isStale && Date.now() - askedAt > TOTAL_EVERY_MS) setTimeout(countAgain, FIRST_TOTAL_MS);
    isStale = true;
  }

  async function countAgain() {
    if (!isStale || document.hidden || signal.aborted) return;
    isStale = false;
    askedAt = Date.now();
    total = (await get("runs", { ...filters, limit: 1 }, { signal }).catch(() => ({ total }))).total;
    drawTools();
  }

  /** An id that was typed in whole leads to its run, however old it is. */
  async function offerRun(id) {
    const run = await get(runPath(id), {}, { signal }).catch(() => null);
    if (run) tools.before(h("p", { class: "notice" }, "There is a run with this id: ", h("a", { href: runPath(id, "/runs") }, run.workflow ?? "(incomplete)", " ", h("span", { class: "id" }, id))));
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
    fill(deletion, many ? `Delete ${many} selected…` : isFiltered(query) ? "Delete all of these…" : "Delete all…");
    deletion.disabled = !many && !total.value;
  }
}

/** How much of the payloads was searched, where that is not all. */
function describeSearched(searched) {
  if (!searched) return "";
  if (searched.since) return ` of those since ${new Date(searched.since).toLocaleString()}; older ones are still being read`;
  return searched.behind ? `; ${formatCount(searched.behind)} changes are not searched yet` : "";
}

/** `812 runs`, `more than 10,000 runs`, `about 1,200,000 runs`. */
export function describeTotal({ value, relation }) {
  const noun = value === 1 ? "run" : "runs";
  if (relation === "at_least") return `at least ${formatCount(value)} ${noun}`;
  if (relation === "estimate") return `about ${formatCount(value)} ${noun} (an estimate)`;
  return `${formatCount(value)} ${noun}`;
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
    return withQuery("/", Object.fromEntries(grouped(next)));
  };
  const previous = page.prev_cursor ?? null;
  return h("nav", { class: "pager", "aria-label": "Pages of the list" },
    query.get("cursor") && h("a", { class: "button quiet", href: at(null) }, "« Newest"),
    previous && query.get("cursor") && h("a", { class: "button quiet", href: at(previous), rel: "prev" }, "‹ Newer"),
    page.next_cursor && h("a", { class: "button quiet", href: at(page.next_cursor), rel: "next" }, "Older ›"));
}

function shortcuts(table, form) {
  return [
    { keys: ["j", "ArrowDown"], says: "next run", act: () => table.move(1) },
    { keys: ["k", "ArrowUp"], says: "run before", act: () => table.move(-1) },
    { keys: ["Enter"], says: "open the run", act: () => false },
    { keys: ["x"], says: "select the run", act: () => table.tick() },
    { keys: ["/"], says: "search", act: () => form.querySelector("[name=q]").focus() },
  ];
}

function emptyState(query) {
  if (isFiltered(query)) {
    return h("section", { class: "empty" }, h("h2", null, "No run is like this"),
      h("p", null, "None matches all of these filters. ", h("a", { href: "/" }, "Clear them"), " to see every run."));
  }
  return h("section", { class: "empty" }, h("h2", null, "No runs yet"),
    h("p", null, "Record a command, and it appears here while it runs:"),
    h("pre", null, "runfold exec -- echo hello"),
    h("p", null, "or from Python:"),
    h("pre", null, "from runfold import Recorder\n\nwith Recorder().run(\"nightly-report\") as run:\n    with run.node(\"extract\"):\n        …"));
}

function grouped(query) {
  return [...new Set(query.keys())].map((name) => [name, query.getAll(name)]);
}
