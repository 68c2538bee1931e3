"""What lists are filtered by gets an index, for the runs alone that have it; days as rollups.

Adding derived columns rewrites `runs`, `nodes` and `stats`, so the fold waits meanwhile: some
minutes for ten million runs.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# A body of this form is parsed here and now: the search path of whoever restores does not matter.
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

RUNS = """
ALTER TABLE runs
ADD COLUMN unusual_status text GENERATED ALWAYS AS (
    CASE WHEN status IN ('failed', 'cancelled', 'lost') THEN status END
) STORED,
ADD COLUMN fingerprint text GENERATED ALWAYS AS (
    CASE WHEN status = 'failed'
    THEN runfold_fingerprint(error_type, error_node, error_message) END
) STORED,
ADD COLUMN late_started_at timestamptz GENERATED ALWAYS AS (
    CASE WHEN started_at - created_at > interval '1 hour' THEN started_at END
) STORED,
ADD COLUMN long_duration_us bigint GENERATED ALWAYS AS (
    CASE WHEN duration_us >= 60000000 THEN duration_us END
) STORED,
ADD COLUMN high_cost_nano_usd bigint GENERATED ALWAYS AS (
    CASE WHEN cost_nano_usd >= 100000000 THEN cost_nano_usd END
) STORED
"""

NODES = """
ALTER TABLE nodes
ADD COLUMN fingerprint text GENERATED ALWAYS AS (
    CASE WHEN status = 'failed' THEN runfold_fingerprint(error_type, node, error_message) END
) STORED
"""

STATS = """
ALTER TABLE stats
ADD COLUMN is_open boolean GENERATED ALWAYS AS (
    CASE WHEN n > 0 AND node = '' AND status IN ('queued', 'running') THEN true END
) STORED
"""
DAYS = """
    INSERT INTO stats_days (
        workflow, project, day, shard, queued, running, completed, failed, cancelled, lost,
        n_timed, duration_min_us, duration_max_us, duration_sum_us,
        input_tokens, output_tokens, cost_nano_usd, bins, bin_counts
    )
    WITH of_runs AS (
        SELECT *, date_trunc('day', hour, 'UTC') AS day FROM stats WHERE node = ''
    ), sums AS (
        SELECT coalesce(workflow, '') AS workflow, coalesce(project, '') AS project, day, shard,
               coalesce(sum(n) FILTER (WHERE status = 'queued'), 0) AS queued,
               coalesce(sum(n) FILTER (WHERE status = 'running'), 0) AS running,
               coalesce(sum(n) FILTER (WHERE status = 'completed'), 0) AS completed,
               coalesce(sum(n) FILTER (WHERE status = 'failed'), 0) AS failed,
               coalesce(sum(n) FILTER (WHERE status = 'cancelled'), 0) AS cancelled,
               coalesce(sum(n) FILTER (WHERE status = 'lost'), 0) AS lost,
               sum(n_timed) AS n_timed,
               min(duration_min_us) AS duration_min_us, max(duration_max_us) AS duration_max_us,
               sum(duration_sum_us) AS duration_sum_us, sum(input_tokens) AS input_tokens,
               sum(output_tokens) AS output_tokens, sum(cost_nano_usd) AS cost_nano_usd
        FROM of_runs
        GROUP BY GROUPING SETS (
            (workflow, project, day, shard), (project, day, shard), (day, shard)
        )
    ), binned AS (
        SELECT coalesce(workflow, '') AS workflow, coalesce(project, '') AS project, day, shard,
               bin, sum(each.n) AS n
        FROM of_runs, unnest(bins, bin_counts) AS each (bin, n)
        GROUP BY GROUPING SETS (
            (workflow, project, day, shard, bin), (project, day, shard, bin), (day, shard, bin)
        )
    ), histograms AS (
        SELECT workflow, project, day, shard, array_agg(bin) AS bins, array_agg(n) AS bin_counts
        FROM binned WHERE n <> 0
        GROUP BY workflow, project, day, shard
    )
    SELECT workflow, project, day, shard, queued, running, completed, failed, cancelled, lost,
           n_timed, duration_min_us, duration_max_us, duration_sum_us,
           input_tokens, output_tokens, cost_nano_usd,
           coalesce(bins, '{}'), coalesce(bin_counts, '{}')
    FROM sums LEFT JOIN histograms USING (workflow, project, day, shard)
    ORDER BY workflow, project, day, shard
"""

# The same bins as in `histogram`: estimates are within 1% of every value in theirs.
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

FIGURES = """
    sum(duration_sum_us) / nullif(sum(n_timed), 0) / 1000 AS duration_avg_ms,
    min(duration_min_us) FILTER (WHERE n_timed > 0) / 1000.0 AS duration_min_ms,
    max(duration_max_us) FILTER (WHERE n_timed > 0) / 1000.0 AS duration_max_ms,
    runfold_percentile(runfold_concatenated(bins), runfold_concatenated(bin_counts), 0.5)
        AS duration_p50_ms,
    runfold_percentile(runfold_concatenated(bins), runfold_concatenated(bin_counts), 0.9)
        AS duration_p90_ms,
    runfold_percentile(runfold_concatenated(bins), runfold_concatenated(bin_counts), 0.95)
        AS duration_p95_ms,
    runfold_percentile(runfold_concatenated(bins), runfold_concatenated(bin_counts), 0.99)
        AS duration_p99_ms,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    sum(cost_nano_usd) / 1e9 AS cost_usd
"""

VIEWS = (
    """
    CREATE VIEW daily_stats AS
    SELECT project, workflow, day,
        sum(queued + running + completed + failed + cancelled + lost) AS total,
        sum(queued) AS queued, sum(running) AS running, sum(completed) AS completed,
        sum(failed) AS failed, sum(cancelled) AS cancelled, sum(lost) AS lost,
        sum(completed) / nullif(sum(completed + failed + cancelled + lost), 0) AS success_rate,
        FIGURES
    FROM stats_days
    WHERE workflow <> ''
    GROUP BY project, workflow, day
    HAVING sum(queued + running + completed + failed + cancelled + lost) > 0
    """,
    """
    CREATE VIEW hourly_stats AS
    SELECT project, workflow, nullif(node, '') AS node, hour, status, sum(n) AS total,
        FIGURES
    FROM stats
    GROUP BY project, workflow, node, hour, status
    HAVING sum(n) > 0
    """,
)

OF_THOSE_THAT_HAVE_IT = (
    *("user", "session", "trigger_type", "parent_run"),
    *("error_type", "fingerprint", "unusual_status"),
)
STATUSES = ("queued", "running", "completed", "failed", "cancelled", "lost")
OF_THE_FEW = ("late_started_at", "long_duration_us", "high_cost_nano_usd")


def upgrade() -> None:
    op.execute(FINGERPRINT)
    op.execute(RUNS)
    op.execute(NODES)
    op.execute(STATS)
    for name in OF_THOSE_THAT_HAVE_IT:
        op.create_index(
            op.f(f"runs_{name}_created_at_run_idx"),
            "runs",
            [name, "created_at", "run"],
            postgresql_where=sa.column(name).is_not(None),
        )
    for name in OF_THE_FEW:
        op.create_index(
            op.f(f"runs_created_at_run_{name}_idx"),
            "runs",
            ["created_at", "run", name],
            postgresql_where=sa.column(name).is_not(None),
        )
    op.create_index(
        op.f("runs_tags_idx"),
        "runs",
        ["tags"],
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
        postgresql_where=sa.text("tags IS NOT NULL"),
    )
    op.create_index(
        op.f("nodes_finished_at_idx"),
        "nodes",
        ["finished_at"],
        postgresql_where=sa.text("fingerprint IS NOT NULL"),
    )
    op.create_index(
        op.f("stats_status_hour_idx"),
        "stats",
        ["status", "hour"],
        postgresql_where=sa.text("is_open"),
    )
    op.create_index(
        op.f("stats_hour_idx"), "stats", ["hour"], postgresql_where=sa.text("node = ''")
    )
    op.create_table(
        "stats_days",
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)
            for name in (*STATUSES, "n_timed")
        ),
        sa.Column("duration_min_us", sa.BigInteger(), nullable=True),
        sa.Column("duration_max_us", sa.BigInteger(), nullable=True),
        *(
            sa.Column(name, sa.Numeric(), server_default=sa.text("0"), nullable=False)
            for name in ("duration_sum_us", "input_tokens", "output_tokens", "cost_nano_usd")
        ),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column(
            "bins",
            postgresql.ARRAY(sa.SmallInteger()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "bin_counts",
            postgresql.ARRAY(sa.BigInteger()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint(
            "workflow", "project", "day", "shard", name=op.f("stats_days_pkey")
        ),
        postgresql_with={"fillfactor": 80},
    )
    op.execute(DAYS)
    op.execute(PERCENTILE)
    op.execute(CONCATENATED)
    for view in VIEWS:
        op.execute(view.replace("FIGURES", FIGURES))


def downgrade() -> None:
    op.execute("DROP VIEW hourly_stats, daily_stats")
    op.execute("DROP AGGREGATE runfold_concatenated(anycompatiblearray)")
    op.execute("DROP FUNCTION runfold_percentile(smallint[], bigint[], float8)")
    op.drop_table("stats_days")
    op.drop_index(op.f("stats_hour_idx"), table_name="stats")
    op.drop_index(op.f("stats_status_hour_idx"), table_name="stats")
    op.drop_index(op.f("nodes_finished_at_idx"), table_name="nodes")
    op.drop_index(op.f("runs_tags_idx"), table_name="runs")
    for name in OF_THE_FEW:
        op.drop_index(op.f(f"runs_created_at_run_{name}_idx"), table_name="runs")
    for name in OF_THOSE_THAT_HAVE_IT:
        op.drop_index(op.f(f"runs_{name}_created_at_run_idx"), table_name="runs")
    op.drop_column("stats", "is_open")
    op.drop_column("nodes", "fingerprint")
    for name in (*OF_THE_FEW, "unusual_status", "fingerprint"):
        op.drop_column("runs", name)
    op.execute("DROP FUNCTION runfold_fingerprint(text, text, text)")
