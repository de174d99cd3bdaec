"""The machine's own row: processors, memory, disk and its network, from where the kernel tells everybody."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from alveole.figures.archive import COLUMNS

_TICKS = os.sysconf("SC_CLK_TCK")
_SECTOR = 512
"""proc(5), diskstats: always of 512 bytes."""


class Machine:
    """``state``: where content is kept, whose file system is the disk that is watched. One thread."""

    def __init__(self, state: Path, proc: Path = Path("/proc")) -> None:
        self._state = state
        self._proc = proc
        self._seen: dict[str, float] = {}
        self._at = time.monotonic()

    def row(self, edge: Sequence[float | None]) -> list[float | None]:
        """``edge``'s row with the machine's own processor, memory, disk and reading and writing."""
        values = dict(zip(COLUMNS, edge, strict=True))
        now = time.monotonic()
        passed, self._at = now - self._at, now
        with contextlib.suppress(OSError, ValueError, KeyError):
            values["memory"] = self._memory()
            values["disk"] = self._disk()
            values["processes"] = float((self._proc / "loadavg").read_text().split()[3].partition("/")[2])
            for name, count in (("cpu", self._busy()), *zip(("io_read", "io_write"), self._moved(), strict=True)):
                before = self._seen.get(name)
                self._seen[name] = count
                values[name] = (
                    (count - before) / passed if before is not None and passed > 0 and count >= before else None
                )
        return [values[column] for column in COLUMNS]

    def _busy(self) -> float:
        words = [int(word) for word in (self._proc / "stat").read_text().partition("\n")[0].split()[1:]]
        # proc(5): user nice system idle iowait irq softirq steal.
        return (sum(words[:3]) + sum(words[5:8])) / _TICKS

    def _memory(self) -> float:
        lines = dict(line.split(":", 1) for line in (self._proc / "meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        return float(total - free)

    def _disk(self) -> float:
        found = os.statvfs(self._state)
        return float((found.f_blocks - found.f_bfree) * found.f_frsize)

    def _moved(self) -> tuple[float, float]:
        read = written = 0
        for line in (self._proc / "diskstats").read_text().splitlines():
            words = line.split()
            # Whole devices: what a partition or a loop device moves is moved by one of these too.
            if (Path("/sys/block") / words[2]).exists() and not words[2].startswith(
                ("loop", "ram", "zram", "dm-", "md")
            ):
                read, written = read + int(words[5]), written + int(words[9])
        return float(read * _SECTOR), float(written * _SECTOR)
