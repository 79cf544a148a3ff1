"""Alembic's entry: runs the revisions on the database it is handed, all in one transaction."""

from alembic import context

from pipeline.tables import Base

database = context.config.attributes["database"]

with database.transaction() as session:
    context.configure(
        connection=session.connection(),
        target_metadata=Base.metadata,
        render_as_batch=database.is_sqlite,  # SQLite alters a table by making it anew
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()
