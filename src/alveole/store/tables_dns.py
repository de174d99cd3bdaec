"""The table of published names: what was written into the zone, so that nothing else is ever touched there."""

from __future__ import annotations

import sqlalchemy as sa

from alveole.store.tables import metadata

#: ``written``: by kind, what is in the zone by our hand. ``meant``: what was about to be written when control ended.
dns_names = sa.Table(
    "dns_names",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("site_id", sa.String(16), nullable=False),
    sa.Column("ttl", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("written", sa.Text, nullable=False),
    sa.Column("meant", sa.Text, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)
