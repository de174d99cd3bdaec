"""The rows of past days: copies of sites as they were, which somebody looks at for a while. Beside ``store``.

A copy has a lease like a site's and no row among the sites, so that nothing that goes over all sites ever meets it.
"""

from __future__ import annotations

import logging
from enum import StrEnum

import msgspec
import sqlalchemy as sa

from alveole.store.tables_backups import past_days

log = logging.getLogger("alveole.backups")


class PastState(StrEnum):
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"


class PastDay(msgspec.Struct, frozen=True):
    """``id`` and ``number`` are its lease; of the site it is a copy of, ``site_id`` and what is left of it when that is
    destroyed."""

    id: str
    number: int
    name: str
    """What its name begins with: ``past-1a2b3c4d``."""
    backup_id: str
    backup_at: float
    site_id: str
    site_name: str
    owner: str
    seconds: float
    opened_by: str
    opened_at: float
    closes_at: float
    state: PastState = PastState.OPENING


def every(connection: sa.Connection) -> dict[str, PastDay]:
    """By id. One whose row is damaged is left out, and so swept like any stray lease."""
    found = {}
    for row in connection.execute(sa.select(past_days)):
        try:
            found[row.id] = msgspec.json.decode(row.document, type=PastDay)
        except msgspec.DecodeError as error:
            log.warning("the past day %s is set aside: %s", row.id, error)
    return found


def put(connection: sa.Connection, day: PastDay) -> None:
    drop(connection, day.id)
    connection.execute(sa.insert(past_days).values(id=day.id, document=msgspec.json.encode(day).decode()))


def drop(connection: sa.Connection, id: str) -> None:
    connection.execute(sa.delete(past_days).where(past_days.c.id == id))
