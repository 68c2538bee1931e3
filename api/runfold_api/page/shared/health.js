// The health indicator of the page: whether the API, Redis and PostgreSQL respond, and incidents.

import { h, fill } from "./elements.js";

const POLL_MS = 15_000;

export function watchHealth(element) {
  const update = async () => {
    if (!document.hidden) fill(element, indicator(await read()));
  };
  update();
  setInterval(update, POLL_MS);
}

async function read() {
  try {
    const response = await fetch("/readyz");
    return await response.json();
  } catch {
    return { status: "unreachable" };
  }
}

function indicator(health) {
  if (health.status === "unreachable") return h("span", { class: "sign bad", title: "The server does not respond" }, "● offline");
  if (health.status === "behind") return h("span", { class: "sign warn", title: health.detail }, "▲ behind");
  if (health.status !== "ready") return h("span", { class: "sign bad", title: health.detail ?? "" }, "● not ready");
  const incidents = health.incidents ?? [];
  if (incidents.length) {
    const text = incidents.map((each) => `${each.kind}: ${each.new}`).join("\n");
    return h("span", { class: "sign warn", title: `${text}\nSee: runfold doctor` }, `▲ ${incidents.length} incident${incidents.length > 1 ? "s" : ""}`);
  }
  return null;
}
