"""The search index: made behind the fold by whoever does jobs, empty until then.

Where PostgreSQL has no pg_trgm, or does not let us have it, there are the tables alone, and texts
are searched for by walking through runs.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The comment tells on the way down that nobody else had it before.
EXTENSION = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
        CREATE EXTENSION pg_trgm;
        COMMENT ON EXTENSION pg_trgm IS 'for runfold';
    END IF;
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
    RAISE NOTICE 'pg_trgm is not to be had: searching will walk through runs';
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
    RAISE NOTICE 'pg_trgm is used by others, and stays';
END
$$
"""
TEXTS = ("search_runs", "search_payloads")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.execute(EXTENSION)
    op.create_table(
        "search_runs",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "run", name=op.f("search_runs_pkey")),
    )
    op.create_table(
        "search_payloads",
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "run", name=op.f("search_payloads_pkey")),
    )
    op.create_index(op.f("search_payloads_project_idx"), "search_payloads", ["project"])
    found = op.get_bind().execute(
        sa.text("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'")
    )
    if found.scalar_one():
        for table in TEXTS:
            op.create_index(
                op.f(f"{table}_text_idx"),
                table,
                ["text"],
                postgresql_using="gin",
                postgresql_ops={"text": "gin_trgm_ops"},
            )
    op.create_table(
        "search_progress",
        sa.Column("feed_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("scan_to", sa.BigInteger(), nullable=True),
        sa.Column("changed_at", TIME, nullable=True),
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("scanned", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("shard", name=op.f("search_progress_pkey")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "search_projects",
        sa.Column("wanted_since", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("reached_at", TIME, nullable=True),
        sa.Column("reached_run", sa.Uuid(), nullable=True),
        sa.Column("wanted", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("whole", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("search_projects_pkey")),
    )


def downgrade() -> None:
    for table in ("search_projects", "search_progress", "search_payloads", "search_runs"):
        op.drop_table(table)
    op.execute(NO_EXTENSION)
