// What a job is about and how far it is, in words, for each kind that there is.

import { formatCount } from "../shared/formats.js";

/**
 * {title, about, share, sofar}: what is done, to what, which part of it is done (0 to 1, null if
 * that is not known), and in words.
 */
export function describe(job) {
  const { title, about, share, sofar } = KINDS[job.kind] ?? OTHER(job.kind);
  const told = job.result ?? job.progress ?? {};
  return { title, about: about(job.arguments), share: share(job.arguments, job.progress ?? {}), sofar: sofar(told, job.arguments) };
}

const KINDS = {
  delete: {
    title: "Delete runs",
    about: ({ deletion = {} }) => [filterText(deletion.filter ?? {}), deletion.ended_before && `ended before ${deletion.ended_before.slice(0, 10)}`].filter(Boolean).join(", ") || "all of them",
    share: ({ runs }, { deleted = 0 }) => part(deleted, runs),
    sofar: ({ deleted }, { runs }) => (deleted === undefined ? "" : `${formatCount(deleted)} of ${formatCount(runs)} runs`),
  },
  rebuild: {
    title: "Rebuild",
    about: (asked) => filterText(asked) || "everything",
    share: (_, { looked_at: done = 0, of = null }) => part(done, of),
    sofar: ({ looked_at: done, of, runs, rollups, phase, unreadable }) => (runs === undefined ? "" : [
      done === undefined ? `${formatCount(of)} runs looked at` : phase === "runs" ? `${formatCount(done)}${of ? ` of about ${formatCount(of)}` : ""} runs looked at` : "statistics",
      `${formatCount(runs)} runs and ${formatCount(rollups)} statistics put right`, unreadable && `${formatCount(unreadable)} cannot be read`].filter(Boolean).join("; ")),
  },
  retention: {
    title: "Retention",
    about: () => "what is older than its project keeps",
    share: () => null,
    sofar: ({ payloads, runs, rollups, archived_runs: archived, partitions = [], postponed = [] }) => (runs === undefined ? "" : [
      `payloads of ${formatCount(payloads)} runs, ${formatCount(runs)} runs and ${formatCount(rollups)} statistics gone`,
      archived && `${formatCount(archived)} runs archived`, partitions.length && `${formatCount(partitions.length)} weeks dropped`,
      postponed.length && `${formatCount(postponed.length)} weeks put off: somebody reads them`].filter(Boolean).join("; ")),
  },
  restore: {
    title: "Restore",
    about: () => "what the archive has",
    share: () => null,
    sofar: ({ events, runs }) => (runs === undefined ? "" : `${formatCount(events)} events and ${formatCount(runs)} runs restored`),
  },
};

const OTHER = (kind) => ({ title: kind, about: () => "", share: () => null, sofar: () => "" });

const part = (done, all) => (all ? Math.min(1, done / all) : null);

/** `project acme, status failed, tag env: prod`; what is a time or a length in its units. */
function filterText(filter) {
  return Object.entries(filter).filter(([name]) => name !== "shards").map(([name, value]) => `${nameOf(name)} ${valueOf(name, value)}`).join(", ");
}

const NAMES = { statuses: "status", tags: "tag", q: "text" };

function nameOf(name) {
  return (NAMES[name] ?? name.replace(/_(us|nano_usd)$/, "")).replaceAll("_", " ");
}

function valueOf(name, value) {
  if (name === "tags") return value.map(([key, each]) => `${key}: ${each}`).join(" and ");
  if (name === "since_us" || name === "until_us") return new Date(Number(value) / 1000).toLocaleString();
  if (name.endsWith("_us")) return `${formatCount(Number(value) / 1000)} ms`;
  if (name.endsWith("_nano_usd")) return `$${Number(value) / 1e9}`;
  return Array.isArray(value) ? value.join(", ") : String(value);
}
