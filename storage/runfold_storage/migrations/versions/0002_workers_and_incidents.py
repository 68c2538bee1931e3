"""Workers that know of each other, and incidents that are counted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column(
            "joined_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("workers_pkey")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "incidents",
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "happened_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "shard", name=op.f("incidents_pkey")),
    )
    op.create_table(
        "sightings",
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("sightings_pkey")),
        postgresql_with={"fillfactor": 50},
    )


def downgrade() -> None:
    op.drop_table("sightings")
    op.drop_table("incidents")
    op.drop_table("workers")
