"""What a site can reach and what it can pretend to be: threats 15, 16 and 17, with real packets."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
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
    Site,
    Sniffer,
    arp,
    ethernet,
    icmp6,
    machine_of_its_own,
    udp4,
    udp6,
)

from alveole.host import netlink, netns
from instancekit import until

pytestmark = pytest.mark.root
REFUSED = "ECONNREFUSED"


@pytest.fixture(params=["0", "1"], ids=["bridge-nf-off", "bridge-nf-on"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine_of_its_own() as machine:
        for name in ("iptables", "ip6tables", "arptables"):
            if (netns.SYSCTL / "bridge").is_dir():
                netns.write_sysctl(f"bridge/bridge-nf-call-{name}", request.param)
        machine.platform()
        yield machine


def straight_route(site: Site, other: Site) -> None:
    """What a site could do with more rights than it has: speak to its neighbour's hardware address directly."""

    def work() -> None:
        eth0 = socket.if_nametoindex("eth0")
        with netlink.Socket() as inside:
            for address in (other.net.own4, other.net.own6):
                network = IPv4Network(address) if address.version == 4 else IPv6Network(address)
                inside.send(netlink.set_neighbour(eth0, address, other.net.mac), netlink.add_route(eth0, network))

    site.run(work)


def test_threat_15_a_site_reaches_no_other_site(machine: Machine) -> None:
    """Threat 15: neither across the bridge nor by way of the gateway, in both families, by any address."""
    one, two = machine.start(1, internet=True), machine.start(2, internet=True)
    machine.address(2, 0)
    for address in (two.net.own4, two.net.own6, two.net.life4, two.net.life6):
        assert machine.reach(address) == "connected"
        assert one.attempt(address) == REFUSED, "through the gateway"
    straight_route(one, two)
    straight_route(two, one)
    for address in (two.net.own4, two.net.own6):
        assert one.attempt(address) == "timeout", "straight across"


def test_threat_15_without_internet_a_site_has_no_way_at_all(machine: Machine) -> None:
    """Threat 15: a site that may not go out is told so at once."""
    one, two = machine.start(1), machine.start(2)
    for address in (two.net.own4, two.net.own6, OUTSIDE4, OUTSIDE6):
        assert one.attempt(address) == "ENETUNREACH"
    assert machine.reach(one.net.own4) == machine.reach(one.net.own6) == "connected"


def test_threat_15_a_site_without_internet_that_finds_a_way_to_the_gateway_is_refused(machine: Machine) -> None:
    """Threat 15: the missing route is a courtesy, the rules are the wall."""
    outside = machine.outside()
    server = outside.listen(8000)
    fd_site = machine.start(1, internet=False)

    def work() -> None:
        eth0 = socket.if_nametoindex("eth0")
        plan = machine.network.addressing
        with netlink.Socket() as inside:
            inside.send(
                netlink.add_route(eth0, IPv4Network("0.0.0.0/0"), via=plan.gateway4, source=fd_site.net.own4),
                netlink.add_route(eth0, IPv6Network("::/0"), via=plan.gateway6, source=fd_site.net.own6),
            )

    fd_site.run(work)
    assert fd_site.attempt(OUTSIDE4) == REFUSED
    assert fd_site.attempt(OUTSIDE6) == REFUSED
    server.close()


def test_a_site_with_internet_goes_out_behind_the_machines_own_address(machine: Machine) -> None:
    outside = machine.outside()
    server = outside.listen(8000)
    server.settimeout(2)
    site = machine.start(1, internet=True)
    for address, uplink in ((OUTSIDE4, f"::ffff:{UPLINK4}"), (OUTSIDE6, UPLINK6)):
        assert site.attempt(address) == "connected"
        peer = server.accept()[1][0]
        assert peer == uplink

    # Nobody outside gets in by himself, even with a route to the sites.
    def work() -> None:
        with netlink.Socket() as there:
            there.send(
                netlink.add_route(socket.if_nametoindex("eth0"), IPv4Network("10.77.0.0/16"), via=IPv4Address(UPLINK4))
            )

    outside.run(work)
    assert outside.attempt(site.net.own4) == "timeout"
    server.close()


def test_threat_17_a_site_reaches_no_port_of_the_machine(machine: Machine) -> None:
    """Threat 17: whatever the machine listens on, by every address it has, gives nothing."""
    machine.outside()
    plan = machine.network.addressing
    site = machine.start(1, internet=True)
    listener = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((str(plan.gateway4), 53))
    datagrams.settimeout(0.2)
    for address in (plan.gateway4, plan.gateway6, UPLINK4, UPLINK6):
        assert machine.reach(address, 22) == "connected"
        assert site.attempt(address, 22) == "timeout"

    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"?", (str(plan.gateway4), 53))

    site.run(ask)
    with pytest.raises(TimeoutError):
        datagrams.recv(10)
    assert machine.reach(site.net.own4) == "connected"
    listener.close()
    datagrams.close()


def test_threat_17_flags_that_look_like_a_reply_open_nothing(machine: Machine) -> None:
    """Threat 17: replies are recognised without connection tracking; what is no reply must not pass for one."""
    plan = machine.network.addressing
    site = machine.start(1, internet=True)
    answer = {flags: struct.pack(">HH", 22, 40000 + flags) for flags in range(256)}
    with socket.create_server((str(plan.gateway4), 22)), Sniffer(machine.settings.network.bridge) as sniffer:
        # SYN alone, with ECN bits, with URG and PSH, with FIN: none has ACK or RST, so each could open a connection.
        for flags in (0x02, 0xC2, 0x2A, 0x03, 0x10):
            segment = struct.pack(">HHIIBBHHH", 40000 + flags, 22, 7, 9, 0x50, flags, 1024, 0, 0)
            packet = _tcp4(site.net.own4, plan.gateway4, segment)
            site.send_frame(ethernet(plan.bridge_mac, site.net.mac, 0x0800, packet))
        assert sniffer.saw(answer[0x10]), "a stray reply is answered by a reset, so the others would have shown too"
        for flags in (0x02, 0xC2, 0x2A, 0x03):
            assert not sniffer.saw(answer[flags], 0.02), hex(flags)


def _tcp4(source: IPv4Address, to: IPv4Address, segment: bytes) -> bytes:
    from netfixtures import checksum

    pseudo = source.packed + to.packed + struct.pack(">HH", 6, len(segment))
    segment = segment[:16] + struct.pack(">H", checksum(pseudo + segment)) + segment[18:]
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, 6, 0, source.packed, to.packed)
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + segment


def test_threat_17_metadata_and_private_networks_are_out_of_reach(machine: Machine) -> None:
    """Threat 17: 169.254.169.254 and the like, which the machine itself does reach here."""
    outside = machine.outside()
    server = outside.listen(80)
    site = machine.start(1, internet=True)
    assert site.attempt(OUTSIDE4, 80) == "connected"
    for address in (*FORBIDDEN, *FORBIDDEN6):
        assert machine.reach(address, 80) == "connected", address
        assert site.attempt(address, 80) == REFUSED, address
    server.close()


def test_threat_16_forged_sources_are_dropped_and_honest_ones_pass(machine: Machine) -> None:
    """Threat 16: another site's or the machine's address, IPv4 and IPv6, or another hardware address."""
    one, two = machine.start(1, internet=True), machine.start(2, internet=True)
    plan = machine.network.addressing
    to4, to6, gate = plan.gateway4, plan.gateway6, plan.bridge_mac
    outsider4, outsider6 = IPv4Address(OUTSIDE4), IPv6Address(OUTSIDE6)
    honest = {
        b"honest-own4": ethernet(gate, one.net.mac, 0x0800, udp4(one.net.own4, to4, b"honest-own4")),
        b"honest-life4": ethernet(gate, one.net.mac, 0x0800, udp4(one.net.life4, to4, b"honest-life4")),
        b"honest-own6": ethernet(gate, one.net.mac, 0x86DD, udp6(one.net.own6, to6, b"honest-own6")),
        b"honest-life6": ethernet(gate, one.net.mac, 0x86DD, udp6(one.net.life6, to6, b"honest-life6")),
    }
    forged = {
        b"forged-site4": ethernet(gate, one.net.mac, 0x0800, udp4(two.net.own4, to4, b"forged-site4")),
        b"forged-life4": ethernet(gate, one.net.mac, 0x0800, udp4(two.net.life4, to4, b"forged-life4")),
        b"forged-site6": ethernet(gate, one.net.mac, 0x86DD, udp6(two.net.own6, to6, b"forged-site6")),
        b"forged-gate4": ethernet(gate, one.net.mac, 0x0800, udp4(to4, to4, b"forged-gate4")),
        b"forged-gate6": ethernet(gate, one.net.mac, 0x86DD, udp6(to6, to6, b"forged-gate6")),
        b"forged-out4": ethernet(gate, one.net.mac, 0x0800, udp4(outsider4, to4, b"forged-out4")),
        b"forged-out6": ethernet(gate, one.net.mac, 0x86DD, udp6(outsider6, to6, b"forged-out6")),
        b"forged-mac": ethernet(gate, two.net.mac, 0x0800, udp4(one.net.own4, to4, b"forged-mac")),
        b"forged-both": ethernet(gate, two.net.mac, 0x0800, udp4(two.net.own4, to4, b"forged-both")),
        b"forged-bridge": ethernet(gate, plan.bridge_mac, 0x0800, udp4(one.net.own4, to4, b"forged-bridge")),
        b"forged-link": ethernet(gate, one.net.mac, 0x86DD, udp6(IPv6Address("fe80::1"), to6, b"forged-link")),
        b"forged-vlan": ethernet(gate, one.net.mac, 0x8100, b"\0\x05\x08\0" + udp4(two.net.own4, to4, b"forged-vlan")),
        b"forged-stp": ethernet("01:80:c2:00:00:00", one.net.mac, 0x0026, b"\x42\x42\x03forged-stp" + bytes(30)),
        b"forged-other": ethernet(gate, one.net.mac, 0x88B5, b"forged-other"),
    }
    with Sniffer(machine.settings.network.bridge) as sniffer:
        for frame in (*honest.values(), *forged.values()):
            one.send_frame(frame)
        for marker in honest:
            assert sniffer.saw(marker, 2), marker
        for marker in forged:
            assert not sniffer.saw(marker, 0.02), marker
    assert machine.reach(two.net.own4) == machine.reach(two.net.own6) == "connected"


def test_threat_16_forged_arp_and_discovery_move_nothing(machine: Machine) -> None:
    """Threat 16: claims about whose hardware address is whose never leave the site's port (CVE-2020-13401 for RA)."""
    one, two = machine.start(1, internet=True), machine.start(2, internet=True)
    plan = machine.network.addressing
    everyone, nobody = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
    mac, link_local, nodes = one.net.mac, IPv6Address("fe80::858:aff:fe4d:4101"), IPv6Address("ff02::1")
    option = b"\x02\x01" + bytes.fromhex(mac.replace(":", ""))
    prefix = struct.pack(">BBBBIII16s", 3, 4, 64, 0xC0, 9000, 9000, 0, IPv6Address("2001:db8:bad::").packed)
    router = struct.pack(">BBHII", 64, 0, 1800, 0, 0) + prefix
    frames = [
        ethernet(everyone, mac, 0x0806, arp(1, mac, two.net.own4, nobody, plan.gateway4)),
        ethernet(everyone, mac, 0x0806, arp(2, mac, plan.gateway4, everyone, plan.gateway4)),
        ethernet(plan.bridge_mac, mac, 0x0806, arp(2, mac, two.net.own4, plan.bridge_mac, plan.gateway4)),
        ethernet(plan.bridge_mac, mac, 0x0806, arp(1, mac, one.net.own4, nobody, plan.gateway4)),
        ethernet("33:33:00:00:00:01", mac, 0x86DD, icmp6(link_local, nodes, 134, router)),
        ethernet("33:33:00:00:00:01", mac, 0x86DD, icmp6(one.net.own6, nodes, 134, router)),
        ethernet(
            plan.bridge_mac,
            mac,
            0x86DD,
            icmp6(one.net.own6, plan.gateway6, 136, struct.pack(">I", 0x6000_0000) + two.net.own6.packed + option),
        ),
        ethernet(
            "33:33:00:00:00:01",
            mac,
            0x86DD,
            icmp6(one.net.own6, nodes, 136, struct.pack(">I", 0x2000_0000) + plan.gateway6.packed + option),
        ),
    ]
    bridge = machine.settings.network.bridge
    index = socket.if_nametoindex(bridge)
    with Sniffer(bridge) as at_bridge, netlink.Socket() as here:
        for frame in frames:
            one.send_frame(frame)
        assert not at_bridge.saw(mac_of(mac) + b"\x08\x06")
        assert not at_bridge.saw(mac_of(mac) + b"\x86\xdd")
        known = {each.address: each.mac for family in (2, 10) for each in here.neighbours(index, family)}
        assert known[two.net.own4] == known[two.net.own6] == two.net.mac
        assert all(address.packed[:4] != b"\x20\x01\x0d\xb8" for address, _ in here.addresses(index))
    assert machine.reach(two.net.own4) == machine.reach(two.net.own6) == "connected"
    assert machine.reach(one.net.own4) == "connected"


def mac_of(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def test_threat_16_a_site_hears_nothing_of_the_others(machine: Machine) -> None:
    """Threat 16: what the machine sends to one site, or to all, shows on no other port."""
    one, two = machine.start(1), machine.start(2)
    gone = machine.network.addressing.instance(9, 0)
    with netlink.Socket() as here:
        bridge = socket.if_nametoindex(machine.settings.network.bridge)
        here.send(netlink.set_neighbour(bridge, gone.own4, gone.mac))
    sniffer = two.run(lambda: Sniffer("eth0"))
    with sniffer:
        assert machine.reach(one.net.own4) == "connected"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"for-one-alone", (str(one.net.own4), 4000))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.sendto(b"for-everybody", ("10.77.255.255", 4000))
            client.sendto(b"for-who-is-gone", (str(gone.own4), 4000))
        assert not sniffer.saw(b"for-")
        assert not sniffer.saw(mac_of("ff:ff:ff:ff:ff:ff"), 0.02)


def test_connections_of_the_machine_to_sites_leave_no_trace_in_conntrack(machine: Machine) -> None:
    """Threat 29: thousands of requests a second to sites must not fill a table that all share."""
    site = machine.start(1, internet=True)
    outside = machine.outside()
    server = outside.listen(8000)
    for _ in range(50):
        assert machine.reach(site.net.own4) == machine.reach(site.net.own6) == "connected"
    count = int((netns.SYSCTL / "netfilter/nf_conntrack_count").read_text())
    assert count == 0
    assert site.attempt(OUTSIDE4) == "connected"
    assert int((netns.SYSCTL / "netfilter/nf_conntrack_count").read_text()) == 1
    server.close()


def test_threat_29_a_site_fills_no_table_that_all_share(machine: Machine) -> None:
    """Threat 29: beyond its bound a site is refused more connections; another one, and its own that end, are not held
    back, and what the kernel counts is no change of the rules."""
    machine.settings = machine.firewall.settings = msgspec.structs.replace(
        machine.settings, network=msgspec.structs.replace(machine.settings.network, connections=16)
    )
    machine.firewall.rebuild({}, "small")
    outside = machine.outside()
    greedy, other = machine.start(1, internet=True), machine.start(2, internet=True)
    server = outside.listen(8000)

    def hold(address: str, count: int) -> list[socket.socket]:
        return greedy.run(lambda: [socket.create_connection((address, 8000), 5) for _ in range(count)])

    for address in (OUTSIDE4, OUTSIDE6):
        held = hold(address, 16)
        assert greedy.attempt(address) == REFUSED
        assert other.attempt(address) == "connected"
        held[0].send(b"those that are there go on")
        for each in held:
            # At once, as a reset: what was closed in order is counted until its last minutes are over.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()
        until(lambda at=address: greedy.attempt(at) == "connected", 30)
    state = machine.firewall.observe({(1, 0): True, (2, 0): True})
    assert state is not None and state.problems == ()
    server.close()


def test_two_slots_of_a_site_do_not_close_each_others_way_out(machine: Machine) -> None:
    outside = machine.outside()
    server = outside.listen(8000)
    machine.start(1, 0, internet=True)
    new = machine.start(1, 1, internet=True)
    machine.stop(1, 0)
    assert new.attempt(OUTSIDE4) == new.attempt(OUTSIDE6) == "connected"
    assert machine.reach(new.net.own4) == "connected"
    # And the old slot, used again without internet, has none.
    again = machine.start(1, 0, internet=False)
    assert again.attempt(OUTSIDE4) == "ENETUNREACH"
    server.close()
