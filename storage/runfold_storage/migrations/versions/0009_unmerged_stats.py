"""Differences of small batches as they come, merged into the rollups a moment later."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

DIFFERENCE = """
CREATE TYPE stats_difference AS (
    workflow text, project text, node text, hour timestamptz, status text, shard smallint,
    n bigint, n_timed bigint, duration_min_us bigint, duration_max_us bigint,
    duration_sum_us numeric, input_tokens numeric, output_tokens numeric, cost_nano_usd numeric,
    bins smallint[], bin_counts bigint[]
)
"""

UNMERGED = """
CREATE VIEW unmerged_stats AS
SELECT d.workflow, d.project, d.node, d.hour, d.status, d.shard, d.n, d.n_timed,
       d.duration_min_us, d.duration_max_us, d.duration_sum_us,
       d.input_tokens, d.output_tokens, d.cost_nano_usd, d.bins, d.bin_counts
FROM stats_merged AS m
-- OFFSET, so that the index is used: the table may be full of rows that are gone.
CROSS JOIN LATERAL (
    SELECT d.* FROM stats_differences AS s CROSS JOIN LATERAL unnest(s.differences) AS d
    WHERE s.shard = m.shard AND s.id > m.id OFFSET 0
) AS d
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

SUMS = """
    n_timed, duration_min_us, duration_max_us, duration_sum_us, input_tokens, output_tokens,
    cost_nano_usd, bins, bin_counts
"""

VIEWS = (
    """
    CREATE OR REPLACE VIEW daily_stats AS
    SELECT project, workflow, day,
        sum(queued + running + completed + failed + cancelled + lost) AS total,
        sum(queued) AS queued, sum(running) AS running, sum(completed) AS completed,
        sum(failed) AS failed, sum(cancelled) AS cancelled, sum(lost) AS lost,
        sum(completed) / nullif(sum(completed + failed + cancelled + lost), 0) AS success_rate,
        FIGURES
    FROM ALL_DAYS
    WHERE workflow <> ''
    GROUP BY project, workflow, day
    HAVING sum(queued + running + completed + failed + cancelled + lost) > 0
    """,
    """
    CREATE OR REPLACE VIEW hourly_stats AS
    SELECT project, workflow, nullif(node, '') AS node, hour, status, sum(n) AS total,
        FIGURES
    FROM ALL_HOURS
    GROUP BY project, workflow, node, hour, status
    HAVING sum(n) > 0
    """,
)

# The rollups with what is not merged into them yet.
ALL_DAYS = """(
    SELECT workflow, project, day, queued, running, completed, failed, cancelled, lost, SUMS
    FROM stats_days
    UNION ALL
    SELECT workflow, project, date_trunc('day', hour, 'UTC'),
        CASE status WHEN 'queued' THEN n ELSE 0 END, CASE status WHEN 'running' THEN n ELSE 0 END,
        CASE status WHEN 'completed' THEN n ELSE 0 END, CASE status WHEN 'failed' THEN n ELSE 0 END,
        CASE status WHEN 'cancelled' THEN n ELSE 0 END, CASE status WHEN 'lost' THEN n ELSE 0 END,
        SUMS
    FROM unmerged_stats WHERE node = ''
) AS days"""
ALL_HOURS = """(
    SELECT workflow, project, node, hour, status, n, SUMS FROM stats
    UNION ALL
    SELECT workflow, project, node, hour, status, n, SUMS FROM unmerged_stats
) AS hours"""


def make_views(days: str, hours: str) -> None:
    """`daily_stats` and `hourly_stats`, of these."""
    for view in VIEWS:
        statement = view.replace("ALL_DAYS", days).replace("ALL_HOURS", hours)
        op.execute(statement.replace("FIGURES", FIGURES).replace("SUMS", SUMS))


def upgrade() -> None:
    op.execute(DIFFERENCE)
    op.create_table(
        "stats_merged",
        sa.Column("id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("stats_merged_pkey")),
    )
    op.execute("INSERT INTO stats_merged (shard) SELECT shard FROM positions")
    op.execute(
        """
        CREATE TABLE stats_differences (
            id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
            shard smallint NOT NULL,
            differences stats_difference[] NOT NULL,
            CONSTRAINT stats_differences_pkey PRIMARY KEY (shard, id)
        ) WITH (toast_tuple_target = 8160)
        """
    )
    op.execute(UNMERGED)
    make_views(ALL_DAYS, ALL_HOURS)


def downgrade() -> None:
    op.execute("LOCK TABLE stats_merged, stats_differences IN ACCESS EXCLUSIVE MODE")
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM unmerged_stats) THEN
                RAISE EXCEPTION
                    'statistics wait to be merged: start a worker and stop it, which does it';
            END IF;
        END $$
        """
    )
    make_views("stats_days", "stats")
    op.execute("DROP VIEW unmerged_stats")
    op.drop_table("stats_differences")
    op.drop_table("stats_merged")
    op.execute("DROP TYPE stats_difference")
