"""The machine's own row and those of its interfaces, from where the kernel tells everybody."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from alveole.figures.archive import COLUMNS, MACHINE_COLUMNS
from alveole.figures.gather import rate

_TICKS = os.sysconf("SC_CLK_TCK")
#: proc(5), diskstats: always of 512 bytes.
_SECTOR = 512
#: Those of containers that others have made are not what comes and goes here; so many are kept in all.
_OTHERS = ("lo", "veth", "docker", "br-", "cni", "tap")
INTERFACES_MAX = 16


class Carried(msgspec.Struct, frozen=True):
    """What an interface has carried since it is there."""

    in_bytes: int
    out_bytes: int
    in_packets: int = 0
    out_packets: int = 0
    lost: int = 0


class Machine:
    """``state``: where content is kept, whose file system is the disk that is watched. One thread.

    ``prefix``: what the names of the sites' interfaces begin with.
    """

    def __init__(
        self,
        state: Path,
        prefix: str,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._proc = proc
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._at = clock()
        self._links: dict[str, Carried] = {}
        self._links_at = clock()
        self._own = re.compile(rf"^{re.escape(prefix)}([0-9a-f]+)[ab]\Z")

    def row(self, edge: Sequence[float | None], more: Mapping[str, float]) -> list[float | None]:
        """``edge``'s row with the machine's own processor, memory, disk, load, and ``more`` by the name of a column."""
        values: dict[str, float | None] = dict(zip(COLUMNS, edge, strict=True))
        values |= more
        now = self._clock()
        passed, self._at = now - self._at, now
        with contextlib.suppress(OSError, ValueError, KeyError):
            values["memory"], values["memory_all"] = self._memory()
            values["disk"], values["disk_all"] = self.disk()
            words = (self._proc / "loadavg").read_text().split()
            values["load"], values["processes"] = float(words[0]), float(words[3].partition("/")[2])
            values["cpus"] = float(os.cpu_count() or 1)
            for name, count in (("cpu", self._busy()), *zip(("io_read", "io_write"), self._moved(), strict=True)):
                before = self._seen.get(name)
                self._seen[name] = count
                values[name] = rate(count, before, passed) if before is not None and count >= before else None
        return [values.get(column) for column in MACHINE_COLUMNS]

    def carried(self) -> tuple[dict[int, tuple[int, int]], dict[str, Carried]]:
        """What went to and from each site, by its number, and what each interface of the machine carried.

        Both since they are there. What comes in at our end of a site's pair is what the site has sent.
        """
        sites: dict[int, tuple[int, int]] = {}
        machine: dict[str, Carried] = {}
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in (self._proc / "net/dev").read_text().splitlines()[2:]:
                name, _, rest = line.partition(":")
                name = name.strip()
                # proc(5), net/dev: bytes packets errs drop fifo frame compressed multicast, and the same for sending.
                words = [int(word) for word in rest.split()]
                if own := self._own.match(name):
                    number = int(own[1], 16)
                    to, of = sites.get(number, (0, 0))
                    sites[number] = (to + words[8], of + words[0])
                elif not name.startswith(_OTHERS) and words[0] + words[8] and len(machine) < INTERFACES_MAX:
                    lost = sum(words[place] for place in (2, 3, 10, 11))
                    machine[name] = Carried(words[0], words[8], words[1], words[9], lost)
        return sites, machine

    def interfaces(self, machine: Mapping[str, Carried]) -> dict[str, list[float | None]]:
        """A row (see ``INTERFACE_COLUMNS``) of each, compared with the look before."""
        now = self._clock()
        passed, self._links_at = now - self._links_at, now
        before, self._links = self._links, dict(machine)
        rows: dict[str, list[float | None]] = {}
        for name, found in machine.items():
            was = before.get(name)
            if was is not None:
                pairs = zip(msgspec.structs.astuple(found), msgspec.structs.astuple(was), strict=True)
                rows[name] = [rate(new, old, passed) for new, old in pairs]
        return rows

    def _busy(self) -> float:
        words = [int(word) for word in (self._proc / "stat").read_text().partition("\n")[0].split()[1:]]
        # proc(5): user nice system idle iowait irq softirq steal.
        return (sum(words[:3]) + sum(words[5:8])) / _TICKS

    def _memory(self) -> tuple[float, float]:
        lines = dict(line.split(":", 1) for line in (self._proc / "meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        return float(total - free), float(total)

    def disk(self) -> tuple[float, float]:
        """Bytes that are used, and what there is for anybody but root."""
        found = os.statvfs(self._state)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return float(used), float(used + found.f_bavail * found.f_frsize)

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
