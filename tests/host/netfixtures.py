"""A machine of one's own for a test: a network namespace that plays the host, with sites plugged into it.

The calling thread is moved into the namespace for the length of the test. Nothing of the real
machine's network is touched, and closing the namespace cleans up whatever a test left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from msgspec import UNSET

from alveole.actuators.network import Instance, NetworkActuator
from alveole.config import Network, Paths, Settings
from alveole.host import netlink, netns, syscalls
from alveole.host.firewall import Firewall
from alveole.host.network import SiteNetwork
from alveole.model.addressing import InstanceNet
from alveole.model.lent import Published
from alveole.model.resource import (
    PLATFORM,
    Action,
    AddressSpec,
    FirewallSpec,
    Kind,
    NetworkSpec,
    Observed,
    Outcome,
    ResourceId,
    Spec,
    Step,
    stamp,
)

T = TypeVar("T")
OUTSIDE4, OUTSIDE6 = "203.0.113.2", "2001:db8:7::2"
UPLINK4, UPLINK6 = "203.0.113.1", "2001:db8:7::1"
#: Addresses that live outside and that no site may reach.
FORBIDDEN = ("169.254.169.254", "192.168.77.1", "172.16.5.5", "100.100.100.200", "168.63.129.16", "10.200.0.1")
FORBIDDEN6 = ("fd00:ec2::254", "fdaa::1")
BUDGET = 1.5


def settings_for_test(run: str = "/tmp/alvtest") -> Settings:
    return Settings(
        paths=Paths(state=f"{run}/state", run=run),
        network=Network(
            bridge="alvnet0",
            interface_prefix="anw",
            table="alvnet",
            ipv4="10.77.0.0/16",
            first_ipv4="10.77.1.1",
            gateway_ipv4="10.77.1.254",
            ipv6="fd77:6c76:656f::/64",
        ),
    )


def attempt(address: str, port: int, *, kind: int = socket.SOCK_STREAM) -> tuple[str, float]:
    """Connect; gives ``"connected"``, ``"timeout"`` or the name of the error, and the seconds it took."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    start = time.monotonic()
    with socket.socket(family, kind) as client:
        client.settimeout(BUDGET)
        try:
            client.connect((address, port))
        except TimeoutError:
            return "timeout", time.monotonic() - start
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "?"), time.monotonic() - start
    return "connected", time.monotonic() - start


class Place:
    """A network namespace to run things in."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def run(self, work: Callable[[], T]) -> T:
        def inside() -> T:
            syscalls.setns(self.fd, syscalls.CLONE_NEWNET)
            return work()

        return netns.in_thread(inside)

    def listen(self, port: int, address: str = "::") -> socket.socket:
        """A listener of both families; connections are made by the kernel, nobody need accept them."""

        def work() -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.socket(family, socket.SOCK_STREAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.bind((address, port))
            server.listen(1024)
            return server

        return self.run(work)

    def attempt(self, address: object, port: int = 8000) -> str:
        return self.run(lambda: attempt(str(address), port))[0]

    def send_frame(self, frame: bytes) -> None:
        def work() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                raw.send(frame)

        self.run(work)

    def close(self) -> None:
        os.close(self.fd)


class Site(Place):
    def __init__(self, fd: int, number: int, slot: int, internet: bool, net: InstanceNet) -> None:
        super().__init__(fd)
        self.number, self.slot, self.internet, self.net = number, slot, internet, net
        self.server = self.listen(8000)


class Machine:
    def __init__(self, directory: str) -> None:
        self.settings = settings_for_test(directory)
        self.network = SiteNetwork(self.settings)
        self.firewall = Firewall(self.settings)
        self.sites: dict[tuple[int, int], Site] = {}
        self.actuator = NetworkActuator(self.settings, self.network, self.firewall, self.instances)
        self.open: list[Place | socket.socket] = []

    def instances(self) -> list[Instance]:
        return [Instance(site_id(n), n, slot, site.internet) for (n, slot), site in list(self.sites.items())]

    def start(self, number: int, slot: int = 0, *, internet: bool = False, admit: bool = True) -> Site:
        fd = self.network.plug(number, slot, internet=internet)
        net = self.network.addressing.instance(number, slot)
        if admit:
            self.firewall.admit(net, internet)
        site = self.sites[number, slot] = Site(fd, number, slot, internet, net)
        return site

    def stop(self, number: int, slot: int = 0) -> None:
        site = self.sites.pop((number, slot))
        self.firewall.withdraw(site.net)
        self.network.unplug(number, slot)
        site.server.close()
        site.close()

    def apply(
        self, kind: Kind, action: Action = Action.CREATE, scope: str = PLATFORM, spec: Spec | None = None
    ) -> Outcome:
        name = "ipv4" if kind is Kind.ADDRESS else str(kind)
        spec = spec or {Kind.NETWORK: NetworkSpec(), Kind.FIREWALL: FirewallSpec()}.get(kind)
        digest = stamp(spec) if spec else ""
        return self.actuator.apply(Step(ResourceId(kind, scope, name), action, digest, spec))

    def address(
        self, number: int, slot: int, action: Action = Action.CREATE, ports: tuple[Published, ...] = ()
    ) -> Outcome:
        spec = AddressSpec(site_id(number), number, slot, ports or UNSET)
        return self.apply(Kind.ADDRESS, action, site_id(number), spec)

    def seen(self, kind: Kind, scope: str = PLATFORM) -> Observed | None:
        observation = self.actuator.observe((scope,))
        assert not observation.unknown
        found = [each for each in observation.found if each.id.kind is kind]
        return found[0] if found else None

    def platform(self) -> None:
        assert self.apply(Kind.NETWORK).done
        assert self.apply(Kind.FIREWALL).done

    def reach(self, address: object, port: int = 8000) -> str:
        """From the machine itself."""
        return attempt(str(address), port)[0]

    def outside(self) -> Place:
        """A network beyond the machine: the uplink leads there, and it knows no way back to the sites."""
        fd = netns.in_thread(_new_namespace)
        place = Place(fd)
        self.open.append(place)
        with netlink.Socket() as here:
            here.send(netlink.create_veth("up0", 0, 0, "eth0", "02:00:00:00:00:02", fd))
            index = socket.if_nametoindex("up0")
            here.send(
                netlink.change_link("up0", up=True),
                netlink.add_address(index, IPv4Address(UPLINK4), 24),
                netlink.add_address(index, IPv6Address(UPLINK6), 64),
            )

        def work() -> None:
            with netlink.Socket() as there:
                eth0 = socket.if_nametoindex("eth0")
                there.send(
                    netlink.change_link("lo", up=True),
                    netlink.change_link("eth0", up=True),
                    netlink.add_address(eth0, IPv4Address(OUTSIDE4), 24),
                    netlink.add_address(eth0, IPv6Address(OUTSIDE6), 64),
                    *(netlink.add_address(eth0, IPv4Address(each), 32) for each in FORBIDDEN),
                    *(netlink.add_address(eth0, IPv6Address(each), 128) for each in FORBIDDEN6),
                )

        place.run(work)
        with netlink.Socket() as here:
            here.send(
                netlink.add_route(index, IPv4Network("0.0.0.0/0"), via=IPv4Address(OUTSIDE4)),
                netlink.add_route(index, IPv6Network("::/0"), via=IPv6Address(OUTSIDE6)),
            )
        return place

    def close(self) -> None:
        for site in self.sites.values():
            site.server.close()
            site.close()
        for each in self.open:
            each.close()
        self.network.close()


def site_id(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "s" + "a" * 8 + "".join(letters[number >> shift & 31] for shift in (15, 10, 5, 0))


def _new_namespace() -> int:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def machine_of_its_own() -> Iterator[Machine]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        with netlink.Socket() as here:
            here.send(netlink.change_link("lo", up=True))
        with tempfile.TemporaryDirectory(prefix="alv", dir="/tmp") as directory:
            machine = Machine(directory)
            try:
                yield machine
            finally:
                machine.close()
    finally:
        syscalls.setns(home, syscalls.CLONE_NEWNET)
        os.close(home)


class Sniffer:
    """What reaches an interface, beyond the rules for bridges."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 3))
        self._socket.settimeout(0.05)
        self._frames: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self._frames.append(self._socket.recv(2048))

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def saw(self, marker: bytes, seconds: float = 0.25) -> bool:
        """Whether a frame with ``marker`` in it came within ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(marker in frame for frame in self._frames):
                return True
            time.sleep(0.01)
        return False


# Frames


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(to: str, source: str, kind: int, payload: bytes) -> bytes:
    return mac_bytes(to) + mac_bytes(source) + struct.pack(">H", kind) + payload


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp4(source: IPv4Address, to: IPv4Address, payload: bytes) -> bytes:
    segment = struct.pack(">HHHH", 4000, 4000, 8 + len(payload), 0) + payload
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, 17, 0, source.packed, to.packed)
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + segment


def udp6(source: IPv6Address, to: IPv6Address, payload: bytes) -> bytes:
    return ip6(source, to, 17, struct.pack(">HHHH", 4000, 4000, 8 + len(payload), 0xFFFF) + payload)


def ip6(source: IPv6Address, to: IPv6Address, following: int, payload: bytes) -> bytes:
    return struct.pack(">IHBB16s16s", 0x6000_0000, len(payload), following, 255, source.packed, to.packed) + payload


def icmp6(source: IPv6Address, to: IPv6Address, kind: int, body: bytes) -> bytes:
    message = bytes((kind, 0, 0, 0)) + body
    pseudo = source.packed + to.packed + struct.pack(">II", len(message), 58)
    message = message[:2] + struct.pack(">H", checksum(pseudo + message)) + message[4:]
    return ip6(source, to, 58, message)


def arp(operation: int, source_mac: str, source: IPv4Address, to_mac: str, to: IPv4Address) -> bytes:
    return (
        struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
        + mac_bytes(source_mac)
        + source.packed
        + mac_bytes(to_mac)
        + to.packed
    )
