"""What each site has answered today, from the edge's access logs: read on where the last look ended.

Nothing is counted on the way of a request. A look costs a stat for each log that did not grow; the first one finds the
beginning of the day by bisection. The day is the machine's own, as in the log. The edge keeps one older log, so of a
site that fills more than that between two looks less is known than there was.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

_LOGS = ("access.log.1", "access.log")
_BLOCK = 1 << 20
#: A line is at most as long as a request's head and what the edge says of it.
_LINE_MAX = 64 * 1024
_DAY = re.compile(rb'\{"time":"(\d{4}-\d{2}-\d{2})T')


class Counted(msgspec.Struct, frozen=True):
    """``sent_bytes``: bodies of answers, as they went over the wire."""

    requests: int = 0
    sent_bytes: int = 0


class _Seen:
    def __init__(self, day: str) -> None:
        self.day = day
        self.counted = Counted()
        self.read: dict[int, int] = {}
        """How far, by inode."""


class Traffic:
    """``logs``: the directory with one of each site. Safe from several threads."""

    def __init__(self, logs: Path, clock: Callable[[], float] = time.time) -> None:
        self._logs = logs
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def look(self, sites: Iterable[str], seconds: float = 0.02) -> dict[str, Counted]:
        """Of today, by site; never longer than about ``seconds``: what is left is read at the next look."""
        day = time.strftime("%Y-%m-%d", time.localtime(self._clock()))
        line = re.compile(rb'^\{"time":"' + day.encode() + rb'T[^\n]*?,"bytes":"(\d{1,15})"', re.MULTILINE)
        end = time.monotonic() + seconds
        found = {}
        with self._lock:
            for site in sites:
                seen = self._seen.get(site)
                if seen is None:
                    seen = self._seen[site] = _Seen(day)
                if seen.day != day:
                    seen.day, seen.counted = day, Counted()
                self._read(self._logs / site, seen, line, end)
                found[site] = seen.counted
        return found

    def forget(self, kept: Iterable[str]) -> None:
        """All but ``kept``: sites that are gone."""
        with self._lock:
            self._seen = {site: self._seen[site] for site in kept if site in self._seen}

    @staticmethod
    def _read(place: Path, seen: _Seen, line: re.Pattern[bytes], end: float) -> None:
        known: dict[int, int] = {}
        for name in _LOGS:
            with contextlib.suppress(OSError):
                status = (place / name).stat()
                at = seen.read.get(status.st_ino, -1)
                if at < status.st_size:
                    with Path(place, name).open("rb", buffering=0) as file:
                        at = _begin(file, status.st_size, seen.day.encode()) if at < 0 else at
                        at = _count(file, at, seen, line, end)
                known[status.st_ino] = at
        seen.read = known


def _count(file: BinaryIO, at: int, seen: _Seen, line: re.Pattern[bytes], end: float) -> int:
    """Read on from ``at``; gives how far whole lines were read."""
    while time.monotonic() < end:
        file.seek(at)
        block = file.read(_BLOCK)
        whole = block.rfind(b"\n") + 1
        if not whole:
            break
        sizes = line.findall(block, 0, whole)
        counted = seen.counted
        seen.counted = Counted(counted.requests + len(sizes), counted.sent_bytes + sum(map(int, sizes)))
        at += whole
    return at


def _begin(file: BinaryIO, size: int, day: bytes) -> int:
    """Where the first line of ``day`` or later begins."""
    low, high = 0, size
    while high - low > _LINE_MAX:
        middle = (low + high) // 2
        start, found = _day_at(file, middle)
        if found is None or found >= day:
            high = middle
        else:
            low = start
    return low


def _day_at(file: BinaryIO, at: int) -> tuple[int, bytes | None]:
    """The first whole line after ``at``: where it begins, and its day."""
    file.seek(at)
    block = file.read(_LINE_MAX)
    start = block.find(b"\n") + 1
    found = _DAY.match(block, start) if start else None
    return at + start, found[1] if found else None
