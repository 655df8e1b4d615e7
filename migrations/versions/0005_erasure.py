"""Accounts that are being erased, and finding what belongs to a session or was left alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What app.db.tables.UtcTime was when this script was written.
TIME = sa.DateTime(timezone=True).with_variant(sa.String(27), "sqlite")
ERASING = sa.text("erasing_since IS NOT NULL")
KEPT = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    op.add_column("users", sa.Column("erasing_since", TIME))
    op.create_index(
        "ix_users_erasing_erasing_since",
        "users",
        ["erasing_since"],
        sqlite_where=ERASING,
        postgresql_where=ERASING,
    )
    op.create_index(
        "ix_chat_sessions_kept_updated_at",
        "chat_sessions",
        ["updated_at"],
        sqlite_where=KEPT,
        postgresql_where=KEPT,
    )
    op.create_index("ix_outbox_key", "outbox", ["key", "sequence"])


def downgrade() -> None:
    op.drop_index("ix_outbox_key", "outbox")
    op.drop_index("ix_chat_sessions_kept_updated_at", "chat_sessions")
    op.drop_index("ix_users_erasing_erasing_since", "users")
    op.drop_column("users", "erasing_since")
