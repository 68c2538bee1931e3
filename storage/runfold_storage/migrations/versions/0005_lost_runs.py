"""Runs that are lost: an event that says so, and pulses that tell who has been silent."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TYPE event_type ADD VALUE IF NOT EXISTS 'lost'")
    op.create_table(
        "pulses",
        sa.Column("heard_us", sa.BigInteger(), nullable=False),
        sa.Column("feed_seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "heard_us", name=op.f("pulses_pkey")),
    )


def downgrade() -> None:
    """The value stays in the type: to take it out, the whole ledger would be written anew."""
    op.drop_table("pulses")
    op.execute("DELETE FROM events WHERE type = 'lost'")
