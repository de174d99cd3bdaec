"""Names that were written into a zone.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dns_names",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("site_id", sa.String(16), nullable=False),
        sa.Column("ttl", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("written", sa.Text, nullable=False),
        sa.Column("meant", sa.Text, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
