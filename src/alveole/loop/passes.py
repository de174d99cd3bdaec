"""PURE. What a pass of the loop saw and did, and what that says of the change it was for."""

from __future__ import annotations

import msgspec

from alveole.errors import Problem
from alveole.loop.plan import Plan
from alveole.model.resource import Kind, Observed, Outcome, Promise, PromiseState, Step, Waiting


class Look(msgspec.Struct, frozen=True):
    """What the last pass saw of a scope; for people and for the state of a site."""

    promises: tuple[Promise, ...] = ()
    found: tuple[Observed, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    at: float = 0.0


class Settled(msgspec.Struct, frozen=True):
    """How a change's passes ended. ``essential``: what failed is content or instance, not a name."""

    problems: tuple[Problem, ...] = ()
    essential: bool = False
    superseded: bool = False


class Pass(msgspec.Struct, frozen=True):
    """What one pass planned, and which of its steps failed and how."""

    plan: Plan
    failed: tuple[tuple[Step, Outcome], ...] = ()


def reached(planned: Plan) -> bool:
    """Nothing is left that the loop could do: what is broken then was changed by hand, and is a person's to settle."""
    if planned.steps or planned.waiting:
        return False
    return all(promise.state in (PromiseState.KEPT, PromiseState.BROKEN) for promise in planned.promises)


def essential(done: Pass) -> bool:
    """Whether what is not as promised is content or instance, not a name."""
    kinds = (Kind.WORKLOAD, Kind.STORAGE, Kind.RELEASE)
    if any(each.id.kind in kinds and each.state is not PromiseState.KEPT for each in done.plan.promises):
        return True
    # Not by its promise: that is broken as well where a file was changed by hand.
    acted = [*(step.id for step, _outcome in done.failed), *(each.id for each in done.plan.waiting)]
    return any(id.kind is Kind.CONFIG for id in acted)


def problem(step: Step, outcome: Outcome) -> Problem:
    """A failed step for people, with the line of what it printed that says most."""
    # The whole tail is among the events; a sentence has room for the line that says most.
    lines = [line.strip() for line in outcome.tail if line.strip()]
    telling = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    said = f"; it printed: {telling[:300]}" if telling else ""
    return Problem(f"{step.id.kind}/{step.id.name}", f"{step.action} failed: {outcome.message}{said}")
