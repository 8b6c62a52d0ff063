"""What Alembic runs: the steps, in one transaction, on the connection that `migrate` gives it."""

from alembic import context

from proxy.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table; Alembic then copies it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
