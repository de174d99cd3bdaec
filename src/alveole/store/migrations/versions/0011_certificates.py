"""Certificates from authorities elsewhere.

Revision ID: 0011
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "certificate_orders",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("names", sa.Text, nullable=False, unique=True),
        sa.Column("site_id", sa.String(16), nullable=False),
        sa.Column("asked", sa.Boolean, nullable=False),
        sa.Column("authority", sa.String(64), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Double, nullable=False, index=True),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("renew_at", sa.Double, nullable=False),
    )
    op.create_table(
        "certificate_spent",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("at", sa.Double, nullable=False, index=True),
        sa.Column("authority", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("domain", sa.String(300), nullable=False),
        sa.Column("names", sa.Text, nullable=False),
    )
    op.create_table(
        "certificate_warned",
        sa.Column("file", sa.String(100), primary_key=True),
        sa.Column("days", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
