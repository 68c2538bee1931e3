"""Jobs that workers take up; deleted runs whose events are still there; retention."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("error", sa.Text(), nullable=True))
    op.add_column(
        "jobs",
        sa.Column("background", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_index(op.f("jobs_created_at_idx"), "jobs", ["created_at"])
    op.add_column(
        "tombstones",
        sa.Column("events_left", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_index(
        "tombstones_events_left_idx",
        "tombstones",
        ["shard", "run"],
        postgresql_where=sa.text("events_left"),
    )
    op.add_column(
        "tombstones",
        sa.Column("aged", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("runs", sa.Column("aged_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "retention",
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("payload_days", sa.Integer(), nullable=True),
        sa.Column("run_days", sa.Integer(), nullable=True),
        sa.Column("stats_days", sa.Integer(), nullable=True),
        sa.Column("project", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("retention_pkey")),
    )
    op.create_table(
        "aged_hours",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "hour", name=op.f("aged_hours_pkey")),
    )


def downgrade() -> None:
    op.drop_table("aged_hours")
    op.drop_table("retention")
    op.drop_column("runs", "aged_at")
    op.drop_column("tombstones", "aged")
    op.drop_index("tombstones_events_left_idx", "tombstones")
    op.drop_column("tombstones", "events_left")
    op.drop_index(op.f("jobs_created_at_idx"), "jobs")
    op.drop_column("jobs", "background")
    op.drop_column("jobs", "error")
