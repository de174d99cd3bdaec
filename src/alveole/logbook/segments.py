"""Files of lines, plain or packed, read in blocks of whole lines between two moments, forward or backward.

The moment where reading begins or ends is found by bisection, on the stamps of lines in a plain file and in the
table of a packed one; no file is ever in memory as a whole. A clock that was set back makes a bisection give more or
fewer lines around that moment, never another file's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from alveole.logbook.lines import Form, at_of
from alveole.logbook.packed import FRAME_BYTES, Packer, frames, unpack

BLOCK = 256 * 1024
#: A line that is longer is given in pieces (bytes).
LINE_MAX = 64 * 1024


class Plain:
    """The first ``size`` bytes of a file that may still grow."""

    def __init__(self, file: BinaryIO, form: Form, size: int | None = None) -> None:
        self._file = file
        self._form = form
        status = os.fstat(file.fileno())
        self.inode = status.st_ino
        self.size = status.st_size if size is None else size

    def blocks(self, since: float | None = None, until: float | None = None) -> Iterator[bytes]:
        """Whole lines, oldest first, from about ``since`` to about ``until``. The last may lack its line feed."""
        at, end = self._range(since, until)
        rest = b""
        while at < end:
            self._file.seek(at)
            block = self._file.read(min(BLOCK, end - at))
            if not block:
                break
            at += len(block)
            cut = block.rfind(b"\n") + 1
            if not cut and len(rest) < LINE_MAX:
                rest += block
                continue
            yield rest + block[:cut] if cut else rest
            rest = block[cut:]
        if rest:
            yield rest

    def blocks_back(self, since: float | None = None, until: float | None = None) -> Iterator[bytes]:
        """The same, newest block first."""
        begin, end = self._range(since, until)
        rest = b""
        while end > begin:
            start = max(begin, end - BLOCK)
            self._file.seek(start)
            block = self._file.read(end - start)
            end = start
            cut = 0 if start == begin else block.find(b"\n") + 1
            if cut == 0 and start > begin:
                # No end of a line in all of it: the middle of one that nobody of ours writes; its end is given.
                rest = (block + rest)[:LINE_MAX]
                continue
            text = block[cut:] + rest
            rest = block[:cut]
            if text:
                yield text
        if rest:
            yield rest

    def first(self) -> float | None:
        """The moment of the first line that has one; looks at a few only."""
        return self._at(0)[1]

    def _range(self, since: float | None, until: float | None) -> tuple[int, int]:
        begin = self._bisect(since) if since is not None else 0
        return begin, self._bisect(until) if until is not None else self.size

    def _bisect(self, moment: float) -> int:
        """Where the first line of ``moment`` or later begins, or a little before."""
        low, high = 0, self.size
        while high - low > 4096:
            middle = (low + high) // 2
            start, at = self._at(middle)
            if at is None or at >= moment:
                high = middle
            else:
                low = start
        # Line by line: the end of a range must not give what is later.
        self._file.seek(low)
        for raw in self._file.read(high - low + LINE_MAX).split(b"\n"):
            at = at_of(raw[:64], self._form)
            if (at is not None and at >= moment) or low >= high:
                break
            low += len(raw) + 1
        return min(low, self.size)

    def _at(self, place: int) -> tuple[int, float | None]:
        """Where the first line with a stamp after ``place`` begins, and its moment."""
        self._file.seek(place)
        block = self._file.read(min(2 * LINE_MAX, self.size - place))
        start = block.find(b"\n") + 1 if place else 0
        if place and not start:
            return self.size, None
        while start < len(block):
            at = at_of(block[start : start + 64], self._form)
            if at is not None:
                return place + start, at
            start = block.find(b"\n", start) + 1
            if not start:
                break
        return self.size, None


class Packed:
    """A packed file; damaged, it has no lines."""

    def __init__(self, file: BinaryIO, form: Form) -> None:
        self._file = file
        self._form = form
        try:
            self._frames = frames(file)
        except (ValueError, OSError):
            self._frames = []
        self.size = sum(each.size for each in self._frames)

    def blocks(self, since: float | None = None, until: float | None = None) -> Iterator[bytes]:
        yield from self._give(self._between(since, until))

    def blocks_back(self, since: float | None = None, until: float | None = None) -> Iterator[bytes]:
        yield from self._give(reversed(self._between(since, until)))

    def first(self) -> float | None:
        return next((each.begins for each in self._frames if each.begins), None)

    def _between(self, since: float | None, until: float | None) -> range:
        begin, end = 0, len(self._frames)
        for number, each in enumerate(self._frames):
            if not each.begins:
                continue
            if since is not None and each.begins < since:
                begin = number
            if until is not None and each.begins >= until:
                end = number
                break
        return range(begin, end)

    def _give(self, numbers: Iterator[int] | range) -> Iterator[bytes]:
        for number in numbers:
            try:
                yield unpack(self._file, self._frames[number])
            except (ValueError, OSError):
                continue


Segment = Plain | Packed


def split_lines(block: bytes) -> list[bytes]:
    """The lines of a block without their ends; only a line feed ends one, and a very long one is cut in pieces."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(block) > LINE_MAX and max(map(len, lines), default=0) > LINE_MAX:
        return [line[at : at + LINE_MAX] for line in lines for at in range(0, max(1, len(line)), LINE_MAX)]
    return lines


def pack(source: BinaryIO, form: Form, target: Path) -> tuple[float, float]:
    """Write all of ``source`` into the new file ``target``; gives the moments of its first and its last line.

    0.0 for what has none. Raises ``OSError``.
    """
    begin = end = 0.0
    # A name of ours in a directory of root's.
    with target.open("xb") as file:
        packer = Packer(file)
        waiting = b""
        plain = Plain(source, form)
        for block in plain.blocks():
            waiting += block
            if len(waiting) >= FRAME_BYTES - BLOCK:
                begin, end = _add(packer, waiting, form, begin, end)
                waiting = b""
        if waiting:
            if not waiting.endswith(b"\n"):
                waiting += b"\n"
            begin, end = _add(packer, waiting, form, begin, end)
        packer.close()
    return begin, end


def _add(packer: Packer, lines: bytes, form: Form, begin: float, end: float) -> tuple[float, float]:
    stamps = (at_of(raw[:64], form) for raw in lines.split(b"\n", 50)[:50])
    first = next((at for at in stamps if at is not None), None)
    last = None
    for raw in reversed(lines[-4 * LINE_MAX :].split(b"\n")[-50:]):
        last = at_of(raw[:64], form)
        if last is not None:
            break
    packer.add(lines, first or 0.0)
    return begin or first or 0.0, max(end, last or first or 0.0)
