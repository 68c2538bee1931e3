"""Why a job failed, and whether a worker may take it up."""

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


def downgrade() -> None:
    op.drop_index(op.f("jobs_created_at_idx"), "jobs")
    op.drop_column("jobs", "background")
    op.drop_column("jobs", "error")
