"""Sites that sleep: what is stored, what the loop makes of it, who wakes them, and what a death on the way leaves."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
from controlkit import ROOT, Control, until

from alveole import requests as ask
from alveole.agent.using import Use, Using
from alveole.errors import InvalidInput, NoRoom, NotFound, Refused
from alveole.model.change import ChangeState
from alveole.model.resource import Action, Kind
from alveole.model.site import WokenBy
from alveole.requests.plans import CreatePlan, SetPlan
from alveole.views import State
from alveole.wakedoor import WakeDoor


def workloads(control: Control, site: str) -> set[str]:
    return {each for each in control.agent.of(site) if each.startswith("workload")}


def asleep(control: Control, name: str = "blog") -> str:
    """A site of this name that sleeps; gives its id."""
    site = control.static(name) if control.services.store.site(name) is None else control.show(name)
    control.done(control.services.sleep_site(ROOT, name))
    return site.id


def idle(control: Control) -> None:
    """Nobody was ever seen at any site."""
    control.services.started_at = 0.0
    control.services._last_used.clear()


def test_asleep_is_kept_and_a_visit_wakes(control: Control) -> None:
    """Asleep is wanted: the loop keeps it so over a restart and a reboot, and what is left over goes."""
    site = asleep(control)
    found = control.show("blog")
    assert (found.state, found.wanted) == (State.ASLEEP, "running")
    assert found.sleep.since is not None and workloads(control, site) == set()
    assert all(each.state == "kept" for each in found.promises)
    control.restart()
    control.agent.reboot()
    control.agent.tell("*")
    until(lambda: control.show("blog").state == State.ASLEEP and not control.show("blog").problem)
    assert workloads(control, site) == set()
    version = control.show("blog").version
    assert control.services.wake(site).awake
    after = control.show("blog")
    assert (after.state, after.sleep.since, after.version) == (State.RUNNING, None, version)
    assert not control.services.sleeps(site) and control.services.wake(site).awake


def test_what_cannot_sleep_is_refused(control: Control) -> None:
    both = (ask.ProcessBody(name="web", argv=("serve",)), ask.ProcessBody(name="jobs", argv=("work",)))
    control.done(control.services.create_site(ROOT, ask.CreateSite(name="pair", processes=both, port=8000)))
    with pytest.raises(InvalidInput, match="jobs"):
        control.services.set_site(ROOT, "pair", ask.SetSite(sleep_after=600))
    with pytest.raises(Refused, match="jobs"):
        control.services.sleep_site(ROOT, "pair")
    with pytest.raises(InvalidInput, match="59 s"):
        control.static("blog", sleep_after=59)
    control.static()
    control.done(control.services.set_site(ROOT, "blog", ask.SetSite(sleep_after=0)))
    assert control.show("blog").sleep.after == 0


def test_idle_sites_fall_asleep_and_used_ones_do_not(control: Control) -> None:
    """By the plan or by themselves; a visit, an open connection, and a change that goes on keep awake."""
    control.services.create_plan(
        ROOT, CreatePlan(name="idle", cpu_millis=100, memory_bytes=64 << 20, pids=16, sleep_after=3600)
    )
    names = ("planned", "own", "visited", "connected", "robots", "watched", "never")
    more = {"planned": {"plan": "idle"}, "watched": {"woken_by": WokenBy.EVERYBODY, "sleep_after": 60}}
    sites = {
        name: control.static(name, **more.get(name, {} if name == "never" else {"sleep_after": 60})).id
        for name in names
    }
    now = time.time()
    control.agent.uses = {
        sites["visited"]: Use(now, now, 0),
        sites["connected"]: Use(0.0, 0.0, 1),
        sites["robots"]: Use(0.0, now, 0),
        sites["watched"]: Use(0.0, now, 0),
    }
    idle(control)
    control.services.look_for_idle()
    expected = {"planned", "own", "robots"}
    until(lambda: {name for name in names if control.show(name).state == State.ASLEEP} == expected)
    control.quiet()
    control.services.look_for_idle()
    assert {name for name in names if control.show(name).sleep.since is not None} == expected
    asked = [call for call in control.agent.calls if isinstance(call, Using)]
    assert sites["never"] not in {each.site for call in asked for each in call.instances}


def test_changes_of_a_site_that_sleeps_wake_it(control: Control) -> None:
    for change in (
        lambda: control.services.set_site(ROOT, "blog", ask.SetSite(env={"A": "1"})),
        lambda: control.services.update_site(ROOT, "blog", ask.UpdateSite(upload=control.upload(b"more"))),
        lambda: control.services.start_site(ROOT, "blog"),
    ):
        site = asleep(control)
        control.done(change())
        assert control.show("blog").state == State.RUNNING and workloads(control, site)
    asleep(control)
    control.done(control.services.create_backup(ROOT, ask.CreateBackup(site="blog")))
    assert control.show("blog").state == State.ASLEEP, "a backup needs nothing that runs"
    control.done(control.services.stop_site(ROOT, "blog"))
    assert control.show("blog").state == State.STOPPED and not control.services.wake(site).awake


def test_a_site_that_does_not_wake_is_failed_and_not_asleep(control: Control) -> None:
    site = asleep(control)
    control.agent.fail_next(Kind.WORKLOAD, Action.CREATE, "no memory", temporary=False)
    woken = control.services.wake(site)
    assert not woken.awake and "no memory" in woken.problem and woken.later > 0
    until(lambda: control.show("blog").state in (State.FAILED, State.STARTING, State.RUNNING))
    changes = [each for each in control.services.journal.list(site=site) if each.verb == "wake"]
    until(lambda: control.services.journal.get(changes[0].id).state == ChangeState.FAILED)
    until(lambda: control.show("blog").state == State.RUNNING, 60)


def test_what_would_not_wake_it_is_told(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory, or a database that takes nothing: the visit is to come again, the site sleeps on, ``why`` says it."""
    site = asleep(control)
    assert control.services.why(ROOT, "blog").broken == ""
    monkeypatch.setattr("alveole.services.sleep._ROOM", 2.0)
    woken = control.services.wake(site)
    assert not woken.awake and woken.later == 60
    why = control.services.why(ROOT, "blog")
    assert why.broken == "asleep" and "short of memory" in why.links[-1].came and why.links[-1].cure
    monkeypatch.undo()
    assert control.services.why(ROOT, "blog").broken == ""

    def full(*_: object) -> None:
        raise NoRoom("the disk of the state directory is full", hint="make room")

    monkeypatch.setattr(control.services, "_store_awake", full)
    assert not control.services.wake(site).awake and control.show("blog").state == State.ASLEEP
    why = control.services.why(ROOT, "blog")
    assert why.broken == "asleep" and "disk" in why.links[-1].came
    monkeypatch.undo()
    assert control.services.wake(site).awake and control.services.why(ROOT, "blog").broken == ""


def test_sites_of_a_built_in_plan_sleep(control: Control) -> None:
    """When sites of a plan sleep is a person's to say, of every plan; its limits and what runs stay as they are."""
    control.static()
    before = control.services.show_plan(ROOT, "small")
    version, digests = control.show("blog").version, workloads(control, control.show("blog").id)
    made = control.services.set_plan(ROOT, "small", SetPlan(sleep_after=600))
    assert (made.sleep_after, made.built_in, made.limits) == (600, True, before.limits)
    assert control.show("blog").sleep.after == 600 and control.show("blog").sleep.set is None
    assert (control.show("blog").version, workloads(control, control.show("blog").id)) == (version, digests)
    control.restart()
    assert control.services.show_plan(ROOT, "small").sleep_after == 600
    with pytest.raises(InvalidInput, match="59 s"):
        control.services.set_plan(ROOT, "small", SetPlan(sleep_after=59))
    with pytest.raises(NotFound):
        control.services.set_plan(ROOT, "none", SetPlan(sleep_after=0))
    assert control.services.set_plan(ROOT, "small", SetPlan(sleep_after=0)).sleep_after == 0


# --- the door of the edge -----------------------------------------------------------------------------
def request(control: Control, line: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(60)
    link.connect(str(control.settings.wake_socket))
    link.sendall(line.encode())
    return link


def answer(link: socket.socket) -> str:
    with link, contextlib.suppress(ConnectionResetError):
        return link.recv(100).decode()
    return ""


@pytest.fixture
def door(control: Control) -> Iterator[WakeDoor]:
    control.settings.wake_socket.parent.mkdir(parents=True, exist_ok=True)
    door = WakeDoor(control.settings, control.services)
    door.start()
    yield door
    door.close()


def test_a_hundred_visits_wake_once(control: Control, door: WakeDoor) -> None:
    site = asleep(control)
    control.agent.slow_start = 0.2
    links = [request(control, f"wake {site}\n") for _ in range(100)]
    assert {answer(link) for link in links} == {"awake\n"}
    made = [step for step in control.agent.applied(Kind.WORKLOAD) if step.action is Action.CREATE]
    assert len(made) == 2, "once when it was created, once now"
    assert answer(request(control, f"wake {site}\n")) == "awake\n"
    for nonsense in ("wake ../../etc\n", "start " + site + "\n", "wake " + "s" * 60 + "\n", "\n"):
        assert answer(request(control, nonsense)) == ""


def test_visits_of_many_sites_do_not_start_all_of_them(control: Control, door: WakeDoor) -> None:
    """Threat: a flood of requests for sites that sleep starts a few at a time, and turns the rest away."""
    limits = door._limits = msgspec.structs.replace(door._limits, a_minute=1)
    door._turns = 6.0
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    class Slow:
        def sleeps(self, _site: str) -> bool:
            return True

        def wake(self, site: str, by: str = "", seconds: float = 0.0, routed: object = None) -> object:
            with lock:
                running.append(1)
                most.append(len(running))
            until(released.is_set)
            with lock:
                running.pop()
            return control.services.wake(site)

    released = threading.Event()
    door._waker = Slow()
    site = "s" + "a" * 11
    links = [request(control, f"wake {site}{letter}\n") for letter in "abcdefghijkl"]
    refused = []
    for link in links[6:]:
        refused.append(answer(link))
    assert set(refused) == {"later 5\n"}, "beyond the burst nobody waits"
    until(lambda: len(most) == limits.parallel)
    released.set()
    assert all(answer(link).startswith("later") for link in links[:6])
    assert max(most) == limits.parallel
