"""The rules around the sites, kept by libnftables in this process.

Two tables of our own, so that nothing of anybody else's is ever read or changed. Rules are
constant; instances and what of them is open to the outside are elements of sets and maps:

============ ======= ==============================================================
set or map   family  element
============ ======= ==============================================================
``from4``    bridge  interface . hardware address . IPv4 address it may send from
``from6``    bridge  the same for IPv6
``out4``     inet    own IPv4 address of an instance that may reach the internet
``out6``     inet    the same for IPv6
``publish4`` inet    protocol . port of the machine : IPv4 address . port of a site
``publish6`` inet    the same for IPv6
``open4``    inet    IPv4 address . protocol . port of a site that something of ``publish4`` leads to
``open6``    inet    the same for IPv6
``going4``   inet    what the kernel counts of ``out4``: connections now, by address
``coming4``  inet    the same of the addresses of ``open4``; ``…6`` of each for IPv6
``client4``  inet    the same by client and address of ``open4``: one client has an eighth of them at the most
============ ======= ==============================================================

All connections through the machine are in one table of the kernel, and a full one refuses them all. So nobody has more
than ``network.connections`` of them by one address: what is over is refused, and the others do not notice.

A published port takes the gateway's address for its client's (masquerade): a site whose plan has no way to the
internet has no route to a client either, and answers all the same. See ADR 23.

A chain without rules, ``seal``, carries in its comment the stamp given by control and a digest of
the rules as the kernel lists them, so that any change by another hand shows, and of their text, so that a later version
puts its own in their place.

Another table's ``drop`` cannot be overruled from here (nft(8)): where Docker sets the policy of
``FORWARD`` to drop, sites reach the internet only after a rule in its ``DOCKER-USER`` chain.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import struct
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from alveole import failpoints
from alveole.config import Settings
from alveole.errors import Temporary
from alveole.host import netlink
from alveole.host.rules import COUNTERS, render
from alveole.model.addressing import InstanceNet
from alveole.model.lent import Transport

#: (number, slot) → may it go out to the internet.
Instances = Mapping[tuple[int, int], bool]

# libnftables(3), nftables/libnftables.h
_OUTPUT_JSON = 1 << 4
_OUTPUT_NUMERIC = 0b1111 << 6
_NETLINK_NETFILTER = 12
_GET_GENERATION = 10 << 8 | 16


#: IANA's protocol numbers, which is what the kernel lists.
_PROTOCOLS = {Transport.TCP: 6, Transport.UDP: 17}
_OPENINGS = ("inet publish4", "inet publish6", "inet open4", "inet open6")


class Opening(msgspec.Struct, frozen=True, order=True):
    """A port of the machine, ``outer``, that leads to the port ``inner`` of one instance."""

    number: int
    slot: int
    outer: int
    inner: int
    protocol: Transport


class RulesRefused(Temporary):
    """The kernel or libnftables refused a command; the message is its first line."""

    code = "rules-refused"


class FirewallState(msgspec.Struct, frozen=True):
    """The tables as they are. ``stamp`` is empty when they were not finished."""

    stamp: str
    problems: tuple[str, ...]


class Firewall:
    """The two tables of one instance of Alvéole. Thread-safe.

    Belongs to the network namespace of the thread that first uses it. Every method that changes
    something is one transaction, safe to repeat, and raises :class:`RulesRefused`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.table = settings.network.table
        self.addressing = settings.addressing()
        self._nft: _Nft | None = None
        self._lock = threading.RLock()
        self._seen: tuple[tuple[object, ...], FirewallState | None] | None = None

    def admit(self, net: InstanceNet, internet: bool) -> None:
        """Let the instance's frames pass: from its own addresses only; and out where ``internet``."""
        out = self._elements_out(net)
        commands = self._add(self._elements_from(net)) + self._add(out)
        if not internet:
            commands += self._delete(out)
        self._run(commands)

    def withdraw(self, net: InstanceNet) -> None:
        """The opposite of ``admit``. Nothing to do when the tables are gone."""
        elements = self._elements_from(net) + self._elements_out(net)
        # Deleting what is absent is an error in nftables 1.0.6; adding what is present is none.
        try:
            self._run(self._add(elements) + self._delete(elements))
        except RulesRefused:
            if self._sealed() is not None:
                raise

    def publish(self, openings: Callable[[], Collection[Opening]]) -> None:
        """Let just these ports of the machine lead into sites: one transaction, and nothing else is touched.

        ``openings`` is asked when no other change can come in between.
        """
        with self._lock:
            if self._sealed() is None:
                return  # the tables are about to be made anew, with all of them
            wanted = set(self._elements_open(openings()))
            there = {each for each in self._list()[1] if each[0] in _OPENINGS}
            # What leaves before what comes: a port that changes hands has one element.
            self._run(self._delete(sorted(there - wanted)) + self._add(sorted(wanted - there)))

    def ensure(self, instances: Instances, stamp: str = "") -> bool:
        """Make the tables, or put them right when anything differs; gives whether anything did."""
        with self._lock:
            state = self.observe(instances)
            if state and state.stamp == stamp and not state.problems:
                return False
            self.rebuild(instances, stamp)
            return True

    def rebuild(self, instances: Instances, stamp: str = "", openings: Collection[Opening] = ()) -> None:
        """Put both tables anew in one transaction, with the elements of these and nothing else."""
        elements: list[tuple[str, str]] = self._elements_open(openings)
        for (number, slot), internet in instances.items():
            net = self.addressing.instance(number, slot)
            elements += self._elements_from(net) + (self._elements_out(net) if internet else [])
        with self._lock:
            self._run(self._drop_tables() + render(self.settings) + self._add(elements))
            failpoints.hit("rules-unsealed")
            # Listed by the kernel, not taken from our text: only so can the two be compared later.
            rules, _ = self._list()
            self._run(f'add chain inet {self.table} seal {{ comment "{stamp or "-"} {self._digest(rules)}"; }}\n')

    def update(
        self,
        instances: Callable[[], Instances],
        stamp: str = "",
        openings: Callable[[], Collection[Opening]] = tuple,
    ) -> None:
        """``rebuild`` for what there is when no other change can come in between."""
        with self._lock:
            self.rebuild(instances(), stamp, openings())

    def remove(self) -> None:
        """Take both tables away."""
        self._run(self._drop_tables())

    def observe(
        self, required: Instances, tolerated: Instances | None = None, openings: Collection[Opening] = ()
    ) -> FirewallState | None:
        """The tables as they are, with every way in which they are not as they should be.

        ``required`` must have their elements; ``tolerated`` (default: the same) may; others must
        not. ``None`` when neither table is there. Costs nothing while nobody changed any rule of
        the machine: the kernel counts changes.
        """
        tolerated = {**required, **(tolerated or {})}
        with self._lock:
            generation = self._library().generation()
            asked = (generation, dict(required), tolerated, frozenset(openings))
            if self._seen and self._seen[0] == asked:
                return self._seen[1]
            state = self._look(required, tolerated, openings)
            self._seen = (asked, state)
            return state

    def _look(self, required: Instances, tolerated: Instances, openings: Collection[Opening]) -> FirewallState | None:
        stamp, digest = self._sealed() or ("", "")
        try:
            rules, elements = self._list()
        except RulesRefused:
            if self._absent():
                return None
            return FirewallState(stamp, ("one of the two tables is gone",))
        problems = []
        if self._digest(rules) != digest:
            problems.append("rules were changed" if digest else "the rules were not finished")
        wanted: dict[tuple[str, str], str] = {}
        for (number, slot), internet in required.items():
            net = self.addressing.instance(number, slot)
            for element in self._elements_from(net) + (self._elements_out(net) if internet else []):
                wanted[element] = net.interface
        missing = sorted({name for element, name in wanted.items() if element not in elements})
        if missing:
            problems.append(f"rules of {_some(missing)} are missing")
        opened = set(self._elements_open(openings))
        if lost := opened - elements:
            problems.append(f"published ports are not open: {_some(sorted(e[1] for e in lost))}")
        elements -= opened
        for (number, slot), internet in tolerated.items():
            net = self.addressing.instance(number, slot)
            elements.difference_update(self._elements_from(net))
            if internet:
                elements.difference_update(self._elements_out(net))
        if elements:
            problems.append(f"{len(elements)} elements belong to no instance: {_some(sorted(e[1] for e in elements))}")
        return FirewallState("" if stamp == "-" else stamp, tuple(problems))

    def _absent(self) -> bool:
        tables = self._read("list tables")
        ours = [each for each in tables if each.get("table", {}).get("name") == self.table]
        return not any(each["table"]["family"] in ("inet", "bridge") for each in ours)

    def _sealed(self) -> tuple[str, str] | None:
        """The stamp and the digest on the seal; ``None`` without one."""
        # As text: the JSON of nftables 1.0.6 leaves the comments of chains out.
        try:
            with self._lock:
                text = self._library().run(f"list chain inet {self.table} seal", 0)
        except RulesRefused:
            return None
        found = re.search(rb'comment "(\S+) (\S+)"', text)
        return (found[1].decode(), found[2].decode()) if found else None

    def _list(self) -> tuple[list[dict[str, Any]], set[tuple[str, str]]]:
        """The rules of both tables in a form that does not change by itself, and the elements of the sets."""
        rules = []
        elements: set[tuple[str, str]] = set()
        for family in ("inet", "bridge"):
            for each in self._read(f"list table {family} {self.table}"):
                kind, value = next(iter(each.items()))
                if kind == "metainfo" or value.get("name") == "seal":
                    continue
                value.pop("handle", None)
                if kind in ("set", "map"):
                    name = f"{family} {value['name']}"
                    found = value.pop("elem", ())
                    # Of a set of the kernel's own making only what it is, never what it counts.
                    for element in () if value["name"] in COUNTERS else found:
                        sides = element if kind == "map" else [element]
                        elements.add((name, " : ".join(map(_words, sides))))
                rules.append(each)
        return rules, elements

    def _digest(self, rules: list[dict[str, Any]]) -> str:
        """Of the rules as the kernel lists them and of what they were made from: another version, or other settings,
        want others."""
        return hashlib.sha256(msgspec.json.encode(rules) + render(self.settings).encode()).hexdigest()[:32]

    def _elements_from(self, net: InstanceNet) -> list[tuple[str, str]]:
        start = f"{net.interface} {net.mac}"
        return [
            ("bridge from4", f"{start} {net.own4}"),
            ("bridge from4", f"{start} {net.life4}"),
            ("bridge from6", f"{start} {net.own6}"),
            ("bridge from6", f"{start} {net.life6}"),
        ]

    def _elements_out(self, net: InstanceNet) -> list[tuple[str, str]]:
        # Not the address for life: both slots have it, and one going away must not close the other's way.
        return [("inet out4", str(net.own4)), ("inet out6", str(net.own6))]

    def _elements_open(self, openings: Iterable[Opening]) -> list[tuple[str, str]]:
        found: dict[tuple[str, str], str] = {}
        for each in sorted(openings):
            # TCP by the address for life: the edge speaks to the other one, and its connections stay untracked. UDP
            # by the instance's own: that is what a datagram is answered from.
            net = self.addressing.instance(each.number, each.slot)
            tcp = each.protocol is Transport.TCP
            number = _PROTOCOLS[each.protocol]
            for version, address in (("4", net.life4 if tcp else net.own4), ("6", net.life6 if tcp else net.own6)):
                key = (f"inet publish{version}", f"{number} {each.outer}")
                if key not in found:
                    found[key] = f"{key[1]} : {address} {each.inner}"
                    found[f"inet open{version}", f"{address} {number} {each.inner}"] = (
                        f"{address} {number} {each.inner}"
                    )
        return [(name, text) for (name, _key), text in found.items()]

    def _add(self, elements: Iterable[tuple[str, str]]) -> str:
        return self._change("add", elements)

    def _delete(self, elements: Iterable[tuple[str, str]]) -> str:
        return self._change("delete", elements)

    def _change(self, verb: str, elements: Iterable[tuple[str, str]]) -> str:
        by_set: dict[str, list[str]] = {}
        for name, element in elements:
            if name.startswith("bridge "):
                interface, _, element = element.partition(" ")
                element = f'"{interface}" {element}'
            by_set.setdefault(name, []).append(" : ".join(side.replace(" ", " . ") for side in element.split(" : ")))
        return "".join(
            f"{verb} element {family} {self.table} {name} {{ {', '.join(values)} }}\n"
            for key, values in by_set.items()
            for family, name in (key.split(" "),)
        )

    def _drop_tables(self) -> str:
        return "".join(
            f"add table {family} {self.table}\ndelete table {family} {self.table}\n" for family in ("inet", "bridge")
        )

    def _library(self) -> _Nft:
        if self._nft is None:
            self._nft = _Nft()
        return self._nft

    def _run(self, commands: str) -> None:
        with self._lock:
            self._library().run(commands, 0)

    def _read(self, command: str) -> list[dict[str, Any]]:
        with self._lock:
            text = self._library().run(command, _OUTPUT_JSON | _OUTPUT_NUMERIC)
        found: list[dict[str, Any]] = msgspec.json.decode(text)["nftables"]
        return found


class _Nft:
    """libnftables.so.1: commands as text, in this process. Not thread-safe."""

    def __init__(self) -> None:
        try:
            self._library = library = ctypes.CDLL("libnftables.so.1")
        except OSError:
            raise RulesRefused("libnftables.so.1 is not installed", hint="apt-get install libnftables1") from None
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_ctx_output_set_flags.restype = None
        for name in ("output", "error"):
            buffer = getattr(library, f"nft_ctx_buffer_{name}")
            buffer.argtypes = [ctypes.c_void_p]
            get = getattr(library, f"nft_ctx_get_{name}_buffer")
            get.argtypes = [ctypes.c_void_p]
            get.restype = ctypes.c_char_p
        self._context = library.nft_ctx_new(0)
        if not self._context or library.nft_ctx_buffer_output(self._context):
            raise RulesRefused("libnftables gives no context")
        library.nft_ctx_buffer_error(self._context)
        self._netlink = netlink.Socket(_NETLINK_NETFILTER)

    def run(self, commands: str, flags: int) -> bytes:
        """One transaction; gives what it printed."""
        self._library.nft_ctx_output_set_flags(self._context, flags)
        status = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if status:
            lines = error.decode(errors="replace").splitlines() or ["no reason given"]
            raise RulesRefused(f"nftables: {lines[0]}", hint=lines[1] if len(lines) > 1 else "")
        return output

    def generation(self) -> int:
        """The kernel's count of changes to the rules of this network namespace, by anybody."""
        message = netlink.Message("get generation", _GET_GENERATION, 0, b"\0\0\0\0")
        # nfgenmsg, then NFTA_GEN_ID (1), big-endian (linux/netfilter/nf_tables.h).
        found = self._netlink.dump(message, lambda body: int(struct.unpack_from(">I", body, 8)[0]))
        return found[0]


def _words(value: object) -> str:
    parts = value["concat"] if isinstance(value, dict) and "concat" in value else [value]
    return " ".join(map(str, parts))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
