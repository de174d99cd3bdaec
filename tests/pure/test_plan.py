"""The rules of the plan, one by one. ``tests/property/test_loop.py`` has them all at once."""

from __future__ import annotations

import msgspec
import pytest

from alveole.config import Settings
from alveole.loop.compile import compile_platform, compile_site
from alveole.loop.plan import Plan, all_kept, plan
from alveole.model.resource import Action, ConfigSpec, Defect, Desired, Kind, Observed, PromiseState, ResourceId
from alveole.model.site import BUILT_IN_PLANS, Base, BaseKind, Process, Run, Site, Wanted
from alveole.testing import _uses

SETTINGS = Settings(domain="example.org")
PLANS = {each.name: each.limits for each in BUILT_IN_PLANS}
HOST = Base(BaseKind.HOST, "host-0123456789abcdef")
APP = Site("saaaaaaaaaaaa", 1, "app", Wanted.RUNNING, "small", HOST, Run((Process("web", ("serve",)),)), created_at=1.0)
PLATFORM = {item.id: Observed(item.id, item.digest, True) for item in compile_platform(SETTINGS, (HOST,))}
NOW = 1000.0


def desired(site: Site = APP) -> tuple[Desired, ...]:
    return compile_site(site, SETTINGS, PLANS)


def seen(items: tuple[Desired, ...], since: float = 0.0) -> dict[str, Observed]:
    return {
        f"{item.id.kind}/{item.id.name}": Observed(
            item.id, item.digest, True, (), _uses(item.spec), {"since": since} if item.id.kind is Kind.ROUTE else {}
        )
        for item in items
    }


def run(wanted: tuple[Desired, ...], found: dict[str, Observed], **more: object) -> Plan:
    options: dict[str, object] = {"now": NOW, "drain_seconds": 1.0, "context": PLATFORM, **more}
    return plan(wanted, found.values(), **options)


def steps(result: Plan) -> list[str]:
    return [f"{step.action} {step.id.kind}/{step.id.name}" for step in result.steps]


def waits(result: Plan) -> dict[str, str]:
    return {f"{each.id.kind}/{each.id.name}": each.reason for each in result.waiting}


def test_from_nothing_in_the_order_of_needs() -> None:
    result = run(desired(), {})
    assert steps(result) == ["create certificate/app.example.org", "create storage/1"]
    assert waits(result)["workload/0"] == "waits for storage/1"
    assert waits(result)["route/app.example.org"] == "waits for workload/0"


def test_kept_is_an_empty_plan() -> None:
    found = seen(desired())
    result = run(desired(), found)
    assert result.kept and not result.steps and not result.waiting
    assert all_kept(desired(), list(found.values()))


def test_needs_of_another_scope() -> None:
    result = run(desired(), {}, context={})
    assert not steps(result) or steps(result) == ["create storage/1"]
    found = {name: each for name, each in seen(desired()).items() if not name.startswith("workload")}
    assert waits(run(desired(), found, context={}))["workload/0"] == "waits for network/network"


def test_unknown_is_not_absent() -> None:
    result = run(desired(), {}, unknown={Kind.STORAGE: "permission denied"})
    assert "create storage/1" not in steps(result)
    states = {str(each.id.kind): each.state for each in result.promises}
    assert states["storage"] is PromiseState.UNKNOWN
    assert "could not be looked at" in waits(result)["workload/0"]


def test_nothing_is_deleted_that_an_unseen_route_may_use() -> None:
    found = {name: each for name, each in seen(desired()).items() if not name.startswith("route")}
    stopped = desired(msgspec.structs.replace(APP, wanted=Wanted.STOPPED))
    result = run(stopped, found, unknown={Kind.ROUTE: "gone"})
    assert "delete workload/0" not in steps(result)
    assert "could not be looked at" in waits(result)["workload/0"]


def test_defects_are_repaired_with_their_causes() -> None:
    found = seen(desired())
    found["workload/0"] = msgspec.structs.replace(
        found["workload/0"], ready=False, defects=(Defect("exited", "ended"), Defect("changed", "no veth"))
    )
    (step,) = run(desired(), found).steps
    assert (step.action, step.reason) == (Action.REPAIR, "ended; no veth")


def test_what_needs_time_is_waited_for() -> None:
    found = seen(desired())
    found["workload/0"] = msgspec.structs.replace(found["workload/0"], ready=False)
    result = run(desired(), found)
    assert not result.steps and waits(result) == {"workload/0": "is not ready yet"} and not result.kept


def test_stop_shows_the_page_first_and_ends_the_instance_then() -> None:
    stopped = desired(msgspec.structs.replace(APP, wanted=Wanted.STOPPED))
    found = seen(desired())
    first = run(stopped, found)
    assert steps(first) == ["replace route/app.example.org", "delete address/ipv4"]
    now = seen(stopped) | {"workload/0": found["workload/0"]}
    assert steps(run(stopped, now)) == ["delete workload/0"]


def flipped() -> tuple[tuple[Desired, ...], dict[str, Observed]]:
    return desired(msgspec.structs.replace(APP, slot=1, incarnation=1)), seen(desired())


def test_update_starts_the_new_beside_the_old() -> None:
    new, found = flipped()
    assert steps(run(new, found)) == ["create workload/1"]
    found |= {name: each for name, each in seen(new).items() if name == "workload/1"}
    assert steps(run(new, found)) == ["replace route/app.example.org", "replace address/ipv4"]


@pytest.mark.parametrize("new_is_ready", [False, True])
def test_no_route_leads_to_what_is_not_ready(new_is_ready: bool) -> None:
    new, found = flipped()
    fresh = seen(new)["workload/1"]
    found["workload/1"] = msgspec.structs.replace(fresh, ready=new_is_ready)
    assert ("replace route/app.example.org" in steps(run(new, found))) is new_is_ready


def test_the_old_one_drains() -> None:
    new, old = flipped()
    found = seen(new, since=NOW - 0.4) | {"workload/0": old["workload/0"]}
    result = run(new, found)
    assert not result.steps and waits(result) == {"workload/0": "drains"}
    assert result.wake_in == pytest.approx(0.6) and not result.stuck
    assert steps(run(new, found, now=NOW + 1)) == ["delete workload/0"]


def test_a_clock_that_jumped_does_not_keep_the_old_one() -> None:
    """Fault 17: a route dated a year ahead; the actuator itself waits the drain time."""
    new, old = flipped()
    found = seen(new, since=NOW + 3e7) | {"workload/0": old["workload/0"]}
    (step,) = run(new, found).steps
    assert (step.action, step.grace_seconds) == (Action.DELETE, 1.0)


def test_back_to_a_slot_that_still_drains_waits() -> None:
    new, _old = flipped()
    third = desired(msgspec.structs.replace(APP, slot=0, incarnation=2))
    found = seen(new, since=NOW - 0.1) | {"workload/0": seen(desired())["workload/0"]}
    assert waits(run(third, found))["workload/0"] == "drains"
    assert steps(run(third, found, now=NOW + 2)) == ["replace workload/0"]


def test_restart_in_the_same_slot_replaces() -> None:
    again = desired(msgspec.structs.replace(APP, incarnation=1))
    assert steps(run(again, seen(desired()))) == ["replace workload/0"]


def test_destroy_takes_down_from_the_outside_in() -> None:
    found = seen(desired())
    order: list[list[str]] = []
    while found:
        done = steps(run((), found))
        assert done
        order.append(done)
        for step in done:
            del found[step.removeprefix("delete ")]
    flat = [step for group in order for step in group]
    assert flat.index("delete route/app.example.org") < flat.index("delete workload/0") < flat.index("delete storage/1")


def test_bases_are_never_deleted() -> None:
    base = ResourceId(Kind.BASE, "platform", HOST.key)
    assert not plan((), [Observed(base, "x", True)], now=NOW, drain_seconds=1.0).steps


def test_held_is_told_and_not_tried() -> None:
    id = ResourceId(Kind.STORAGE, APP.id, "1")
    result = run(desired(), {}, held={id: "next try in 3 s"})
    assert "create storage/1" not in steps(result)
    assert waits(result)["storage/1"] == "next try in 3 s"
    assert next(each for each in result.promises if each.id == id).state is PromiseState.BROKEN


def test_stuck_is_said() -> None:
    found = {name: each for name, each in seen(desired()).items() if name.startswith(("storage", "certificate"))}
    assert run(desired(), found, context={}).stuck


def test_files_for_an_instance_that_follows_are_written_quietly() -> None:
    """What runs may not be able to read them: only the instance that is made over them does."""
    config = ResourceId(Kind.CONFIG, "saaaaaaaaaaaa", "config")
    work = ResourceId(Kind.WORKLOAD, "saaaaaaaaaaaa", "0")
    spec = ConfigSpec("saaaaaaaaaaaa", 1, ())
    both = (Desired(config, spec, "new"), Desired(work, spec, "work", (config,)))
    for found, quiet in (("work", False), ("older", True), (None, True)):
        observed = [Observed(config, "old", True)]
        if found is not None:
            observed.append(Observed(work, found, True))
        steps = plan(both, observed, now=0.0, drain_seconds=1.0).steps
        assert [(step.id, step.quiet) for step in steps] == [(config, quiet)]
