"""People: accounts, teams, shares, quotas, sessions, second factors; tokens of persons, with a scope.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("backups", sa.Column("owner", sa.String(64), nullable=False, server_default=""))
    op.add_column("changes", sa.Column("via", sa.String(64), nullable=False, server_default=""))
    op.add_column("changes", sa.Column("actor_key", sa.String(200), nullable=False, server_default=""))
    _tokens()
    _people()
    _coming_in()


def _tokens() -> None:
    # SQLite cannot drop the constraint that made a name unique for everybody: a new table takes its place.
    op.rename_table("tokens", "old_tokens")
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("person_id", sa.String(16), nullable=False, server_default=""),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("scope", sa.Text, nullable=False, server_default=""),
        sa.Column("sites", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.UniqueConstraint("person_id", "name"),
    )
    columns = "id, name, hash, created_at, expires_at, last_used_at"
    op.execute(
        f"INSERT INTO tokens ({columns}, role) SELECT {columns}, "  # noqa: S608  both are constants
        "CASE role WHEN 'admin' THEN 'administrator' ELSE role END FROM old_tokens"
    )
    op.drop_table("old_tokens")


def _people() -> None:
    op.create_table(
        "persons",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("external", sa.String(1000), nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("password", sa.String(200)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double),
    )
    op.create_table(
        "teams",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "members",
        sa.Column("team_id", sa.String(16), primary_key=True),
        sa.Column("person_id", sa.String(16), primary_key=True, index=True),
        sa.Column("source", sa.String(16), primary_key=True),
    )
    op.create_table(
        "shares",
        sa.Column("site_id", sa.String(16), primary_key=True),
        sa.Column("whom", sa.String(16), primary_key=True),
        sa.Column("near", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "quotas",
        sa.Column("whom", sa.String(16), primary_key=True),
        sa.Column("sites", sa.BigInteger),
        sa.Column("memory_bytes", sa.BigInteger),
        sa.Column("disk_bytes", sa.BigInteger),
    )


def _coming_in() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("person_id", sa.String(16), nullable=False, index=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(200), nullable=False),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("entering", sa.Boolean, nullable=False),
    )
    op.create_table(
        "invitations",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("person_id", sa.String(16), nullable=False, index=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_table(
        "factors",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("person_id", sa.String(16), nullable=False, index=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("handle", sa.String(1400), unique=True),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
    )
    op.create_table(
        "known_places",
        sa.Column("person_id", sa.String(16), primary_key=True),
        sa.Column("network", sa.String(64), primary_key=True),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
