// The header of the page: the colour scheme, and whether the API and its servers work.

import { h, fill } from "./elements.js";

const CHOICES = ["system", "light", "dark"];
const POLL_MS = 15_000;

/** Remember the choice in the browser. */
export function initTheme(button) {
  const read = () => localStorage.getItem("runfold-theme") ?? "system";
  apply(read());
  button.addEventListener("click", () => {
    const next = CHOICES[(CHOICES.indexOf(read()) + 1) % CHOICES.length];
    localStorage.setItem("runfold-theme", next);
    apply(next);
  });

  function apply(choice) {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.title = `Colours: ${choice}`;
  }
}

export function watchHealth(element) {
  const update = async () => {
    if (document.hidden) return;
    const health = await fetch("/readyz").then((response) => response.json()).catch(() => ({ status: "unreachable" }));
    fill(element, indicator(health));
  };
  update();
  setInterval(update, POLL_MS);
}

function indicator(health) {
  if (health.status === "unreachable") return h("span", { class: "sign bad", title: "The server does not respond" }, "● offline");
  if (health.status === "behind") return h("span", { class: "sign warn", title: health.detail }, "▲ behind");
  if (health.status !== "ready") return h("span", { class: "sign bad", title: health.detail ?? "" }, "● not ready");
  const incidents = health.incidents ?? [];
  if (!incidents.length) return null;
  const text = incidents.map((each) => `${each.kind}: ${each.new}`).join("\n");
  return h("span", { class: "sign warn", title: `${text}\nSee: runfold doctor` }, `▲ ${incidents.length} incident${incidents.length > 1 ? "s" : ""}`);
}
