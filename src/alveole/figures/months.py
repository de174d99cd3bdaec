"""Months (UTC) of figures: where they begin, and from rows to what they say of a site or of the machine. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from alveole.errors import InvalidInput
from alveole.figures.archive import Table
from alveole.views.figures import MachineMonth

_MONTH = re.compile(r"^(20\d\d)-(0[1-9]|1[0-2])\Z")
_CODES = ("ok", "moved", "refused", "failed")
HOUR, DAY = 3600, 86_400
#: Of the hour that is not over: its rows come when it is, and a new machine would know nothing until then.
_PART = 600
#: Hours are kept for 760 of them; a little less, so that none falls out while it is asked for.
_HOURS_KEPT = 755 * HOUR


def bounds(month: str) -> tuple[int, int]:
    """Epoch seconds of the beginning and the end of ``YYYY-MM``; raises ``InvalidInput``."""
    found = _MONTH.match(month)
    if found is None:
        raise InvalidInput(f"{month[:20]!r} is no month", field="month", hint="YYYY-MM, as 2026-10")
    year, number = int(found[1]), int(found[2])
    after = (year + 1, 1) if number == 12 else (year, number + 1)
    return _epoch(year, number), _epoch(*after)


def _epoch(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp())


def month_of(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def before(month: str) -> str:
    """The month before."""
    return month_of(bounds(month)[0] - 1)


def step_for(start: int, now: float) -> int:
    """The finest rows of which a month that began at ``start`` is still whole."""
    return HOUR if now - start < _HOURS_KEPT else DAY


class Sums(msgspec.Struct, frozen=True):
    """What the rows of one month say."""

    known: float
    up: float | None
    kept: float | None
    requests: float
    failed: float
    p50: float | None
    p95: float | None
    p99: float | None


def parts(start: int, end: int, now: float, *, many: bool) -> list[tuple[int, int, int]]:
    """What to read of a month: from when to when, and the step of the rows.

    Of ``many`` sites whole days by their days, and only what is left of today by its hours: a thirtieth of the rows.
    """
    over = min(end, int(now))
    if many:
        days = over // DAY * DAY
        found = [(start, days, DAY), (max(start, days), over // HOUR * HOUR, HOUR)]
    else:
        step = step_for(start, now)
        found = [(start, over // step * step, step)]
    if found[-1][2] == HOUR:
        found.append((max(start, found[-1][1]), over // _PART * _PART, _PART))
    return [each for each in found if each[1] > each[0]]


def sums(tables: Sequence[Table], start: int, end: float) -> Sums:
    """Of a site; ``start`` and ``end`` are those of the month, or of the part of it that is over.

    ``tables`` have the same columns, and no moment is in two of them.
    """
    column = {name: place for place, name in enumerate(tables[0].columns)} if tables else {}
    rows = [(row, table.step) for table in tables for row in rows_in(table, start)]

    def asked(row: tuple[float | None, ...]) -> float:
        return sum(row[column[code]] or 0.0 for code in _CODES)

    def weighed(pairs: list[tuple[float, float]]) -> float | None:
        whole = sum(weight for _, weight in pairs)
        return sum(value * weight for value, weight in pairs) / whole if whole else None

    def by_requests(name: str) -> float | None:
        place = column.get(name, 0)
        return weighed([(value, asked(row) * step) for row, step in rows if (value := row[place]) is not None])

    def by_time(name: str) -> float | None:
        place = column.get(name, 0)
        return weighed([(value, step) for row, step in rows if (value := row[place]) is not None])

    known = sum(step for row, step in rows if row[column["ok"]] is not None)
    return Sums(
        known=min(known / max(end - start, 1.0), 1.0),
        up=by_time("up"),
        kept=by_time("kept"),
        requests=sum(asked(row) * step for row, step in rows),
        failed=sum((row[column["failed"]] or 0.0) * step for row, step in rows),
        p50=by_requests("p50"),
        p95=by_requests("p95"),
        p99=by_requests("p99"),
    )


def machine(
    table: Table, peaks: Table, start: int, end: float, rest: Sequence[tuple[Table, Table]] = ()
) -> MachineMonth:
    """Of the machine. ``peaks`` has the highest values of the same rows; ``rest``: the same of later parts."""
    column = {name: place for place, name in enumerate(table.columns)}
    both = [(table, peaks), *rest]
    rows = [(row, each.step) for each, _ in both for row in rows_in(each, start)]
    high = [row for _, each in both for row in rows_in(each, start)]

    def total(*names: str) -> int:
        return round(sum((row[column[name]] or 0.0) * step for row, step in rows for name in names))

    def last(name: str) -> float | None:
        return next((row[column[name]] for row, _ in reversed(rows) if row[column[name]] is not None), None)

    def usual(name: str) -> float | None:
        known = [(value, step) for row, step in rows if (value := row[column[name]]) is not None]
        return sum(value * step for value, step in known) / sum(step for _, step in known) if known else None

    def most(name: str) -> float | None:
        return max((value for row in high if (value := row[column[name]]) is not None), default=None)

    return MachineMonth(
        known=min(sum(step for row, step in rows if row[column["memory"]] is not None) / max(end - start, 1.0), 1.0),
        cpu=usual("cpu"),
        cpu_peak=most("cpu"),
        cpus=last("cpus"),
        memory=usual("memory"),
        memory_peak=most("memory"),
        memory_all=last("memory_all"),
        disk=last("disk"),
        disk_all=last("disk_all"),
        requests=total(*_CODES),
        failed=total("failed"),
        in_bytes=total("in4", "in6"),
        out_bytes=total("out4", "out6"),
    )


def rows_in(table: Table, start: int) -> Sequence[tuple[float | None, ...]]:
    """Rows whose time is within: each stands for the step that ends at its own time."""
    return [row for number, row in enumerate(table.rows) if table.start + number * table.step > start]
