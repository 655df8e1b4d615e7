"""The database schema, step by step, as Alembic runs it."""
