"""PURE. Compare what must exist with what does, and say the next steps.

The rules, each kept by a property test:

- A step is given only when all it needs is *observed* ready; else the resource waits, with the reason.
- *Unknown is not absent*: nothing is planned for a kind that could not be looked at, nor is anything
  deleted that an unseen object might use.
- Only what carries our stamp is ever seen here, and it is deleted only when it is not wanted and
  nothing observed uses it.
- An instance that a route has left lives on for the drain time.
- What is as it should be but not ready yet is waited for; only a defect asks for a repair.
- Shared bases are never deleted by the loop: they are costly and go by an explicit wish.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from alveole.model.resource import (
    Action,
    Desired,
    Kind,
    Observed,
    Promise,
    PromiseState,
    ResourceId,
    Step,
    Waiting,
)

#: Steps of one pass go in this order (deletes in the reverse), so that a pass reaches far.
RANK = {
    kind: rank
    for rank, kind in enumerate(
        (
            Kind.NETWORK,
            Kind.FIREWALL,
            Kind.BASE,
            Kind.CERTIFICATE,
            Kind.EDGE,
            Kind.RELEASE,
            Kind.STORAGE,
            Kind.CONFIG,
            Kind.WORKLOAD,
            Kind.ROUTE,
            Kind.PANEL,
            Kind.ADDRESS,
        )
    )
}
#: Which kinds may lean on a kind, whether or not they say so in ``uses``.
USERS: dict[Kind, frozenset[Kind]] = {
    Kind.WORKLOAD: frozenset({Kind.ROUTE, Kind.ADDRESS}),
    Kind.STORAGE: frozenset({Kind.WORKLOAD}),
    Kind.RELEASE: frozenset({Kind.WORKLOAD}),
    Kind.CONFIG: frozenset({Kind.WORKLOAD}),
    Kind.CERTIFICATE: frozenset({Kind.ROUTE, Kind.PANEL}),
}
_NEVER_DELETED = frozenset({Kind.BASE})
#: A defect that a person made and only a person settles: it is told, and never repaired.
BY_HAND = "changed-by-hand"
#: A clock that jumped must not keep an old instance for a year (fault 17).
_CLOCK_SLACK = 1.0


class Plan(msgspec.Struct, frozen=True):
    """What a pass is to do: ``steps`` that need nothing of each other, and why the rest waits."""

    steps: tuple[Step, ...]
    waiting: tuple[Waiting, ...]
    promises: tuple[Promise, ...]
    wake_in: float | None = None
    """Seconds until a drain is over and another pass makes sense."""

    @property
    def kept(self) -> bool:
        """Whether all is as promised."""
        return all(promise.state is PromiseState.KEPT for promise in self.promises)

    @property
    def stuck(self) -> bool:
        """Nothing to do and yet not as promised: only a change from outside can help."""
        return not self.steps and bool(self.waiting) and self.wake_in is None


def is_kept(desired: Desired, observed: Observed | None) -> bool:
    """Whether the real object is there, ready, without a defect, and made by this very specification."""
    return observed is not None and observed.ready and not observed.defects and observed.digest == desired.digest


def all_kept(desired: Collection[Desired], observed: Collection[Observed]) -> bool:
    """The cheap question a pass over a thousand kept sites asks: is there nothing at all to do?"""
    if len(desired) != len(observed):
        return False
    found = {item.id: item for item in observed}
    return all(is_kept(item, found.get(item.id)) for item in desired)


def plan(
    desired: Iterable[Desired],
    observed: Iterable[Observed],
    *,
    now: float,
    drain_seconds: float,
    unknown: Mapping[Kind, str] | None = None,
    context: Mapping[ResourceId, Observed] | None = None,
    held: Mapping[ResourceId, str] | None = None,
) -> Plan:
    """Plan one scope.

    ``observed`` is what was found in the scope; ``context`` what of other scopes (the platform) the
    needs refer to. ``unknown`` says by kind why it could not be looked at. ``held`` names resources
    that are not to be tried now (back-off), with the reason. ``now`` is in seconds since the epoch.
    """
    return _Planner(desired, observed, now, drain_seconds, unknown or {}, context or {}, held or {}).run()


class _Planner:
    def __init__(
        self,
        desired: Iterable[Desired],
        observed: Iterable[Observed],
        now: float,
        drain_seconds: float,
        unknown: Mapping[Kind, str],
        context: Mapping[ResourceId, Observed],
        held: Mapping[ResourceId, str],
    ) -> None:
        self.desired = {item.id: item for item in sorted(desired, key=_order)}
        self.observed = {item.id: item for item in sorted(observed, key=_order)}
        self.now = now
        self.drain_seconds = drain_seconds
        self.unknown = unknown
        self.context = context
        self.held = held
        self.waiting: list[Waiting] = []
        self.promises: list[Promise] = []
        self.wake_in: float | None = None
        self.used = {used for item in self.observed.values() for used in item.uses}

    def run(self) -> Plan:
        steps = [step for item in self.desired.values() if (step := self._keep(item)) is not None]
        for found in reversed(self.observed.values()):
            if found.id not in self.desired and (step := self._drop(found)) is not None:
                steps.append(step)
        return Plan(tuple(steps), tuple(self.waiting), tuple(self.promises), self.wake_in)

    def _keep(self, item: Desired) -> Step | None:
        if item.id.kind in self.unknown:
            self._promise(item.id, PromiseState.UNKNOWN, f"could not be looked at: {self.unknown[item.id.kind]}")
            return None
        found = self.observed.get(item.id)
        if is_kept(item, found):
            self._promise(item.id, PromiseState.KEPT)
            return None
        if found is not None and found.digest == item.digest and not found.defects:
            # It has begun and needs time; an actuator that wants a repair says so by a defect.
            self._promise(item.id, PromiseState.PENDING, "is not ready yet")
            self.waiting.append(Waiting(item.id, "is not ready yet"))
            return None
        if found is not None and found.digest == item.digest and found.ready and not _repairable(found):
            self._promise(item.id, PromiseState.BROKEN, "; ".join(defect.cause for defect in found.defects))
            return None
        action, reason, broken = self._difference(item, found)
        missing = self._missing_need(item)
        wait = self.held.get(item.id) or missing
        if not wait and found is not None and action is Action.REPLACE:
            wait = self._still_draining(found.id)
        self._promise(
            item.id,
            PromiseState.BROKEN if broken or item.id in self.held else PromiseState.PENDING,
            wait or reason,
        )
        if wait:
            self.waiting.append(Waiting(item.id, wait))
            return None
        # What runs may not even be able to read new files: those are for the instance that follows.
        quiet = item.id.kind is Kind.CONFIG and self._another_workload()
        return Step(item.id, action, item.digest, item.spec, reason, quiet=quiet)

    def _another_workload(self) -> bool:
        for id, item in self.desired.items():
            if id.kind is Kind.WORKLOAD:
                found = self.observed.get(id)
                if found is None or found.digest != item.digest:
                    return True
        return False

    @staticmethod
    def _difference(item: Desired, found: Observed | None) -> tuple[Action, str, bool]:
        if found is None:
            return Action.CREATE, "missing", False
        if found.digest != item.digest:
            return Action.REPLACE, "differs", False
        return Action.REPAIR, "; ".join(defect.cause for defect in found.defects), True

    def _missing_need(self, item: Desired) -> str:
        for need in item.needs:
            if need.kind in self.unknown and need.scope == item.id.scope:
                return f"waits for {_short(need)}, which could not be looked at"
            found = self.observed.get(need) or self.context.get(need)
            if found is None:
                return f"waits for {_short(need)}"
            wanted = self.desired.get(need)
            if wanted is not None and found.digest != wanted.digest:
                return f"waits for {_short(need)} to change"
            if not found.ready or _repairable(found):
                return f"waits for {_short(need)} to be ready"
        return ""

    def _drop(self, found: Observed) -> Step | None:
        kind = found.id.kind
        if kind in _NEVER_DELETED or kind in self.unknown:
            return None
        users = USERS.get(kind, frozenset())
        unseen = sorted(user for user in users if user in self.unknown)
        wait = self.held.get(found.id, "")
        if not wait and unseen:
            wait = f"may be used by a {unseen[0]}, which could not be looked at"
        if not wait and found.id in self.used:
            wait = "is still used"
        if not wait and kind is Kind.STORAGE:
            # Where the instances cannot stand side by side, the old data is the way back until the new one is ready.
            wait = self._unready_workload()
        if not wait:
            # Not every user says what it uses; what is to go itself goes first.
            for other in self.observed:
                if other.kind in users and other not in self.desired and other.scope == found.id.scope:
                    wait = f"waits until {_short(other)} is gone"
                    break
        if not wait:
            wait = self._still_draining(found.id)
        if wait:
            self.waiting.append(Waiting(found.id, wait))
            return None
        return Step(found.id, Action.DELETE, found.digest, None, "not wanted", self._grace(found.id))

    def _unready_workload(self) -> str:
        for id, item in self.desired.items():
            if id.kind is Kind.WORKLOAD and not is_kept(item, self.observed.get(id)):
                return f"is kept until {_short(id)} is ready"
        return ""

    def _new_routes(self, workload: ResourceId) -> list[Observed]:
        """Routes that lead to the other instance of the same site: ``workload`` has been left."""
        if workload.kind is not Kind.WORKLOAD or workload in self.used:
            return []
        return [
            item
            for item in self.observed.values()
            if item.id.kind is Kind.ROUTE and any(use.kind is Kind.WORKLOAD for use in item.uses)
        ]

    def _still_draining(self, workload: ResourceId) -> str:
        left = 0.0
        for route in self._new_routes(workload):
            since = route.detail.get("since")
            if isinstance(since, int | float) and since <= self.now + _CLOCK_SLACK:
                left = max(left, since + self.drain_seconds - self.now)
        if left <= 0:
            return ""
        self.wake_in = left if self.wake_in is None else min(self.wake_in, left)
        return "drains"

    def _grace(self, workload: ResourceId) -> float:
        """For routes that do not say since when: the actuator waits instead."""
        for route in self._new_routes(workload):
            since = route.detail.get("since")
            if not isinstance(since, int | float) or since > self.now + _CLOCK_SLACK:
                return self.drain_seconds
        return 0.0

    def _promise(self, id: ResourceId, state: PromiseState, reason: str = "") -> None:
        self.promises.append(Promise(id, state, reason))


def _order(item: Desired | Observed) -> tuple[int, str, str]:
    return RANK[item.id.kind], item.id.scope, item.id.name


def _repairable(found: Observed) -> bool:
    return any(defect.code != BY_HAND for defect in found.defects)


def _short(id: ResourceId) -> str:
    return f"{id.kind}/{id.name}"
