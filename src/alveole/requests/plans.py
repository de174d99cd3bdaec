"""What is asked about plans; see :mod:`alveole.requests`."""

from __future__ import annotations

from alveole.requests import Body


class CreatePlan(Body, frozen=True, kw_only=True):
    name: str
    cpu_millis: int
    memory_bytes: int
    pids: int
    io_bytes_per_second: int | None = None
    disk_bytes: int | None = None
    internet: bool = False
    description: str = ""
    sleep_after: int = 0
    """Seconds without a visit after which its sites sleep, where they do not say by themselves; 0: never."""


class SetPlan(Body, frozen=True, kw_only=True):
    """Of any plan, those that are built in too: limits never change under the sites that have them."""

    sleep_after: int
