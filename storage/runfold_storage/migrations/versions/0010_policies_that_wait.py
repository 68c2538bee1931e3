"""Policies of retention that wait before they hold; streams that have no mark of a worker yet."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("retention", "updated_at", new_column_name="holds_from")
    # A stream that was seen and has no mark is taken for another one.
    op.execute("DELETE FROM sightings")


def downgrade() -> None:
    op.alter_column("retention", "holds_from", new_column_name="updated_at")
