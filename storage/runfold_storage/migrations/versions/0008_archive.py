"""The archive of what retention takes away: its steps, and which tombstones it knows of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "archive_steps",
        sa.Column("token", sa.Uuid(), nullable=False),
        sa.Column(
            "began_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("week", sa.Date(), nullable=True),
        sa.Column("shard", sa.SmallInteger(), nullable=True),
        sa.Column("written", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("runs", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("rollups", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("archive_steps_pkey")),
    )
    op.add_column(
        "tombstones",
        sa.Column("archived", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("tombstones", "archived")
    op.drop_table("archive_steps")
