// The spans of time that statistics are shown for, and the buckets that they are cut into.

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const hour = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone: "UTC" });

export const SPANS = {
  "24h": { label: "Last 24 hours", ms: DAY_MS, bucket: "hour" },
  "7d": { label: "Last 7 days", ms: 7 * DAY_MS, bucket: "day" },
  "30d": { label: "Last 30 days", ms: 30 * DAY_MS, bucket: "day" },
  "90d": { label: "Last 90 days", ms: 90 * DAY_MS, bucket: "week" },
  all: { label: "All time", ms: null, bucket: "month" },
};

/** What a name stands for; by default seven days. */
export function spanOf(name) {
  const known = Object.hasOwn(SPANS, name ?? "") ? name : "7d";
  const span = SPANS[known];
  const step = span.bucket === "hour" ? HOUR_MS : DAY_MS;
  const since = span.ms === null ? null : new Date(Math.floor((Date.now() - span.ms) / step) * step + step).toISOString();
  const format = span.bucket === "hour" ? hour : day;
  return { ...span, name: known, since, zone, labelOf: (start) => format.format(new Date(start)) };
}

/** Every bucket of a span, also those without runs, so that time is even; and the figures of those that have some. */
export function bucketsOf(buckets, span) {
  const at = new Map(buckets.map((bucket) => [Date.parse(bucket.start), bucket]));
  const known = [...at.keys()].sort((a, b) => a - b);
  const step = { hour: HOUR_MS, day: DAY_MS, week: 7 * DAY_MS }[span.bucket];
  if (!step || !known.length) return { starts: known, at };
  const starts = [];
  const first = span.bucket === "week" ? known[0] : Date.parse(span.since);
  for (let start = first; start <= Date.now() || start <= known.at(-1); start += step) starts.push(start);
  return { starts, at };
}
