"""How Alembic runs the migrations: on the connection that `runfold_storage.migrate` hands over."""

from alembic import context

from runfold_storage.migrate import is_ours
from runfold_storage.tables import metadata


def run() -> None:
    """Apply what is missing, in one transaction for each migration."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        include_object=is_ours,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
