"""The promise ledger: of each site, since when each promise is kept, how much of 30 days, and which change broke it.

One row a site and promise, written when its state changes and at no other time: how long a state has lasted follows
from when it began. A mark in the settings says until when rounds went on; what lies between it and the next start
counts as not known, as nobody was looking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole.incidents.model import Before
from alveole.incidents.signals import Promised
from alveole.incidents.tables import promises
from alveole.store import Store, Transaction, tables
from alveole.store.sealing import Plain

KEPT, BROKEN, UNKNOWN = "kept", "broken", "unknown"
DAYS = 30
_DAY = 86_400
#: How often the mark is written: so much at most is not known after a crash.
MARK_SECONDS = 300.0
_MARK = "promises-seen"


class LedgerEntry(msgspec.Struct, frozen=True):
    """``days``: of each day (since the epoch) the seconds kept and broken, until ``counted_at``."""

    state: str
    since: float
    counted_at: float
    days: dict[int, tuple[float, float]] = {}
    text: str = ""
    broken_by: Before | None = None
    times: int = 0


class Share(msgspec.Struct, frozen=True):
    kept: float
    known: float
    """Seconds."""


class Ledger:
    """Used by the round alone; :meth:`of` may be called from any thread."""

    def __init__(self, store: Store, before: Callable[[str], Before | None], now: float | None = None) -> None:
        self._store = store
        self._before = before
        self._entries: dict[str, dict[str, LedgerEntry]] = {}
        self._marked = 0.0
        self._load(time.time() if now is None else now)

    def _load(self, now: float) -> None:
        settings = tables.settings
        with self._store.read() as connection:
            text = connection.execute(sa.select(settings.c.value).where(settings.c.key == _MARK)).scalar()
            rows = connection.execute(sa.select(promises)).all()
        mark = min(float(text), now) if text else 0.0
        for row in rows:
            days = {int(day): (kept, broken) for day, kept, broken in msgspec.json.decode(row.days)}
            by = msgspec.json.decode(row.broken_by, type=Before) if row.broken_by else None
            entry = LedgerEntry(row.state, row.since, row.counted_at, days, row.text, by, row.times)
            entry = msgspec.structs.replace(counted(entry, max(mark, entry.counted_at)), counted_at=now)
            self._entries.setdefault(row.site_id, {})[row.promise] = entry

    # --- writing ------------------------------------------------------------------------------
    def look(self, promised: Mapping[str, Promised], sites: Iterable[str], now: float) -> int:
        """Take what a round has seen; gives how many rows were written."""
        known = dict.fromkeys(sites)
        changed: list[tuple[str, str, LedgerEntry]] = []
        for promise, found in promised.items():
            seen, broken = found.known, found.broken
            for site in known:
                own = self._entries.get(site)
                entry = own.get(promise) if own is not None else None
                state = BROKEN if site in broken else KEPT if site in seen else UNKNOWN
                if entry is None:
                    if state != UNKNOWN:
                        changed.append((site, promise, self._turned(None, site, state, broken.get(site, ""), now)))
                elif entry.state != state:
                    changed.append((site, promise, self._turned(entry, site, state, broken.get(site, ""), now)))
        gone = [site for site in self._entries if site not in known]
        if changed or gone or now - self._marked >= MARK_SECONDS:
            with self._store.write() as transaction:
                self._write(transaction, changed, gone, now)
        for site, promise, entry in changed:
            self._entries.setdefault(site, {})[promise] = entry
        for site in gone:
            del self._entries[site]
        return len(changed)

    def _turned(self, entry: LedgerEntry | None, site: str, state: str, text: str, now: float) -> LedgerEntry:
        old = LedgerEntry(UNKNOWN, now, now) if entry is None else counted(entry, now)
        by, times = old.broken_by, old.times
        if state == BROKEN:
            by, times = self._before(site), times + 1
        return LedgerEntry(state, now, now, old.days, text, by, times)

    def _write(
        self, transaction: Transaction, changed: list[tuple[str, str, LedgerEntry]], gone: list[str], now: float
    ) -> None:
        run = transaction.connection.execute
        rows = [_row(site, promise, entry) for site, promise, entry in changed]
        if rows:
            run(sa.insert(promises).prefix_with("OR REPLACE"), rows)
        for site in gone:
            run(sa.delete(promises).where(promises.c.site_id == site))
        run(sa.insert(tables.settings).prefix_with("OR REPLACE").values(key=_MARK, value=Plain(repr(now))))
        self._marked = now

    # --- reading ------------------------------------------------------------------------------
    def of(self, site: str) -> Mapping[str, LedgerEntry]:
        return dict(self._entries.get(site, {}))


def counted(entry: LedgerEntry, now: float) -> LedgerEntry:
    """With the time from ``counted_at`` to ``now`` put into its days; days that are too old are gone."""
    days = dict(entry.days)
    if entry.state != UNKNOWN and now > entry.counted_at:
        begin = max(entry.counted_at, now - (DAYS + 1) * _DAY)
        for day in range(int(begin // _DAY), int(now // _DAY) + 1):
            part = min(now, (day + 1) * _DAY) - max(begin, day * _DAY)
            kept, broken = days.get(day, (0.0, 0.0))
            days[day] = (kept + part, broken) if entry.state == KEPT else (kept, broken + part)
    oldest = int(now // _DAY) - DAYS
    days = {day: value for day, value in days.items() if day >= oldest}
    return msgspec.structs.replace(entry, days=days, counted_at=max(now, entry.counted_at))


def share(entry: LedgerEntry, now: float) -> Share:
    """Of today and the 30 days before."""
    found = counted(entry, now).days.values()
    kept = sum(value[0] for value in found)
    return Share(kept, kept + sum(value[1] for value in found))


def _row(site: str, promise: str, entry: LedgerEntry) -> dict[str, Any]:
    days = [[day, round(kept, 1), round(broken, 1)] for day, (kept, broken) in entry.days.items()]
    return {
        "site_id": site,
        "promise": promise,
        "state": entry.state,
        "since": entry.since,
        "counted_at": entry.counted_at,
        "days": msgspec.json.encode(days).decode(),
        "text": entry.text,
        "broken_by": msgspec.json.encode(entry.broken_by).decode() if entry.broken_by is not None else "",
        "times": entry.times,
    }
