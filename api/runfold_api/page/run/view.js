// The view of one run: facts, error, timeline, graph, payloads, output and events.

import { get, runPath, withQuery } from "../shared/api.js";
import { h, fill } from "../shared/elements.js";
import { durationElement, formatCount, timeElement } from "../shared/formats.js";
import { copyButton } from "../shared/json_tree.js";
import { useKeys } from "../shared/keys.js";
import { redraw } from "../shared/redraw.js";
import { statusElement } from "../shared/status.js";
import { Events } from "./events.js";
import { follow } from "./live_run.js";
import { Graph } from "./graph.js";
import { Log } from "./log.js";
import { errorElement, fact, nodePanel, payload, timeFacts, usageFacts } from "./node_panel.js";
import { Timeline } from "./timeline.js";

const GROW_INTERVAL_MS = 1000;
const TABS = { timeline: "Timeline", graph: "Graph", data: "Inputs and outputs", log: "Output", events: "Events" };

export async function showRun(root, context) {
  const id = decodeURIComponent(context.path.slice("/runs/".length));
  const { signal } = context;
  let run = await get(runPath(id), {}, { signal });
  const defaultTab = run.nodes.length ? "timeline" : "log";
  let tab = Object.hasOwn(TABS, context.query.get("tab")) ? context.query.get("tab") : defaultTab;
  let chosen = findNode(context.query.get("node"), Number(context.query.get("attempt")) || null);
  let isLogOfNode = false;

  const heading = h("div");
  const state = h("span", { class: "live", role: "status" });
  const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Views of the run" });
  const body = h("div", { class: "tab", role: "tabpanel" });
  const side = h("div", { class: "side", hidden: true });
  const data = h("section", { "aria-label": "Inputs and outputs" });
  const timeline = new Timeline((node) => choose(node));
  const graph = new Graph((node) => choose(node));
  const log = new Log(id, signal);
  const events = new Events(id, signal);
  const related = h("div");

  fill(root, heading, related, tabs, h("div", { class: "split" }, body, side));
  draw();
  readTab();
  if (chosen) choose(chosen);
  readRelated();
  useKeys(shortcuts(), signal);
  context.every(GROW_INTERVAL_MS, () => { if (tab === "timeline" && !document.hidden) timeline.grow(run); });
  if (run.source !== "archive") follow(id, run, context, {
    state: (name) => fill(state, name === "live" ? null : h("span", { class: "off" }, "○ reconnecting")),
    changed(next, nodes) {
      run = next;
      draw();
      if (tab === "log") log.follow(nodes);
      if (tab === "events") events.read();
    },
    deleted() {
      fill(related, h("p", { class: "notice", role: "alert" }, "This run was deleted. ", h("a", { href: "/" }, "See all runs")));
    },
  });

  function draw() {
    context.title(`${run.workflow ?? "Incomplete run"} ${run.status}`);
    const { nodes, node_counts, inputs, outputs, metadata, ...head } = run;
    const isNode = nodes.some((node) => node.node === run.error?.node);
    redraw(heading, [head, isNode], () => header(run, state, isNode, (name) => choose(findNode(name, null))));
    redraw(tabs, [tab, nodes.length], () => Object.entries(TABS).map(([name, label]) => h("button", {
      type: "button", role: "tab", id: `tab-${name}`, "aria-selected": String(tab === name), tabindex: tab === name ? "0" : "-1",
      onclick: () => open(name), onkeydown: moveTab,
    }, label, name === "timeline" && nodes.length > 0 && h("span", { class: "count" }, formatCount(nodes.length)))));
    if (chosen) {
      chosen = findNode(chosen.node, chosen.attempt) ?? chosen;
      drawPanel();
    }
    drawTab();
  }

  function drawTab() {
    body.setAttribute("aria-labelledby", `tab-${tab}`);
    const content = { timeline, graph, log, events }[tab]?.element ?? data;
    if (body.firstChild !== content) body.replaceChildren(content);
    if (tab === "timeline") timeline.show(run, run.nodes);
    if (tab === "graph") graph.show(run, run.nodes);
    if (tab === "data") redraw(data, [run.inputs, run.outputs, run.trigger?.data, run.metadata], () => payloads(run));
  }

  function open(name) {
    tab = name;
    remember();
    draw();
    readTab();
    document.getElementById(`tab-${name}`).focus();
  }

  function readTab() {
    tabs.scrollLeft = document.getElementById(`tab-${tab}`).offsetLeft - tabs.offsetLeft - 40; // a narrow screen does not fit all tabs
    if (tab === "log") log.open(isLogOfNode && chosen ? chosen.node : null);
    if (tab === "events") events.read();
  }

  function moveTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const names = Object.keys(TABS);
    open(names[(names.indexOf(tab) + step + names.length) % names.length]);
  }

  function choose(node) {
    chosen = node;
    remember();
    timeline.mark(node);
    graph.mark(node);
    drawPanel();
  }

  function drawPanel() {
    const attempts = chosen ? run.nodes.filter((each) => each.node === chosen.node) : [];
    side.hidden = !chosen;
    redraw(side, [chosen, attempts], () => chosen && nodePanel(chosen, {
      attempts,
      close: () => choose(null),
      choose: (name, attempt = null) => choose(findNode(name, attempt)),
      showLog: () => { isLogOfNode = true; open("log"); isLogOfNode = false; },
    }));
  }

  /** The given attempt at a node, or its last one if `attempt` is null. */
  function findNode(name, attempt) {
    const attempts = run.nodes.filter((each) => each.node === name);
    return (attempt === null ? attempts.at(-1) : attempts.find((each) => each.attempt === attempt)) ?? null;
  }

  function remember() {
    const query = { tab: tab === defaultTab ? null : tab, node: chosen?.node, attempt: chosen && chosen.attempt > 1 ? chosen.attempt : null };
    history.replaceState(history.state, "", withQuery(location.pathname, query));
  }

  async function readRelated() {
    const children = await get("runs", { parent_run: id, limit: 20 }, { signal }).catch(() => null);
    if (!children?.runs.length) return;
    fill(related, h("details", { class: "related", open: true }, h("summary", null, `Child runs (${children.next_cursor ? "newest 20" : children.runs.length})`),
      h("ul", null, children.runs.map((child) => h("li", null, statusElement(child.status), " ", h("a", { href: runPath(child.id, "/runs") }, child.workflow ?? "(unknown)", " ", h("span", { class: "id" }, child.id)), " ", durationElement(child))))));
  }

  function shortcuts() {
    const names = Object.keys(TABS);
    return [
      ...names.map((name, index) => ({ keys: [String(index + 1)], label: TABS[name], act: () => open(name) })),
      { keys: ["Escape"], label: "close the node panel", act: () => choose(null) },
      { keys: ["u"], label: "back to the list", act: () => context.go("/") },
    ];
  }
}

function header(run, state, isNode, choose) {
  const failedAt = isNode
    ? [" at ", h("button", { type: "button", class: "link", onclick: () => choose(run.error.node) }, run.error.node)] : null;
  return [
    h("div", { class: "heading" },
      h("h1", null, run.incomplete ? "Unknown workflow" : h("a", { class: "plain", href: withQuery("/", { workflow: run.workflow, project: run.project }) }, run.workflow)),
      statusElement(run.status), state, h("span", { class: "spacer" }), copyButton(() => location.href, "Copy link")),
    h("p", { class: "id" }, h("code", null, run.id), copyButton(() => run.id)),
    run.error && errorElement(run.error, failedAt),
    run.reason && h("p", { class: "notice" }, `Cancelled: ${run.reason}`),
    expiryNotice(run),
    run.incomplete && h("p", { class: "notice" }, "This run is incomplete: its start event has not arrived, so its workflow and project are unknown."),
    run.truncated && h("p", { class: "notice" }, "This run is too large to show in full; the Events tab has all of it."),
    h("dl", { class: "facts wide" },
      fact("Project", !run.incomplete && h("a", { class: "plain", href: withQuery("/", { project: run.project }) }, run.project)),
      timeFacts(run),
      fact("Trigger", run.trigger?.type), fact("User", run.user && h("a", { class: "plain", href: withQuery("/", { user: run.user }) }, run.user)),
      fact("Session", run.session && h("a", { class: "plain", href: withQuery("/", { session: run.session }) }, run.session)),
      fact("Attempt", run.attempt > 1 ? run.attempt : null), fact("Exit code", run.exit_code),
      usageFacts(run),
      fact("Parent run", run.parent_run && h("a", { href: runPath(run.parent_run, "/runs") }, run.parent_run)),
      fact("Tags", Object.keys(run.tags).length > 0 && h("span", { class: "tags" }, Object.entries(run.tags).map(([key, value]) =>
        h("a", { class: "tag", href: withQuery("/", { tag: `${key}:${value}` }) }, value ? `${key}: ${value}` : key))))),
  ];
}

/** Where the data of an expired run is. */
function expiryNotice(run) {
  const when = run.payloads_removed_at ? [" on ", timeElement(run.payloads_removed_at, { absolute: true })] : null;
  const text = run.source === "archive" ? [`This run has expired and is read from the archive${run.payloads === "removed" ? ", without its payloads" : ""}.`] : {
    archived: ["Inputs, outputs and events have expired", when, " and are read from the archive."],
    removed: ["Inputs, outputs and events have expired and were deleted", when, "."],
    unavailable: ["Inputs, outputs and events have expired", when, ", and the archive is currently unreadable."],
  }[run.payloads];
  return text && h("p", { class: "notice expiry" }, text);
}

function payloads(run) {
  const parts = [payload("Inputs", run.inputs), payload("Outputs", run.outputs), payload("Trigger", run.trigger?.data), payload("Metadata", run.metadata)];
  const none = ["removed", "unavailable"].includes(run.payloads) ? "The payloads have expired." : "This run has no inputs, outputs or metadata.";
  return parts.some(Boolean) ? parts : h("p", { class: "empty" }, none);
}
