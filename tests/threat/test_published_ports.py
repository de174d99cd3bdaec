"""Ports of the machine that lead into a site: what they open, and all that they do not (threats 15 and 17)."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "host"))
from netfixtures import (
    FORBIDDEN,
    FORBIDDEN6,
    OUTSIDE4,
    OUTSIDE6,
    UPLINK4,
    UPLINK6,
    Machine,
    Place,
    Site,
    machine_of_its_own,
)

from alveole.host import netlink
from alveole.model.lent import Published, Transport
from alveole.model.resource import Action, Kind

pytestmark = pytest.mark.root
REFUSED = "ECONNREFUSED"
WEB, ECHO = Published(20001, 7000), Published(20002, 7001, Transport.UDP)
SECONDS = 20.0


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_of_its_own() as machine:
        machine.platform()
        yield machine


@contextlib.contextmanager
def answering(site: Site, name: bytes) -> Iterator[None]:
    """A program in the site that answers at TCP 7000 and UDP 7001 with its name and where it was asked from."""

    def make() -> tuple[socket.socket, socket.socket]:
        server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("::", 7001))
        return server, datagrams

    server, datagrams = site.run(make)

    def talk() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, peer = server.accept()
                with client:
                    client.sendall(name + b" " + peer[0].encode())

    def echo() -> None:
        with contextlib.suppress(OSError):
            while True:
                asked, peer = datagrams.recvfrom(100)
                if asked == b"end":
                    return
                datagrams.sendto(name + b" " + asked, peer)

    threads = [threading.Thread(target=each) for each in (talk, echo)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()

        def end() -> None:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", ("::1", 7001))

        site.run(end)
        for each in threads:
            each.join()
        datagrams.close()


def tcp(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), SECONDS) as client:
        found = b""
        while piece := client.recv(100):
            found += piece
    return found


def udp(address: str, port: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(SECONDS)
        client.connect((address, port))
        client.send(b"there?")
        return client.recv(100)


def way_to_sites(outside: Place) -> None:
    def work() -> None:
        with netlink.Socket() as there:
            there.send(
                netlink.add_route(socket.if_nametoindex("eth0"), IPv4Network("10.77.0.0/16"), via=IPv4Address(UPLINK4))
            )

    outside.run(work)


def test_threat_15_a_published_port_is_reached_from_outside_and_from_the_machine_and_nothing_else_is(
    machine: Machine,
) -> None:
    """Threat 15: TCP and UDP, IPv4 and IPv6, of a site that has no way out by itself; the rest stays closed."""
    outside = machine.outside()
    one, two = machine.start(1), machine.start(2, internet=True)
    assert machine.address(1, 0, ports=(WEB, ECHO)).done
    assert machine.address(2, 0).done
    way_to_sites(outside)
    with answering(one, b"one"), answering(two, b"two"):
        for address in (UPLINK4, UPLINK6):
            for from_where in (outside.run, lambda work: work()):
                assert from_where(lambda at=address: tcp(at, 20001)).startswith(b"one ")
                assert from_where(lambda at=address: udp(at, 20002)) == b"one there?"
            # Neither its other ports, nor the other site, nor the other protocol of the same number.
            for port in (7000, 7001, 20002, 20003, 8000):
                assert outside.attempt(address, port) == REFUSED, port
        for address, port in ((one.net.life4, 7000), (two.net.own4, 8000)):
            assert outside.attempt(address, port) == "timeout", "straight to a site"
        # From another site there is no way to it: not by the machine's addresses, not by the site's own.
        for address in (UPLINK4, UPLINK6):
            assert two.attempt(address, 20001) == "timeout"
        assert two.attempt(one.net.life4, 7000) == REFUSED
        assert one.attempt(OUTSIDE4, 22) == "ENETUNREACH", "it has no more ways out than before"


def test_threat_17_an_answering_site_reaches_nothing_of_the_machine(machine: Machine) -> None:
    """Threat 17: from the port that is published, too, only answers pass."""
    outside = machine.outside()
    one = machine.start(1, internet=True)
    assert machine.address(1, 0, ports=(WEB,)).done
    with socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True), answering(one, b"one"):
        assert outside.run(lambda: tcp(UPLINK4, 20001)).startswith(b"one ")

        def from_its_port() -> str:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((str(one.net.own4), 7009))
                client.settimeout(1.0)
                try:
                    client.connect((str(machine.network.addressing.gateway4), 22))
                except OSError as error:
                    return type(error).__name__
            return "connected"

        assert machine.address(1, 0, Action.REPLACE, ports=(WEB, Published(20009, 7009))).done
        assert one.run(from_its_port) == "TimeoutError"


def test_threat_29_one_client_does_not_take_all_connections_of_a_published_port(machine: Machine) -> None:
    """Threat 29: it has an eighth of what the site's ports may have; another one comes in."""
    machine.settings = machine.firewall.settings = msgspec.structs.replace(
        machine.settings, network=msgspec.structs.replace(machine.settings.network, connections=32)
    )
    machine.firewall.rebuild({}, "small")
    outside, one = machine.outside(), machine.start(1)
    assert machine.address(1, 0, ports=(WEB,)).done
    server = one.listen(7000)
    before = machine.firewall.observe({(1, 0): True})

    def come(address: str, source: str, count: int) -> list[socket.socket]:
        return outside.run(
            lambda: [socket.create_connection((address, 20001), SECONDS, (source, 0)) for _ in range(count)]
        )

    for address, client, other in ((UPLINK4, OUTSIDE4, FORBIDDEN[1]), (UPLINK6, OUTSIDE6, FORBIDDEN6[1])):
        held = come(address, client, 4)
        assert outside.attempt(address, 20001) == "timeout"
        held += come(address, other, 4)
        for each in held:
            each.close()
    assert machine.firewall.observe({(1, 0): True}) == before, "what the kernel counts is no change of the rules"
    server.close()


def test_ports_come_and_go_without_touching_others_and_follow_the_live_instance(machine: Machine) -> None:
    outside = machine.outside()
    old, other = machine.start(1, 0), machine.start(2, 0)
    assert machine.address(1, 0, ports=(WEB, ECHO)).done
    assert machine.address(2, 0, ports=(Published(20005, 7000),)).done
    with answering(old, b"old"), answering(other, b"other"):
        held = outside.run(lambda: socket.create_connection((UPLINK4, 20005), SECONDS))
        new = machine.start(1, 1)
        with answering(new, b"new"):
            assert machine.address(1, 1, Action.REPLACE, ports=(WEB, ECHO)).done
            assert outside.run(lambda: tcp(UPLINK6, 20001)).startswith(b"new ")
            assert outside.run(lambda: udp(UPLINK4, 20002)) == b"new there?"
            # One port taken back, the other goes on.
            assert machine.address(1, 1, Action.REPLACE, ports=(ECHO,)).done
            assert outside.attempt(UPLINK4, 20001) == REFUSED
            assert outside.run(lambda: udp(UPLINK6, 20002)) == b"new there?"
            assert machine.address(1, 1, Action.DELETE).done
            assert outside.attempt(UPLINK4, 20001) == REFUSED
        assert held.recv(100).startswith(b"other ")
        held.close()
        assert outside.run(lambda: tcp(UPLINK4, 20005)).startswith(b"other ")


def test_what_was_flushed_by_hand_is_seen_and_put_back(machine: Machine) -> None:
    outside = machine.outside()
    one = machine.start(1)
    assert machine.address(1, 0, ports=(WEB,)).done
    with answering(one, b"one"):
        table = machine.settings.network.table
        for command in (
            f"flush map inet {table} publish4",
            f"add element inet {table} open4 {{ 10.77.1.1 . tcp . 22 }}",
        ):
            subprocess.run(["nft", *command.split(" ", 3)[:3], command.split(" ", 3)[3]], check=True)
            seen = machine.seen(Kind.FIREWALL)
            assert seen is not None and seen.defects
            assert machine.apply(Kind.FIREWALL, Action.REPAIR).done
            seen = machine.seen(Kind.FIREWALL)
            assert seen is not None and not seen.defects
            assert outside.run(lambda: tcp(UPLINK4, 20001)).startswith(b"one ")
        machine.firewall.remove()
        assert machine.address(1, 0, Action.DELETE).done, "there is nothing to take back"
