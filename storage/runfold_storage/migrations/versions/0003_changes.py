"""The feed of changes, for watchers that come back."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("feed_seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("runs", sa.LargeBinary(), nullable=False),
        sa.Column("gone", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("shard", "feed_seq", name=op.f("changes_pkey")),
    )


def downgrade() -> None:
    op.drop_table("changes")
