"""How long a resource that fails, or an instance that keeps crashing, is left alone before the next try."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from alveole.model.resource import Action, Kind, Outcome, ResourceId, Step

FIRST_SECONDS = 1.0
LAST_SECONDS = 60.0
#: What stayed up this long starts again from the first delay.
STABLE_SECONDS = 60.0


class Trouble(msgspec.Struct, frozen=True):
    """``failures`` in a row; not tried again before ``until`` (monotonic seconds)."""

    failures: int
    at: float
    until: float
    reason: str


class Backoff:
    """Safe from several threads. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._troubles: dict[str, dict[ResourceId, Trouble]] = {}

    def record(self, step: Step, outcome: Outcome) -> None:
        """Note how a step went. A repaired instance counts as a crash even when the repair worked."""
        crashed = step.id.kind is Kind.WORKLOAD and step.action is Action.REPAIR
        with self._lock:
            troubles = self._troubles.setdefault(step.id.scope, {})
            if outcome.done and not crashed:
                troubles.pop(step.id, None)
            else:
                now = self._clock()
                before = troubles.get(step.id)
                if before is not None and outcome.done and now - max(before.at, before.until) > STABLE_SECONDS:
                    before = None
                failures = before.failures + 1 if before else 1
                delay = min(FIRST_SECONDS * 2 ** min(failures - 1, 30), LAST_SECONDS)
                reason = outcome.message if not outcome.done else step.reason
                troubles[step.id] = Trouble(failures, now, now + delay, reason)
            if not troubles:
                self._troubles.pop(step.id.scope, None)

    def held(self, scope: str) -> dict[ResourceId, str]:
        """What is not to be tried now, with a sentence that says why and until when."""
        now = self._clock()
        with self._lock:
            return {
                id: f"failed {each.failures} times in a row, next try in {each.until - now:.0f} s: {each.reason}"
                if each.failures > 1
                else f"failed, next try in {each.until - now:.0f} s: {each.reason}"
                for id, each in self._troubles.get(scope, {}).items()
                if each.until > now
            }

    def failures(self, id: ResourceId) -> int:
        with self._lock:
            trouble = self._troubles.get(id.scope, {}).get(id)
            return trouble.failures if trouble else 0

    def next_try(self, scope: str) -> float | None:
        """Seconds until the first of the scope's resources may be tried again."""
        now = self._clock()
        with self._lock:
            waits = [each.until - now for each in self._troubles.get(scope, {}).values() if each.until > now]
        return min(waits) if waits else None

    def forget(self, scope: str) -> None:
        with self._lock:
            self._troubles.pop(scope, None)
