"""What is known of running instances: one ``state.json`` each, and whether its process lives.

A process is known by its id *and* the moment it started, within one boot: ids are used again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import subprocess
import time
from pathlib import Path

import msgspec

from alveole import wholefile
from alveole.config import Settings
from alveole.host import paths
from alveole.model.resource import WorkloadSpec


class Ended(msgspec.Struct, frozen=True):
    """How the first process of an instance ended. ``status`` and ``signal``: ``None`` when not known."""

    at: float
    status: int | None = None
    signal: int | None = None
    oom: bool = False


class InstanceState(msgspec.Struct, frozen=True):
    """One instance as it was started. ``ready`` is set once, when it has answered."""

    digest: str
    spec: WorkloadSpec
    boot: str
    at: float
    pid: int = 0
    """0: not started yet."""
    started: int = 0
    ready: bool = False
    ended: Ended | None = None

    @property
    def name(self) -> str:
        return f"{self.spec.site}.{self.spec.slot}"

    @property
    def running(self) -> bool:
        return bool(self.pid) and self.boot == boot_id() and is_running(self.pid, self.started)


_decoder = msgspec.json.Decoder(InstanceState)


def save(settings: Settings, state: InstanceState) -> None:
    directory = paths.instance(settings, state.spec.site, state.spec.slot)
    write(directory / "state.json", msgspec.json.encode(state))


def load(settings: Settings, site: str, slot: int) -> InstanceState | None:
    """``None`` when there is none or when it is damaged: the instance then has to be made anew."""
    try:
        return _decoder.decode((paths.instance(settings, site, slot) / "state.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def present(settings: Settings) -> list[tuple[str, int]]:
    """Site and slot of every instance that has left a trace in the run directory, sorted."""
    found: set[tuple[str, int]] = set()
    for place in (settings.run / "sites", settings.run / "sockets"):
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(place):
                if instance := parse_name(entry.name):
                    found.add(instance)
    return sorted(found)


def parse_name(name: str) -> tuple[str, int] | None:
    site, dot, slot = name.rpartition(".")
    return (site, int(slot)) if dot and slot in ("0", "1") and site else None


def of_site(settings: Settings, site: str) -> list[int]:
    """Slots of the site that have a run directory."""
    return [slot for slot in (0, 1) if paths.instance(settings, site, slot).is_dir()]


def write(path: Path, content: bytes) -> None:
    """Replace ``path`` as a whole or not at all, readable by root only."""
    wholefile.write(path, content, synced=False)


@functools.cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since the boot (proc(5), field 22); ``None``: no such process.

    A process that has ended and waits for its parent does not count.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The name in brackets may hold anything, so the fields count from the last bracket.
        fields = os.read(fd, 1024).rpartition(b") ")[2].split()
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    return None if not fields or fields[0] in (b"Z", b"X") else int(fields[19])


def is_running(pid: int, started: int) -> bool:
    return start_time(pid) == started


def open_process(pid: int, started: int) -> int | None:
    """A pidfd of exactly that process, or ``None`` when it has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if is_running(pid, started):
        return fd
    os.close(fd)
    return None


def wait_end(pidfd: int, seconds: float) -> bool:
    """Whether the process behind ``pidfd`` has ended, after ``seconds`` at the most."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def adopt(process: subprocess.Popen[bytes]) -> None:
    """Keep Python from complaining that a process which is to outlive us was not waited for."""
    process.returncode = 0


def since(state: InstanceState) -> float:
    """Seconds that the instance has been there."""
    return max(0.0, time.time() - state.at)
