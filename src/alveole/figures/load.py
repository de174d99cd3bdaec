"""How busy the machine and its sites are at this moment. Control reads the machine's own figures, as anybody may."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from alveole.backends.base import Usage
from alveole.views import MachineLoad

#: Between two readings that are compared; the kernel counts in hundredths of a second.
_LEAST_SECONDS = 1.0
_FIRST_SECONDS = 0.1


class Loads:
    """Processor time used between two looks, as processors: 0.5 is half of one. Safe from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, float, float]] = {}

    def saw(self, key: str, cpu_seconds: float) -> float:
        """Take a reading; gives the load, 0 where there is nothing to compare it with yet."""
        now = self._clock()
        with self._lock:
            at, before, load = self._seen.get(key, (now, cpu_seconds, 0.0))
            if cpu_seconds < before:
                # It started anew.
                at, before, load = now, cpu_seconds, 0.0
            passed = now - at
            if passed >= _LEAST_SECONDS or (passed >= _FIRST_SECONDS and key == MACHINE):
                at, before, load = now, cpu_seconds, round((cpu_seconds - before) / passed, 2)
            self._seen[key] = (at, before, load)
            return load

    def saw_all(self, usage: dict[str, Usage]) -> None:
        for site, each in usage.items():
            self.saw(site, each.cpu_seconds)
        with self._lock:
            self._seen = {key: value for key, value in self._seen.items() if key in usage or key == MACHINE}

    def of(self, keys: Iterable[str]) -> dict[str, float]:
        with self._lock:
            return {key: self._seen[key][2] for key in keys if key in self._seen}


MACHINE = "machine"


def machine_load(loads: Loads, proc: Path = Path("/proc")) -> MachineLoad | None:
    """``None`` where the machine's figures cannot be read. The first reading takes a tenth of a second."""
    try:
        if MACHINE not in loads.of((MACHINE,)):
            # proc_stat(5) counts from the start of the machine: that is no load of this moment.
            loads.saw(MACHINE, _busy_seconds(proc))
            time.sleep(_FIRST_SECONDS)
        busy = loads.saw(MACHINE, _busy_seconds(proc))
        one, five, fifteen = (float(word) for word in (proc / "loadavg").read_text().split()[:3])
        lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError):
        return None
    return MachineLoad(
        cpu=busy,
        cpus=os.cpu_count() or 1,
        averages=(one, five, fifteen),
        memory_used_bytes=total - free,
        memory_bytes=total,
    )


def _busy_seconds(proc: Path) -> float:
    words = (proc / "stat").read_text().partition("\n")[0].split()
    user, nice, system, _idle, _wait, interrupt, soft, *more = (int(word) for word in words[1:])
    steal = more[0] if more else 0
    return (user + nice + system + interrupt + soft + steal) / os.sysconf("SC_CLK_TCK")
