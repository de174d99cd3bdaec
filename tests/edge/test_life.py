"""The life of the edge: started, killed, reconfigured, refused, ended. Nothing of it loses a route."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import EDGE, World, free_ports, is_alive, world

from alveole.actuators.edge import EdgeActuator
from alveole.host import paths
from alveole.model.resource import Action, EdgeSpec, Step, stamp

pytestmark = pytest.mark.root
REPAIR = Step(EDGE, Action.REPAIR, stamp(EdgeSpec()), EdgeSpec())


@pytest.fixture
def edge() -> Iterator[World]:
    with world() as made:
        made.certify(0, "alv.test", scope="platform")
        made.site(1, "one.alv.test")
        made.certify(1, "one.alv.test", wildcard=True)
        yield made


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def workers(master: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def test_it_runs_and_says_so(edge: World) -> None:
    seen = edge.seen()
    assert seen.ready and not seen.defects
    assert seen.digest == stamp(EdgeSpec())
    master = edge.edge.master()
    assert seen.detail["pid"] == master
    for _ in range(2):
        assert edge.edge.apply(REPAIR).done
    # A repeated step changes nothing: the same processes go on.
    assert edge.edge.master() == master


def test_another_actuator_finds_it_again(edge: World) -> None:
    """The agent is restarted: nginx and its routes are found as they are."""
    again = EdgeActuator(edge.settings)
    (seen,) = again.observe().found
    assert seen.ready
    assert again.master() == edge.edge.master()
    assert again.observe({"sabc"}).found == ()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL])
def test_stopped_by_hand_it_comes_back_with_every_route(edge: World, number: signal.Signals) -> None:
    """Fault 18: nginx stopped by hand is noticed and repaired; routes are links, so none is lost."""
    master = edge.edge.master()
    assert master is not None
    os.kill(master, number)
    until(lambda: not is_alive(master) or edge.edge.master() is None)
    (defect,) = edge.seen().defects
    assert defect.code == "not-running"
    assert edge.edge.apply(REPAIR).done
    assert edge.seen().ready
    assert edge.ask("one.alv.test").json["site"] == "one.alv.test"
    assert edge.ask("one.alv.test", tls=True).json["site"] == "one.alv.test"


def test_a_killed_worker_is_replaced(edge: World) -> None:
    master = edge.edge.master()
    assert master is not None
    (worker,) = workers(master)
    os.kill(worker, signal.SIGKILL)
    until(lambda: workers(master) not in ([], [worker]))
    assert edge.ask("one.alv.test").status == 200
    assert edge.seen().ready


def test_the_pid_file_lost_and_a_strange_one(edge: World) -> None:
    file = edge.settings.run / "edge" / "nginx.pid"
    master = edge.edge.master()
    file.unlink()
    assert edge.edge.master() == master
    # A number that is somebody else's by now must not be taken for ours, and not be killed.
    file.write_text(f"{os.getpid()}\n")
    assert edge.edge.master() == master
    assert edge.edge.apply(REPAIR).done
    assert edge.seen().ready


def test_the_status_socket_lost(edge: World) -> None:
    (edge.settings.run / "edge" / "status.sock").unlink()
    (defect,) = edge.seen().defects
    assert defect.code == "not-answering"
    assert edge.edge.apply(REPAIR).done
    assert edge.seen().ready
    assert edge.ask("one.alv.test").status == 200


def test_a_configuration_changed_by_hand_is_put_right(edge: World) -> None:
    conf = edge.settings.run / "edge" / "nginx.conf"
    conf.write_text(conf.read_text().replace("server_tokens off", "server_tokens on"))
    (defect,) = edge.seen().defects
    assert defect.code == "changed"
    assert edge.edge.apply(REPAIR).done
    assert "server_tokens off" in conf.read_text()
    lua = edge.settings.run / "edge" / "lua" / "alveole_edge.lua"
    lua.write_text("-- empty")
    assert edge.seen().defects[0].code == "changed"
    assert edge.edge.apply(REPAIR).done
    assert edge.seen().ready


def test_other_settings_are_taken_by_a_reload(edge: World) -> None:
    """The ports stay open: the master is the same, and no request is refused meanwhile."""
    master = edge.edge.master()
    changed = msgspec.structs.replace(
        edge.settings, edge=msgspec.structs.replace(edge.settings.edge, body_bytes=10, workers=2)
    )
    other = EdgeActuator(changed)
    assert other.observe().found[0].defects[0].code == "changed"
    assert other.apply(REPAIR).done
    assert other.observe().found[0].ready
    assert other.master() == master
    assert edge.ask("one.alv.test", method="POST", body=b"x" * 11).status == 413


def test_a_configuration_that_fails_its_test_leaves_the_old_one(edge: World) -> None:
    """Fault 7: the old configuration serves, and the test of the configuration passes."""
    before = (edge.settings.run / "edge" / "nginx.conf").read_text()
    changed = msgspec.structs.replace(
        edge.settings, edge=msgspec.structs.replace(edge.settings.edge, ipv4="192.0.2.77")
    )
    done = EdgeActuator(changed).apply(REPAIR)
    assert not done.done and done.temporary
    assert any("192.0.2.77" in line for line in done.tail)
    assert (edge.settings.run / "edge" / "nginx.conf").read_text() == before
    assert edge.seen().ready
    assert edge.ask("one.alv.test").status == 200


def test_a_configuration_that_fails_only_in_force_is_taken_back(edge: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 7: nginx accepts the text but cannot use it (a port taken by another program)."""
    import socket

    monkeypatch.setattr("alveole.actuators.edge.PATIENCE", 2.0)
    (taken,) = free_ports(1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        changed = msgspec.structs.replace(
            edge.settings, edge=msgspec.structs.replace(edge.settings.edge, ipv4="127.0.0.1", http_port=taken)
        )
        actuator = EdgeActuator(changed)
        done = actuator.apply(REPAIR)
        assert not done.done
    assert edge.ask("one.alv.test").status == 200
    assert edge.seen().ready


def test_killed_between_writing_and_reloading(edge: World) -> None:
    """Fault 7: the agent dies after the rename; the next look sees what really runs."""
    changed = msgspec.structs.replace(edge.settings, edge=msgspec.structs.replace(edge.settings.edge, body_bytes=77))
    other = EdgeActuator(changed)
    wanted = other._wanted()
    conf = edge.settings.run / "edge" / "nginx.conf"
    conf.write_text(f"# alveole stamp={stamp(EdgeSpec())} digest={wanted.digest}\n{wanted.text}")
    (seen,) = other.observe().found
    assert [defect.code for defect in seen.defects] == ["changed"]
    assert other.apply(REPAIR).done
    assert other.observe().found[0].ready


def test_it_ends_gracefully_and_leaves_the_routes(edge: World) -> None:
    master = edge.edge.master()
    assert master is not None
    assert edge.edge.apply(Step(EDGE, Action.DELETE)).done
    # Its last moment as a process may be yet to come.
    until(lambda: not is_alive(master))
    assert edge.edge.observe().found == ()
    assert len(edge.routes.observe().found) == 1
    assert edge.start().done
    assert edge.ask("one.alv.test").status == 200


def test_without_its_user_it_says_what_to_do(edge: World) -> None:
    changed = msgspec.structs.replace(
        edge.settings, users=msgspec.structs.replace(edge.settings.users, edge="nobody-has-this")
    )
    done = EdgeActuator(changed).apply(REPAIR)
    assert not done.done
    assert "nobody-has-this" in done.message
    observed = EdgeActuator(changed).observe()
    assert observed.unknown


def test_nothing_of_ours_is_no_edge(tmp_path: Path) -> None:
    from alveole.config import parse

    settings = parse({"paths": {"state": f"{tmp_path}/s", "run": f"{tmp_path}/r"[:60]}})
    assert EdgeActuator(settings).observe().found == ()
    assert paths.edge(settings).exists() is False
