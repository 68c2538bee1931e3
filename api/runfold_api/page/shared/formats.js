// Numbers, durations and times in the viewer's language and time zone.

import { h } from "./elements.js";

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const time = new Intl.DateTimeFormat(undefined, clock);
const moment = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", ...clock });

export const formatCount = (value) => whole.format(value);
export const formatShort = (value) => (Math.abs(Number(value)) < 10_000 ? whole.format(value) : short.format(value));
export const formatPercent = (value) => (value === null ? "–" : percent.format(value));

/** `812 runs`, `about 1,200,000 runs (an estimate)`. */
export function describeTotal({ value, relation }) {
  const runs = `${formatCount(value)} ${value === 1 ? "run" : "runs"}`;
  return relation === "estimate" ? `about ${runs} (an estimate)` : runs;
}

/** US dollars; small amounts keep two significant digits. */
export function formatCost(usd) {
  if (!usd) return "–";
  if (usd >= 1) return `$${usd.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  return `$${usd.toLocaleString(undefined, { maximumSignificantDigits: 2 })}`;
}

/** Milliseconds as the two largest units that matter: `430 ms`, `12.4 s`, `3 m 05 s`, `2 h 10 m`. */
export function formatDuration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return `${Number(ms.toPrecision(2))} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const rounded = Math.round(seconds);
  if (rounded < 3600) return `${Math.floor(rounded / 60)} m ${padded(rounded % 60)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${padded(minutes % 60)} m`;
  const hours = Math.round(minutes / 60);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** The duration of a run or node, up to now while it is running. */
export function elapsedMs(item, now = Date.now()) {
  if (item.duration_ms !== null) return item.duration_ms;
  if (item.status !== "running" || !item.started_at) return null;
  return Math.max(0, now - Date.parse(item.started_at));
}

/** A time of the API in milliseconds, including the microseconds that `Date` drops. */
export function msOf(text) {
  const finer = /\.\d{3}(\d+)/.exec(text);
  return Date.parse(text) + (finer ? Number(`0.${finer[1]}`) : 0);
}

/** A `<time>` with a relative or absolute time, and the exact time in UTC on hover. */
export function timeElement(text, { absolute = false } = {}) {
  if (!text) return h("span", { class: "faint" }, "–");
  const at = new Date(text);
  const shown = absolute ? formatMoment(at) : formatAgo(at);
  const exact = `${day.format(at)}, ${time.format(at)} local\n${text.replace("T", " ").replace("Z", " UTC")}`;
  return h("time", { datetime: text, title: exact, "data-ago": !absolute }, shown);
}

/** Update all relative times and running durations of the page. */
export function refreshTimes(root) {
  for (const element of root.querySelectorAll("time[data-ago]")) {
    const shown = formatAgo(new Date(element.dateTime));
    if (element.textContent !== shown) element.textContent = shown;
  }
  for (const element of root.querySelectorAll("[data-since]")) {
    element.textContent = formatDuration(Math.max(0, Date.now() - Date.parse(element.dataset.since)));
  }
}

/** A duration that keeps counting while the item is running. */
export function durationElement(item) {
  const going = item.status === "running" && item.duration_ms === null && item.started_at;
  return h("span", { class: "number", "data-since": going ? item.started_at : null },
    formatDuration(elapsedMs(item)));
}

function formatAgo(at) {
  const seconds = Math.round((Date.now() - at) / 1000);
  if (seconds < -60) return formatMoment(at);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 7 * 86_400) return `${Math.floor(seconds / 86_400)} d ago`;
  return day.format(at);
}

/** Day and time; with the year unless it is the current one. */
function formatMoment(at) {
  const isThisYear = at.getFullYear() === new Date().getFullYear();
  return isThisYear ? moment.format(at) : `${day.format(at)}, ${time.format(at)}`;
}

const padded = (value) => String(value).padStart(2, "0");
