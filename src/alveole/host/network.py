"""The bridge of the sites, and the veth pair, namespace and addresses of each instance.

Nothing on the bridge is ever asked or learned: the host keeps a permanent neighbour and a static
forwarding entry for each instance, the instance one for its gateway. So sites need no ARP and no
neighbour discovery at all (the firewall drops both), and a reused address answers at once.

Every interface made here carries a *group* number derived from the bridge's name. That is how the
rules and this module know their own, whatever other interfaces are called.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from alveole import failpoints
from alveole.config import Settings
from alveole.errors import NoRoom, Refused
from alveole.host import linkready, netlink, syscalls
from alveole.host.netlink import Link, Message, PortFlags
from alveole.host.netns import SYSCTL, Spare, in_thread, read_sysctl, write_sysctl
from alveole.model.addressing import Addressing, InstanceNet

INSIDE = "eth0"
#: Isolated ports never exchange frames; without learning and flooding a site sees nothing that is not its own.
PORT = PortFlags(isolated=True, learning=False, floods=False, locked=True)
_ALIAS = "alveole"


class BridgeState(msgspec.Struct, frozen=True):
    """The bridge as it is. ``stamp`` is what was given to ``ensure_bridge``, empty when it did not get that far."""

    index: int
    stamp: str
    problems: tuple[str, ...]


class Port(msgspec.Struct, frozen=True):
    """An instance's interface on the host. ``attached``: on the bridge, up, with the flags of :data:`PORT`."""

    number: int
    slot: int
    index: int
    internet: bool
    attached: bool


def group_of(bridge: str) -> int:
    """The interface group of the sites of this bridge; the next number is for interfaces being deleted."""
    return 0x4000_0000 | int.from_bytes(hashlib.sha256(bridge.encode()).digest()[:4], "big") & 0x3FFF_FFFE


class SiteNetwork:
    """All that the kernel's network holds for one instance of Alvéole. Thread-safe.

    Belongs to the network namespace of the thread that makes it. Every method raises ``OSError``
    with the name of the failing message when the kernel refuses. A bridge has 1,023 ports
    (``BR_MAX_PORTS``), so no more instances than that run at a time: ``plug`` then raises ``NoRoom``.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.addressing: Addressing = settings.addressing()
        self.bridge = settings.network.bridge
        self.group = group_of(self.bridge)
        self.ipv6 = (SYSCTL / "ipv6").is_dir()
        prefix = re.escape(settings.network.interface_prefix)
        self._name = re.compile(rf"^{prefix}([1-9a-f][0-9a-f]*)([ab])\Z")
        self._netlink = netlink.Socket()
        self._spare = Spare(self._prepare_namespace)
        self._deleter: _Deleter | None = None
        self._deleter_lock = threading.Lock()

    def close(self) -> None:
        """Wait for deletions that are under way and close the sockets."""
        self._spare.close()
        if self._deleter:
            self._deleter.close()
            self._deleter = None
        self._netlink.close()

    # The bridge

    def ensure_bridge(self, stamp: str = "") -> int:
        """Make the bridge or set right what differs, switch forwarding on; gives its index.

        ``stamp`` is kept on the bridge. Raises ``Refused`` when something else has its name.
        """
        plan = self.addressing
        link = self._netlink.link(self.bridge)
        if link and not self._is_ours(link):
            raise Refused(
                f"the interface {self.bridge} exists and is not Alvéole's",
                hint="set network.bridge to another name, or delete it",
            )
        if link is None:
            self._netlink.send(
                netlink.create_bridge(self.bridge, plan.bridge_mac, self.group).forgiving(errno.EEXIST),
            )
            failpoints.hit("bridge-created")
            link = self._netlink.link(self.bridge)
            if link is None:
                raise OSError(errno.ENODEV, f"create bridge {self.bridge}: it vanished")
        if self.ipv6:
            self._netlink.send(netlink.change_link(self.bridge, no_link_local=True))
        for key, value in self._sysctls():
            if read_sysctl(key) != value:
                write_sysctl(key, value)
        self._forward()
        wanted = self._bridge_addresses()
        surplus = self._netlink.addresses(link.index) - wanted
        self._netlink.send(
            netlink.change_link(self.bridge, up=True),
            *(netlink.delete_address(link.index, *each) for each in surplus),
            *(netlink.add_address(link.index, *each) for each in wanted),
            *(netlink.add_unreachable(network) for network in self._networks()),
            # Last: the stamp says that everything before it was done.
            netlink.change_link(self.bridge, alias=f"{_ALIAS} {stamp}"),
        )
        self._deletion().kick()
        return link.index

    def observe_bridge(self) -> BridgeState | None:
        """The bridge as it is, with what is wrong with it; ``None`` when there is no bridge of ours."""
        link = self._netlink.link(self.bridge)
        if link is None or not self._is_ours(link):
            return None
        problems = []
        if not link.up:
            problems.append(f"{self.bridge} is down")
        addresses = self._netlink.addresses(link.index)
        for address, prefix in sorted(self._bridge_addresses(), key=str):
            if (address, prefix) not in addresses:
                problems.append(f"{self.bridge} has lost its address {address}")
        for network in self._networks():
            family = socket.AF_INET if network.version == 4 else socket.AF_INET6
            if network not in self._netlink.unreachable(family):
                problems.append(f"the route unreachable {network} is gone")
        for key, value in (*self._sysctls(), *self._forwarding()):
            if read_sysctl(key) != value:
                problems.append(f"net.{key.replace('/', '.')} is not {value}")
        name, _, stamp = link.alias.partition(" ")
        return BridgeState(link.index, stamp if name == _ALIAS else "", tuple(problems))

    def remove(self) -> None:
        """Take everything away again: all interfaces of sites, the bridge, the routes. Forwarding stays on."""
        names = [link.name for link in self._netlink.links("veth") if link.group in (self.group, self.group + 1)]
        link = self._netlink.link(self.bridge)
        if link and self._is_ours(link):
            names.append(self.bridge)
        self._netlink.send(
            *(netlink.delete_link(name).forgiving(errno.ENODEV) for name in names),
            *(netlink.delete_unreachable(network).forgiving(errno.ESRCH) for network in self._networks()),
        )

    def _is_ours(self, link: Link) -> bool:
        # Both are set by the very message that makes the bridge, so a half-made one is known too.
        return link.kind == "bridge" and link.group == self.group and link.mac == self.addressing.bridge_mac

    def _bridge_addresses(self) -> set[tuple[netlink.Address, int]]:
        plan = self.addressing
        found: set[tuple[netlink.Address, int]] = {(plan.gateway4, plan.network4.prefixlen)}
        if self.ipv6:
            found.add((plan.gateway6, plan.network6.prefixlen))
        return found

    def _networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Unreachable when the bridge is gone: else requests to sites would leave by the default route."""
        plan = self.addressing
        return (plan.network4, plan.network6) if self.ipv6 else (plan.network4,)

    def _sysctls(self) -> tuple[tuple[str, str], ...]:
        bridge = self.bridge
        # A neighbour that is not permanent is not there: one unanswered question of 20 ms, not three of 1 s.
        # (20 ms is a whole number of ticks at every HZ, so it reads back as it was written.)
        found = [
            (f"ipv4/neigh/{bridge}/mcast_solicit", "1"),
            (f"ipv4/neigh/{bridge}/retrans_time_ms", "20"),
            (f"ipv4/conf/{bridge}/send_redirects", "0"),
            (f"ipv4/conf/{bridge}/accept_redirects", "0"),
            (f"ipv4/conf/{bridge}/proxy_arp", "0"),
        ]
        if self.ipv6:
            found += [
                (f"ipv6/conf/{bridge}/disable_ipv6", "0"),
                (f"ipv6/conf/{bridge}/accept_ra", "0"),
                (f"ipv6/conf/{bridge}/accept_redirects", "0"),
                (f"ipv6/neigh/{bridge}/mcast_solicit", "1"),
                (f"ipv6/neigh/{bridge}/retrans_time_ms", "20"),
            ]
        return tuple(found)

    def _forwarding(self) -> tuple[tuple[str, str], ...]:
        found = [("ipv4/ip_forward", "1")]
        if self.ipv6:
            found.append(("ipv6/conf/all/forwarding", "1"))
        return tuple(found)

    def _forward(self) -> None:
        for key, value in self._forwarding():
            if read_sysctl(key) == value:
                continue
            if key.startswith("ipv6"):
                # A router ignores advertisements unless told 2 (ip-sysctl.rst): the machine would lose its own address.
                for conf in (SYSCTL / "ipv6/conf").iterdir():
                    accepts = f"ipv6/conf/{conf.name}/accept_ra"
                    if conf.name not in ("all", "default", "lo", self.bridge) and read_sysctl(accepts) == "1":
                        write_sysctl(accepts, "2")
            write_sysctl(key, value)

    # Instances

    def plug(self, number: int, slot: int, *, internet: bool) -> int:
        """A new network namespace with ``lo`` and ``eth0`` up; gives its open file (close-on-exec).

        Needs the bridge. A leftover interface of the same name is replaced. Nothing passes until
        ``Firewall.admit``. With ``internet`` false there is no default route: only the host answers.
        """
        net = self.addressing.instance(number, slot)
        fd = self._spare.take()

        def work() -> None:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
            self._connect(net, fd, internet)

        try:
            in_thread(work)
        except BaseException:
            os.close(fd)
            raise
        self._spare.refill()
        return fd

    def replug(self, number: int, slot: int, netns_fd: int, internet: bool) -> None:
        """Give a running instance back what was lost: its veth, or the veth's place on the bridge."""
        net = self.addressing.instance(number, slot)
        link = self._netlink.link(net.interface)

        def work() -> None:
            syscalls.setns(netns_fd, syscalls.CLONE_NEWNET)
            if link and link.group == self.group and INSIDE in {name for _, name in socket.if_nameindex()}:
                self._configure_inside(net, internet)
                self._attach(net, link.index, self._bridge_index(), internet)
            else:
                self._connect(net, netns_fd, internet)

        in_thread(work)

    def unplug(self, number: int, slot: int) -> None:
        """Forget the instance's neighbours and delete its veth, which is gone some 20 ms after this returns.

        Idempotent. The site's address for life goes along when this instance had it.
        """
        net = self.addressing.instance(number, slot)
        messages: list[Message] = []
        link = self._netlink.link(net.interface)
        if link and link.group == self.group:
            messages.append(netlink.change_link(link.index, group=self.group + 1).forgiving(errno.ENODEV))
        index = self._index(self.bridge)
        if index:
            messages += self._forget(index, self._families(net.own4, net.own6))
            if self.life_addresses((number,)).get(number) == slot:
                messages += self._forget(index, self._families(net.life4, net.life6))
        self._netlink.send(*messages)
        self._deletion().kick()

    def settle(self) -> None:
        """Return when every interface given to ``unplug`` is gone."""
        self._deletion().run()

    def ports(self) -> dict[str, Port]:
        """Every instance's interface on this machine by name, without those being deleted."""
        found = {}
        bridge = self._index(self.bridge)
        for link in self._netlink.links("veth"):
            place = self._place(link)
            if place:
                found[link.name] = self._port(link, place, bridge)
        return found

    def port(self, number: int, slot: int) -> Port | None:
        """One instance's interface; unlike ``ports`` it costs the same among thousands."""
        link = self._netlink.link(self.addressing.instance(number, slot).interface)
        place = self._place(link) if link else None
        return self._port(link, place, self._index(self.bridge)) if link and place else None

    def interfaces(self) -> dict[str, int]:
        """Name → index of every instance's interface."""
        return {name: port.index for name, port in self.ports().items()}

    def loose(self, ports: dict[str, Port]) -> dict[str, str]:
        """What is wrong with the ports, by interface name: off the bridge, no neighbour, no forwarding entry."""
        bridge = self._index(self.bridge)
        if not bridge:
            return dict.fromkeys(ports, f"the bridge {self.bridge} is gone")
        known = self._neighbours(bridge)
        forwarded = {(each.link, each.mac) for each in self._netlink.neighbours(bridge, netlink.AF_BRIDGE)}
        problems = {}
        for name, port in ports.items():
            net = self.addressing.instance(port.number, port.slot)
            if not port.attached:
                problems[name] = f"the interface {name} is off the bridge {self.bridge}"
            elif (port.index, net.mac) not in forwarded:
                problems[name] = f"the bridge {self.bridge} does not know {name}"
            elif any(known.get(address) != net.mac for address in self._families(net.own4, net.own6)):
                problems[name] = f"the host has lost the neighbour entries of {name}"
        return problems

    def attach(self, number: int, slot: int) -> None:
        """Put an interface that exists back on the bridge, with everything the host knows about it."""
        net = self.addressing.instance(number, slot)
        link = self._netlink.link(net.interface)
        if link is None:
            raise OSError(errno.ENODEV, f"attach {net.interface}: {os.strerror(errno.ENODEV)}")
        self._attach(net, link.index, self._bridge_index(), link.alias.endswith(" internet"))

    # Addresses for life

    def set_life_address(self, number: int, slot: int) -> None:
        """The site's address for life leads to the instance in ``slot``, in both families."""
        net = self.addressing.instance(number, slot)
        index = self._bridge_index()
        self._netlink.send(
            *(netlink.set_neighbour(index, each, net.mac) for each in self._families(net.life4, net.life6))
        )

    def drop_life_address(self, number: int) -> None:
        net = self.addressing.instance(number, 0)
        index = self._index(self.bridge)
        if index:
            self._netlink.send(*self._forget(index, self._families(net.life4, net.life6)))

    def life_addresses(self, numbers: Collection[int] | None = None) -> dict[int, int]:
        """Site number → slot that has its address for life, where both families agree.

        ``numbers``: look at these only. Others are left out, not reported as absent.
        """
        index = self._index(self.bridge)
        if not index:
            return {}
        ask: Callable[[netlink.Address], str | None]
        if numbers is None or len(numbers) > 20:
            known = self._neighbours(index)
            ask = known.get
            numbers = numbers if numbers is not None else self._numbers_of_life(known)
        else:
            # A question each is cheaper than the whole table.
            def ask(address: netlink.Address) -> str | None:
                entry = self._netlink.neighbour(index, address)
                return entry.mac if entry and entry.permanent else None

        found = {}
        for number in numbers:
            nets = [self.addressing.instance(number, slot) for slot in (0, 1)]
            macs = {ask(address) for address in self._families(nets[0].life4, nets[0].life6)}
            for slot in (0, 1):
                if macs == {nets[slot].mac}:
                    found[number] = slot
        return found

    def sweep(self, living: Callable[[], Iterable[int]]) -> int:
        """Forget the neighbours of instances without interface, and the addresses for life of the
        numbers that are not in ``living()``; gives how many were forgotten.
        """
        index = self._index(self.bridge)
        if not index:
            return 0
        # The table first: whoever is in it had an interface, or was in ``living``, before we ask for those.
        known = self._neighbours(index)
        keep: set[netlink.Address] = set()
        for port in self.ports().values():
            net = self.addressing.instance(port.number, port.slot)
            keep.update((net.own4, net.own6))
        for number in living():
            net = self.addressing.instance(number, 0)
            keep.update((net.life4, net.life6))
        gone = [address for address in known if address not in keep]
        self._netlink.send(*self._forget(index, gone))
        return len(gone)

    def _numbers_of_life(self, addresses: Iterable[netlink.Address]) -> list[int]:
        plan = self.addressing
        numbers = []
        for address in addresses:
            if address.version == 4:
                number = plan.number(address)
                if number:
                    numbers.append(number)
        return numbers

    # Parts

    def _connect(self, net: InstanceNet, fd: int, internet: bool) -> None:
        """Create the veth pair and configure both ends; the calling thread is inside the namespace ``fd``."""
        bridge = self._bridge_index()
        create = netlink.create_veth(net.interface, self.group, bridge, INSIDE, net.mac, fd)
        try:
            self._netlink.send(create)
        except OSError as error:
            if error.errno == errno.EXFULL:
                raise NoRoom(
                    f"the bridge {self.bridge} has no free port: Linux gives it 1,023",
                    hint="stop a site, or run a second Alvéole with a bridge of its own",
                ) from None
            if error.errno != errno.EEXIST:
                raise
            self.settle()
            left = self._netlink.link(net.interface)
            if left and left.group != self.group:
                raise
            self._netlink.send(netlink.delete_link(net.interface).forgiving(errno.ENODEV), create)
        failpoints.hit("veth-created")
        try:
            # The inner end first: the port then forwards from the moment it comes up.
            self._configure_inside(net, internet)
            link = self._netlink.link(net.interface)
            if link is None:
                raise OSError(errno.ENODEV, f"create veth {net.interface}: it vanished")
            self._attach(net, link.index, bridge, internet)
            with netlink.Socket() as inside:
                linkready.wait_running(inside, INSIDE)
                linkready.wait_local(inside, (net.own6, net.life6) if self.ipv6 else ())
            failpoints.hit("veth-attached")
        except BaseException:
            self._netlink.send(netlink.delete_link(net.interface).forgiving(errno.ENODEV))
            raise

    def _prepare_namespace(self) -> int:
        """A new namespace with its settings, as an open file; in a thread that ends afterwards."""
        syscalls.unshare(syscalls.CLONE_NEWNET)
        # Nobody inside has a capability over this namespace, so low ports must be free for all.
        write_sysctl("ipv4/ip_unprivileged_port_start", "0")
        if self.ipv6:
            write_sysctl("ipv6/conf/default/accept_ra", "0")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _configure_inside(self, net: InstanceNet, internet: bool) -> None:
        plan = self.addressing
        eth0 = socket.if_nametoindex(INSIDE)
        messages = [netlink.change_link("lo", up=True)]
        if self.ipv6:
            messages.append(netlink.change_link(eth0, no_link_local=True))
        messages.append(netlink.change_link(eth0, up=True))
        # Single addresses, no network: all but the gateway is asked of the gateway, which refuses at once.
        for own, life, gateway in ((net.own4, net.life4, plan.gateway4), (net.own6, net.life6, plan.gateway6)):
            if own.version == 6 and not self.ipv6:
                continue
            bits = own.max_prefixlen
            any_ = IPv4Network("0.0.0.0/0") if own.version == 4 else IPv6Network("::/0")
            messages += [
                netlink.add_address(eth0, own, bits),
                netlink.add_address(eth0, life, bits),
                netlink.set_neighbour(eth0, gateway, plan.bridge_mac),
                netlink.add_route(eth0, _single(gateway), source=own),
            ]
            if internet:
                messages.append(netlink.add_route(eth0, any_, via=gateway, source=own))
        with netlink.Socket() as inside:
            inside.send(*messages)

    def _attach(self, net: InstanceNet, index: int, bridge: int, internet: bool) -> None:
        messages: list[Message] = []
        if self.ipv6:
            messages.append(netlink.change_link(index, no_link_local=True))
        alias = f"{_ALIAS} internet" if internet else _ALIAS
        messages += [
            netlink.change_link(index, master=bridge),
            netlink.change_link(index, up=True, alias=alias, port=PORT),
            netlink.set_forwarding(index, net.mac),
            *(netlink.set_neighbour(bridge, each, net.mac) for each in self._families(net.own4, net.own6)),
        ]
        self._netlink.send(*messages)
        # The bridge loses its carrier with its last port, and has it again only now.
        for name in (net.interface, self.bridge):
            linkready.wait_running(self._netlink, name)

    def _forget(self, index: int, addresses: Iterable[netlink.Address]) -> list[Message]:
        return [
            netlink.delete_neighbour(index, address).forgiving(errno.ENOENT, errno.ENODEV, errno.EINVAL)
            for address in addresses
        ]

    def _neighbours(self, index: int) -> dict[netlink.Address, str]:
        families = (socket.AF_INET, socket.AF_INET6) if self.ipv6 else (socket.AF_INET,)
        return {
            each.address: each.mac
            for family in families
            for each in self._netlink.neighbours(index, family)
            # Multicast groups have entries of their own, made by the kernel.
            if each.address is not None and each.permanent and not each.address.is_multicast
        }

    def _families(self, four: IPv4Address, six: IPv6Address) -> tuple[netlink.Address, ...]:
        return (four, six) if self.ipv6 else (four,)

    def _place(self, link: Link) -> tuple[int, int] | None:
        match = self._name.match(link.name) if link.group == self.group else None
        if match is None:
            return None
        number = int(match[1], 16)
        return (number, "ab".index(match[2])) if number <= self.addressing.capacity() else None

    def _port(self, link: Link, place: tuple[int, int], bridge: int) -> Port:
        attached = link.up and link.master == bridge != 0 and link.port == PORT
        return Port(*place, link.index, link.alias.endswith(" internet"), attached)

    def _index(self, name: str) -> int:
        link = self._netlink.link(name)
        return link.index if link else 0

    def _bridge_index(self) -> int:
        index = self._index(self.bridge)
        if not index:
            raise OSError(errno.ENODEV, f"the bridge {self.bridge} does not exist")
        return index

    def _deletion(self) -> _Deleter:
        with self._deleter_lock:
            if self._deleter is None:
                self._deleter = _Deleter(self.group + 1)
            return self._deleter


class _Deleter:
    """Deletes the interfaces of one group, beside whoever asked.

    The kernel waits 16 ms for its readers at each deletion; all that is in the group by then shares
    one wait.
    """

    def __init__(self, group: int) -> None:
        self._group = group
        self._socket = netlink.Socket()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="veth-deleter", daemon=True)
        self._thread.start()

    def kick(self) -> None:
        self._wanted.set()

    def run(self) -> None:
        with self._lock:
            self._socket.send(netlink.delete_links(self._group).forgiving(errno.ENODEV))

    def close(self) -> None:
        self._closed = True
        self._wanted.set()
        self._thread.join()
        self.run()
        self._socket.close()

    def _loop(self) -> None:
        while True:
            self._wanted.wait()
            if self._closed:
                return
            self._wanted.clear()
            try:
                self.run()
            except OSError:
                import logging

                # The next deletion, or the start of the agent, takes what is left.
                logging.getLogger("alveole.host").exception("interfaces of group %d stay", self._group)


def _single(address: netlink.Address) -> netlink.Network:
    return IPv4Network((int(address), 32)) if address.version == 4 else IPv6Network((int(address), 128))
