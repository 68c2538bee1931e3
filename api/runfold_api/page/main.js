// The page: the view of each address, and the context that all views share.

import { h, fill } from "./shared/elements.js";
import { refreshTimes } from "./shared/formats.js";
import { Problem } from "./shared/api.js";
import { keepFocus } from "./shared/redraw.js";
import { Router } from "./shared/router.js";
import { initTheme, watchHealth } from "./shared/header.js";
import { initKeys } from "./shared/keys.js";
import { showRuns } from "./runs/view.js";
import { showRun } from "./run/view.js";
import { showWorkflows } from "./workflows/view.js";
import { showFailures } from "./failures/view.js";
import { showStats } from "./stats/view.js";
import { showJobs } from "./jobs/view.js";

const BUSY_AFTER_MS = 400;
const main = document.getElementById("main");
let leaving = new AbortController();

// The context of a view: `signal` is aborted, and `every` ends, when another view replaces it.
function makeContext(address) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  return {
    ...address,
    signal,
    go: (path, options) => router.go(path, options),
    every(ms, act) {
      const timer = setInterval(act, ms);
      signal.addEventListener("abort", () => clearInterval(timer));
    },
    title(text) {
      document.title = text ? `${text} · Runfold` : "Runfold";
    },
  };
}

const router = new Router(async (address) => {
  const context = makeContext(address);
  const focus = keepFocus(main);
  const slow = setTimeout(() => main.setAttribute("aria-busy", "true"), BUSY_AFTER_MS);
  context.signal.addEventListener("abort", () => clearTimeout(slow));
  markNavigation(address.path);
  try {
    await viewOf(address.path)(main, context);
    focus();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) console.error(error);
    showError(error);
  }
  clearTimeout(slow);
  main.removeAttribute("aria-busy");
});

const VIEWS = { "/": showRuns, "/runs": showRuns, "/workflows": showWorkflows, "/failures": showFailures, "/stats": showStats, "/jobs": showJobs };

const viewOf = (path) => (path.startsWith("/runs/") ? showRun : VIEWS[path] ?? showNothing);

function showNothing(root, context) {
  context.title("Not found");
  fill(root, h("section", { class: "empty" }, h("h1", null, "Page not found"), h("p", null, h("a", { href: "/" }, "See all runs"))));
}

function markNavigation(path) {
  for (const link of document.querySelectorAll("header nav a")) {
    const here = link.pathname === "/" ? path === "/" || path.startsWith("/runs") : path.startsWith(link.pathname);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function showError(error) {
  fill(main, h("section", { class: "empty", role: "alert" },
    h("h1", null, error.status === 404 ? "Not found" : "Could not load this page"),
    h("p", null, error.message),
    h("p", null,
      h("button", { type: "button", onclick: () => router.start() }, "Try again"), " ",
      h("a", { href: "/" }, "See all runs"))));
}

initTheme(document.getElementById("theme"));
initKeys(document.getElementById("keys"));
watchHealth(document.getElementById("health"));
setInterval(() => document.hidden || refreshTimes(main), 1000);
router.start();
