"""The first schema.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "sites",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False, unique=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("pending", sa.String(16), nullable=False, server_default=""),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
    )
    op.create_table(
        "names",
        sa.Column("name", sa.String(300), primary_key=True),
        sa.Column("site_id", sa.String(16), sa.ForeignKey("sites.id", ondelete="CASCADE"), nullable=False, index=True),
    )
    op.create_table(
        "leases",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("site_id", sa.String(16), nullable=False, unique=True),
    )
    op.create_table(
        "releases",
        sa.Column("site_id", sa.String(16), sa.ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("sender", sa.String(200), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_table(
        "backups",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("site_id", sa.String(16), nullable=False, index=True),
        sa.Column("site_name", sa.String(64), nullable=False, index=True),
        sa.Column("snapshot", sa.String(80), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
    )
    op.create_table(
        "plans",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "bases",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("image", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "changes",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(16), nullable=False, unique=True),
        sa.Column("verb", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("site_id", sa.String(16), index=True),
        sa.Column("site_name", sa.String(64)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("problems", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("work", sa.Text, nullable=False, server_default="{}"),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("change_id", sa.String(16), nullable=False, index=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("resource", sa.String(400), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("seconds", sa.Double),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
    )
    op.create_table(
        "idempotency",
        sa.Column("actor", sa.String(200), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("digest", sa.String(200), nullable=False),
        sa.Column("change_id", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
