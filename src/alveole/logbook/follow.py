"""The lines that come from now on, of several places at a time, across rotations."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from alveole.logbook.model import Entry, Wanted
from alveole.logbook.places import Place
from alveole.logbook.search import Fits, told
from alveole.logbook.segments import LINE_MAX, split_lines

PLACES_MAX = 4096
#: At one look so much is read of each place (bytes); the rest at the next.
_MOST = 512 * 1024


class Tail:
    """One row of files. What is written between two looks is given even where the file was renamed meanwhile."""

    def __init__(self, place: Place, whole: bool) -> None:
        self.place = place
        self._inode = 0
        self._at = 0
        if not whole:
            with contextlib.suppress(OSError):
                status = place.current.stat()
                self._inode, self._at = status.st_ino, status.st_size
        self.skipped = 0
        """Bytes that were gone before they were read."""

    def poll(self) -> list[bytes]:
        try:
            status = self.place.current.stat()
        except OSError:
            status = None
        if status is not None and status.st_ino == self._inode and status.st_size == self._at:
            return []
        found: list[bytes] = []
        if (status is None or status.st_ino != self._inode) and self._inode:
            found = self._rest()
        if status is None:
            return found
        if status.st_ino != self._inode or status.st_size < self._at:
            self._inode, self._at = status.st_ino, 0
        return found + self._read(self.place.current, self._inode)

    def _rest(self) -> list[bytes]:
        """What came into the file before it was renamed."""
        for name in reversed(self.place.older()):
            path = self.place.live / name
            with contextlib.suppress(OSError):
                status = path.stat()
                if status.st_ino == self._inode:
                    found = self._read(path, self._inode, whole=True)
                    self.skipped += max(0, status.st_size - self._at)
                    return found
        return []

    def _read(self, path: os.PathLike[str], inode: int, *, whole: bool = False) -> list[bytes]:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_ino != inode:
                    return []
                block = os.pread(fd, 64 * _MOST if whole else _MOST, self._at)
            finally:
                os.close(fd)
            end = block.rfind(b"\n") + 1
            if not end and len(block) >= LINE_MAX:
                end = len(block)
            self._at += end
            return split_lines(block[:end]) if end else []
        return []


class Tails:
    """Lines that fit, of all ``places``, from the moment it was made; ``whole``: from the beginning of what is live."""

    def __init__(
        self, places: Iterable[Place], wanted: Wanted, name: Callable[[str], str] = str, *, whole: bool = False
    ) -> None:
        self._tails = [Tail(place, whole) for place in places]
        self._fits = Fits(wanted)
        self._name = name

    @property
    def skipped(self) -> int:
        return sum(each.skipped for each in self._tails)

    def poll(self) -> list[Entry]:
        """What came since the last look, by time."""
        found = []
        for tail in self._tails:
            for raw in tail.poll():
                entry = self._fits.read(raw, tail.place.form)
                if entry is not None:
                    found.append(told(entry, tail.place, self._name))
        return sorted(found, key=lambda each: each.at)
