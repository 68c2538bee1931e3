// The page: which view stands at which address, and what all of them share.

import { h, fill } from "./shared/elements.js";
import { refreshTimes } from "./shared/formats.js";
import { Problem } from "./shared/api.js";
import { keepFocus } from "./shared/focus.js";
import { Router } from "./shared/router.js";
import { watchHealth } from "./shared/health.js";
import { initTheme } from "./shared/theme.js";
import { initKeys } from "./shared/keys.js";
import { showRuns } from "./runs/view.js";
import { showRun } from "./run/view.js";
import { showWorkflows } from "./workflows/view.js";
import { showFailures } from "./failures/view.js";
import { showStats } from "./stats/view.js";
import { showJobs } from "./jobs/view.js";

const BUSY_MS = 400;
const main = document.getElementById("main");
let leaving = new AbortController();

/**
 * What a view is given: `signal` is aborted when another view takes its place, and everything that
 * it started must end then; `every` repeats something until that.
 */
function makeContext(place) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  return {
    ...place,
    signal,
    go: (address, options) => router.go(address, options),
    every(ms, act) {
      const timer = setInterval(act, ms);
      signal.addEventListener("abort", () => clearInterval(timer));
    },
    title(text) {
      document.title = text ? `${text} · Runfold` : "Runfold";
    },
  };
}

const router = new Router(async (place) => {
  const context = makeContext(place);
  const focus = keepFocus(main);
  const slow = setTimeout(() => main.setAttribute("aria-busy", "true"), BUSY_MS);
  context.signal.addEventListener("abort", () => clearTimeout(slow));
  markNavigation(place.path);
  try {
    await viewOf(place.path)(main, context);
    focus();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) console.error(error);
    showError(error);
  }
  clearTimeout(slow);
  main.removeAttribute("aria-busy");
});

function viewOf(path) {
  if (path === "/" || path === "/runs") return showRuns;
  if (path.startsWith("/runs/")) return showRun;
  if (path === "/workflows") return showWorkflows;
  if (path === "/failures") return showFailures;
  if (path === "/stats") return showStats;
  if (path === "/jobs") return showJobs;
  return (root, context) => {
    context.title("Not found");
    fill(root, h("section", { class: "empty" }, h("h1", null, "There is no such page"),
      h("p", null, h("a", { href: "/" }, "See all runs"))));
  };
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
    h("h1", null, error.status === 404 ? "Not found" : "This could not be read"),
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
