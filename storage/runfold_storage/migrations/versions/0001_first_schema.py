"""The first schema. A migration is a record: it never changes once it is released.

`tables` declares the same tables; a test compares the two.
"""

import re

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TYPES = """
CREATE TYPE event_type AS ENUM (
    'queued', 'started', 'node_started', 'node_finished', 'logged', 'annotated', 'heartbeat',
    'completed', 'failed', 'cancelled', 'lost'
);
CREATE TYPE rollup_delta AS (
    workflow text, project text, node text, hour timestamptz, status text, shard smallint,
    n bigint, duration_count bigint, duration_min_us bigint, duration_max_us bigint,
    duration_sum_us numeric, input_tokens numeric, output_tokens numeric, cost_nano_usd numeric,
    bins smallint[], bin_counts bigint[]
);
"""

# Statements in a body of this form are parsed at once, so the search path of a restore does not
# matter.
FINGERPRINT = r"""
CREATE FUNCTION runfold_fingerprint(error_type text, node text, message text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(md5(
    coalesce(error_type, '') || E'\x1f' || coalesce(node, '') || E'\x1f' ||
    regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
        left(coalesce(message, ''), 500),
        '([''"`]).*?\1', '<text>', 'g'),
        '[a-z]+://[^[:space:]]+', '<url>', 'gi'),
        '(^|[[:space:](=])[~.]?/[^[:space:]:,;)]+', '\1<path>', 'g'),
        '\m(0x[0-9a-f]+|(?=[a-f]*[0-9])[0-9a-f]{4,}|[0-9a-f]{8,})(-[0-9a-f]{4,})*\M', '<n>', 'gi'),
        '[0-9]+', '<n>', 'g')
), 16)
"""

# Add the counts of one histogram to another; bins whose count becomes zero are dropped.
ADD_BINS = """
CREATE FUNCTION runfold_add_bins(
    a_bins smallint[], a_counts bigint[], b_bins smallint[], b_counts bigint[],
    OUT bins smallint[], OUT bin_counts bigint[]
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    slot integer;
    has_zeros boolean := false;
BEGIN
    bins := a_bins;
    bin_counts := a_counts;
    FOR i IN 1 .. cardinality(b_bins) LOOP
        slot := array_position(bins, b_bins[i]);
        IF slot IS NULL THEN
            bins := bins || b_bins[i];
            bin_counts := bin_counts || b_counts[i];
        ELSE
            bin_counts[slot] := bin_counts[slot] + b_counts[i];
            has_zeros := has_zeros OR bin_counts[slot] = 0;
        END IF;
    END LOOP;
    IF has_zeros THEN
        SELECT coalesce(array_agg(bin), '{}'), coalesce(array_agg(n), '{}')
        INTO bins, bin_counts
        FROM unnest(bins, bin_counts) AS both_sides (bin, n)
        WHERE n <> 0;
    END IF;
END
$$
"""

# The same bins as in `runfold_storage.records.histogram`: estimates are within 1% of each value.
PERCENTILE = """
CREATE FUNCTION runfold_percentile(bins smallint[], counts bigint[], fraction float8)
RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT CASE WHEN bin < 0 THEN 0 ELSE 0.99 * exp(bin * ln(1.01 / 0.99)) / 1000 END
    FROM (
        SELECT bin, sum(sum(n)) OVER (ORDER BY bin) AS reached, sum(sum(n)) OVER () AS total
        FROM unnest(bins, counts) AS each (bin, n)
        GROUP BY bin
    ) AS by_bin
    WHERE total > 0 AND reached >= greatest(ceil(fraction * total), 1)
    ORDER BY bin LIMIT 1
)
"""

CONCATENATED = """
CREATE AGGREGATE runfold_concatenated(anycompatiblearray) (
    SFUNC = array_cat, STYPE = anycompatiblearray, PARALLEL = SAFE
)
"""

# PostgreSQL names constraints and indexes after their table and columns.
TABLES = """
CREATE TABLE events (
    run uuid NOT NULL, id bigint NOT NULL, at timestamptz NOT NULL, type event_type NOT NULL,
    shard smallint NOT NULL, body text NOT NULL,
    PRIMARY KEY (shard, run, id)
) PARTITION BY RANGE (run);
CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz DEFAULT now() NOT NULL,
    ordinal integer NOT NULL, shard smallint NOT NULL,
    frame text NOT NULL, reason text NOT NULL, raw bytea NOT NULL,
    UNIQUE (shard, frame, ordinal)
);
CREATE TABLE tombstones (
    run uuid NOT NULL, deleted_at timestamptz DEFAULT now() NOT NULL, shard smallint NOT NULL,
    events_left boolean DEFAULT false NOT NULL, is_expiry boolean DEFAULT false NOT NULL,
    archived boolean DEFAULT false NOT NULL,
    PRIMARY KEY (shard, run)
);
CREATE INDEX tombstones_events_left_idx ON tombstones (shard, run) WHERE events_left;

CREATE TABLE runs (
    run uuid NOT NULL,
    created_at timestamptz NOT NULL, queued_at timestamptz, started_at timestamptz,
    finished_at timestamptz, last_event_at timestamptz NOT NULL,
    duration_us bigint, USAGE,
    change_seq bigint NOT NULL,
    nodes_total integer DEFAULT 0 NOT NULL, nodes_pending integer DEFAULT 0 NOT NULL,
    nodes_running integer DEFAULT 0 NOT NULL, nodes_completed integer DEFAULT 0 NOT NULL,
    nodes_failed integer DEFAULT 0 NOT NULL, nodes_skipped integer DEFAULT 0 NOT NULL,
    nodes_cancelled integer DEFAULT 0 NOT NULL, exit_code integer,
    shard smallint NOT NULL, attempt smallint DEFAULT 1 NOT NULL,
    status text NOT NULL
        CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled', 'lost')),
    project text NOT NULL, workflow text NOT NULL, external_id text, parent_run text,
    trigger_type text, "user" text, session text, tags jsonb,
    error_type text, error_message text, error_node text,
    payloads_expired_at timestamptz,
    indexed_status text GENERATED ALWAYS AS (
        CASE WHEN status IN ('failed', 'cancelled', 'lost') THEN status END
    ) STORED,
    fingerprint text GENERATED ALWAYS AS (
        CASE WHEN status = 'failed'
        THEN runfold_fingerprint(error_type, error_node, error_message) END
    ) STORED,
    indexed_late_start_at timestamptz GENERATED ALWAYS AS (
        CASE WHEN started_at - created_at > interval '1 hour' THEN started_at END
    ) STORED,
    indexed_duration_us bigint GENERATED ALWAYS AS (
        CASE WHEN duration_us >= 60000000 THEN duration_us END
    ) STORED,
    indexed_cost_nano_usd bigint GENERATED ALWAYS AS (
        CASE WHEN cost_nano_usd >= 100000000 THEN cost_nano_usd END
    ) STORED,
    PRIMARY KEY (shard, run)
) WITH (fillfactor = 80);
CREATE INDEX ON runs (created_at, run);
CREATE INDEX ON runs (project, created_at, run);
CREATE INDEX ON runs (workflow, created_at, run);
CREATE INDEX ON runs USING gin (tags jsonb_path_ops) WHERE tags IS NOT NULL;
CREATE TABLE nodes (
    run uuid NOT NULL, started_at timestamptz, finished_at timestamptz,
    duration_us bigint, USAGE,
    shard smallint NOT NULL, attempt smallint NOT NULL, node text NOT NULL, name text NOT NULL,
    status text NOT NULL CHECK (
        status IN ('pending', 'running', 'completed', 'failed', 'skipped', 'cancelled')
    ),
    node_type text, parents text[], error_type text, error_message text,
    fingerprint text GENERATED ALWAYS AS (
        CASE WHEN status = 'failed' THEN runfold_fingerprint(error_type, node, error_message) END
    ) STORED,
    PRIMARY KEY (shard, run, node, attempt)
) WITH (fillfactor = 80);
CREATE INDEX ON nodes (finished_at) WHERE fingerprint IS NOT NULL;

CREATE TABLE rollups_hourly (
    hour timestamptz NOT NULL, n bigint DEFAULT 0 NOT NULL, VALUES,
    shard smallint NOT NULL, project text NOT NULL, workflow text NOT NULL, node text NOT NULL,
    status text NOT NULL, BINS,
    is_open boolean GENERATED ALWAYS AS (
        CASE WHEN n > 0 AND node = '' AND status IN ('queued', 'running') THEN true END
    ) STORED,
    PRIMARY KEY (workflow, project, node, hour, status, shard)
) WITH (fillfactor = 80);
CREATE INDEX ON rollups_hourly (hour) WHERE node = '';
CREATE INDEX ON rollups_hourly (status, hour) WHERE is_open;
CREATE TABLE rollups_daily (
    day timestamptz NOT NULL,
    queued bigint DEFAULT 0 NOT NULL, running bigint DEFAULT 0 NOT NULL,
    completed bigint DEFAULT 0 NOT NULL, failed bigint DEFAULT 0 NOT NULL,
    cancelled bigint DEFAULT 0 NOT NULL, lost bigint DEFAULT 0 NOT NULL, VALUES,
    shard smallint NOT NULL, project text NOT NULL, workflow text NOT NULL, BINS,
    PRIMARY KEY (workflow, project, day, shard)
) WITH (fillfactor = 80);
CREATE TABLE rollup_deltas (
    id bigint GENERATED ALWAYS AS IDENTITY, shard smallint NOT NULL,
    deltas rollup_delta[] NOT NULL,
    PRIMARY KEY (shard, id)
) WITH (toast_tuple_target = 8160);
CREATE TABLE rollup_delta_cursors (id bigint DEFAULT 0 NOT NULL, shard smallint PRIMARY KEY);

CREATE TABLE positions (
    consumed bigint DEFAULT 0 NOT NULL, change_seq bigint DEFAULT 0 NOT NULL,
    generation bigint DEFAULT 0 NOT NULL, updated_at timestamptz DEFAULT now() NOT NULL,
    folded_at timestamptz, shard smallint PRIMARY KEY, position text DEFAULT '0-0' NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE changes (
    change_seq bigint NOT NULL, changed_at timestamptz DEFAULT now() NOT NULL,
    shard smallint NOT NULL, runs bytea NOT NULL, deleted_ids text[],
    PRIMARY KEY (shard, change_seq)
);
CREATE TABLE leases (
    expires_at timestamptz NOT NULL, shard smallint PRIMARY KEY, owner text NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE workers (
    joined_at timestamptz DEFAULT now() NOT NULL, expires_at timestamptz NOT NULL,
    owner text PRIMARY KEY
) WITH (fillfactor = 50);
CREATE TABLE incidents (
    count bigint NOT NULL, acknowledged bigint DEFAULT 0 NOT NULL,
    happened_at timestamptz DEFAULT now() NOT NULL, shard smallint NOT NULL, kind text NOT NULL,
    PRIMARY KEY (kind, shard)
);
CREATE TABLE stream_checkpoints (
    entries_added bigint NOT NULL, shard smallint PRIMARY KEY
) WITH (fillfactor = 50);
CREATE TABLE liveness_marks (
    listened_us bigint NOT NULL, change_seq bigint NOT NULL, marked_at timestamptz NOT NULL,
    shard smallint NOT NULL,
    PRIMARY KEY (shard, listened_us)
);

CREATE TABLE search_runs (
    run uuid NOT NULL, shard smallint NOT NULL, text text NOT NULL,
    PRIMARY KEY (shard, run)
);
CREATE TABLE search_payloads (
    run uuid NOT NULL, shard smallint NOT NULL, project text NOT NULL, text text NOT NULL,
    PRIMARY KEY (shard, run)
);
CREATE INDEX ON search_payloads (project);
CREATE TABLE search_progress (
    change_seq bigint DEFAULT 0 NOT NULL, scan_target_seq bigint, changed_at timestamptz,
    shard smallint PRIMARY KEY, scan_key uuid
) WITH (fillfactor = 50);
CREATE TABLE search_projects (
    enabled_since timestamptz DEFAULT now() NOT NULL, backfill_at timestamptz, backfill_run uuid,
    enabled boolean DEFAULT true NOT NULL, backfilled boolean DEFAULT false NOT NULL,
    project text PRIMARY KEY
);

CREATE TABLE retention (
    holds_from timestamptz DEFAULT now() NOT NULL,
    payload_days integer, run_days integer, stats_days integer, project text PRIMARY KEY
);
CREATE TABLE expired_hours (
    hour timestamptz NOT NULL, project text NOT NULL,
    PRIMARY KEY (project, hour)
);
CREATE TABLE archive_journal (
    token uuid PRIMARY KEY, began_at timestamptz DEFAULT now() NOT NULL, week date, shard smallint,
    is_written boolean DEFAULT false NOT NULL, kind text NOT NULL, runs uuid[] NOT NULL,
    rollups jsonb NOT NULL
);
CREATE TABLE jobs (
    id uuid PRIMARY KEY, created_at timestamptz DEFAULT now() NOT NULL,
    started_at timestamptz, finished_at timestamptz, kind text NOT NULL,
    status text DEFAULT 'queued' NOT NULL
        CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
    arguments jsonb NOT NULL, progress jsonb, result jsonb, error text,
    background boolean DEFAULT false NOT NULL
);
CREATE INDEX ON jobs (created_at);
"""
USAGE = """
    input_tokens bigint DEFAULT 0 NOT NULL, output_tokens bigint DEFAULT 0 NOT NULL,
    cost_nano_usd bigint DEFAULT 0 NOT NULL
"""
VALUES = """
    duration_count bigint DEFAULT 0 NOT NULL, duration_min_us bigint, duration_max_us bigint,
    duration_sum_us numeric DEFAULT 0 NOT NULL, input_tokens numeric DEFAULT 0 NOT NULL,
    output_tokens numeric DEFAULT 0 NOT NULL, cost_nano_usd numeric DEFAULT 0 NOT NULL
"""
BINS = """
    bins smallint[] DEFAULT '{}' NOT NULL, bin_counts bigint[] DEFAULT '{}' NOT NULL
"""

# Values that few runs have: a partial index for each, in the order of lists.
RARE = (
    *("user", "session", "trigger_type", "parent_run", "error_type", "fingerprint"),
    "indexed_status",
)
EXTREME = ("indexed_late_start_at", "indexed_duration_us", "indexed_cost_nano_usd")

STATUSES = ("queued", "running", "completed", "failed", "cancelled", "lost")

LEDGER_VIEW = """
CREATE VIEW ledger AS
SELECT coalesce(r.external_id, e.run::text) AS run, e.id, e.at, e.type::text AS type,
       r.project, r.workflow, e.body::jsonb AS body, e.shard
FROM events AS e LEFT JOIN runs AS r ON r.shard = e.shard AND r.run = e.run
"""

PENDING = """
CREATE VIEW pending_rollups AS
SELECT d.workflow, d.project, d.node, d.hour, d.status, d.shard, d.n, d.duration_count,
       d.duration_min_us, d.duration_max_us, d.duration_sum_us,
       d.input_tokens, d.output_tokens, d.cost_nano_usd, d.bins, d.bin_counts
FROM rollup_delta_cursors AS m
-- OFFSET makes the planner use the index: the table may be full of dead rows.
CROSS JOIN LATERAL (
    SELECT d.* FROM rollup_deltas AS s CROSS JOIN LATERAL unnest(s.deltas) AS d
    WHERE s.shard = m.shard AND s.id > m.id OFFSET 0
) AS d
"""

_HISTOGRAM = "runfold_concatenated(bins), runfold_concatenated(bin_counts)"
FIGURES = f"""
    sum(duration_sum_us) / nullif(sum(duration_count), 0) / 1000 AS duration_avg_ms,
    min(duration_min_us) FILTER (WHERE duration_count > 0) / 1000.0 AS duration_min_ms,
    max(duration_max_us) FILTER (WHERE duration_count > 0) / 1000.0 AS duration_max_ms,
    runfold_percentile({_HISTOGRAM}, 0.5) AS duration_p50_ms,
    runfold_percentile({_HISTOGRAM}, 0.9) AS duration_p90_ms,
    runfold_percentile({_HISTOGRAM}, 0.95) AS duration_p95_ms,
    runfold_percentile({_HISTOGRAM}, 0.99) AS duration_p99_ms,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    sum(cost_nano_usd) / 1e9 AS cost_usd
"""

SUMS = """
    duration_count, duration_min_us, duration_max_us, duration_sum_us, input_tokens, output_tokens,
    cost_nano_usd, bins, bin_counts
"""

# The rollups together with the deltas that are not merged into them yet.
STATISTICS = """
CREATE VIEW daily_stats AS
SELECT project, workflow, day,
    sum(queued + running + completed + failed + cancelled + lost) AS total,
    sum(queued) AS queued, sum(running) AS running, sum(completed) AS completed,
    sum(failed) AS failed, sum(cancelled) AS cancelled, sum(lost) AS lost,
    sum(completed) / nullif(sum(completed + failed + cancelled + lost), 0) AS success_rate,
    FIGURES
FROM (
    SELECT workflow, project, day, queued, running, completed, failed, cancelled, lost, SUMS
    FROM rollups_daily
    UNION ALL
    SELECT workflow, project, date_trunc('day', hour, 'UTC'),
        COUNTS, SUMS
    FROM pending_rollups WHERE node = ''
) AS days
WHERE workflow <> ''
GROUP BY project, workflow, day
HAVING sum(queued + running + completed + failed + cancelled + lost) > 0;

CREATE VIEW hourly_stats AS
SELECT project, workflow, nullif(node, '') AS node, hour, status, sum(n) AS total,
    FIGURES
FROM (
    SELECT workflow, project, node, hour, status, n, SUMS FROM rollups_hourly
    UNION ALL
    SELECT workflow, project, node, hour, status, n, SUMS FROM pending_rollups
) AS hours
GROUP BY project, workflow, node, hour, status
HAVING sum(n) > 0;
"""

# The comment marks an extension that this migration created, and may therefore drop.
EXTENSION = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
        CREATE EXTENSION pg_trgm;
        COMMENT ON EXTENSION pg_trgm IS 'for runfold';
    END IF;
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
    RAISE NOTICE 'pg_trgm is not available: searches will scan the runs';
END
$$
"""

NO_EXTENSION = """
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_extension AS e
        JOIN pg_description AS d ON d.objoid = e.oid AND d.classoid = 'pg_extension'::regclass
        WHERE e.extname = 'pg_trgm' AND d.description = 'for runfold'
    ) THEN
        DROP EXTENSION pg_trgm;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    RAISE NOTICE 'pg_trgm is used elsewhere, so it stays';
END
$$
"""


def upgrade() -> None:
    tables = TABLES.replace("USAGE", USAGE).replace("VALUES", VALUES).replace("BINS", BINS)
    counts = ", ".join(f"CASE status WHEN '{status}' THEN n ELSE 0 END" for status in STATUSES)
    statistics = STATISTICS.replace("FIGURES", FIGURES).replace("SUMS", SUMS)
    statistics = statistics.replace("COUNTS", counts)
    for part in (TYPES, FINGERPRINT, ADD_BINS, PERCENTILE, CONCATENATED, tables):
        op.execute(part)
    for name in RARE:
        op.execute(f'CREATE INDEX ON runs ("{name}", created_at, run) WHERE "{name}" IS NOT NULL')
    for name in EXTREME:
        op.execute(f"CREATE INDEX ON runs (created_at, run, {name}) WHERE {name} IS NOT NULL")
    for part in (LEDGER_VIEW, PENDING, statistics, EXTENSION):
        op.execute(part)
    has_trigrams = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')"
    if op.get_bind().execute(text(has_trigrams)).scalar_one():
        for table in ("search_runs", "search_payloads"):
            op.execute(f"CREATE INDEX ON {table} USING gin (text gin_trgm_ops)")


def downgrade() -> None:
    op.execute("DROP VIEW hourly_stats, daily_stats, pending_rollups, ledger")
    op.execute("DROP TABLE " + ", ".join(re.findall(r"CREATE TABLE (\w+)", TABLES)))
    op.execute("DROP AGGREGATE runfold_concatenated(anycompatiblearray)")
    op.execute("DROP FUNCTION runfold_percentile, runfold_add_bins, runfold_fingerprint")
    op.execute("DROP TYPE rollup_delta, event_type")
    op.execute(NO_EXTENSION)
