"""Secrets in the database are sealed. Nothing of the tables changes.

Revision ID: 0021
Revises: 0016
"""

from __future__ import annotations

from alembic import context, op

from alveole.store.sealing import seal_all

revision = "0021"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # In the one transaction of all migrations: a value is never sealed twice, and none is left out.
    seal_all(op.get_bind(), context.config.attributes["sealer"])
