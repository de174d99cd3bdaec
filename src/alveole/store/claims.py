"""Domains that somebody says are theirs, until the DNS proves it: what is stored, and its grammar.

A claim binds one random word to one site and one person. Who can write that word into the domain's zone is taken for
its keeper, as certificate authorities do (RFC 8555 §8.4).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole.store import tables

#: Under this name of a domain the word is looked for: nothing is visited under a name with an underscore (RFC 8552).
PREFIX = "_alveole-challenge."
_WORD = "alveole="
#: So that the name with the prefix is none of more than 253 characters (RFC 1035 §2.3.4).
LENGTH_MAX = 253 - len(PREFIX)
#: Seconds until a claim is looked at again: at first this long, doubled each time up to the second figure.
DELAYS = (30.0, 3600.0)
#: A site has at most so many at a time.
MOST = 10


class Claim(msgspec.Struct, frozen=True):
    """Times are seconds since the epoch."""

    site_id: str
    domain: str
    token: str
    person: str
    """Id of who claims it: on whose right it is granted."""
    created_at: float
    expires_at: float
    next_at: float
    asked_at: float | None = None
    attempts: int = 0
    problem: str = ""

    @property
    def record(self) -> str:
        return PREFIX + self.domain.removeprefix("*.")

    @property
    def value(self) -> str:
        return _WORD + self.token


def new(site_id: str, domain: str, person: str, now: float, seconds: float) -> Claim:
    return Claim(site_id, domain, secrets.token_hex(16), person, now, now + seconds, now + DELAYS[0])


def delay(attempts: int) -> float:
    first, last = DELAYS
    return min(first * 2.0 ** min(attempts, 30), last)


def said(claim: Claim, found: Sequence[str]) -> str:
    """What is wrong with the texts of a claim's record; empty: they prove it."""
    if claim.value in (each.strip() for each in found):
        return ""
    if not found:
        return "there is no such TXT record yet"
    return f"the TXT record says {found[0][:80]!r} instead"


def of_site(connection: sa.Connection, site_id: str) -> tuple[Claim, ...]:
    query = sa.select(tables.claims).where(tables.claims.c.site_id == site_id).order_by(tables.claims.c.domain)
    return tuple(map(_read, connection.execute(query)))


def due(connection: sa.Connection, now: float) -> tuple[Claim, ...]:
    """Those that are to be looked at, the most urgent first, and those whose time is over."""
    table = tables.claims
    # Nothing is put off for two days, but by a clock that was ahead.
    turn = sa.or_(table.c.next_at <= now, table.c.expires_at <= now, table.c.next_at > now + 2 * 86_400)
    query = sa.select(table).where(turn).order_by(table.c.next_at)
    return tuple(map(_read, connection.execute(query)))


def put(connection: sa.Connection, claim: Claim) -> None:
    """Add it, or store it as it is now."""
    drop(connection, claim.site_id, claim.domain)
    connection.execute(sa.insert(tables.claims).values(**msgspec.structs.asdict(claim)))


def drop(connection: sa.Connection, site_id: str, domain: str) -> bool:
    """Gives whether there was one."""
    table = tables.claims
    gone = connection.execute(sa.delete(table).where(table.c.site_id == site_id, table.c.domain == domain))
    return bool(gone.rowcount)


def _read(row: Any) -> Claim:
    return Claim(**row._asdict())
