"""PURE. Whether a version may enter an environment: what ran before it, who approved it, and what time it is."""

from __future__ import annotations

from collections.abc import Iterable

from alveole.errors import Problem
from alveole.model.app import App, Deployment, Environment, Stage, Version, VersionState, is_open


def may_enter(
    app: App, environment: Environment, version: Version, ran: Iterable[Deployment], now: float
) -> tuple[Problem, ...]:
    """What speaks against bringing ``version`` in. ``ran``: the deployments of the environment before it, in any order.

    The version must have been live there for ``soak_seconds`` on end, as the policy of ``environment`` says; a time
    that a roll back ended counts for nothing, and neither does what came before it.
    """
    if version.state is not VersionState.ACCEPTED:
        hint = f"alveole app accept {app.name} {version.name}"
        return (Problem("version", f"version {version.name} is {version.state}", hint),)
    before = app.before(environment.name)
    if before is None:
        return ()
    own = [each for each in ran if each.version == version.id and each.live_at is not None]
    last = max(own, key=lambda each: each.live_at or 0.0, default=None)
    where = f"{before.name.upper()}, which comes before {environment.name.upper()}"
    if last is None or last.live_at is None:
        hint = f"alveole app deliver {app.name} {before.name} {version.name}"
        return (Problem("environment", f"version {version.name} has not run in {where}", hint),)
    if last.went_back:
        return (Problem("environment", f"version {version.name} was rolled back in {where}", "send a better one"),)
    seconds = (last.left_at if last.stage is Stage.LEFT and last.left_at is not None else now) - last.live_at
    if seconds < environment.policy.soak_seconds:
        left = f"{span(seconds)} of {span(environment.policy.soak_seconds)}"
        return (Problem("environment", f"version {version.name} has run {left} in {where}", "wait until it has"),)
    return ()


def may_deploy(environment: Environment, delivered: Deployment, deployer: str, now: float) -> tuple[Problem, ...]:
    """What speaks against making ``delivered`` live now; ``deployer`` is the id for ever of who wants to."""
    policy = environment.policy
    found = []
    others = {each.key for each in delivered.approvals} - {deployer}
    if len(others) < policy.approvals:
        message = f"{len(others)} of {policy.approvals} approvals by others are there"
        hint = f"somebody else: alveole app approve … {environment.name} {delivered.name}"
        found.append(Problem("approvals", message, hint))
    if not is_open(policy.windows, now):
        found.append(Problem("windows", f"{environment.name.upper()} is deployed {' and '.join(policy.windows)} only"))
    return tuple(found)


def span(seconds: float) -> str:
    """For people: ``3 d``, ``47 h``, ``90 min``, ``8 s``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
