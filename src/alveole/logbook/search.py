"""The newest lines that fit, from many files, within limits of time.

Files are read from their newest block on; a block of some hundred kilobytes is looked at as a whole first, in C, so
that a line is looked at by itself only where the rarest word stands. Nothing is read that lies outside the time asked
for, and what was found already bounds what is worth looking at in the next place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from alveole.logbook import lines
from alveole.logbook.model import LINES_MAX, Entry, Found, Wanted
from alveole.logbook.places import Place
from alveole.logbook.segments import split_lines

SECONDS = 15.0
"""How long one search may take before it gives what it has."""


class _Limit:
    def __init__(self, seconds: float) -> None:
        self.began = time.monotonic()
        self.end = self.began + seconds
        self.read = 0
        self.reached = 0.0
        """The oldest moment that was not looked at, of the place where that is the newest."""

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end


def search(
    places: Iterable[Place],
    wanted: Wanted,
    name: Callable[[str], str] = str,
    seconds: float = SECONDS,
) -> Found:
    """``name`` gives what a site id is called. Never raises for files that cannot be read: they have no lines."""
    last = max(0, min(wanted.last, LINES_MAX))
    limit = _Limit(seconds)
    fits = Fits(wanted)
    found: list[Entry] = []
    since = wanted.since
    for place in places if last else ():
        part = []
        for entry in _newest_first(place, wanted, since, fits, limit):
            part.append(told(entry, place, name))
            if len(part) >= last:
                break
        found.extend(reversed(part))
        if len(found) >= last:
            # Only what is newer than the oldest of the best so many can still matter.
            found.sort(key=_at)
            found = found[-last:]
            floor = lines.at_of(found[0].at.replace("T", " ").encode(), lines.Form.PLAIN)
            since = floor if floor is not None and (since is None or floor > since) else since
    found.sort(key=_at)
    return Found(
        lines=tuple(found[-last:]) if last else (),
        complete=not limit.reached,
        reached=lines.stamp(limit.reached) if limit.reached else "",
        read_bytes=limit.read,
        seconds=round(time.monotonic() - limit.began, 3),
    )


def _at(entry: Entry) -> str:
    return entry.at


def told(found: tuple[str, str, str, str], place: Place, name: Callable[[str], str]) -> Entry:
    at, level, of, text = found
    return Entry(at, place.source, text, level, name(place.site) if place.site else "", of or place.of)


def _newest_first(
    place: Place, wanted: Wanted, since: float | None, fits: Fits, limit: _Limit
) -> Iterator[tuple[str, str, str, str]]:
    with contextlib.ExitStack() as stack:
        for segment in reversed(place.segments(stack, since, wanted.until)):
            for block in segment.blocks_back(since, wanted.until):
                limit.read += len(block)
                for raw in reversed(_candidates(block, place.form, fits)):
                    if (found := fits.read(raw, place.form)) is not None:
                        yield found
                if limit.over:
                    at = lines.at_of(block[:64], place.form)
                    limit.reached = max(limit.reached, at if at is not None else time.time())
                    return


class Fits:
    """Whether a line is one that is wanted."""

    def __init__(self, wanted: Wanted) -> None:
        self.level = wanted.level
        self.low = lines.stamp(wanted.since) if wanted.since is not None else ""
        self.high = lines.stamp(wanted.until) if wanted.until is not None else ""
        # The longest word is the rarest, as a rule.
        ordered = sorted(wanted.words, key=len, reverse=True)
        self.ascii = [word.lower().encode() for word in ordered if word.isascii()]
        self.other = [word.casefold() for word in ordered if not word.isascii()]

    def read(self, raw: bytes, form: lines.Form) -> tuple[str, str, str, str] | None:
        if self.ascii:
            low = raw.lower()
            if not all(word in low for word in self.ascii):
                return None
        found = lines.read(raw, form)
        at, level, _, text = found
        # A line without a stamp is the rest of one that was cut.
        if (self.low and at and at < self.low) or (self.high and at and at >= self.high):
            return None
        if self.level is not None and lines.severity(level) > self.level:
            return None
        if self.other and not all(word in text.casefold() for word in self.other):
            return None
        return found


def _candidates(block: bytes, form: lines.Form, fits: Fits) -> list[bytes]:
    """Lines of a block that may fit, oldest first."""
    if fits.ascii:
        return _around(block, _places(block.lower(), fits.ascii[0]))
    pattern = lines.words_for(fits.level, form) if fits.level is not None else None
    if pattern is not None:
        return _around(block, (match.start() for match in pattern.finditer(block)))
    return split_lines(block)


def _places(text: bytes, word: bytes) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        # One hit a line is enough.
        end = text.find(b"\n", at)
        if end < 0:
            return
        at = text.find(word, end)


def _around(block: bytes, places: Iterator[int]) -> list[bytes]:
    found: list[bytes] = []
    end = -1
    for at in places:
        if at < end:
            continue
        begin = block.rfind(b"\n", 0, at) + 1
        end = block.find(b"\n", at)
        if end < 0:
            end = len(block)
        found.extend(split_lines(block[begin:end]) if end > begin else ())
    return found
