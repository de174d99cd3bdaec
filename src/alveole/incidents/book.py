"""The rows of incidents, rules and silences: the only code that reads and writes them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole.incidents import tables
from alveole.incidents.model import Evidence, Note, Rule, Severity, Signal, Silence
from alveole.incidents.signals import Key
from alveole.store import Store, Transaction

#: Beyond it only what people and the watch itself decide is noted.
NOTES_MAX = 300


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of an incident besides its signals, its notes and its evidence. Lengths in seconds."""

    id: str
    site_id: str
    site_name: str
    owner: str
    cause: str
    title: str
    severity: Severity
    opened_at: float
    began_at: float
    tell: tuple[str, ...] = ()
    escalate: float = 0.0
    escalate_to: tuple[str, ...] = ()
    well: float = 0.0
    """How long it must be well until it closes."""
    acknowledged_at: float | None = None
    acknowledged_by: str = ""
    well_at: float | None = None
    closed_at: float | None = None
    closed_by: str = ""
    part_of: str = ""
    reopened: int = 0
    told_at: float | None = None
    """When its opening (the last one) was put into the outbox; ``None``: it was silent so far."""
    told: tuple[str, ...] = ()
    """Ids of the channels that know of it."""
    escalated_at: float | None = None
    node: str = ""
    """The machine whose incident it is, under the same id; empty: this one's."""
    quiet: bool = False
    """It is silent there."""
    spared: tuple[str, ...] = ()
    """Ids of the channels that lead where that machine has told already."""
    copied: int = 0
    """How many lines of its history there are here."""

    @property
    def group(self) -> tuple[str, str]:
        return (self.site_id, f"{self.node}:{self.cause}" if self.node else self.cause)

    @property
    def whole_title(self) -> str:
        """With its machine, where neither that nor a site is said beside it."""
        return f"{self.node}: {self.title}" if self.node and not self.site_id else self.title


class Book:
    def __init__(self, store: Store) -> None:
        self.store = store

    # --- incidents ----------------------------------------------------------------------------
    def put(self, transaction: Transaction, incident: Incident) -> None:
        """Store it, new or changed."""
        table = tables.incidents
        row = {
            "site_id": incident.site_id,
            "site_name": incident.site_name,
            "owner": incident.owner,
            "cause": incident.cause,
            "open": incident.closed_at is None,
            "opened_at": incident.opened_at,
            "closed_at": incident.closed_at,
            "document": _json(incident),
        }
        done = transaction.connection.execute(sa.update(table).where(table.c.id == incident.id).values(**row))
        if not done.rowcount:
            transaction.connection.execute(sa.insert(table).values(id=incident.id, evidence="", **row))

    def put_evidence(self, transaction: Transaction, id: str, evidence: Evidence) -> None:
        table = tables.incidents
        transaction.connection.execute(sa.update(table).where(table.c.id == id).values(evidence=_json(evidence)))

    def put_signals(self, transaction: Transaction, id: str, found: Iterable[tuple[Key, Signal]]) -> None:
        rows = [
            {
                "incident_id": id,
                "rule": rule,
                "site_id": site_id,
                "item": item[:200],
                "site_name": signal.site,
                "text": signal.text,
                "since": signal.since,
                "cleared_at": signal.cleared_at,
                "times": signal.times,
            }
            for (rule, site_id, item), signal in found
        ]
        if rows:
            transaction.connection.execute(sa.insert(tables.signals).prefix_with("OR REPLACE"), rows)

    def clear_closed(self, transaction: Transaction, keys: Iterable[Key], now: float) -> None:
        """What was bad when its incident was closed by a person is well now."""
        table = tables.signals
        shut = sa.select(tables.incidents.c.id).where(sa.not_(tables.incidents.c.open))
        for rule, site, item in keys:
            own = sa.and_(table.c.rule == rule, table.c.site_id == site, table.c.item == item)
            query = sa.update(table).where(own, table.c.cleared_at.is_(None), table.c.incident_id.in_(shut))
            transaction.connection.execute(query.values(cleared_at=now))

    def note(
        self, transaction: Transaction, id: str, kind: str, who: str, text: str, at: float, site: str = ""
    ) -> None:
        table = tables.notes
        count = sa.select(sa.func.count()).where(table.c.incident_id == id)
        if kind in ("joined", "well") and transaction.connection.execute(count).scalar_one() >= NOTES_MAX:
            return
        row = {"incident_id": id, "at": at, "kind": kind, "who": who, "text": text[:2000], "site_id": site}
        transaction.connection.execute(sa.insert(table).values(**row))

    def get(self, id: str) -> Incident | None:
        table = tables.incidents
        with self.store.read() as connection:
            text = connection.execute(sa.select(table.c.document).where(table.c.id == id)).scalar()
        return msgspec.json.decode(text, type=Incident) if text else None

    def evidence(self, id: str) -> Evidence | None:
        table = tables.incidents
        with self.store.read() as connection:
            text = connection.execute(sa.select(table.c.evidence).where(table.c.id == id)).scalar()
        return msgspec.json.decode(text, type=Evidence) if text else None

    def signals(self, ids: Sequence[str]) -> dict[str, dict[Key, Signal]]:
        """By incident."""
        table = tables.signals
        found: dict[str, dict[Key, Signal]] = {id: {} for id in ids}
        each = sa.func.json_each(_json(list(ids))).table_valued("value")
        query = sa.select(table).where(table.c.incident_id.in_(sa.select(each.c.value))).order_by(table.c.since)
        with self.store.read() as connection:
            for row in connection.execute(query):
                found[row.incident_id][(row.rule, row.site_id, row.item)] = Signal(
                    rule=row.rule,
                    site=row.site_name,
                    site_id=row.site_id,
                    item=row.item,
                    text=row.text,
                    since=row.since,
                    cleared_at=row.cleared_at,
                    times=row.times,
                )
        return found

    def notes(self, id: str) -> tuple[Note, ...]:
        table = tables.notes
        query = sa.select(table).where(table.c.incident_id == id).order_by(table.c.seq)
        with self.store.read() as connection:
            return tuple(
                Note(at=row.at, kind=row.kind, who=row.who, text=row.text, site=row.site_id)
                for row in connection.execute(query)
            )

    def list(
        self,
        *,
        is_open: bool | None = None,
        site: str | None = None,
        of: Collection[str] | None = None,
        before: str | None = None,
        limit: int = 50,
        closed_since: float | None = None,
    ) -> list[Incident]:
        """Newest first. ``site``, ``of``: ids of sites that it is of, or that are a part of it. ``before``: only those
        older than the one of this id."""
        table, signals = tables.incidents, tables.signals
        query = sa.select(table.c.document).order_by(table.c.seq.desc()).limit(limit)
        if is_open is not None:
            query = query.where(table.c.open == is_open)
        if closed_since is not None:
            query = query.where(table.c.closed_at >= closed_since)
        for ids in ([site] if site is not None else None, of):
            if ids is not None:
                each = sa.func.json_each(_json(sorted(ids))).table_valued("value")
                own = sa.select(each.c.value)
                part = sa.select(signals.c.incident_id).where(signals.c.site_id.in_(own))
                query = query.where(sa.or_(table.c.site_id.in_(own), table.c.id.in_(part)))
        if before is not None:
            query = query.where(table.c.seq < sa.select(table.c.seq).where(table.c.id == before).scalar_subquery())
        with self.store.read() as connection:
            return [msgspec.json.decode(text, type=Incident) for text in connection.execute(query).scalars()]

    def prune(self, transaction: Transaction, before: float) -> int:
        """Remove what was closed earlier than ``before``."""
        table = tables.incidents
        old = sa.select(table.c.id).where(table.c.closed_at < before)
        for other in (tables.signals, tables.notes):
            transaction.connection.execute(sa.delete(other).where(other.c.incident_id.in_(old)))
        return int(transaction.connection.execute(sa.delete(table).where(table.c.closed_at < before)).rowcount)

    # --- rules and silences -------------------------------------------------------------------
    def rules(self) -> dict[str, Rule]:
        """Those that somebody made or changed, by name."""
        with self.store.read() as connection:
            rows = connection.execute(sa.select(tables.rules.c.name, tables.rules.c.document)).all()
        return {row.name: msgspec.json.decode(row.document, type=Rule) for row in rows}

    def put_rule(self, transaction: Transaction, name: str, rule: Rule | None, who: str) -> None:
        """``None`` takes it away."""
        table = tables.rules
        transaction.connection.execute(sa.delete(table).where(table.c.name == name))
        if rule is not None:
            row = {"name": name, "document": _json(rule), "created_at": time.time(), "created_by": who}
            transaction.connection.execute(sa.insert(table).values(**row))

    def silences(self) -> dict[str, Silence]:
        with self.store.read() as connection:
            rows = connection.execute(sa.select(tables.silences.c.document)).scalars().all()
        found = (msgspec.json.decode(text, type=Silence) for text in rows)
        return {each.id: each for each in found}

    def put_silence(self, transaction: Transaction, silence: Silence) -> None:
        row = {"id": silence.id, "document": _json(silence), "created_at": silence.created_at}
        transaction.connection.execute(sa.insert(tables.silences).values(**row))

    def drop_silences(self, transaction: Transaction, ids: Iterable[str]) -> None:
        for id in ids:
            transaction.connection.execute(sa.delete(tables.silences).where(tables.silences.c.id == id))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
