"""Journalled operations: a change, its steps and its events."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from alveole.errors import Problem


class ChangeState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fact within a change: a step taken, a wait, a defect found."""

    at: float
    text: str
    level: str = "info"
    resource: str = ""
    seconds: float | None = None


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who did what to which site, why, each step, and how it ended.

    ``verb`` is the person's word (``create``, ``stop``…) or ``repair`` when the reconciler acted by
    itself, in which case ``actor`` is ``reconciler`` and ``reason`` the cause of the drift.
    """

    id: str
    verb: str
    actor: str
    state: ChangeState
    site_id: str | None = None
    site_name: str | None = None
    reason: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
    events: tuple[Event, ...] = ()
    problems: tuple[Problem, ...] = ()
    progress: float | None = None
    """Between 0 and 1 where it is known."""
    result: dict[str, str | int | float | None] = {}
    via: str = ""
    """The door the actor came by: ``socket``, ``session:<id>``, ``token:<id>``; empty for the reconciler."""
    actor_key: str = ""
    """The actor's id for ever; names may be given anew."""
