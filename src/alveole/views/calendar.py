"""PURE. A month of a site's backups, day by day, in the machine's own time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from alveole.errors import InvalidInput
from alveole.views.backups import BackupView, CalendarDay

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])\Z")
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


def day_of(at: float) -> str:
    """``2026-11-21``."""
    return time.strftime("%Y-%m-%d", time.localtime(at))


def month_of(at: float) -> str:
    return day_of(at)[:7]


def numbers(month: str) -> tuple[int, int]:
    """Year and month. Raises ``InvalidInput``."""
    found = _MONTH.match(month)
    if found is None or not _FIRST_YEAR <= int(found[1]) <= _LAST_YEAR:
        raise InvalidInput(f"{month[:20]!r} is no month", field="month", hint="YYYY-MM, as 2026-10")
    return int(found[1]), int(found[2])


def bounds(month: str) -> tuple[float, float]:
    """From its first moment to the first of the next one."""
    year, number = numbers(month)
    return _midnight(year, number), _midnight(year, number + 1)


def _midnight(year: int, month: int) -> float:
    # A month of 13 is January of the next year; whether it is summer time is worked out.
    return time.mktime((year, month, 1, 0, 0, 0, 0, 1, -1))


def beside(month: str) -> tuple[str, str]:
    """The month before, and the one after."""
    year, number = numbers(month)
    before = (year - 1, 12) if number == 1 else (year, number - 1)
    after = (year + 1, 1) if number == 12 else (year, number + 1)
    return f"{before[0]:04d}-{before[1]:02d}", f"{after[0]:04d}-{after[1]:02d}"


def weeks(month: str) -> tuple[tuple[str, ...], ...]:
    """Its days in weeks of seven that begin on Monday; empty where a day is of another month."""
    import calendar

    year, number = numbers(month)
    rows = calendar.Calendar().monthdayscalendar(year, number)
    return tuple(tuple(f"{month}-{day:02d}" if day else "" for day in row) for row in rows)


def days(month: str, backups: Iterable[BackupView], failed: Iterable[float]) -> tuple[CalendarDay, ...]:
    """The days of a month on which something was made or has failed. ``failed``: when saving the site failed."""
    found: dict[str, list[int]] = {}

    def of(at: float) -> list[int] | None:
        day = day_of(at)
        return found.setdefault(day, [0] * 5) if day.startswith(month) else None

    for backup in backups:
        counts = of(backup.created_at)
        if counts is not None:
            more = (1, backup.pinned, backup.proved is True, backup.proved is False, 0)
            counts[:] = [count + int(each) for count, each in zip(counts, more, strict=True)]
    for at in failed:
        counts = of(at)
        if counts is not None:
            counts[4] += 1
    names = ("made", "pinned", "proved", "unproved", "failed")
    return tuple(CalendarDay(date=day, **dict(zip(names, found[day], strict=True))) for day in sorted(found))
