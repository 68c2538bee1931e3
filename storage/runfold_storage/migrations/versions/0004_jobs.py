"""Jobs that workers take up, why they failed; deleted runs whose events are still there."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"
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


def downgrade() -> None:
    op.drop_index("tombstones_events_left_idx", "tombstones")
    op.drop_column("tombstones", "events_left")
    op.drop_index(op.f("jobs_created_at_idx"), "jobs")
    op.drop_column("jobs", "background")
    op.drop_column("jobs", "error")
