"""Read what sites print: the directories that ``s6-log`` writes, with its ``T`` stamps.

A directory holds ``current`` and older files ``@<TAI64N>.s`` (or ``.u``, when the writer was
ended before it could finish the file). Every line starts with the moment it was read, in UTC:
``2026-11-21 06:51:26.123456789  text``. What follows the stamp was written by a site and is
hostile: :func:`~alveole.text.clean` makes it inert for terminals and pages, and everything here goes through it.

The writer rotates at any moment. A reader therefore opens ``current`` before it lists the older
files and knows files by inode, so that a rotation neither hides nor repeats a line.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import msgspec

from alveole.errors import InvalidInput
from alveole.logbook.lines import Form
from alveole.logbook.model import Source
from alveole.logbook.places import OLDER, Place
from alveole.logbook.segments import Plain, Segment, split_lines
from alveole.text import clean

LAST_MAX = 100_000
"""Most lines that ``last`` may ask for."""
_LINE_MAX = 64 * 1024
_BLOCK = 64 * 1024
_STAMP = re.compile(rb"(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}\.\d{9})  ?")
_AGO = re.compile(r"^(\d{1,9}(?:\.\d{1,3})?)\s*(s|m|h|d|w)(?: ago)?\Z")
_CLOCK = re.compile(r"^([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(text: str, field: str = "since", now: float | None = None) -> float:
    """Seconds since the epoch from what people write.

    ``90s``, ``10m``, ``2h``, ``3d`` mean that long ago; ``now``, ``today`` and ``yesterday`` (local
    midnight); ``06:51`` the last time that it was that late; a number is an epoch; else ISO 8601, local time unless it
    carries an offset. Raises
    ``InvalidInput``.
    """
    now = time.time() if now is None else now
    plain = text.strip().lower()
    if found := _AGO.match(plain):
        return now - float(found[1]) * _SECONDS[found[2]]
    if plain == "now":
        return now
    if plain in ("today", "yesterday"):
        midnight = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
        return (midnight - timedelta(days=plain == "yesterday")).timestamp()
    if found := _CLOCK.match(plain):
        day = datetime.fromtimestamp(now).replace(microsecond=0)
        today = day.replace(hour=int(found[1]), minute=int(found[2]), second=int(found[3] or 0))
        return (today if today.timestamp() <= now else today - timedelta(days=1)).timestamp()
    if re.match(r"^\d{9,11}(?:\.\d{1,9})?\Z", plain):
        return float(plain)
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text.strip()).timestamp()
    raise InvalidInput(
        f"{clean(text)!r} is not a moment", field=field, hint="write it like 10m, 2h, today, 06:51 or 2026-11-21T06:51"
    )


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line: ``at`` is ISO 8601 in UTC with nanoseconds (empty: unknown), ``text`` is clean."""

    at: str
    text: str


class Position(msgspec.Struct, frozen=True):
    """A place in the stream: the file (by inode) and the offset in it."""

    inode: int
    offset: int


def read(
    directory: Path,
    *,
    since: float | None = None,
    until: float | None = None,
    last: int | None = None,
    end: Position | None = None,
    archive: Path | None = None,
) -> Iterator[Line]:
    """The lines of ``directory``, oldest first, between two moments; with ``last``, the last so many.

    ``archive``: where its older files lie packed. ``end`` (of a :class:`Follower`) leaves out what that follower will
    give. An absent directory has no lines.
    """
    place = Place(Source.OUT, Form.PLAIN, directory, archive or directory / "packed", "out")
    with contextlib.ExitStack() as stack:
        files = _until(place.segments(stack, since, until), end)
        if last is None:
            yield from _forward(files, since, until)
        else:
            wanted = min(last, LAST_MAX)
            kept: list[Line] = []
            for line in _newest_first(files, since, until):
                if len(kept) >= wanted:
                    break
                kept.append(line)
            yield from reversed(kept)


class Follower:
    """Gives the lines written after it was made, across rotations. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._inode = 0
        self._rest = b""
        self._start = self._begin()

    @property
    def start(self) -> Position | None:
        """Where it began; ``None`` when there was nothing to read yet."""
        return self._start

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def poll(self) -> list[Line]:
        """What was written since the last call. Never blocks for long: it reads files."""
        lines: list[Line] = []
        if self._file is None and not self._next(None):
            return lines
        while True:
            lines.extend(self._drain())
            if not self._rotated() or not self._next(self._inode):
                return lines

    def _begin(self) -> Position | None:
        try:
            self._file = (self._directory / "current").open("rb")
        except OSError:
            return None
        status = os.fstat(self._file.fileno())
        self._inode = status.st_ino
        offset = status.st_size
        # Only whole lines count: what stands after the last line feed is still being written.
        while offset > 0:
            start = max(0, offset - _BLOCK)
            self._file.seek(start)
            block = self._file.read(offset - start)
            found = block.rfind(b"\n")
            if found >= 0:
                offset = start + found + 1
                break
            offset = start
        self._file.seek(offset)
        return Position(self._inode, offset)

    def _drain(self) -> list[Line]:
        if self._file is None:
            return []
        lines: list[Line] = []
        while block := self._file.read(_BLOCK):
            parts = (self._rest + block).split(b"\n")
            self._rest = parts.pop()[:_LINE_MAX]
            lines.extend(_parse(part) for part in parts)
        return lines

    def _rotated(self) -> bool:
        try:
            return (self._directory / "current").stat().st_ino != self._inode
        except OSError:
            return False

    def _next(self, after: int | None) -> bool:
        """Open the file that follows inode ``after`` (``None``: the oldest) and say whether there is one."""
        current: BinaryIO | None = None
        with contextlib.suppress(OSError):
            current = (self._directory / "current").open("rb")
        names = _archives(self._directory)
        inodes = [_inode(self._directory / name) for name in names]
        following = inodes.index(after) + 1 if after in inodes else (0 if after is None else len(names))
        for name in names[following:]:
            with contextlib.suppress(OSError):
                opened = (self._directory / name).open("rb")
                if current is not None:
                    current.close()
                return self._take(opened)
        return current is not None and self._take(current)

    def _take(self, opened: BinaryIO) -> bool:
        inode = os.fstat(opened.fileno()).st_ino
        if inode == self._inode:
            opened.close()
            return False
        self.close()
        self._file, self._inode, self._rest = opened, inode, b""
        return True


def _archives(directory: Path) -> list[str]:
    """Names of the older files, oldest first: TAI64N sorts as text."""
    try:
        return sorted(path.name for path in directory.iterdir() if OLDER.match(path.name))
    except OSError:
        return []


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1


def _until(segments: list[Segment], end: Position | None) -> list[Segment]:
    """What a follower that begins at ``end`` will not give."""
    if end is None:
        return segments
    kept: list[Segment] = []
    for segment in segments:
        kept.append(segment)
        if isinstance(segment, Plain) and segment.inode == end.inode:
            segment.size = end.offset
            break
    return kept


def _forward(segments: list[Segment], since: float | None, until: float | None) -> Iterator[Line]:
    low, high = _bounds(since, until)
    for segment in segments:
        for block in segment.blocks(since, until):
            for raw in split_lines(block):
                line = _parse(raw)
                if not line.at or (line.at >= low and (not high or line.at < high)):
                    yield line


def _newest_first(segments: list[Segment], since: float | None, until: float | None) -> Iterator[Line]:
    low, high = _bounds(since, until)
    for segment in reversed(segments):
        for block in segment.blocks_back(since, until):
            for raw in reversed(split_lines(block)):
                line = _parse(raw)
                if line.at and line.at < low:
                    return
                if not high or line.at < high:
                    yield line


def _bounds(since: float | None, until: float | None) -> tuple[str, str]:
    """Two moments as stamps, which compare as text; empty: no bound."""
    return _stamp(since) if since is not None else "", _stamp(until) if until is not None else ""


def _stamp(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    except (OverflowError, OSError, ValueError):
        return "" if at < 0 else "9999"


def _parse(raw: bytes) -> Line:
    found = _STAMP.match(raw)
    if found is None:
        return Line("", clean(raw.decode("utf-8", "replace")))
    at = f"{found[1].decode()}T{found[2].decode()}Z"
    return Line(at, clean(raw[found.end() :].decode("utf-8", "replace")))
