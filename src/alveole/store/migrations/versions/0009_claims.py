"""Domains that somebody says are theirs, until the DNS proves it.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("site_id", sa.String(16), primary_key=True),
        sa.Column("domain", sa.String(300), primary_key=True),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("person", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("next_at", sa.Double, nullable=False, index=True),
        sa.Column("asked_at", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
    )
