"""Hashes of the journal's chain, in a file that only root may read or write (:mod:`alveole.ledger`).

Control can add to it and take nothing back, so whoever changes its database cannot make the file agree.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

import msgspec

from alveole import wholefile
from alveole.agent.anchoring import Anchor
from alveole.config import Settings
from alveole.errors import Refused

#: Each anchor stands for everything before it too; older ones only help to say where a chain was changed.
MOST = 1000
KEPT = 500
#: An anchor has less than 150 bytes: a file that is longer was not written here.
_MAX_BYTES = 4 * MOST * 150


class Anchors:
    """Safe from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.state / "journal-anchors"
        self._lock = threading.Lock()
        self._known: list[Anchor] | None = None

    def keep(self, seq: int, hash: str) -> None:
        """Write an anchor down for good. Raises ``Refused`` when it contradicts an earlier one."""
        with self._lock:
            known = self._read()
            if known and (seq < known[-1].seq or (seq == known[-1].seq and hash != known[-1].hash)):
                raise Refused(
                    f"the journal was at link {known[-1].seq}, and is said to be at {seq} with another hash",
                    hint="alveole journal verify",
                )
            if known and seq == known[-1].seq:
                return
            anchor = Anchor(seq, hash, time.time())
            if len(known) >= MOST:
                wholefile.write(self.path, b"\n".join(msgspec.json.encode(each) for each in [*known[-KEPT:], anchor]))
            else:
                self._append(anchor)
            self._known = [*known[-KEPT:], anchor] if len(known) >= MOST else [*known, anchor]

    def all(self) -> tuple[Anchor, ...]:
        with self._lock:
            self._known = None
            return tuple(self._read())

    def _read(self) -> list[Anchor]:
        if self._known is None:
            found = []
            with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
                for line in file.read(_MAX_BYTES).splitlines():
                    # A line that a power cut left half.
                    with contextlib.suppress(msgspec.DecodeError):
                        found.append(msgspec.json.decode(line, type=Anchor))
            self._known = found
        return self._known

    def _append(self, anchor: Anchor) -> None:
        fresh = not self.path.exists()
        # The line feed first: what is left of a line that was cut ends there.
        line = b"\n" * (not fresh) + msgspec.json.encode(anchor)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.write(line)
            file.flush()
            os.fdatasync(fd)
        if fresh:
            wholefile.sync_directory(self.path.parent)
