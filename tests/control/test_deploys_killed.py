"""Control is killed with SIGKILL at every step of send, deliver, deploy and roll back (faults 3, 8, 20).

Afterwards, with a fresh control: the operation has ended by itself, the environment is wholly the old or wholly
the new version, the promise is of the same, and nothing is left over.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from controlkit import ROOT, Control, make_settings, until
from test_apps import bring, live, make, send, set_env
from test_killed import behind_a_socket, check_nothing_is_left, drive, is_as_wanted

from alveole import requests as ask
from alveole.agent.reaching import Reach
from alveole.model.app import Stage
from alveole.model.change import ChangeState
from alveole.requests import checks as check_requests
from alveole.testing import FakeAgent

#: Script, whether the version holds, points.
CASES = {
    ("send", True): ("versions.imported", "store.before-commit:2"),
    ("deliver", True): ("services.accepted", "delivery.copied"),
    ("deploy", True): (
        "delivery.hook-ran",
        "delivery.saved",
        "delivery.beside",
        "delivery.wanted",
        "reconcile.before-step:1",
        "reconcile.after-step:2",
        "delivery.switched",
        "delivery.verified-once",
        "store.before-commit:8",
    ),
    ("deploy", False): ("delivery.back",),
    ("rollback", True): (
        "delivery.restored",
        "delivery.wanted",
        "delivery.brought-back",
        "reconcile.after-step:1",
        "delivery.switched",
    ),
    ("sync", True): ("syncing.taken", "syncing.unpacked", "delivery.saved", "delivery.wanted", "delivery.switched"),
}


def answer(_request: Reach, file: int) -> None:
    """Every instance is well."""
    connection = socket.socket(fileno=file)

    def one() -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    threading.Thread(target=one, daemon=True).start()


@pytest.fixture
def shop(directory: Path) -> Iterator[Control]:
    control = Control(make_settings(directory), FakeAgent())
    make(control, volumes=(ask.VolumeBody(name="data", path="/data"),))
    for name in ("1.0", "2.0"):
        send(control, name)
    bring(control, "alpha", "1.0")
    set_env(control, "alpha", before=("migrate",), after=("warm",))
    gate = check_requests.CheckText(text="use: [gate]\nsteps: [{request: GET /}]\n")
    control.services.put_check(ROOT, "shop-alpha", "front", gate)
    control.agent.reached = answer
    yield control
    control.services.close()


@pytest.mark.parametrize(
    ("script", "holds", "point"), [(script, holds, point) for (script, holds), all in CASES.items() for point in all]
)
def test_killed_on_the_way(shop: Control, script: str, holds: bool, point: str) -> None:
    if script == "rollback":
        bring(shop, "alpha", "2.0")
    if script == "sync":
        bring(shop, "prod", "1.0")
        bring(shop, "alpha", "2.0")
        set_env(shop, "alpha", before=(), after=())
    kept = set(shop.agent.backups)
    if not holds:
        shop.agent.unhealthy["after"] = "status 1"
    with behind_a_socket(shop):
        acknowledged = drive(shop, script, point)
        shop.restart()
        shop.quiet()
        ended = [shop.services.show_change(ROOT, id) for id in acknowledged]
        assert all(each.state is ChangeState.DONE for each in ended if holds or each.verb == "deliver"), ended
        until(lambda: is_as_wanted(shop))
        assert not shop.agent.violations
        check_nothing_is_left(shop)
        check_whole(shop, script, holds, tuple(each.verb for each in ended))
        if script == "sync":
            fresh = {made.id for made, _manifest, _release in shop.agent.backups.values()}
            known = {each.id for each in shop.services.list_backups(ROOT)}
            assert fresh == known, f"what was taken of the source is gone: {fresh - known}, {kept}"


def check_whole(shop: Control, script: str, holds: bool, acknowledged: tuple[str, ...]) -> None:
    """What was acknowledged is so; what was stored and never acknowledged is so or is not, but never between."""
    until(lambda: shop.show("shop-alpha").state == "running")
    app = shop.services.show_app(ROOT, "shop")
    history = shop.services.apps.deployments(app.id, "alpha")
    (now,) = [each for each in history if each.stage is Stage.LIVE]
    site = shop.show("shop-alpha")
    assert site.release == now.release, "the promise is what is said to be live"
    if script == "send":
        assert "send-version" not in acknowledged or "3.0" in {each.name for each in app.versions}
    elif script == "deploy":
        assert live(shop, "alpha") in (("2.0",) if holds and "deploy" in acknowledged else ("1.0", "2.0"))
        if not holds:
            assert [each.stage for each in history if each.name == "2.0"] == [Stage.FAILED]
    elif script == "sync":
        prod = shop.show("shop-prod")
        assert live(shop, "prod") == ("2.0" if acknowledged else live(shop, "prod"))
        storage = [each for each in shop.agent.of(prod.id) if each.startswith("storage")]
        assert storage == (["storage/2"] if live(shop, "prod") == "2.0" else ["storage/1"]), "both, or none of both"
    elif script == "rollback":
        assert live(shop, "alpha") == ("1.0" if acknowledged else "2.0")
        storage = "storage/2" if acknowledged else "storage/1"
        assert [each for each in shop.agent.of(site.id) if each.startswith("storage")] == [storage]
