"""The tables about backups beside ``backups`` itself; as :mod:`alveole.store.tables`."""

from __future__ import annotations

import sqlalchemy as sa

from alveole.store.tables import metadata

#: What is known of a backup besides what it is: why it was made, and what is to become of it.
marks = sa.Table(
    "backup_marks",
    metadata,
    sa.Column("backup_id", sa.String(16), primary_key=True),
    sa.Column("cause", sa.String(16), nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False),
    sa.Column("copies", sa.Text, nullable=False),
)
proofs = sa.Table(
    "proofs",
    metadata,
    sa.Column("backup_id", sa.String(16), primary_key=True),
    sa.Column("site_id", sa.String(16), nullable=False, index=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("ok", sa.Boolean, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)
policies = sa.Table(
    "backup_policies",
    metadata,
    sa.Column("site_id", sa.String(16), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
past_days = sa.Table(
    "past_days",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
