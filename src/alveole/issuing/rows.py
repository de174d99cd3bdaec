"""What is stored of each certificate that comes from an authority, and what was spent there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole.issuing.model import WEEK, Spent
from alveole.issuing.suffixes import registered
from alveole.store.tables import metadata

certificate_orders = sa.Table(
    "certificate_orders",
    metadata,
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
certificate_spent = sa.Table(
    "certificate_spent",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.Double, nullable=False, index=True),
    sa.Column("authority", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("domain", sa.String(300), nullable=False),
    sa.Column("names", sa.Text, nullable=False),
)
certificate_warned = sa.Table(
    "certificate_warned",
    metadata,
    sa.Column("file", sa.String(100), primary_key=True),
    sa.Column("days", sa.Integer, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)
#: Longer than any window of a budget.
_KEPT = 5 * WEEK
#: Nothing is put off for longer: a budget is free again after a week.
_LATEST = WEEK + 86_400.0


class Order(msgspec.Struct, frozen=True):
    """One certificate: wanted, ordered, or there. Times in seconds since the epoch; 0: not yet."""

    id: str
    names: tuple[str, ...]
    site_id: str = ""
    asked: bool = False
    """Somebody has asked for it: it stays though it is not wanted automatically."""
    authority: str = ""
    """Who has issued it, or has the order ``url``."""
    url: str = ""
    """The order that is going on there: it is gone on with, whatever dies here."""
    attempts: int = 0
    next_at: float = 0.0
    problem: str = ""
    expires_at: float = 0.0
    renew_at: float = 0.0


def every(connection: sa.Connection) -> tuple[Order, ...]:
    return tuple(map(_read, connection.execute(sa.select(certificate_orders).order_by(certificate_orders.c.names))))


def due(connection: sa.Connection, now: float) -> tuple[Order, ...]:
    """Those whose turn has come; and what is put off longer than anything ever is, by a clock that was ahead."""
    table = certificate_orders
    turn = sa.or_(table.c.next_at <= now, table.c.next_at > now + _LATEST)
    query = sa.select(table).where(turn).order_by(table.c.next_at)
    return tuple(map(_read, connection.execute(query)))


def one(connection: sa.Connection, id: str) -> Order | None:
    found = connection.execute(sa.select(certificate_orders).where(certificate_orders.c.id == id)).one_or_none()
    return _read(found) if found is not None else None


def put(connection: sa.Connection, order: Order) -> None:
    """Add it, or store it as it is now."""
    values = msgspec.structs.asdict(order) | {"names": " ".join(order.names)}
    drop(connection, order.id)
    connection.execute(sa.insert(certificate_orders).values(**values))


def drop(connection: sa.Connection, id: str) -> bool:
    """Gives whether there was one."""
    gone = connection.execute(sa.delete(certificate_orders).where(certificate_orders.c.id == id))
    return bool(gone.rowcount)


def spend(connection: sa.Connection, kind: str, authority: str, names: Iterable[str], now: float) -> None:
    """Count one certificate (``issued``), or one failed validation of each name (``failed``)."""
    every_name = sorted(names)
    domains = {registered(each) for each in every_name}
    if kind == "failed":
        domains = {each.removeprefix("*.") for each in every_name}
    table = certificate_spent
    for domain in sorted(domains):
        row = {"at": now, "authority": authority, "kind": kind, "domain": domain, "names": " ".join(every_name)}
        connection.execute(sa.insert(table).values(**row))
    connection.execute(sa.delete(table).where(table.c.at < now - _KEPT))


def spent(connection: sa.Connection, since: float) -> tuple[Spent, ...]:
    table = certificate_spent
    rows = connection.execute(sa.select(table).where(table.c.at >= since).order_by(table.c.at))
    return tuple(Spent(each.at, each.authority, each.kind, each.domain, each.names) for each in rows)


def warned(connection: sa.Connection) -> dict[str, int]:
    """The last figure that was told of, by file."""
    return {row.file: row.days for row in connection.execute(sa.select(certificate_warned))}


def put_warned(connection: sa.Connection, file: str, days: int) -> None:
    table = certificate_warned
    connection.execute(sa.delete(table).where(sa.or_(table.c.file == file, table.c.at < time.time() - 100 * 86_400)))
    connection.execute(sa.insert(table).values(file=file, days=days, at=time.time()))


def _read(row: Any) -> Order:
    values = row._asdict()
    return Order(**(values | {"names": tuple(values["names"].split()), "asked": bool(values["asked"])}))
