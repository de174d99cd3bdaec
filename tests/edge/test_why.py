"""``why``: each link of the chain is broken in turn, and it is the one that is named, with a cure."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import World, site_id, world

from alveole.actuators.certificates import CertificatesActuator
from alveole.agent import chain
from alveole.agent.chain import Inspector
from alveole.agent.protocol import Inspect, Link
from alveole.host import paths
from alveole.model.resource import Action, CertificateSpec, Kind, ResourceId, Step, stamp

pytestmark = pytest.mark.root
#: Browsers and ``why`` take it for this machine without a name server.
HOST = "one.localhost"
ASKED = Inspect(site_id(1), 1, 0, HOST)


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world() as made:
        # Not the names of an Alvéole that may run on this machine.
        network = msgspec.structs.replace(made.settings.network, interface_prefix="alvw")
        made.settings = msgspec.structs.replace(made.settings, network=network)
        with interface(made):
            yield from chained(made)


def chained(made: World) -> Iterator[World]:
    made.site(1, HOST)
    made.certify(1, HOST)
    yield made


@contextlib.contextmanager
def interface(edge: World) -> Iterator[None]:
    name = edge.settings.addressing().instance(1, 0).interface
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "del", name], check=False)


def broken(edge: World, asked: Inspect = ASKED, pid: int | None = -1) -> Link | None:
    """The first link that does not hold."""
    alive = os.getpid() if pid == -1 else pid
    links = Inspector(edge.settings, lambda _site, _slot: alive, edge.certificates.authority_pem).chain(asked)
    return next((link for link in links if not link.ok), None)


@contextlib.contextmanager
def aside(file: Path) -> Iterator[None]:
    """Without ``file`` for a while."""
    elsewhere = file.with_name(f"{file.name}.aside")
    file.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(file)


def test_a_whole_chain_has_no_broken_link(edge: World) -> None:
    assert broken(edge) is None


def test_name(edge: World) -> None:
    link = broken(edge, Inspect(site_id(1), 1, 0, "nowhere.invalid"))
    assert link is not None and link.name == "name" and "DNS" in link.cure


def test_address(edge: World) -> None:
    """A proxy that is gone."""
    master = edge.edge.master()
    assert master is not None
    try:
        edge.close_edge()
        link = broken(edge)
    finally:
        assert edge.start().done
    assert link is not None and link.name == "address" and "started again" in link.cure, link
    assert broken(edge) is None


def test_address_of_a_proxy_that_hangs(edge: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "PATIENCE", 0.5)
    master = edge.edge.master()
    workers = [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        link = broken(edge)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    assert link is not None and link.name == "address" and "does not answer" in link.came, link


def test_certificate_of_another_authority(edge: World, tmp_path: Path) -> None:
    other = tmp_path / "ca"
    place = msgspec.structs.replace(edge.settings.paths, state=str(tmp_path), run=str(tmp_path))
    settings = msgspec.structs.replace(edge.settings, paths=place)
    made = CertificatesActuator(settings)
    spec = CertificateSpec(HOST, wildcard=False)
    assert made.apply(Step(ResourceId(Kind.CERTIFICATE, site_id(1), HOST), Action.CREATE, stamp(spec), spec)).done
    assert other.is_dir()
    links = Inspector(edge.settings, lambda _site, _slot: os.getpid(), made.authority_pem).chain(ASKED)
    link = next(link for link in links if not link.ok)
    assert link.name == "certificate" and link.cure, link


def test_certificate_without_an_authority(edge: World) -> None:
    """The chain is told all the same."""
    file = paths.authority(edge.settings) / "cert.pem"
    with aside(file):
        link = broken(edge)
    assert link is not None and link.name == "certificate" and "no authority" in link.came, link


def test_certificate_that_is_gone(edge: World) -> None:
    file = paths.edge_certificates(edge.settings) / f"{HOST}.pem"
    with aside(file):
        link = broken(edge)
    assert link is not None and link.name == "certificate" and "issued again" in link.cure, link


def test_proxy(edge: World) -> None:
    """Somebody else's proxy stands where ours should: it answers, and has no status."""
    status = paths.edge(edge.settings) / "status.sock"
    with aside(status):
        link = broken(edge)
    assert link is not None and link.name == "proxy" and link.cure, link


@pytest.mark.parametrize(
    ("change", "came", "cure"),
    [
        (lambda link: link.unlink(), "there is none", "made again"),
        (lambda link: swap(link, "stopped site=" + site_id(1)), "stopped", "alveole site start"),
        (lambda link: swap(link, "unix:/elsewhere site=" + site_id(1)), "leads to unix:/elsewhere", "switched"),
    ],
)
def test_route(edge: World, change: Callable[[Path], None], came: str, cure: str) -> None:
    link = paths.routes(edge.settings) / HOST
    was = os.readlink(link)  # noqa: PTH115  Path would normalise the text
    change(link)
    try:
        found = broken(edge)
    finally:
        swap(link, was)
    assert found is not None and found.name == "route" and came in found.came and cure in found.cure, found


def swap(link: Path, text: str) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(text)


def test_container_that_does_not_run(edge: World) -> None:
    link = broken(edge, pid=None)
    assert link is not None and link.name == "container" and "site logs" in link.cure, link


def test_container_without_its_interface(edge: World) -> None:
    name = edge.settings.addressing().instance(1, 0).interface
    subprocess.run(["ip", "link", "del", name], check=True)
    try:
        link = broken(edge)
    finally:
        subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    assert link is not None and link.name == "container" and name in link.came, link


def test_process_that_does_not_listen(edge: World) -> None:
    edge.instances.close(HOST)
    try:
        link = broken(edge)
    finally:
        edge.site(1, HOST)
    assert link is not None and link.name == "process" and "--port" in link.cure, link


def test_application_that_fails(edge: World) -> None:
    edge.instances.status = 500
    try:
        link = broken(edge)
    finally:
        edge.instances.status = 200
    assert link is not None and link.name == "application" and "500" in link.came, link
    assert broken(edge) is None


def test_health_at_a_path_of_its_own(edge: World) -> None:
    """It is asked too, and nobody is told of it where it is the front page."""
    asked = msgspec.structs.replace(ASKED, health="/health")
    alive = os.getpid()
    links = Inspector(edge.settings, lambda _site, _slot: alive, edge.certificates.authority_pem).chain(asked)
    assert [link.name for link in links if "GET /health" in link.asked] == ["health"]
    assert all(link.ok for link in links) and broken(edge, asked) is None


def test_application_that_hangs(edge: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it waits for may be a database that is away: it is said to hang, and what to do."""
    monkeypatch.setattr(chain, "PATIENCE", 0.3)
    edge.instances.close(HOST)
    place = paths.web_socket(edge.settings, ASKED.site, ASKED.slot)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        place.unlink(missing_ok=True)
        silent.bind(str(place))
        silent.listen(8)
        link = broken(edge)
    place.unlink()
    edge.site(1, HOST)
    assert link is not None and link.name == "application", link
    assert link.came == "no answer within 0.3 s" and "site restart" in link.cure, link
