"""Alembic's entry: runs the revisions on the database it is handed, all in one transaction."""

from alembic import context
from sqlalchemy import text

from pipeline.db.models import Base

LOCK = 7_364_201  # any number that nobody else locks: roles that start at once upgrade one after the other

database = context.config.attributes["database"]

with database.transaction() as session:
    if not database.is_sqlite:  # which has one writer anyway
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(
        connection=session.connection(),
        target_metadata=Base.metadata,
        render_as_batch=database.is_sqlite,  # SQLite alters a table by making it anew
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()
