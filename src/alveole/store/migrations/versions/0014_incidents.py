"""Incidents, their signals and notes; rules, silences, and the promise ledger.

Revision ID: 0014
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "incidents",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(16), nullable=False, unique=True),
        sa.Column("site_id", sa.String(16), nullable=False, index=True),
        sa.Column("site_name", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("cause", sa.String(64), nullable=False),
        sa.Column("open", sa.Boolean, nullable=False, index=True),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("closed_at", sa.Double, index=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
    )
    op.create_table(
        "incident_signals",
        sa.Column("incident_id", sa.String(16), primary_key=True),
        sa.Column("rule", sa.String(64), primary_key=True),
        sa.Column("site_id", sa.String(16), primary_key=True),
        sa.Column("item", sa.String(200), primary_key=True),
        sa.Column("site_name", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("cleared_at", sa.Double),
        sa.Column("times", sa.Integer, nullable=False),
    )
    op.create_table(
        "incident_notes",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("incident_id", sa.String(16), nullable=False, index=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("site_id", sa.String(16), nullable=False),
    )
    op.create_table(
        "rules",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
    )
    op.create_table(
        "silences",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "promises",
        sa.Column("site_id", sa.String(16), primary_key=True),
        sa.Column("promise", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("counted_at", sa.Double, nullable=False),
        sa.Column("days", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("broken_by", sa.Text, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
    )
