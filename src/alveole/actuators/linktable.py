"""A directory of links that are tables: routes, and whose a certificate is.

A pass over one site asks for that site's links, among those of a thousand: to read all of them each time would be
most of what waking one costs.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

#: Younger than this the time of a directory says little: file systems count it by the tick of the kernel.
_TICK_NS = 20_000_000


class LinkTable:
    """Links by whose they are. ``owner(name, text)`` gives the scope, ``None`` for what is not ours. Thread-safe.

    What was read is used again while the directory is as it was: whatever makes, renames or removes an entry sets its
    time, and a link cannot be changed in place. A look at everything reads everything.
    """

    def __init__(self, directory: Path, owner: Callable[[str, str], str | None]) -> None:
        self._directory = os.fspath(directory)
        self._owner = owner
        self._owners: dict[str, str] = {}
        self._time = -1
        self._lock = threading.Lock()

    def read(self, scopes: Collection[str] | None) -> Iterator[tuple[str, str, str]]:
        """Name, scope and text of every link (of ``scopes``). Raises ``OSError`` when the directory cannot be read."""
        if scopes is None:
            yield from self._read_all()
            return
        with self._lock:
            known = self._time == self._now()
            names = [name for name, scope in self._owners.items() if scope in scopes] if known else ()
        if not known:
            yield from (each for each in self._read_all() if each[1] in scopes)
            return
        for name in names:
            if (found := self._link(name)) is not None and found[1] in scopes:
                yield found

    @contextlib.contextmanager
    def changing(self, name: str, scope: str | None) -> Iterator[None]:
        """The block makes ``name`` a link of ``scope``, or takes it away, and changes nothing else here."""
        with self._lock:
            known = self._time == self._now()
            yield
            if not known:
                return
            self._owners.pop(name, None)
            if scope is not None:
                self._owners[name] = scope
            self._time = self._now()

    def _now(self) -> int:
        try:
            return os.stat(self._directory).st_mtime_ns  # noqa: PTH116  of every pass
        except OSError:
            return -2

    def _read_all(self) -> list[tuple[str, str, str]]:
        began, looked = self._now(), time.time_ns()
        with os.scandir(self._directory) as entries:
            found = [each for entry in entries if (each := self._link(entry.name)) is not None]
        # A change during the look must leave another time than the one that is kept.
        if looked - began >= _TICK_NS:
            with self._lock:
                self._owners, self._time = {name: scope for name, scope, _text in found}, began
        return found

    def _link(self, name: str) -> tuple[str, str, str] | None:
        try:
            text = os.readlink(f"{self._directory}/{name}")  # noqa: PTH115  Path would normalise the text
        except OSError:
            # Not a link, or gone since the directory was read: the next look says.
            return None
        scope = self._owner(name, text)
        return None if scope is None else (name, scope, text)
