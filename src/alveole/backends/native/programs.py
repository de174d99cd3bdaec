"""The programs that run in an instance: listed from /proc, and ended one by one.

Nothing is started inside for it, so a site at its limits can be looked at. What a program calls itself is its own
word: it is cut and cleaned, and nothing is derived from it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

from alveole.agent.operating import ProgramState, RestartProcess, SignalProgram
from alveole.backends.native import supervise
from alveole.backends.native.lower import instance_name
from alveole.backends.native.run import NativeBackend
from alveole.errors import NotFound, Refused, StepFailed
from alveole.host import instances
from alveole.host.instances import InstanceState
from alveole.text import clean

_COMMAND_MAX, _NAME_MAX = 400, 64
#: An instance may have thousands; a page that lists more helps nobody.
_MOST = 1000
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_INNER_IDS = 65_536


class _Found(msgspec.Struct, frozen=True):
    """``pid`` of the machine, and what is told of it."""

    pid: int
    state: ProgramState


def look(backend: NativeBackend, site: str, slot: int) -> tuple[ProgramState, ...]:
    """By id; nothing when there is no instance."""
    state = instances.load(backend.settings, site, slot)
    if state is None or not state.running:
        return ()
    return tuple(sorted((each.state for each in _all(backend, state)), key=lambda each: each.pid))


def send(backend: NativeBackend, request: SignalProgram) -> None:
    """Raises ``NotFound`` when that program has ended already."""
    state = instances.load(backend.settings, request.site, request.slot)
    wanted = (request.pid, request.started)
    for each in _all(backend, state) if state is not None and state.running else ():
        if (each.state.pid, each.state.started) != wanted:
            continue
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(each.pid)
            try:
                # Looked at once more: between the list and the handle the id may have become another's.
                if instances.start_time(each.pid) == request.started:
                    signal.pidfd_send_signal(pidfd, request.signal)
                    return
            finally:
                os.close(pidfd)
    raise NotFound(f"there is no program {request.pid} any more", field="pid", hint="look at the list again")


def restart(backend: NativeBackend, request: RestartProcess) -> None:
    """Raises ``NotFound``, ``Refused`` for an instance with a single process, ``StepFailed`` with what was said."""
    state = instances.load(backend.settings, request.site, request.slot)
    if state is None or not state.running:
        raise NotFound("the instance does not run", field="site", hint="start the site first")
    if not supervise.is_supervised(state.spec):
        raise Refused("its one process is the whole instance", field="process", hint="restart the site")
    if request.name not in {each.name for each in state.spec.processes}:
        names = ", ".join(each.name for each in state.spec.processes)
        raise NotFound(f"there is no process {request.name!r}", field="process", hint=f"there is {names}")
    failure = backend.inside.restart(request.site, request.slot, request.name)
    if failure is not None:
        raise StepFailed("; ".join((failure.message, *failure.tail[-1:])))


def _all(backend: NativeBackend, state: InstanceState) -> Iterator[_Found]:
    first = backend.settings.uid_start(state.spec.number)
    with contextlib.suppress(OSError):
        now = float(Path("/proc/uptime").read_text().split()[0])
        found: dict[int, _Found] = {}
        parents: dict[int, int] = {}
        for pid in backend.cgroups.pids(instance_name(state.spec.site, state.spec.slot))[:_MOST]:
            with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
                told, parents[pid] = _one(pid, first, now)
                found[pid] = _Found(pid, told)
        inner = {pid: each.state.pid for pid, each in found.items()}
        for pid, each in found.items():
            parent = inner.get(parents[pid], 0)
            yield _Found(pid, msgspec.structs.replace(each.state, parent=parent))


def _one(pid: int, first: int, now: float) -> tuple[ProgramState, int]:
    """What is told of a process (proc(5)), and its parent's id on the machine."""
    place = Path("/proc") / str(pid)
    lines = (place / "status").read_text(errors="replace").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    inner = [int(each) for each in status["NSpid"].split()]
    if len(inner) < 2:
        raise KeyError("a helper of ours, on its way in")
    # The name in brackets may hold anything, so the fields count from the last bracket.
    fields = (place / "stat").read_bytes().rpartition(b") ")[2].split()
    started = int(fields[19])
    uid = int(status["Uid"].split()[1]) - first
    words = (place / "cmdline").read_bytes()[:_COMMAND_MAX].rstrip(b"\0").split(b"\0")
    told = ProgramState(
        pid=inner[-1],
        parent=0,
        name=clean(status["Name"].strip())[:_NAME_MAX],
        command=clean(" ".join(each.decode(errors="replace") for each in words)),
        uid=uid if 0 <= uid < _INNER_IDS else -1,
        state=fields[0].decode("ascii", "replace"),
        cpu_seconds=round((int(fields[11]) + int(fields[12])) / _TICKS, 2),
        memory_bytes=int(fields[21]) * _PAGE,
        seconds=round(max(0.0, now - started / _TICKS), 1),
        started=started,
    )
    return told, int(fields[1])
