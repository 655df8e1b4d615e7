"""Revisions of sessions, for caches, and the time when a deleted one's content goes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What app.db.tables.UtcTime was when this script was written.
TIME = sa.DateTime(timezone=True).with_variant(sa.String(27), "sqlite")
UNPURGED = sa.text("purge_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("chat_sessions", sa.Column("purge_at", TIME))
    op.add_column(
        "chat_sessions", sa.Column("revision", sa.Integer(), nullable=False, server_default="0")
    )
    op.create_index(
        "ix_chat_sessions_unpurged_purge_at",
        "chat_sessions",
        ["purge_at"],
        sqlite_where=UNPURGED,
        postgresql_where=UNPURGED,
    )


def downgrade() -> None:
    op.drop_index("ix_chat_sessions_unpurged_purge_at", table_name="chat_sessions")
    op.drop_column("chat_sessions", "revision")
    op.drop_column("chat_sessions", "purge_at")
