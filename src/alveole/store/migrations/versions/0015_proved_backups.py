"""Why backups were made, whether they were proved, and what is kept of each site's.

Revision ID: 0015
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "backup_marks",
        sa.Column("backup_id", sa.String(16), primary_key=True),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("copies", sa.Text, nullable=False),
    )
    op.create_table(
        "proofs",
        sa.Column("backup_id", sa.String(16), primary_key=True),
        sa.Column("site_id", sa.String(16), nullable=False, index=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "backup_policies",
        sa.Column("site_id", sa.String(16), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
