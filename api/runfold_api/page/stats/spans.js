// The periods of the statistics and their buckets; days, weeks and months of the viewer's time zone.

const HOUR_MS = 3_600_000;
const WEEK_MS = 7 * 24 * HOUR_MS;
const MAX_BUCKETS = 400; // more would be unreadable and slow to draw
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const hour = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const month = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short" });

export const SPANS = {
  "24h": { label: "Last 24 hours", bucket: "hour", format: hour },
  "7d": { label: "Last 7 days", days: 7, bucket: "day", format: day },
  "30d": { label: "Last 30 days", days: 30, bucket: "day", format: day },
  "90d": { label: "Last 90 days", days: 90, bucket: "week", format: day },
  all: { label: "All time", bucket: "month", format: month },
};

/** The period of this name; by default seven days. */
export function spanOf(name) {
  const known = Object.hasOwn(SPANS, name ?? "") ? name : "7d";
  const span = SPANS[known];
  const first = firstStart(span);
  return {
    ...span, name: known, tz: span.bucket === "hour" ? null : zone,
    since: first && first.toISOString(), labelOf: (start) => span.format.format(new Date(start)),
  };
}

/** All buckets of a period, empty ones included so that the axis is even, and the figures by start. */
export function bucketsOf(buckets, span) {
  const now = Date.now();
  const first = span.since ? Date.parse(span.since) - WEEK_MS : -Infinity;
  const at = new Map(buckets.map((bucket) => [Date.parse(bucket.start), bucket]));
  const known = [...at.keys()].filter((start) => first <= start && start <= now).sort((a, b) => a - b);
  if (!known.length || span.bucket === "month") return { starts: known.slice(-MAX_BUCKETS), at };
  const starts = [];
  const start = span.bucket === "week" ? new Date(known[0]) : new Date(span.since);
  while (start <= now && starts.length < MAX_BUCKETS) {
    starts.push(start.getTime());
    if (span.bucket === "hour") start.setTime(start.getTime() + HOUR_MS);
    else start.setDate(start.getDate() + (span.bucket === "week" ? 7 : 1)); // a day may have 23 hours
  }
  return { starts, at };
}

function firstStart(span) {
  if (span.bucket === "month") return null;
  const now = new Date();
  if (span.bucket === "hour") return new Date(Math.floor(now / HOUR_MS) * HOUR_MS - 23 * HOUR_MS);
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() - span.days + 1);
}
