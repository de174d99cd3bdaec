"""The rows about backups: marks, proofs and what is another for one site. Beside :mod:`alveole.store`."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from alveole.agent.protocol import Link
from alveole.policy.backups import Cause, KeptBackup, SitePolicy
from alveole.scenarios.model import Report
from alveole.store import tables
from alveole.store.tables_backups import marks, policies, proofs

#: Proofs that are remembered of each site.
PROOFS_KEPT = 20


class Mark(msgspec.Struct, frozen=True):
    """``copies``: the snapshot in each other repository that has one."""

    cause: Cause = Cause.HAND
    pinned: bool = False
    copies: dict[str, str] = {}


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was asked of a scratch site, and what came."""

    links: tuple[Link, ...] = ()
    reports: tuple[Report, ...] = ()


class Proof(msgspec.Struct, frozen=True):
    """One backup that was given back into a scratch site and asked."""

    backup_id: str
    site_id: str
    at: float
    ok: bool
    seconds: float
    problem: str
    evidence: Evidence


def mark_of(connection: sa.Connection, id: str) -> Mark:
    return marks_of(connection, (id,)).get(id, Mark())


def marks_of(connection: sa.Connection, ids: tuple[str, ...] | None = None) -> dict[str, Mark]:
    query = sa.select(marks)
    if ids is not None:
        query = query.where(marks.c.backup_id.in_(ids))
    return {row.backup_id: _mark(row) for row in connection.execute(query)}


def _mark(row: sa.Row[tuple[object, ...]]) -> Mark:
    return Mark(Cause(row.cause), bool(row.pinned), msgspec.json.decode(row.copies, type=dict[str, str]))


def put_mark(connection: sa.Connection, id: str, mark: Mark) -> None:
    drop_mark(connection, id)
    copies = msgspec.json.encode(mark.copies).decode()
    values = {"backup_id": id, "cause": str(mark.cause), "pinned": mark.pinned, "copies": copies}
    connection.execute(sa.insert(marks).values(**values))


def drop_mark(connection: sa.Connection, id: str) -> None:
    connection.execute(sa.delete(marks).where(marks.c.backup_id == id))


def kept(connection: sa.Connection) -> dict[str, list[KeptBackup]]:
    """Every backup, by the site it was made of, newest first."""
    known = marks_of(connection)
    found: dict[str, list[KeptBackup]] = {}
    table = tables.backups
    query = sa.select(table.c.id, table.c.site_id, table.c.created_at).order_by(table.c.created_at.desc())
    for row in connection.execute(query):
        mark = known.get(row.id, Mark())
        found.setdefault(row.site_id, []).append(KeptBackup(row.id, row.created_at, mark.cause, mark.pinned))
    return found


def put_proof(connection: sa.Connection, proof: Proof) -> None:
    connection.execute(sa.delete(proofs).where(proofs.c.backup_id == proof.backup_id))
    values = {name: getattr(proof, name) for name in ("backup_id", "site_id", "at", "ok", "seconds", "problem")}
    document = msgspec.json.encode(proof.evidence).decode()
    connection.execute(sa.insert(proofs).values(**values, document=document))
    of_site = sa.select(proofs.c.backup_id).where(proofs.c.site_id == proof.site_id)
    old = of_site.order_by(proofs.c.at.desc()).limit(-1).offset(PROOFS_KEPT)
    connection.execute(sa.delete(proofs).where(proofs.c.backup_id.in_(old)))


def proofs_of(connection: sa.Connection, site_id: str | None = None) -> tuple[Proof, ...]:
    """Newest first; of every site when none is named. Without the evidence where none is."""
    query = sa.select(proofs).order_by(proofs.c.at.desc())
    if site_id is not None:
        query = query.where(proofs.c.site_id == site_id)
    return tuple(_proof(row) for row in connection.execute(query))


def proof_of(connection: sa.Connection, id: str) -> Proof | None:
    row = connection.execute(sa.select(proofs).where(proofs.c.backup_id == id)).one_or_none()
    return None if row is None else _proof(row)


def _proof(row: sa.Row[tuple[object, ...]]) -> Proof:
    evidence = msgspec.json.decode(row.document, type=Evidence)
    return Proof(row.backup_id, row.site_id, row.at, bool(row.ok), row.seconds, row.problem, evidence)


def last_proved(connection: sa.Connection, site_id: str) -> float | None:
    """When a backup of the site was last proved."""
    query = sa.select(sa.func.max(proofs.c.at)).where(proofs.c.site_id == site_id, proofs.c.ok)
    return connection.execute(query).scalar()


def failed_between(connection: sa.Connection, site_id: str, begin: float, end: float) -> tuple[float, ...]:
    """When saving a site failed, from ``begin`` until before ``end``."""
    table = tables.changes
    query = sa.select(table.c.started_at).where(table.c.site_id == site_id, table.c.verb == "backup")
    query = query.where(table.c.state == "failed", table.c.started_at >= begin, table.c.started_at < end)
    return tuple(connection.execute(query).scalars())


def site_policies(connection: sa.Connection) -> dict[str, SitePolicy]:
    found = connection.execute(sa.select(policies))
    return {row.site_id: msgspec.json.decode(row.document, type=SitePolicy) for row in found}


def put_site_policy(connection: sa.Connection, site_id: str, policy: SitePolicy) -> None:
    connection.execute(sa.delete(policies).where(policies.c.site_id == site_id))
    if policy != SitePolicy():
        text = msgspec.json.encode(policy).decode()
        connection.execute(sa.insert(policies).values(site_id=site_id, document=text))


def forget_gone(connection: sa.Connection, sites: set[str]) -> None:
    """Remove marks of no backup, and proofs of sites that are gone and have no backup any more."""
    connection.execute(sa.delete(marks).where(marks.c.backup_id.not_in(sa.select(tables.backups.c.id))))
    saved = {row.site_id for row in connection.execute(sa.select(tables.backups.c.site_id).distinct())}
    for row in connection.execute(sa.select(proofs.c.site_id).distinct()).all():
        if row.site_id not in saved | sites:
            connection.execute(sa.delete(proofs).where(proofs.c.site_id == row.site_id))
