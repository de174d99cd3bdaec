"""What control asks of the agent about the programs of an instance, one by one."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from alveole.model.names import ProcessName, SiteId, Slot

Pid = Annotated[int, msgspec.Meta(ge=2, le=4_194_304)]
"""Inside the container; 1 is its first process, whose end is that of the instance."""


class ListPrograms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list-programs"):
    """→ ``tuple[ProgramState, ...]``: every program that runs in an instance; none when it is not there."""

    site: SiteId
    slot: Slot


class SignalProgram(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="signal-program"):
    """Send SIGTERM or SIGKILL to one of them. ``started`` says which is meant: ids are used again."""

    site: SiteId
    slot: Slot
    pid: Pid
    started: int
    signal: Literal[9, 15]


class RestartProcess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="restart-process"):
    """End one process of an instance cleanly and start it anew; returns when it is ready and the site answers."""

    site: SiteId
    slot: Slot
    name: ProcessName


class ProgramState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One program as the kernel counts it."""

    pid: int
    """Inside the container."""
    parent: int
    """Likewise; 0 for the first process and for what came in from outside."""
    name: str
    command: str
    """Its arguments, cut after some hundred characters."""
    uid: int
    """Inside the container; -1 for what has none there."""
    state: str
    """One letter, as ``ps`` shows it."""
    cpu_seconds: float
    memory_bytes: int
    seconds: float
    """Its age."""
    started: int
    """Clock ticks since the boot: with ``pid`` it is known for good."""
