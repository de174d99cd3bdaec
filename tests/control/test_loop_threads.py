"""The reconciler over the fake agent: drift, crashes, back-off, the agent away, boot (fault 18, 20)."""

from __future__ import annotations

import time

import pytest
from controlkit import ROOT, Control, until

from alveole import requests as ask
from alveole.agent import protocol
from alveole.backoff import Backoff
from alveole.errors import Temporary
from alveole.model.change import Change, ChangeState
from alveole.model.resource import (
    PLATFORM,
    Action,
    Defect,
    Kind,
    Outcome,
    ResourceId,
    RouteSpec,
    RouteTarget,
    Step,
)
from alveole.testing import Thing
from alveole.views import State


def repairs(control: Control) -> list[Change]:
    changes = control.services.list_changes(ROOT, ask.ListChanges(limit=100))
    return [each for each in changes if each.verb == "repair" and each.site_id is not None]


@pytest.mark.parametrize("what", ["workload/0", "route/blog.localhost", "address/ipv4", "certificate/blog.localhost"])
def test_what_vanishes_comes_back_and_is_journalled(control: Control, what: str) -> None:
    """Fault 18: noticed by the drift timer, repaired, journalled with its cause."""
    site = control.static()
    control.quiet()
    kind, _, name = what.partition("/")
    del control.agent.things[ResourceId(Kind(kind), site.id, name)]
    until(lambda: what in control.agent.of(site.id))
    (repair,) = until(lambda: repairs(control))
    assert (repair.actor, repair.state) == ("reconciler", ChangeState.DONE)
    assert f"{what}: missing" in repair.reason


@pytest.mark.parametrize("kind", [Kind.NETWORK, Kind.FIREWALL, Kind.EDGE])
def test_the_platform_comes_back(control: Control, kind: Kind) -> None:
    """Fault 18: bridge deleted, rules flushed, proxy stopped."""
    control.static()
    del control.agent.things[ResourceId(kind, PLATFORM, str(kind))]
    until(lambda: f"{kind}/{kind}" in control.agent.of(PLATFORM))
    until(lambda: control.show("blog").state is State.RUNNING)


def test_a_crash_restarts_at_once_and_then_with_back_off(control: Control) -> None:
    site = control.app()
    control.quiet()
    time.sleep(0.1)
    began = time.monotonic()
    control.agent.crash(site.id, 0)
    until(lambda: control.show("app").state is State.RUNNING and repairs(control))
    assert time.monotonic() - began < 0.3, "told by the agent, not found by the timer"
    assert repairs(control)[0].reason == "workload/0: the program ended with status 1"
    control.agent.crash(site.id, 0)
    shown = until(lambda: (each := control.show("app")).state is State.FAILED and each)
    assert "next try in" in shown.problem and "status 1" in shown.problem
    assert any("next try" in text for text in control.services.why(ROOT, "app").waiting)
    until(lambda: control.show("app").state is State.RUNNING)
    assert 0.8 < time.monotonic() - began < 3


def test_back_off_doubles_and_ends() -> None:
    now = 0.0
    backoff = Backoff(lambda: now)
    id = ResourceId(Kind.WORKLOAD, "s", "0")
    step = Step(id, Action.REPAIR, reason="ended")
    delays = []
    for _crash in range(9):
        backoff.record(step, Outcome(True))
        wait = backoff.next_try("s")
        assert wait is not None
        delays.append(wait)
        now += wait
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    now += 61
    backoff.record(step, Outcome(True))
    assert backoff.next_try("s") == 1, "what stayed up for a minute starts again"
    backoff.record(Step(id, Action.CREATE), Outcome(True))
    assert backoff.next_try("s") is None


def test_the_agent_away(control: Control) -> None:
    """Fault 20: nothing is planned while nothing is known; afterwards everything is as promised."""
    site = control.static()
    control.agent.down = True
    until(lambda: control.show("blog").state is State.UNKNOWN)
    assert not control.services.status(ROOT).agent
    with pytest.raises(Temporary):
        control.services.authority(ROOT)
    change = control.services.stop_site(ROOT, "blog")
    control.agent.down = False
    ended = control.services.wait(ROOT, change.id, 10)
    until(lambda: control.show("blog").state is State.STOPPED)
    assert "workload/0" not in control.agent.of(site.id) and ended.ended_at


def test_a_reboot_is_the_same_pass(control: Control) -> None:
    for name in ("one", "two", "three"):
        control.static(name)
    control.done(control.services.stop_site(ROOT, "two"))
    control.services.close()
    control.agent.reboot()
    control.restart()
    until(lambda: [s.state for s in control.services.list_sites(ROOT)].count(State.RUNNING) == 2)
    assert control.show("two").state is State.STOPPED
    assert "route/two.localhost" in until(lambda: control.agent.of(control.show("two").id))


def test_unknown_is_not_absent(control: Control) -> None:
    site = control.static()
    control.quiet()
    control.agent.unknown = {Kind.WORKLOAD: "permission denied"}
    applied = len(control.agent.applied())
    until(lambda: control.show("blog").state is State.UNKNOWN)
    time.sleep(0.7)
    assert len(control.agent.applied()) == applied
    control.agent.unknown = {}
    until(lambda: control.show("blog").state is State.RUNNING)
    assert "workload/0" in control.agent.of(site.id)


def test_orphans_go_but_never_their_data(control: Control) -> None:
    site = control.app()
    control.quiet()
    for kind, name in ((Kind.WORKLOAD, "0"), (Kind.STORAGE, "1"), (Kind.ROUTE, "x.localhost")):
        thing = next(each for id, each in control.agent.things.items() if id.scope == site.id and id.kind is kind)
        spec = thing.spec
        control.agent.things[ResourceId(kind, "szzzzzzzzzzzz", name)] = Thing("old", spec)
    until(lambda: control.agent.of("szzzzzzzzzzzz") == {"storage/1"})
    assert control.show("app").state is State.RUNNING


def test_a_base_is_built_once_for_all(control: Control) -> None:
    slow = []

    def hook(request: object) -> None:
        step = getattr(request, "step", None)
        if step is not None and step.id.kind is Kind.BASE and step.id.name.startswith("debian"):
            slow.append(step)
            time.sleep(0.2)

    control.agent.hook = hook
    changes = [
        control.services.create_site(
            ROOT, ask.CreateSite(name=name, base="debian", packages=("python3",), command=("serve",))
        )
        for name in ("one", "two", "three")
    ]
    for change in changes:
        control.done(change)
    assert len(slow) == 1
    assert {site.base for site in control.services.list_sites(ROOT)} == {"debian+python3"}


def test_a_base_that_cannot_be_built_fails_the_change_with_the_reason(control: Control) -> None:
    control.quiet()
    control.agent.fail_next(Kind.BASE, Action.CREATE, "no package nosuch", temporary=False)
    request = ask.CreateSite(name="one", base="debian", packages=("nosuch",), command=("serve",))
    ended = control.done(control.services.create_site(ROOT, request), ChangeState.FAILED)
    assert "no package nosuch" in ended.problems[0].message


def test_a_slow_start_is_waited_for(control: Control) -> None:
    control.agent.slow_start = 0.4
    site = control.app()
    assert len(control.agent.applied(Kind.WORKLOAD)) == 1 and site.state is State.RUNNING


def test_a_defect_without_end_is_reported_and_stays_visible(control: Control) -> None:
    site = control.static()
    control.quiet()
    id = ResourceId(Kind.CERTIFICATE, site.id, "blog.localhost")
    for _time in range(3):
        control.agent.fail_next(Kind.CERTIFICATE, Action.REPAIR, "disk full")
    control.agent.things[id].defects = (Defect("damaged", "flipped bytes"),)
    shown = until(lambda: (each := control.show("blog")).problem and each)
    assert "disk full" in shown.problem or "flipped bytes" in shown.problem
    assert shown.state is State.RUNNING, "the instance itself is well"
    failed = until(lambda: [each for each in repairs(control) if each.state is ChangeState.FAILED])
    assert "disk full" in failed[0].problems[0].message


def test_following_a_change(control: Control) -> None:
    control.agent.slow_start = 0.2
    change = control.services.create_site(ROOT, ask.CreateSite(name="app", command=("serve",)))
    told = list(control.services.follow(ROOT, change.id))
    assert isinstance(told[-1], Change) and told[-1].state is ChangeState.DONE
    texts = [each.text for each in told[:-1] if not isinstance(each, Change)]
    assert any(text.startswith("create workload/0") for text in texts)
    again = list(control.services.follow(ROOT, change.id))
    assert again[-1] == control.services.show_change(ROOT, change.id) and len(again) == len(told[-1].events) + 1


def test_a_star_gets_no_name_of_another_site(control: Control) -> None:
    """After a boot a site that cannot start yet, or never can, keeps its names from the star above them."""
    control.static("shop", domains=("*.custom.org",))
    other = control.app("other", domains=("a.custom.org", "a.b.custom.org"))
    control.services.close()
    control.agent.reboot()

    def broken(request: protocol.Request) -> None:
        if isinstance(request, protocol.Apply) and request.step.id == ResourceId(Kind.WORKLOAD, other.id, "0"):
            raise Temporary("made to fail")

    control.agent.hook = broken
    control.restart()
    star = ResourceId(Kind.ROUTE, control.show("shop").id, "*.custom.org")
    until(lambda: star in control.agent.things)
    held = control.agent.things[ResourceId(Kind.ROUTE, other.id, "a.custom.org")]
    assert isinstance(held.spec, RouteSpec) and held.spec.target is RouteTarget.STARTING
    assert "route/a.b.custom.org" not in control.agent.of(other.id), "that is not below the star"
    newest_first = [each.id.name for each in control.agent.applied(Kind.ROUTE)][::-1]
    assert newest_first.index("*.custom.org") < newest_first.index("a.custom.org"), "the star comes after it"
    control.agent.hook = lambda _request: None
    until(lambda: control.show("other").state is State.RUNNING and not control.show("other").problem)
    led = control.agent.things[ResourceId(Kind.ROUTE, other.id, "a.custom.org")].spec
    assert isinstance(led, RouteSpec) and led.target is RouteTarget.WORKLOAD
