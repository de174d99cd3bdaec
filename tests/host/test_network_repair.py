"""The life of an instance's network, and its repair after anything was taken away by hand."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from netfixtures import Machine, attempt, machine_of_its_own, site_id

from alveole.errors import NoRoom, Refused
from alveole.host import netlink, syscalls
from alveole.model.addressing import InstanceNet
from alveole.model.resource import Action, Kind

pytestmark = pytest.mark.root


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_of_its_own() as machine:
        yield machine


@pytest.fixture
def ready(machine: Machine) -> Machine:
    machine.platform()
    return machine


def by_hand(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


def test_the_bridge_carries_its_stamp_and_is_made_once(machine: Machine) -> None:
    assert machine.seen(Kind.NETWORK) is None
    machine.platform()
    first = machine.network.observe_bridge()
    assert first is not None and first.problems == () and len(first.stamp) == 32
    assert machine.apply(Kind.NETWORK, Action.REPAIR).done
    second = machine.network.observe_bridge()
    assert second == first
    seen = machine.seen(Kind.NETWORK)
    assert seen is not None and seen.ready and seen.digest == first.stamp


def test_a_foreign_bridge_of_that_name_is_left_alone(machine: Machine) -> None:
    by_hand(f"ip link add {machine.settings.network.bridge} type bridge")
    outcome = machine.apply(Kind.NETWORK)
    assert not outcome.done and not outcome.temporary and "is not Alvéole's" in outcome.message
    assert machine.seen(Kind.NETWORK) is None
    with pytest.raises(Refused):
        machine.network.ensure_bridge()
    machine.network.remove()
    assert machine.settings.network.bridge in {name for _, name in socket.if_nameindex()}


def test_a_host_reaches_its_sites_by_all_four_addresses_at_once(ready: Machine) -> None:
    site = ready.start(1)
    start = time.monotonic()
    assert ready.reach(site.net.own4) == "connected"
    assert ready.reach(site.net.own6) == "connected"
    assert ready.address(1, 0).done
    assert ready.reach(site.net.life4) == "connected"
    assert ready.reach(site.net.life6) == "connected"
    assert time.monotonic() - start < 0.5
    assert str(site.net.life4) == "10.77.1.1"


def test_nothing_passes_before_an_instance_is_admitted(ready: Machine) -> None:
    site = ready.start(1, admit=False)
    assert ready.reach(site.net.own4) == "timeout"
    ready.firewall.admit(site.net, False)
    assert ready.reach(site.net.own4) == "connected"
    ready.firewall.withdraw(site.net)
    assert ready.reach(site.net.own6) == "timeout"


def test_an_address_without_site_fails_at_once(ready: Machine) -> None:
    ready.start(1)
    for number, slot in ((2, 0), (1, 1)):
        net = ready.network.addressing.instance(number, slot)
        for address in (net.own4, net.own6):
            result, seconds = attempt(str(address), 80)
            assert result == "EHOSTUNREACH" and seconds < 0.5
    assert attempt(str(ready.network.addressing.life4(1)), 80)[0] == "EHOSTUNREACH"
    by_hand(f"ip link delete {ready.settings.network.bridge}")
    for address in (net.own4, net.own6):
        result, seconds = attempt(str(address), 80)
        assert result in ("EHOSTUNREACH", "ENETUNREACH") and seconds < 0.1


def test_an_interface_is_gone_after_unplug_and_its_address_answers_at_once_when_used_again(ready: Machine) -> None:
    for _ in range(3):
        site = ready.start(7)
        assert ready.address(7, 0).done
        assert ready.network.interfaces().keys() == {site.net.interface}
        start = time.monotonic()
        assert ready.reach(site.net.own4) == ready.reach(site.net.life6) == "connected"
        assert time.monotonic() - start < 0.3
        ready.stop(7)
        assert ready.network.interfaces() == {}
        assert ready.network.life_addresses() == {}
        ready.network.settle()
        assert site.net.interface not in {name for _, name in socket.if_nameindex()}
        ready.network.unplug(7, 0)
        assert ready.network.sweep(list) == 0


def test_the_first_packet_to_and_from_a_new_instance_is_not_lost(ready: Machine) -> None:
    """The kernel makes links send, and takes IPv6 addresses in, after it has said yes: plugging waits for it."""
    for _ in range(20):
        site = ready.start(4)
        with netlink.Socket() as here:
            links = [here.link(name) for name in (ready.settings.network.bridge, site.net.interface)]

        def inside(net: InstanceNet = site.net) -> list[netlink.Link | bool | None]:
            with netlink.Socket() as there:
                return [there.link("eth0"), *(there.is_local(each) for each in (net.own6, net.life6, net.own4))]

        eth0, *local = site.run(inside)
        assert all(isinstance(link, netlink.Link) and link.running for link in (*links, eth0))
        assert local == [True, True, True]
        ready.stop(4)
        ready.network.settle()


def test_plug_right_after_unplug_takes_the_same_name(ready: Machine) -> None:
    for _ in range(10):
        site = ready.start(3)
        ready.stop(3)
    site = ready.start(3)
    assert ready.reach(site.net.own4) == "connected"
    ready.network.settle()
    assert ready.network.interfaces().keys() == {site.net.interface}
    assert ready.reach(site.net.own4) == "connected"


def test_the_address_for_life_moves_between_slots_without_a_pause(ready: Machine) -> None:
    old, new = ready.start(1, 0), ready.start(1, 1)
    new.server.close()
    assert ready.address(1, 0).done
    assert ready.reach(old.net.life4) == "connected"
    assert ready.address(1, 1, Action.REPLACE).done
    assert ready.network.life_addresses() == {1: 1}
    assert attempt(str(old.net.life4), 8000)[0] == "ECONNREFUSED"
    ready.stop(1, 0)
    assert ready.network.life_addresses() == {1: 1}
    seen = ready.seen(Kind.ADDRESS, site_id(1))
    assert seen is not None and seen.ready and [str(use) for use in seen.uses] == [f"workload/{site_id(1)}/1"]
    assert ready.address(1, 1, Action.DELETE).done
    assert ready.seen(Kind.ADDRESS, site_id(1)) is None
    assert ready.network.life_addresses() == {}


def test_a_lost_neighbour_of_an_address_is_a_defect_and_comes_back(ready: Machine) -> None:
    site = ready.start(5)
    ready.address(5, 0)
    by_hand(f"ip neigh del {site.net.life4} dev {ready.settings.network.bridge}")
    seen = ready.seen(Kind.ADDRESS, site_id(5))
    assert seen is not None and not seen.ready and seen.defects[0].code == "address-missing"
    assert ready.address(5, 0, Action.REPAIR).done
    seen = ready.seen(Kind.ADDRESS, site_id(5))
    assert seen is not None and seen.ready
    (ready.settings.run / "addresses" / site_id(5)).write_text("{torn")
    assert ready.seen(Kind.ADDRESS, site_id(5)) is None


def test_fault_18_a_deleted_bridge_comes_back_with_every_site_on_it(ready: Machine) -> None:
    """Fault 18: the bridge is deleted by hand; the sites' interfaces live on, loose."""
    sites = [ready.start(number, internet=number == 2) for number in (1, 2, 3)]
    ready.address(2, 0)
    by_hand(f"ip link delete {ready.settings.network.bridge}")
    assert ready.seen(Kind.NETWORK) is None
    assert ready.apply(Kind.NETWORK).done
    seen = ready.seen(Kind.NETWORK)
    assert seen is not None and seen.ready and not seen.defects and seen.detail["instances"] == 3
    for site in sites:
        assert ready.reach(site.net.own4) == ready.reach(site.net.own6) == "connected"
    assert ready.reach(sites[1].net.life4) == "connected"


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set anw1a nomaster",
        "ip link set anw1a down",
        "ip link set anw1a type bridge_slave isolated off",
        "ip link set anw1a type bridge_slave learning on flood on",
        "bridge fdb del 0a:58:0a:4d:41:01 dev anw1a master",
        "ip neigh del 10.77.65.1 dev alvnet0",
        "ip -6 neigh del fd77:6c76:656f::1:0:1 dev alvnet0",
        "ip neigh flush dev alvnet0 nud permanent",
        "ip link set alvnet0 down",
        "ip address flush dev alvnet0",
        "ip address del fd77:6c76:656f::f:0:1/64 dev alvnet0",
        "ip route del unreachable 10.77.0.0/16",
        "ip -6 route del unreachable fd77:6c76:656f::/64 dev lo",
        "sysctl -w net.ipv4.ip_forward=0",
        "sysctl -w net.ipv6.conf.all.forwarding=0",
        "sysctl -w net.ipv6.conf.alvnet0.accept_ra=1",
        "sysctl -w net.ipv6.conf.alvnet0.disable_ipv6=1",
    ],
)
def test_fault_18_each_part_of_the_network_is_missed_and_comes_back(ready: Machine, damage: str) -> None:
    """Fault 18: one part of the network changed by hand is noticed, named and repaired."""
    site = ready.start(1)
    by_hand(damage)
    seen = ready.seen(Kind.NETWORK)
    assert seen is not None and seen.defects, damage
    assert ready.apply(Kind.NETWORK, Action.REPAIR).done
    seen = ready.seen(Kind.NETWORK)
    assert seen is not None and seen.ready and not seen.defects, damage
    assert ready.reach(site.net.own4) == ready.reach(site.net.own6) == "connected"


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft delete table inet alvnet",
        "nft delete table bridge alvnet",
        "nft flush table inet alvnet",
        "nft flush chain inet alvnet to_site",
        "nft flush chain bridge alvnet site",
        "nft flush set bridge alvnet from4",
        "nft delete element inet alvnet out6 { fd77:6c76:656f::1:0:2 }",
        "nft add element inet alvnet out4 { 10.77.65.1 }",
        "nft add rule inet alvnet site_to_host accept",
        "nft insert rule inet alvnet from_site accept",
        "nft delete chain inet alvnet seal",
    ],
)
def test_fault_18_rules_changed_by_hand_are_missed_and_come_back(ready: Machine, damage: str) -> None:
    """Fault 18: any change to our two tables is noticed and undone in one transaction."""
    one, two = ready.start(1), ready.start(2, internet=True)
    outside = ready.outside()
    server = outside.listen(8000)
    by_hand(damage)
    seen = ready.seen(Kind.FIREWALL)
    if damage == "nft flush ruleset":
        assert seen is None
    else:
        assert seen is not None and not seen.ready
    assert ready.apply(Kind.FIREWALL, Action.REPAIR).done
    seen = ready.seen(Kind.FIREWALL)
    assert seen is not None and seen.ready and not seen.defects
    assert ready.reach(one.net.own4) == ready.reach(two.net.own6) == "connected"
    assert two.attempt("203.0.113.2") == "connected"
    assert one.attempt("203.0.113.2") == "ENETUNREACH"
    assert one.attempt(ready.network.addressing.gateway4, 8000) != "connected"
    server.close()


def test_other_peoples_tables_are_no_business_of_ours(ready: Machine) -> None:
    by_hand("nft add table inet theirs")
    by_hand("nft add chain inet theirs c { type filter hook input priority 0; }")
    seen = ready.seen(Kind.FIREWALL)
    assert seen is not None and seen.ready
    ready.apply(Kind.FIREWALL, Action.REPAIR)
    ready.apply(Kind.FIREWALL, Action.DELETE)
    assert ready.seen(Kind.FIREWALL) is None
    by_hand("nft list chain inet theirs c")


def test_rules_left_by_an_instance_that_vanished_are_noticed(ready: Machine) -> None:
    site = ready.start(9, internet=True)
    ready.network.unplug(9, 0)
    del ready.sites[9, 0]
    seen = ready.seen(Kind.FIREWALL)
    assert seen is not None and "belong to no instance" in seen.defects[0].cause
    assert ready.apply(Kind.FIREWALL, Action.REPAIR).done
    seen = ready.seen(Kind.FIREWALL)
    assert seen is not None and seen.ready
    site.close()


def test_a_veth_deleted_by_hand_is_given_back_to_the_running_instance(ready: Machine) -> None:
    site = ready.start(4, internet=True)
    outside = ready.outside()
    server = outside.listen(8000)
    by_hand(f"ip link delete {site.net.interface}")
    assert ready.network.interfaces() == {}
    ready.network.replug(4, 0, site.fd, True)
    ready.firewall.admit(site.net, True)
    assert ready.reach(site.net.own4) == ready.reach(site.net.own6) == "connected"
    assert site.attempt("203.0.113.2") == "connected"
    # Again, with nothing missing and with the bridge gone in between.
    ready.network.replug(4, 0, site.fd, True)
    by_hand(f"ip link delete {ready.settings.network.bridge}")
    ready.network.ensure_bridge()
    ready.network.replug(4, 0, site.fd, True)
    assert ready.reach(site.net.own4) == "connected"
    server.close()


def test_the_rules_are_looked_at_again_only_after_a_change(ready: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.start(1)
    assert ready.seen(Kind.FIREWALL) is not None
    monkeypatch.setattr(ready.firewall, "_look", lambda *_: pytest.fail("nothing changed"))
    assert ready.seen(Kind.FIREWALL) is not None


def test_unknown_is_not_absent(ready: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(1, "get link: Operation not permitted")

    monkeypatch.setattr(ready.network, "observe_bridge", fail)
    observation = ready.actuator.observe(None)
    assert [kind for kind, _ in observation.unknown] == [Kind.NETWORK]
    assert [each.id.kind for each in observation.found] == [Kind.FIREWALL]


def test_instances_start_and_end_side_by_side(ready: Machine) -> None:
    """Four at a time, beside passes that look and repair: nothing is lost, nothing is left."""
    failures: list[BaseException] = []

    def worker(first: int) -> None:
        try:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
            for turn in range(6):
                for number in range(first, first + 3):
                    site = ready.start(number, turn % 2, internet=turn % 3 == 0)
                    assert ready.reach(site.net.own4) == "connected"
                for number in range(first, first + 3):
                    ready.stop(number, turn % 2)
        except BaseException as error:
            failures.append(error)

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    threads = [threading.Thread(target=worker, args=(10 * place + 1,)) for place in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert ready.apply(Kind.FIREWALL, Action.REPAIR).done
        assert ready.apply(Kind.NETWORK, Action.REPAIR).done
    for thread in threads:
        thread.join()
    os.close(home)
    assert not failures, failures
    ready.network.settle()
    assert ready.network.interfaces() == {} and ready.network.sweep(list) == 0
    ready.apply(Kind.FIREWALL, Action.REPAIR)
    seen = ready.seen(Kind.FIREWALL)
    assert seen is not None and seen.ready


def test_a_full_bridge_is_said_to_be_full(ready: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    send = netlink.Socket.send

    def full(self: netlink.Socket, *messages: netlink.Message) -> None:
        if messages and messages[0].what.startswith("create veth"):
            raise OSError(errno.EXFULL, "create veth: Exchange full")
        send(self, *messages)

    monkeypatch.setattr(netlink.Socket, "send", full)
    with pytest.raises(NoRoom, match="1,023"):
        ready.network.plug(1, 0, internet=False)


def test_no_network_without_a_bridge_and_nothing_left_of_the_try(machine: Machine) -> None:
    with pytest.raises(OSError, match="bridge alvnet0 does not exist"):
        machine.network.plug(1, 0, internet=False)
    assert machine.network.interfaces() == {}


def test_uplinks_that_learn_from_advertisements_go_on_doing_so(machine: Machine) -> None:
    machine.outside()
    assert Path("/proc/sys/net/ipv6/conf/up0/accept_ra").read_text().strip() == "1"
    machine.platform()
    assert Path("/proc/sys/net/ipv6/conf/up0/accept_ra").read_text().strip() == "2"
    assert Path("/proc/sys/net/ipv6/conf/alvnet0/accept_ra").read_text().strip() == "0"


def test_two_instances_live_on_one_machine(ready: Machine) -> None:
    """Also when the name of the one's interfaces begins like the other's."""
    from msgspec.structs import replace

    from alveole.config import Network
    from alveole.host.firewall import Firewall
    from alveole.host.network import SiteNetwork

    other = replace(
        ready.settings,
        network=Network(
            bridge="alvnet1",
            interface_prefix="anwa",
            table="alvnetb",
            ipv4="10.78.0.0/16",
            first_ipv4="10.78.1.1",
            gateway_ipv4="10.78.1.254",
            ipv6="fd78:6c76:656f::/64",
        ),
    )
    network, firewall = SiteNetwork(other), Firewall(other)
    network.ensure_bridge()
    firewall.rebuild({})
    mine = ready.start(1, internet=True)
    fd = network.plug(1, 0, internet=True)
    net = network.addressing.instance(1, 0)
    firewall.admit(net, True)
    from netfixtures import Place

    theirs = Place(fd)
    server = theirs.listen(8000)
    assert ready.reach(mine.net.own4) == ready.reach(net.own4) == ready.reach(net.own6) == "connected"
    # Refused or dropped, by whose rules come first.
    assert mine.attempt(net.own4) in ("ECONNREFUSED", "timeout")
    assert theirs.attempt(mine.net.own6) in ("ECONNREFUSED", "timeout")
    assert ready.network.interfaces().keys() == {mine.net.interface}
    assert network.interfaces().keys() == {net.interface}
    network.remove()
    assert ready.reach(mine.net.own4) == "connected"
    server.close()
    theirs.close()
    network.close()


def test_fault_6_death_at_each_step_leaves_nothing_open_and_nothing_behind(ready: Machine, tmp_path: Path) -> None:
    """Fault 6: killed while the network is set up: closed by default, no interface or rule left."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from netfixtures import Machine\n"
        "m = Machine(sys.argv[2]); m.platform(); m.start(6, internet=True); m.address(6, 0)\n"
    )
    for point in ("bridge-created", "rules-unsealed", "veth-created", "veth-attached", "address-written"):
        if point == "bridge-created":
            by_hand(f"ip link delete {ready.settings.network.bridge}")
        died = subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)],
            env={**os.environ, "ALVEOLE_FAILPOINT": point},
            capture_output=True,
            check=False,
        )
        assert died.returncode == -9, (point, died.stderr.decode())
        deadline = time.monotonic() + 5
        while ready.network.interfaces() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ready.network.interfaces() == {}, point
        ready.platform()
        assert ready.network.life_addresses() == {}, point
        network, firewall = ready.seen(Kind.NETWORK), ready.seen(Kind.FIREWALL)
        assert network is not None and network.ready and firewall is not None and firewall.ready, point
        with netlink.Socket() as here:
            left = [each for each in here.links("veth") if each.name.startswith("anw")]
        assert left == [], point
    site = ready.start(6)
    assert ready.reach(site.net.own4) == "connected"
