"""The real agent or the real control is killed at steps of deliver, deploy and roll back, over a whole instance.

Faults 8, 11, 20: the operation ends by itself, the environment is wholly the old or wholly the new version and answers
with it, what is said to be live is what is served, and nothing is left that a clean run would not have left.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from typing import Any

import pytest
from test_fault_killed import APP, word

from instance import Instance
from instancekit import ApiError, until
from loadkit import Load

#: Operation, role, point. More points of control: tests/control/test_deploys_killed.py.
CASES = (
    ("deliver", "agent", "release-copied"),
    ("deploy", "agent", "site-frozen"),
    ("deploy", "agent", "backup-spooled"),
    ("deploy", "agent", "workload-ready"),
    ("rollback", "agent", "restore-unpacked"),
    *(
        pytest.param(*case, marks=pytest.mark.turn)
        for case in (
            ("deploy", "agent", "workload-begin"),
            ("deploy", "agent", "workload-network"),
            ("deploy", "agent", "workload-running"),
            ("deploy", "agent", "workload-gone"),
            ("rollback", "agent", "restore-read"),
            ("rollback", "agent", "workload-ready"),
        )
    ),
)


class Shop:
    def __init__(self, alveole: Instance) -> None:
        self.alveole = alveole
        body = {"name": "shop", "environments": ["live"], "accept": "at-once", **APP}
        alveole.ended(alveole.api("POST", "/v1/apps", body)["id"], good=True)
        for name in ("one", "two"):
            sent = {"version": name, "upload": alveole.upload(word(name))}
            alveole.ended(alveole.api("POST", "/v1/apps/shop/versions", sent)["id"], good=True)
        self.done(self.deliver("one"))
        self.done(self.deploy())

    def ask(self, verb: str, **body: Any) -> Any:
        return self.alveole.api("POST", f"/v1/apps/shop/environments/live/{verb}", body)

    def done(self, change: Any) -> None:
        self.alveole.ended(change["id"], good=True)

    def deliver(self, version: str = "two") -> Any:
        return self.ask("deliver", version=version)

    def deploy(self) -> Any:
        return self.ask("deploy")

    def rollback(self) -> Any:
        return self.ask("rollback", version="one", with_data=True)

    @property
    def now(self) -> Any:
        return self.alveole.api("GET", "/v1/apps/shop")["environments"][0]

    def prepare(self, verb: str) -> None:
        """``one`` is live and nothing lies ready, or what the verb needs."""
        if self.now["live"]["version"] == "two" and verb != "rollback":
            self.done(self.ask("rollback", version="one"))
        if verb != "deliver" and self.now["live"]["version"] == "one":
            if self.now["delivered"] is None:
                self.done(self.deliver())
            if verb == "rollback":
                self.done(self.deploy())
        elif verb == "rollback" and not self.now["live"]["backup"]:
            self.prepare("deliver")
            self.prepare("rollback")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Instance(split=True) as made:
        yield Shop(made)


@pytest.mark.parametrize(("verb", "role", "point"), CASES)
def test_killed_on_the_way_to_live(shop: Shop, verb: str, role: str, point: str) -> None:
    machine = shop.alveole
    shop.prepare(verb)
    if verb == "deliver" and shop.now["delivered"] is not None:
        # It lies ready from the case before: another version takes its place, and its files must be copied anew.
        name = f"two{time.monotonic_ns()}"
        sent = {"version": name, "upload": machine.upload(word(name))}
        machine.ended(machine.api("POST", "/v1/apps/shop/versions", sent)["id"], good=True)
    else:
        name = "two"
    before = machine.fetch("shop-live").body
    machine.roles[role].terminate()
    machine.roles.pop(role).wait(30)
    machine.start_role(role, point)
    machine.until_ready()
    acknowledged: Any = None
    with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
        acknowledged = shop.deliver(name) if verb == "deliver" else getattr(shop, verb)()
    with Load(machine, "shop-live", threads=1, pause=0.02) as load:
        until(lambda: not machine.is_up(role), 30, lambda: f"{point} is never passed\n{machine.tail()}")
        assert machine.roles.pop(role).wait() == -9
        machine.start_role(role)
        machine.until_ready()
        outcome = machine.ended(acknowledged["id"]) if acknowledged is not None else None
        machine.until_kept("shop-live")
    load.check(5)
    until(lambda: shop.now["held"] == "", 30)
    live, body = shop.now["live"]["version"], machine.fetch("shop-live").body
    assert body == live, "what is said to be live is what is served"
    if outcome is not None and outcome["state"] == "done":
        assert live == {"deliver": before, "deploy": "two", "rollback": "one"}[verb]
    else:
        assert live == before, "wholly the old one"
    if role == "control" and acknowledged is not None:
        assert outcome["state"] == "done", "what control was killed in the middle of goes on to its end"
    site = machine.state / "sites" / machine.site("shop-live")["id"]
    until(lambda: not list((site / "staging").iterdir()), 30, "something half done is left")
    assert not machine.api("GET", "/v1/changes?state=running")
