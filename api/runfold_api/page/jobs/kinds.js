// What each kind of job works on and its progress, in words.

import { formatCount } from "../shared/formats.js";

/** The work, what it applies to, the finished share (0 to 1, null if unknown), and the progress. */
export function describe(job) {
  const { title = job.kind, subject = () => "", share = () => null, progress = () => "" } = KINDS[job.kind] ?? {};
  const latest = job.result ?? job.progress ?? {};
  return { title, subject: subject(job.arguments), share: share(job.arguments, job.progress ?? {}), progress: progress(latest, job.arguments) };
}

const KINDS = {
  delete: {
    title: "Delete runs",
    subject: ({ deletion = {} }) => [filterText(deletion.filter ?? {}), deletion.ended_before && `ended before ${deletion.ended_before.slice(0, 10)}`].filter(Boolean).join(", ") || "all runs",
    share: ({ runs }, { deleted = 0 }) => part(deleted, runs),
    progress: ({ deleted }, { runs }) => (deleted === undefined ? "" : `${formatCount(deleted)} of ${formatCount(runs)} runs`),
  },
  rebuild: {
    title: "Rebuild",
    subject: (filter) => filterText(filter) || "all runs",
    share: (_, { looked_at: done = 0, of = null }) => part(done, of),
    progress: ({ looked_at: done, of, runs, rollups, phase, unreadable }) => (runs === undefined ? "" : [
      done === undefined ? `${formatCount(of)} runs checked` : phase === "runs" ? `${formatCount(done)}${of ? ` of about ${formatCount(of)}` : ""} runs checked` : "statistics",
      `${formatCount(runs)} runs and ${formatCount(rollups)} statistics corrected`, unreadable && `${formatCount(unreadable)} unreadable`].filter(Boolean).join("; ")),
  },
  retention: {
    title: "Retention",
    subject: () => "data beyond the retention period of its project",
    progress: ({ payloads, runs, rollups, archived_runs: archived, partitions = [], postponed = [] }) => (runs === undefined ? "" : [
      `deleted the payloads of ${formatCount(payloads)} runs, ${formatCount(runs)} runs and ${formatCount(rollups)} statistics`,
      archived && `${formatCount(archived)} runs archived`, partitions.length && `${formatCount(partitions.length)} weekly partitions dropped`,
      postponed.length && `${formatCount(postponed.length)} weekly partitions postponed because readers hold them`].filter(Boolean).join("; ")),
  },
  restore: {
    title: "Restore",
    subject: () => "data from the archive",
    progress: ({ events, runs }) => (runs === undefined ? "" : `${formatCount(events)} events and ${formatCount(runs)} runs restored`),
  },
};

const part = (done, all) => (all ? Math.min(1, done / all) : null);

/** `project acme, status failed, tag env: prod`; times and durations with their units. */
function filterText(filter) {
  return Object.entries(filter).filter(([name]) => name !== "shards").map(([name, value]) => `${nameOf(name)} ${valueOf(name, value)}`).join(", ");
}

const NAMES = { statuses: "status", tags: "tag", q: "text" };

const nameOf = (name) => (NAMES[name] ?? name.replace(/_(us|nano_usd)$/, "")).replaceAll("_", " ");

function valueOf(name, value) {
  if (name === "tags") return value.map(([key, each]) => `${key}: ${each}`).join(" and ");
  if (name === "since_us" || name === "until_us") return new Date(Number(value) / 1000).toLocaleString();
  if (name.endsWith("_us")) return `${formatCount(Number(value) / 1000)} ms`;
  if (name.endsWith("_nano_usd")) return `$${Number(value) / 1e9}`;
  return Array.isArray(value) ? value.join(", ") : String(value);
}
