"""Run migrations on the connection that `runfold_storage.migrate` passes to Alembic."""

from alembic import context

from runfold_storage.migrate import is_ours
from runfold_storage.tables import metadata


def run() -> None:
    """Apply pending migrations, each in its own transaction."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        include_object=is_ours,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
