"""The first schema: ledger, projections, rollups, positions, and what goes with them.

A migration is a record: it repeats what `tables` said when it was written, and never changes.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ADD_BINS = """
CREATE FUNCTION runfold_add_bins(
    a_bins smallint[], a_counts bigint[], b_bins smallint[], b_counts bigint[],
    OUT bins smallint[], OUT bin_counts bigint[]
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    place integer;
    gone boolean := false;
BEGIN
    bins := a_bins;
    bin_counts := a_counts;
    FOR i IN 1 .. cardinality(b_bins) LOOP
        place := array_position(bins, b_bins[i]);
        IF place IS NULL THEN
            bins := bins || b_bins[i];
            bin_counts := bin_counts || b_counts[i];
        ELSE
            bin_counts[place] := bin_counts[place] + b_counts[i];
            gone := gone OR bin_counts[place] = 0;
        END IF;
    END LOOP;
    IF gone THEN
        SELECT coalesce(array_agg(bin), '{}'), coalesce(array_agg(n), '{}')
        INTO bins, bin_counts
        FROM unnest(bins, bin_counts) AS both_sides (bin, n)
        WHERE n <> 0;
    END IF;
END
$$
"""

LEDGER = """
CREATE VIEW ledger AS
SELECT coalesce(r.given_id, e.run::text) AS run, e.id, e.at, e.type::text AS type,
       r.project, r.workflow, e.body::jsonb AS body, e.shard
FROM events AS e LEFT JOIN runs AS r ON r.shard = e.shard AND r.run = e.run
"""


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("may_write", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        sa.UniqueConstraint("key_sha256", name=op.f("api_keys_key_sha256_key")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("frame", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("dead_letters_pkey")),
        sa.UniqueConstraint(
            "shard", "frame", "ordinal", name=op.f("dead_letters_shard_frame_ordinal_key")
        ),
    )
    op.create_table(
        "events",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "type",
            sa.Enum(
                "queued",
                "started",
                "node_started",
                "node_finished",
                "logged",
                "annotated",
                "heartbeat",
                "completed",
                "failed",
                "cancelled",
                name="event_type",
            ),
            nullable=False,
        ),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "run", "id", name=op.f("events_pkey")),
        postgresql_partition_by="RANGE (run)",
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("arguments", postgresql.JSONB(), nullable=False),
        sa.Column("progress", postgresql.JSONB(), nullable=True),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'completed', 'failed', 'cancelled')",
            name=op.f("jobs_status_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
    )
    op.create_table(
        "leases",
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("leases_pkey")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "nodes",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_us", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_nano_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("node_type", sa.Text(), nullable=True),
        sa.Column("parents", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'skipped', 'cancelled')",
            name=op.f("nodes_status_check"),
        ),
        sa.PrimaryKeyConstraint("shard", "run", "node", "attempt", name=op.f("nodes_pkey")),
        postgresql_with={"fillfactor": 80},
    )
    op.create_table(
        "positions",
        sa.Column("consumed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("feed_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("folded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Text(), server_default=sa.text("'0-0'"), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("positions_pkey")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "runs",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_nano_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("feed_seq", sa.BigInteger(), nullable=False),
        sa.Column("nodes_total", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("nodes_pending", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("nodes_running", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("nodes_completed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("nodes_failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("nodes_skipped", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("nodes_cancelled", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("given_id", sa.Text(), nullable=True),
        sa.Column("parent_run", sa.Text(), nullable=True),
        sa.Column("trigger_type", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("tags", postgresql.JSONB(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_node", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'completed', 'failed', 'cancelled', 'lost')",
            name=op.f("runs_status_check"),
        ),
        sa.PrimaryKeyConstraint("shard", "run", name=op.f("runs_pkey")),
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(op.f("runs_created_at_run_idx"), "runs", ["created_at", "run"], unique=False)
    op.create_index(
        op.f("runs_project_created_at_run_idx"),
        "runs",
        ["project", "created_at", "run"],
        unique=False,
    )
    op.create_index(
        op.f("runs_workflow_created_at_run_idx"),
        "runs",
        ["workflow", "created_at", "run"],
        unique=False,
    )
    op.create_table(
        "stats",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("n_timed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("duration_min_us", sa.BigInteger(), nullable=True),
        sa.Column("duration_max_us", sa.BigInteger(), nullable=True),
        sa.Column("duration_sum_us", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("input_tokens", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_nano_usd", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
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
            "workflow", "project", "node", "hour", "status", "shard", name=op.f("stats_pkey")
        ),
        postgresql_with={"fillfactor": 80},
    )
    op.create_table(
        "tombstones",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "run", name=op.f("tombstones_pkey")),
    )
    op.execute(ADD_BINS)
    op.execute(LEDGER)


def downgrade() -> None:
    op.execute("DROP VIEW ledger")
    op.execute("DROP FUNCTION runfold_add_bins")
    op.drop_table("tombstones")
    op.drop_table("stats")
    op.drop_index(op.f("runs_workflow_created_at_run_idx"), table_name="runs")
    op.drop_index(op.f("runs_project_created_at_run_idx"), table_name="runs")
    op.drop_index(op.f("runs_created_at_run_idx"), table_name="runs")
    op.drop_table("runs")
    op.drop_table("positions")
    op.drop_table("nodes")
    op.drop_table("leases")
    op.drop_table("jobs")
    op.drop_table("events")
    op.drop_table("dead_letters")
    op.drop_table("api_keys")
    op.execute("DROP TYPE event_type")
