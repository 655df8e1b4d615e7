"""How Alembic runs the scripts: on the connection that ``app.db.migrate`` hands it."""

from __future__ import annotations

from alembic import context

from app.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table in place; Alembic copies it.
    render_as_batch=True,
)

# The transaction and the lock are the caller's.
context.run_migrations()
