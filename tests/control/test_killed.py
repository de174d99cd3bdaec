"""Control is killed with SIGKILL at every named point, over the real socket of the agent.

Faults 1, 2, 3, 8, 11, 16, 20: afterwards, with a fresh control, every acknowledged request has ended or
goes on to its end, what is wanted is reached, and nothing is left over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from controlkit import ROOT, Control, make_settings, until

from alveole import requests as ask
from alveole.agent.server import Server
from alveole.backends.base import quiet
from alveole.loop.compile import compile_platform, compile_site
from alveole.model.change import ChangeState
from alveole.model.resource import Kind
from alveole.testing import FakeAgent

POINTS = {
    "create": (
        "store.before-commit",
        "store.before-commit:2",
        "store.before-commit:3",
        "store.after-commit",
        "store.after-commit:2",
        "services.accept",
        "services.accepted",
        "services.imported",
        "services.content-stored",
        *(f"reconcile.{when}-step:{number}" for number in (1, 3, 4) for when in ("before", "after")),
    ),
    "update": (
        "services.accepted",
        "services.imported",
        "store.before-commit:2",
        "services.content-stored",
        *(f"reconcile.{when}-step:{number}" for number in (1, 2, 3, 4) for when in ("before", "after")),
        "store.before-commit:3",
    ),
    "destroy": (
        "services.accepted",
        "services.accepted:2",
        *(f"reconcile.after-step:{number}" for number in (1, 3, 4, 6)),
        "services.before-remove",
        "services.removed",
        "store.before-commit:4",
    ),
    "backup": (
        "services.accepted",
        "services.backup-made",
        "services.restored",
        "services.content-stored",
        "reconcile.after-step:2",
        "services.restored:2",
        "services.backup-dropped",
    ),
    "past": (
        "services.past-begun",
        "services.past-runs",
        "services.past-opened",
        "services.past-taken-down",
    ),
    "change": ("services.accepted", "reconcile.after-step:1", "services.accepted:2", "services.accepted:3"),
    "sleep": (
        "services.accept",
        "services.accepted",
        "reconcile.before-step:1",
        "reconcile.after-step:2",
        "store.before-commit:3",
        "services.woken",
        "reconcile.before-step:4",
        "reconcile.after-step:5",
    ),
    "image": ("services.accepted", "services.image-kept", "store.before-commit:4"),
    "modules": (
        "services.accept",
        "services.accepted",
        "reconcile.after-step:3",
        "services.accept:2",
        "services.accepted:2",
        *(f"reconcile.{when}-step:{number}" for number in (9, 10) for when in ("before", "after")),
        "services.accepted:3",
        "store.before-commit:4",
    ),
}


@pytest.fixture
def machine(directory: Path) -> Iterator[Control]:
    """A site ``app`` that runs, over an agent behind a real socket; its control is closed."""
    control = Control(make_settings(directory, images={"registries": ["registry.test"]}), FakeAgent())
    control.app("app", upload=control.upload(b"one"), env={"A": "1"})
    with behind_a_socket(control):
        yield control


@contextlib.contextmanager
def behind_a_socket(control: Control) -> Iterator[None]:
    """Control is closed, and its agent answers at the real socket."""
    agent = control.agent
    control.quiet()
    control.services.close()
    server = Server(
        control.settings.agent_socket,
        frozenset({os.getuid()}),
        lambda request, files, say: agent.call(request, files, say or quiet),
        lambda _request: pytest.fail("nothing is started inside a site here"),
    )
    server.listen()
    threading.Thread(target=server.serve, daemon=True).start()
    yield
    server.close()
    control.services.close()


def drive(control: Control, script: str, point: str) -> list[str]:
    """Run the script until it is killed at ``point``; the ids of the acknowledged changes."""
    settings = json.dumps(msgspec.to_builtins(control.settings))
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("driver.py")), settings, script],
        env={**os.environ, "ALVEOLE_FAILPOINT": point, "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL, f"the point was not reached: {ended.stderr[-2000:]}"
    return ended.stdout.split()


@pytest.mark.parametrize(("script", "point"), [(script, point) for script, all in POINTS.items() for point in all])
def test_killed(machine: Control, script: str, point: str) -> None:
    acknowledged = drive(machine, script, point)
    machine.restart()
    machine.quiet()
    for id in acknowledged:
        assert machine.services.show_change(ROOT, id).state in (ChangeState.DONE, ChangeState.FAILED)
    until(lambda: is_as_wanted(machine))
    assert not machine.agent.violations
    check_nothing_is_left(machine)
    if script == "create":
        check_same_key(machine, acknowledged)
    if script in ("update", "change", "backup", "modules"):
        until(lambda: machine.services.list_sites(ROOT)[0].state == "running")


def is_as_wanted(control: Control) -> bool:
    store = control.services.store
    limits = {name: plan.limits for name, plan in store.plans.items()}
    wanted = {item.id: item.digest for item in compile_platform(control.settings, ())}
    for stored in store.sites.values():
        if stored.pending:
            return False
        wanted.update({item.id: item.digest for item in compile_site(stored.site, control.settings, limits)})
    things = list(control.agent.things.items())
    days = {day.id for day in control.services.list_past_days(ROOT)}
    # A past day is wholly open, or wholly gone.
    open_days = {id.scope for id, _thing in things if id.scope in days and id.kind is Kind.ROUTE}
    if days != open_days or any(day.state != "open" for day in control.services.list_past_days(ROOT)):
        return False
    there = {id: thing.digest for id, thing in things if id.kind is not Kind.BASE and id.scope not in days}
    return there == wanted


def check_nothing_is_left(control: Control) -> None:
    store = control.services.store
    own = {app.store for app in control.services.apps.apps.values()}
    for id, kept in list(control.agent.releases.items()):
        known = {each.digest for each in store.releases(id)}
        # A kept file without a row is content that was cut; it is unpacked again or dropped with its site.
        if any(id == day.id for day in control.services.list_past_days(ROOT)):
            continue
        assert id in store.sites or id in own, "files of a site that does not exist"
        assert known <= set(kept), "a row without its files"
    assert len(list((control.settings.database.parent / "uploads").glob("*"))) <= 1
    assert not control.services.list_changes(ROOT, ask.ListChanges(state="running"))
    saved = {each.snapshot for each in store.backups()}
    assert saved == set(control.agent.backups), "a backup nobody knows of, or one that is not there"


def check_same_key(control: Control, acknowledged: list[str]) -> None:
    """The client asks again with the same key: one effect (fault 2)."""
    known: Any = control.services.store.site("new")
    request = ask.CreateSite(name="new", command=("serve",)) if not acknowledged else None
    if request is not None and known is None:
        control.done(control.services.create_site(ROOT, request, key="again"))
    names = [site.name for site in control.services.list_sites(ROOT)]
    assert names.count("new") <= 1 and "app" in names
