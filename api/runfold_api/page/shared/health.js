// One sign for the whole page: whether the service, Redis and PostgreSQL answer, and alarms.

import { h, fill } from "./elements.js";

const EVERY_MS = 15_000;

export function watchHealth(element) {
  const look = async () => {
    if (!document.hidden) fill(element, sign(await read()));
  };
  look();
  setInterval(look, EVERY_MS);
}

async function read() {
  try {
    const response = await fetch("/readyz");
    return await response.json();
  } catch {
    return { status: "unreachable" };
  }
}

function sign(health) {
  if (health.status === "unreachable") return h("span", { class: "sign bad", title: "The service does not answer" }, "● offline");
  const reasons = health.reasons ?? (health.detail ? [health.detail] : []);
  if (health.status !== "ready") return h("span", { class: "sign bad", title: reasons.join("\n") }, "● not ready");
  const incidents = health.incidents ?? [];
  if (incidents.length) {
    const text = incidents.map((each) => `${each.kind}: ${each.count ?? each.n ?? ""}`).join("\n");
    return h("span", { class: "sign warn", title: `${text}\nrunfold doctor tells more` }, `▲ ${incidents.length} alarm${incidents.length > 1 ? "s" : ""}`);
  }
  return null;
}
