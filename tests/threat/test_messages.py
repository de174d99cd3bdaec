"""A hostile control process: whoever takes over the unprivileged half may send the root process any message."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alveole.actuators.network import NetworkActuator
from alveole.actuators.releases import Releases
from alveole.actuators.storage import Storage
from alveole.agent import protocol
from alveole.agent.agent import Agent
from alveole.config import Settings, parse
from alveole.errors import InvalidInput
from alveole.host import mounts
from alveole.host.firewall import Firewall
from alveole.host.network import SiteNetwork
from alveole.host.sandbox import Sandbox
from alveole.model.resource import (
    PLATFORM,
    Action,
    AddressSpec,
    Kind,
    Observation,
    Outcome,
    ResourceId,
    RouteSpec,
    RouteTarget,
    Step,
    StorageSpec,
)

SITE, OTHER = "saaaaaaaaaaaa", "sbbbbbbbbbbbb"
_decoder = msgspec.json.Decoder(protocol.Request)


class Nothing:
    """Keeps the kinds that a test is not about, and remembers what got through to it."""

    def __init__(self, kinds: frozenset[Kind]) -> None:
        self.kinds = kinds
        self.steps: list[Step] = []
        self.scopes: list[Any] = []

    def observe(self, scopes: Any = None) -> Observation:
        self.scopes.append(scopes)
        return Observation(())

    def apply(self, step: Step, say: Any = None) -> Outcome:
        self.steps.append(step)
        return Outcome(True)


@pytest.fixture
def settings() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="alv", dir="/tmp") as directory:
        yield parse({"paths": {"state": f"{directory}/s", "run": f"{directory}/r"}})


def agent_with(*real: Any) -> tuple[Agent, Nothing]:
    kept = {kind for actuator in real for kind in actuator.kinds}
    rest = Nothing(frozenset(Kind) - kept)
    return Agent((*real, rest), {}), rest


def apply(agent: Agent, step: Step) -> Outcome:
    found = agent.handle(protocol.Apply(step), [], lambda text, share: None)
    assert isinstance(found, Outcome)
    return found


def test_an_address_to_delete_is_no_file_of_the_host(settings: Settings, tmp_path: Path) -> None:
    """Before, the scope of a deleted address was a path: root unlinked any file of the machine."""
    canary = tmp_path / "canary"
    canary.write_text("the host's")
    network, firewall = SiteNetwork(settings), Firewall(settings)
    agent, _ = agent_with(NetworkActuator(settings, network, firewall, list))
    outcome = apply(agent, Step(ResourceId(Kind.ADDRESS, str(canary), "ipv4"), Action.DELETE))
    assert canary.read_text() == "the host's"
    assert not outcome.done and not outcome.temporary


def test_storage_to_delete_is_no_directory_of_the_host(settings: Settings, tmp_path: Path) -> None:
    """Before, the directory ``data`` of any place on the machine was removed."""
    canary = tmp_path / "data" / "canary"
    canary.parent.mkdir()
    canary.write_text("the host's")
    agent, _ = agent_with(Storage(settings))
    for scope in (str(tmp_path), os.path.relpath(tmp_path, f"{settings.paths.state}/sites")):
        assert not apply(agent, Step(ResourceId(Kind.STORAGE, scope, "1"), Action.DELETE)).done
        assert canary.read_text() == "the host's"


def test_a_release_to_delete_is_no_link_of_the_host(settings: Settings, tmp_path: Path) -> None:
    link = tmp_path / "content" / "current"
    link.parent.mkdir()
    link.symlink_to("somewhere")
    agent, _ = agent_with(Releases(settings, Sandbox()))
    assert not apply(agent, Step(ResourceId(Kind.RELEASE, str(tmp_path), "current"), Action.DELETE)).done
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("kind", "scope", "name"),
    [
        (Kind.WORKLOAD, "../../../etc", "0"),
        (Kind.WORKLOAD, SITE, "0/../../x"),
        (Kind.WORKLOAD, SITE, "2"),
        (Kind.WORKLOAD, SITE, "\u0660"),
        (Kind.WORKLOAD, PLATFORM, "0"),
        (Kind.WORKLOAD, f"{SITE}\n", "0"),
        (Kind.STORAGE, SITE, "-1"),
        (Kind.STORAGE, SITE, "../1"),
        (Kind.BASE, PLATFORM, ".."),
        (Kind.BASE, PLATFORM, "host-0123456789abcdef/../x"),
        (Kind.BASE, SITE, "host-0123456789abcdef"),
        (Kind.CERTIFICATE, "a b", "example.org"),
        (Kind.CERTIFICATE, SITE, "../../etc/passwd"),
        (Kind.ROUTE, SITE, "../x"),
        (Kind.ROUTE, SITE, "@/../x"),
        (Kind.ROUTE, SITE, "a.example\n"),
        (Kind.ROUTE, PLATFORM, "a.example"),
        (Kind.ADDRESS, "/etc/passwd", "ipv4"),
        (Kind.FIREWALL, SITE, "firewall"),
    ],
)
def test_no_resource_has_a_name_of_another_grammar(kind: Kind, scope: str, name: str) -> None:
    agent, rest = agent_with()
    for action in Action:
        assert not apply(agent, Step(ResourceId(kind, scope, name), action)).done
    assert rest.steps == []


def test_a_specification_is_that_of_its_resource() -> None:
    agent, rest = agent_with()
    address = AddressSpec(OTHER, 1, 0)
    storage = StorageSpec(SITE, 1, 2, (), None)
    route = RouteSpec(SITE, 1, 0, RouteTarget.STOPPED, None, "bank.example")
    for id, spec in (
        (ResourceId(Kind.ADDRESS, SITE, "ipv4"), address),
        (ResourceId(Kind.STORAGE, SITE, "1"), storage),
        (ResourceId(Kind.ROUTE, SITE, "blog.example"), route),
        (ResourceId(Kind.STORAGE, SITE, "2"), address),
        (ResourceId(Kind.STORAGE, SITE, "2"), None),
    ):
        assert not apply(agent, Step(id, Action.CREATE, "0" * 32, spec)).done
    assert rest.steps == []
    assert apply(agent, Step(ResourceId(Kind.STORAGE, SITE, "2"), Action.CREATE, "0" * 32, storage)).done


def test_only_scopes_that_can_exist_are_looked_at() -> None:
    agent, rest = agent_with()
    agent.handle(protocol.Observe((SITE, "/etc", "../..", PLATFORM, "")), [], lambda text, share: None)
    agent.handle(protocol.Observe(), [], lambda text, share: None)
    assert rest.scopes == [(SITE, PLATFORM), None]


WORKLOAD = {
    "type": "workload",
    "site": SITE,
    "number": 1,
    "slot": 0,
    "hostname": SITE,
    "base": "host-0123456789abcdef",
    "base_kind": "host",
    "static": False,
    "writable": True,
    "processes": [{"name": "web", "argv": ["/bin/true"]}],
    "port": 8000,
    "env": {},
    "volumes": [],
    "data_generation": 1,
    "limits": {"cpu_millis": 100, "memory_bytes": 1 << 27, "pids": 64},
    "health": "/",
    "ready_seconds": 1,
    "stop_seconds": 1,
    "incarnation": 0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"volumes": [{"name": "v", "path": "/../../../../../../etc/shadow"}]},
        {"volumes": [{"name": "v", "path": "/data/.."}]},
        {"volumes": [{"name": "v", "path": "/proc/x"}]},
        {"volumes": [{"name": "../../x", "path": "/data"}]},
        {"number": 0},
        {"number": -28_672},
        {"slot": 2},
        {"data_generation": -1},
        {"stop_seconds": 10**9},
        {"hostname": "a\n10.0.0.1 bank.example"},
        {"health": "/\r\nHost: other"},
        {"env": {"A": "x\0y"}},
        {"base_kind": "oci"},
        {"privileged": True},
        {},
    ],
)
def test_a_workload_says_nothing_it_may_not_say(change: dict[str, Any]) -> None:
    """The mount path of the first walked out of the root: any file of the machine became a directory."""
    spec = {key: value for key, value in {**WORKLOAD, **change}.items() if key != "type"}
    step = {
        "id": {"kind": "workload", "scope": SITE, "name": "0"},
        "action": "create",
        "digest": "0" * 32,
        "spec": {"type": "workload", **spec},
    }
    agent, rest = agent_with()
    try:
        request = _decoder.decode(msgspec.json.encode({"type": "apply", "step": step}))
    except msgspec.ValidationError:
        assert change
        return
    assert apply(agent, request.step).done == (not change)
    assert bool(rest.steps) == (not change)


def test_the_walk_to_a_mount_point_never_goes_up(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "canary").write_text("the host's")
    with pytest.raises(ValueError, match="out of the root"):
        mounts.plain_directories(tmp_path / "upper", [tmp_path], ["/../canary"], 0)
    assert (tmp_path / "canary").read_text() == "the host's"


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "exec", "site": SITE, "slot": 0, "argv": []},
        {"type": "exec", "site": SITE, "slot": 7, "argv": ["id"]},
        {"type": "exec", "site": SITE, "slot": 0, "argv": ["id"], "uid": -1},
        {"type": "exec", "site": SITE, "slot": 0, "argv": ["id"], "uid": 1 << 32},
        {"type": "import-release", "site": SITE, "number": -28_672},
        {"type": "remove-site", "site": "../..", "number": 1},
        {"type": "inspect", "site": SITE, "number": 1, "slot": 0, "domain": "/etc/alternatives/awk"},
        {"type": "drop-base", "key": "../../etc"},
    ],
)
def test_other_requests_stay_in_their_bounds(request_: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        _decoder.decode(msgspec.json.encode(request_))


def test_no_site_has_ids_of_the_machine_itself() -> None:
    """Before, the range of site 36,864 began at 2³², which the kernel takes as 0: container root was root."""
    settings = Settings()
    for number in (-28_672, -1, 36_863, 36_864, 1 << 24):
        with pytest.raises(InvalidInput):
            settings.uid_start(number)
    assert settings.uid_start(36_862) + 65_536 < 1 << 32
    with pytest.raises(InvalidInput, match="user ids"):
        parse({"network": {"ipv4": "10.0.0.0/8"}})
    with pytest.raises(InvalidInput, match="user ids"):
        parse({"users": {"first_uid": 3_000_000_000}, "network": {"ipv4": "10.0.0.0/15", "first_ipv4": "10.0.1.1"}})
