"""What was said, in a database: the truth that the session log can be rebuilt from.

An operation is one function and one transaction. It is handed the time and the ids it needs, gives
values of ``app.domain``, and writes the events that speak of a change together with the change.

Every write to a session begins by locking the session's row (``app.db.locking``). Whatever two
nodes or workers do to one session at the same instant therefore happens one after the other, on
PostgreSQL as on SQLite, and the events of a session enter the outbox in the order of its changes.
"""
