"""Raw rtnetlink: links, addresses, routes, neighbours, many messages in one system call.

Numbers and layouts come from ``linux/rtnetlink.h``, ``linux/if_link.h``, ``linux/neighbour.h`` and
``linux/netlink.h``; they are part of the kernel's stable interface. A batch of raw messages takes a
tenth of the time of ``ip`` and needs no library in the agent.

A :class:`Socket` belongs for ever to the network namespace of the thread that opened it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple, TypeVar

import msgspec

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

_REQUEST, _ACK, _DUMP_INTERRUPTED, _DUMP = 0x1, 0x4, 0x10, 0x300
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_ACK_HAS_TEXT, _ACK_CAPPED = 0x200, 0x100

_SOL_NETLINK = 270
_EXT_ACK, _CAP_ACK, _STRICT = 11, 10, 12

IFF_UP = 1
_IFF_RUNNING = 0x40
NUD_PERMANENT = 0x80
_NUD_NOARP = 0x40
_NTF_MASTER = 4
AF_BRIDGE = 7
RTN_UNICAST, _RTN_LOCAL, RTN_UNREACHABLE = 1, 2, 7
_TABLE_MAIN = 254
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
#: Marks the routes that Alvéole made; free in /etc/iproute2/rt_protos.
RTPROT_ALVEOLE = 161
_IFA_F_NODAD = 0x02
_IFA_F_PERMANENT = 0x80

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 10, 18
_IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 20, 26, 27, 28
_IFLA_EXT_MASK, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 29, 31, 32
_OF_LINK = frozenset((_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP))
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BR_FORWARD_DELAY, _BR_STP, _BR_MCAST_SNOOPING = 1, 5, 23
_PORT_LEARNING, _PORT_UNICAST_FLOOD, _PORT_MCAST_FLOOD, _PORT_BCAST_FLOOD = 8, 9, 27, 30
_PORT_ISOLATED, _PORT_LOCKED = 33, 39
_OF_PORT = frozenset(
    (_PORT_LEARNING, _PORT_UNICAST_FLOOD, _PORT_MCAST_FLOOD, _PORT_BCAST_FLOOD, _PORT_ISOLATED, _PORT_LOCKED)
)
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_SKIP_STATS = 8
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX, _NDA_MASTER = 1, 2, 8, 9
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_U32 = struct.Struct("=I")

#: Messages in one send: their acknowledgements must fit the socket's receive buffer.
_BATCH = 64
_BUFFER = 1 << 16

T = TypeVar("T")


class Message(NamedTuple):
    """One request: ``what`` names it in errors, ``forgive`` lists the error numbers that mean success."""

    what: str
    kind: int
    flags: int
    body: bytes
    forgive: tuple[int, ...] = ()

    def forgiving(self, *numbers: int) -> Message:
        return self._replace(forgive=(*self.forgive, *numbers))


class PortFlags(msgspec.Struct, frozen=True):
    """What a bridge port may do; ``None`` in a :class:`Link` means it is no bridge port."""

    isolated: bool = False
    learning: bool = True
    floods: bool = True
    """Any of unicast, multicast, broadcast for an unknown or common receiver goes out here."""
    locked: bool = False
    """Only frames from hardware addresses that the forwarding table places here come in (Linux 5.18)."""


class Link(msgspec.Struct, frozen=True):
    """``running``: it is up, and the kernel has begun to send through it (RFC 2863 operational state)."""

    index: int
    name: str
    kind: str
    up: bool
    running: bool
    mac: str
    master: int
    group: int
    alias: str
    port: PortFlags | None


class Neighbour(msgspec.Struct, frozen=True):
    address: Address | None
    mac: str
    permanent: bool
    link: int


class Socket:
    """A netlink socket in the network namespace of the thread that makes it. Thread-safe."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._buffer = bytearray(_BUFFER)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            for option in (_EXT_ACK, _CAP_ACK, _STRICT):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *messages: Message) -> None:
        """Carry out ``messages`` in order; the kernel goes on after one that fails.

        Raises ``OSError`` for the first failure, with the message's name and what the kernel said.
        """
        failure: OSError | None = None
        with self._lock:
            for start in range(0, len(messages), _BATCH):
                failure = self._batch(messages[start : start + _BATCH]) or failure
        if failure:
            raise failure

    def _batch(self, messages: Sequence[Message]) -> OSError | None:
        first = self._sequence + 1
        self._sequence += len(messages)
        self._socket.send(
            b"".join(
                _HEADER.pack(16 + len(each.body), each.kind, each.flags | _REQUEST | _ACK, first + place, 0) + each.body
                for place, each in enumerate(messages)
            )
        )
        failure: OSError | None = None
        left = len(messages)
        while left:
            for kind, flags, sequence, body in self._receive():
                if kind != _ERROR or not first <= sequence < first + len(messages):
                    continue
                left -= 1
                number = -int.from_bytes(body[:4], "little", signed=True)
                message = messages[sequence - first]
                if number and number not in message.forgive and failure is None:
                    failure = _failed(message.what, number, flags, body)
        return failure

    def dump(self, message: Message, parse: Callable[[bytes], T | None]) -> list[T]:
        """Every answer to a dump request through ``parse``, which gives ``None`` for what it leaves out."""
        for _ in range(5):
            whole, found = self._dump(message, parse)
            if whole:
                break
        return found

    def _dump(self, message: Message, parse: Callable[[bytes], T | None]) -> tuple[bool, list[T]]:
        found: list[T] = []
        whole = True
        with self._lock:
            self._sequence += 1
            wanted = self._sequence
            header = _HEADER.pack(16 + len(message.body), message.kind, message.flags | _REQUEST, wanted, 0)
            self._socket.send(header + message.body)
            while True:
                for kind, flags, sequence, body in self._receive():
                    if sequence != wanted:
                        continue
                    if flags & _DUMP_INTERRUPTED:
                        whole = False
                    if kind in (_ERROR, _DONE):
                        number = -int.from_bytes(body[:4], "little", signed=True) if len(body) >= 4 else 0
                        if number and number not in message.forgive:
                            raise _failed(message.what, number, flags, body)
                        return whole, found
                    item = parse(body)
                    if item is not None:
                        found.append(item)
                    if not message.flags & _DUMP:
                        return whole, found

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        size = self._socket.recv_into(self._buffer)
        data = bytes(memoryview(self._buffer)[:size])
        place = 0
        while place + 16 <= size:
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, place)
            if length < 16:
                return
            yield kind, flags, sequence, data[place + 16 : place + length]
            place += (length + 3) & ~3

    # What is asked of the kernel

    def link(self, name: str) -> Link | None:
        """The link called ``name``, or ``None``."""
        body = _link_header() + _text(_IFLA_IFNAME, name) + _u32(_IFLA_EXT_MASK, _SKIP_STATS)
        message = Message(f"get link {name}", RTM_GETLINK, 0, body, (19,))
        found = self.dump(message, _parse_link)
        return found[0] if found else None

    def links(self, kind: str = "") -> list[Link]:
        """Every link of this namespace, or those of one ``kind`` (``veth``, ``bridge``…)."""
        body = _link_header() + _u32(_IFLA_EXT_MASK, _SKIP_STATS)
        if kind:
            body += _nested(_IFLA_LINKINFO, _text(_INFO_KIND, kind))
        links = self.dump(Message("dump links", RTM_GETLINK, _DUMP, body), _parse_link)
        return [link for link in links if not kind or link.kind == kind]

    def addresses(self, index: int) -> set[tuple[Address, int]]:
        """``(address, prefix length)`` of both families on the link ``index``."""
        body = _ADDRESS.pack(0, 0, 0, 0, index)
        return set(self.dump(Message("dump addresses", RTM_GETADDR, _DUMP, body), _address_parser(index)))

    def neighbours(self, index: int, family: int) -> list[Neighbour]:
        """The neighbour table of link ``index``; for ``AF_BRIDGE`` the forwarding entries of bridge ``index``."""
        selector = _NDA_MASTER if family == AF_BRIDGE else _NDA_IFINDEX
        body = _NEIGHBOUR.pack(family, 0, 0, 0, 0) + _u32(selector, index)
        message = Message("dump neighbours", RTM_GETNEIGH, _DUMP, body, (19, 97))
        return self.dump(message, _parse_neighbour)

    def neighbour(self, index: int, address: Address) -> Neighbour | None:
        """The entry of one address, or ``None`` (Linux 5.0)."""
        body = _NEIGHBOUR.pack(_family(address), index, 0, 0, 0) + _attribute(_NDA_DST, address.packed)
        found = self.dump(Message(f"get neighbour {address}", RTM_GETNEIGH, 0, body, (2, 19)), _parse_neighbour)
        return found[0] if found else None

    def unreachable(self, family: int) -> set[Network]:
        """The networks that Alvéole declared unreachable in the main table."""
        body = _ROUTE.pack(family, 0, 0, 0, _TABLE_MAIN, RTPROT_ALVEOLE, 0, RTN_UNREACHABLE, 0)
        message = Message("dump routes", RTM_GETROUTE, _DUMP, body, (2, 97))
        return set(self.dump(message, _parse_route))

    def is_local(self, address: Address) -> bool:
        """Whether what comes for ``address`` is taken in here, and not passed on or refused."""
        body = _ROUTE.pack(_family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        body += _attribute(_RTA_DST, address.packed)
        message = Message(f"get route {address}", RTM_GETROUTE, 0, body, (errno.ENETUNREACH, errno.EHOSTUNREACH))
        return True in self.dump(message, lambda route: bool(_ROUTE.unpack_from(route)[7] == _RTN_LOCAL))


# Messages


def create_bridge(name: str, mac: str, group: int) -> Message:
    """A bridge without spanning tree and without multicast snooping: nothing on it changes by itself."""
    data = _u32(_BR_FORWARD_DELAY, 0) + _u32(_BR_STP, 0) + _u8(_BR_MCAST_SNOOPING, 0)
    body = (
        _link_header()
        + _text(_IFLA_IFNAME, name)
        + _attribute(_IFLA_ADDRESS, _mac_bytes(mac))
        + _u32(_IFLA_GROUP, group)
        + _nested(_IFLA_LINKINFO, _text(_INFO_KIND, "bridge") + _nested(_INFO_DATA, data))
    )
    return Message(f"create bridge {name}", RTM_NEWLINK, _CREATE | _EXCLUSIVE, body)


def create_veth(name: str, group: int, master: int, peer: str, peer_mac: str, peer_netns: int) -> Message:
    """A veth pair: ``name`` here on the bridge ``master``, ``peer`` straight in the namespace of the open file."""
    # One queue: the kernel gives a veth one a core, each with memory of its own.
    queues = _u32(_IFLA_NUM_TX_QUEUES, 1) + _u32(_IFLA_NUM_RX_QUEUES, 1)
    inside = (
        _link_header()
        + _text(_IFLA_IFNAME, peer)
        + _attribute(_IFLA_ADDRESS, _mac_bytes(peer_mac))
        + _u32(_IFLA_NET_NS_FD, peer_netns)
        + queues
    )
    body = (
        _link_header()
        + _text(_IFLA_IFNAME, name)
        + _u32(_IFLA_GROUP, group)
        + _u32(_IFLA_MASTER, master)
        + queues
        + _nested(_IFLA_LINKINFO, _text(_INFO_KIND, "veth") + _nested(_INFO_DATA, _nested(_VETH_PEER, inside)))
    )
    return Message(f"create veth {name}", RTM_NEWLINK, _CREATE | _EXCLUSIVE, body)


def change_link(
    link: str | int,
    *,
    up: bool | None = None,
    master: int | None = None,
    group: int | None = None,
    alias: str | None = None,
    no_link_local: bool = False,
    port: PortFlags | None = None,
) -> Message:
    """Change what is given of a link. ``port`` needs a link that is on a bridge already.

    ``no_link_local``: IPv6 makes no address of its own; takes effect when the link comes up later.
    """
    body = _link_header(
        index=link if isinstance(link, int) else 0, flags=IFF_UP if up else 0, change=IFF_UP if up is not None else 0
    )
    if isinstance(link, str):
        body += _text(_IFLA_IFNAME, link)
    if master is not None:
        body += _u32(_IFLA_MASTER, master)
    if group is not None:
        body += _u32(_IFLA_GROUP, group)
    if alias is not None:
        body += _attribute(_IFLA_IFALIAS, alias.encode())
    if no_link_local:
        body += _nested(_IFLA_AF_SPEC, _nested(socket.AF_INET6, _u8(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)))
    if port is not None:
        data = (
            _u8(_PORT_LEARNING, port.learning)
            + _u8(_PORT_UNICAST_FLOOD, port.floods)
            + _u8(_PORT_MCAST_FLOOD, port.floods)
            + _u8(_PORT_BCAST_FLOOD, port.floods)
            + _u8(_PORT_ISOLATED, port.isolated)
            + _u8(_PORT_LOCKED, port.locked)
        )
        body += _nested(_IFLA_LINKINFO, _text(_INFO_SLAVE_KIND, "bridge") + _nested(_INFO_SLAVE_DATA, data))
    return Message(f"change link {link}", RTM_NEWLINK, 0, body)


def delete_link(name: str) -> Message:
    return Message(f"delete link {name}", RTM_DELLINK, 0, _link_header() + _text(_IFLA_IFNAME, name))


def delete_links(group: int) -> Message:
    """Delete every link of ``group`` at once: they share one wait of the kernel (16 ms), however many."""
    return Message(f"delete links of group {group}", RTM_DELLINK, 0, _link_header() + _u32(_IFLA_GROUP, group))


def add_address(index: int, address: Address, prefix: int) -> Message:
    """Give ``index`` an address, usable at once (no duplicate detection)."""
    raw = address.packed
    body = (
        _ADDRESS.pack(_family(address), prefix, _IFA_F_PERMANENT | _IFA_F_NODAD, _SCOPE_UNIVERSE, index)
        + _attribute(_IFA_LOCAL, raw)
        + _attribute(_IFA_ADDRESS, raw)
        + _u32(_IFA_FLAGS, _IFA_F_PERMANENT | _IFA_F_NODAD)
    )
    return Message(f"add address {address}/{prefix}", RTM_NEWADDR, _CREATE | _REPLACE, body)


def delete_address(index: int, address: Address, prefix: int) -> Message:
    body = _ADDRESS.pack(_family(address), prefix, 0, 0, index) + _attribute(_IFA_LOCAL, address.packed)
    return Message(f"delete address {address}/{prefix}", RTM_DELADDR, 0, body)


def add_route(index: int, to: Network, *, via: Address | None = None, source: Address | None = None) -> Message:
    """A route out of ``index``: through the gateway ``via``, or straight."""
    scope = _SCOPE_UNIVERSE if via else _SCOPE_LINK
    body = _route_body(to, RTN_UNICAST, scope) + _u32(_RTA_OIF, index)
    if via:
        body += _attribute(_RTA_GATEWAY, via.packed)
    if source:
        body += _attribute(_RTA_PREFSRC, source.packed)
    return Message(f"add route {to}", RTM_NEWROUTE, _CREATE | _REPLACE, body)


def add_unreachable(to: Network) -> Message:
    """Answer "no route to host" for ``to`` where no better route stands; the lowest precedence there is."""
    body = _route_body(to, RTN_UNREACHABLE, _SCOPE_UNIVERSE) + _u32(_RTA_PRIORITY, 0xFFFF_FFFE)
    return Message(f"add route unreachable {to}", RTM_NEWROUTE, _CREATE | _REPLACE, body)


def delete_unreachable(to: Network) -> Message:
    body = _route_body(to, RTN_UNREACHABLE, _SCOPE_UNIVERSE) + _u32(_RTA_PRIORITY, 0xFFFF_FFFE)
    return Message(f"delete route unreachable {to}", RTM_DELROUTE, 0, body)


def set_neighbour(index: int, address: Address, mac: str) -> Message:
    """A permanent neighbour: never asked for, never forgotten, also not when a link loses its carrier."""
    body = _NEIGHBOUR.pack(_family(address), index, NUD_PERMANENT, 0, 0)
    body += _attribute(_NDA_DST, address.packed) + _attribute(_NDA_LLADDR, _mac_bytes(mac))
    return Message(f"set neighbour {address}", RTM_NEWNEIGH, _CREATE | _REPLACE, body)


def delete_neighbour(index: int, address: Address) -> Message:
    body = _NEIGHBOUR.pack(_family(address), index, 0, 0, 0) + _attribute(_NDA_DST, address.packed)
    return Message(f"delete neighbour {address}", RTM_DELNEIGH, 0, body)


def set_forwarding(port: int, mac: str) -> Message:
    """A static entry of the bridge's forwarding table: frames for ``mac`` go out of ``port``, and only there."""
    body = _NEIGHBOUR.pack(AF_BRIDGE, port, _NUD_NOARP, _NTF_MASTER, 0) + _attribute(_NDA_LLADDR, _mac_bytes(mac))
    return Message(f"set forwarding {mac}", RTM_NEWNEIGH, _CREATE | _REPLACE, body)


# Encoding


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | 0x8000, value)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, _U32.pack(value))


def _u8(kind: int, value: int | bool) -> bytes:
    return _attribute(kind, bytes((int(value),)))


def _link_header(*, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _LINK.pack(0, 0, index, flags, change)


def _route_body(to: Network, kind: int, scope: int) -> bytes:
    family = _family(to.network_address)
    body = _ROUTE.pack(family, to.prefixlen, 0, 0, _TABLE_MAIN, RTPROT_ALVEOLE, scope, kind, 0)
    return body + _attribute(_RTA_DST, to.network_address.packed) if to.prefixlen else body


def _family(address: Address) -> int:
    return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


# Decoding


def _failed(what: str, number: int, flags: int, body: bytes) -> OSError:
    text = ""
    if flags & _ACK_HAS_TEXT:
        # nlmsgerr: the error, then the header of the request and, unless capped, the request.
        inner = _U32.unpack_from(body, 4)[0]
        start = 4 + (16 if flags & _ACK_CAPPED else (inner + 3) & ~3)
        for kind, value in _attributes(body, start):
            if kind == 1:
                text = bytes(value).rstrip(b"\0").decode(errors="replace")
    return OSError(number, f"{what}: {os.strerror(number)}{f' ({text})' if text else ''}")


def _attributes(data: bytes, place: int) -> Iterator[tuple[int, bytes]]:
    end = len(data)
    while place + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, place)
        if size < 4:
            return
        yield kind & 0x3FFF, data[place + 4 : place + size]
        place += (size + 3) & ~3


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    name = mac = alias = kind = ""
    master = group = 0
    port = None
    # Without the generator, and skipping before slicing: forty attributes for each of a thousand links.
    place, end, unpack = 16, len(body), _ATTRIBUTE.unpack_from
    while place + 4 <= end:
        size, key = unpack(body, place)
        if key in _OF_LINK:
            value = body[place + 4 : place + size]
            if key == _IFLA_IFNAME:
                name = value[:-1].decode()
            elif key == _IFLA_ADDRESS:
                mac = value.hex(":")
            elif key == _IFLA_MASTER:
                master = _U32.unpack(value)[0]
            elif key == _IFLA_GROUP:
                group = _U32.unpack(value)[0]
            elif key == _IFLA_IFALIAS:
                alias = value.rstrip(b"\0").decode(errors="replace")
            else:
                for part, inner in _attributes(value, 0):
                    if part == _INFO_KIND:
                        kind = inner.rstrip(b"\0").decode()
                    elif part == _INFO_SLAVE_DATA:
                        port = _parse_port(inner)
        place += (size + 3) & ~3 or 4
    up, running = bool(flags & IFF_UP), bool(flags & _IFF_RUNNING)
    return Link(index, name, kind, up, running, mac, master, group, alias, port)


def _parse_port(data: bytes) -> PortFlags:
    found = {}
    place, end, unpack = 0, len(data), _ATTRIBUTE.unpack_from
    while place + 4 <= end:
        size, key = unpack(data, place)
        if key in _OF_PORT:
            found[key] = data[place + 4] != 0
        place += (size + 3) & ~3 or 4
    return PortFlags(
        isolated=found.get(_PORT_ISOLATED, False),
        learning=found.get(_PORT_LEARNING, True),
        floods=any(found.get(key, True) for key in (_PORT_UNICAST_FLOOD, _PORT_MCAST_FLOOD, _PORT_BCAST_FLOOD)),
        locked=found.get(_PORT_LOCKED, False),
    )


def _parse_neighbour(body: bytes) -> Neighbour:
    family, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    address: Address | None = None
    mac = ""
    place, end, unpack = 12, len(body), _ATTRIBUTE.unpack_from
    while place + 4 <= end:
        size, key = unpack(body, place)
        if key == _NDA_LLADDR:
            mac = body[place + 4 : place + size].hex(":")
        elif key == _NDA_DST and family != AF_BRIDGE:
            value = body[place + 4 : place + size]
            address = IPv4Address(value) if size == 8 else IPv6Address(value)
        place += (size + 3) & ~3 or 4
    return Neighbour(address, mac, bool(state & (NUD_PERMANENT | _NUD_NOARP)), index)


def _address_parser(index: int) -> Callable[[bytes], tuple[Address, int] | None]:
    def parse(body: bytes) -> tuple[Address, int] | None:
        _, prefix, _, _, where = _ADDRESS.unpack_from(body)
        found = dict(_attributes(body, 8))
        value = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))
        if where != index or value is None:
            return None
        return (IPv4Address(value) if len(value) == 4 else IPv6Address(value)), prefix

    return parse


def _parse_route(body: bytes) -> Network | None:
    family, prefix, _, _, _, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    value = dict(_attributes(body, 12)).get(_RTA_DST)
    if protocol != RTPROT_ALVEOLE or kind != RTN_UNREACHABLE or value is None:
        return None
    return IPv4Network((value, prefix)) if family == socket.AF_INET else IPv6Network((value, prefix))
