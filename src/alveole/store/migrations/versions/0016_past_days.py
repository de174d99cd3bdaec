"""Past days that are open beside their sites.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "past_days",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
