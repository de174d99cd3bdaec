"""Directories of Alvéole's own lines, in the form of s6-log: ``current``, and ``@<TAI64N>.s`` once that is full.

Each has one writer. The agent packs what is full; without it the writer keeps the newest few.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from alveole.logbook.places import OLDER
from alveole.text import clean

#: ``current`` is closed when it is longer (bytes).
FULL_BYTES = 2 * 1024 * 1024
#: Or when it was opened so long ago (seconds).
_FULL_SECONDS = 86_400.0
#: Without the agent so many older ones are kept.
KEPT = 6
#: Where nothing can be written, it is tried again after so long (seconds).
_AGAIN = 5.0
_TAI = 1 << 62
_LEVELS = ((50, "crit"), (40, "err"), (30, "warning"), (20, "info"), (0, "debug"))


class Writer:
    """Safe from several threads; never raises: a line that cannot be written is counted in :attr:`lost`."""

    def __init__(self, directory: Path, full: int = FULL_BYTES) -> None:
        self._directory = directory
        self._full = full
        self._lock = threading.Lock()
        self._fd = -1
        self._size = 0
        self._tried = float("-inf")
        self.lost = 0

    def write(self, level: str, of: str, text: str, at: float | None = None) -> None:
        """One line, and one for each further line of ``text``."""
        moment = datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f000")
        parts = text.split("\n") if "\n" in text else [text]
        raw = "".join(f"{moment}  {level} {of}: {clean(part)[:16384]}\n" for part in parts if part)
        self.put(raw.encode("utf-8", "replace"), len(parts))

    def put(self, raw: bytes, count: int = 1) -> None:
        """Whole lines with their stamps."""
        with self._lock:
            if self._fd < 0:
                self._open()
            try:
                if self._fd < 0:
                    raise OSError("not open")
                os.write(self._fd, raw)
            except OSError:
                self.lost += count
                return
            self._size += len(raw)
            if self._size >= self._full or time.monotonic() - self._tried > _FULL_SECONDS:
                self._rotate()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        if time.monotonic() - self._tried < _AGAIN:
            return
        self._tried = time.monotonic()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            self._fd = os.open(self._directory / "current", flags, 0o640)
            # The umask of some roles would keep it from control's group.
            os.fchmod(self._fd, 0o640)
            self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self._close()
        self._tried = float("-inf")
        now = time.time_ns()
        name = f"@{_TAI + now // 1_000_000_000:016x}{now % 1_000_000_000:08x}.s"
        with contextlib.suppress(OSError):
            (self._directory / "current").rename(self._directory / name)
            for old in sorted(each for each in self._directory.iterdir() if OLDER.match(each.name))[:-KEPT]:
                old.unlink(missing_ok=True)


class OwnHandler(logging.Handler):
    """What a process of Alvéole logs, into its part of ``S/logs/own``; stderr has it too."""

    def __init__(self, logs: Path, part: str) -> None:
        super().__init__()
        self._writer = Writer(logs / "own" / part)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + (self.formatter or logging.Formatter()).formatException(record.exc_info)
        except Exception:  # a line with the wrong arguments must not end the process that logs it
            self.handleError(record)
            return
        level = next(word for number, word in _LEVELS if record.levelno >= number)
        self._writer.write(level, record.name, text, record.created)
