"""PURE. The names of sites as records of a zone: what an administrator sets, and what must be in the zone.

A name is published when it lies in the zone: the sites' own, their domains, the main domain and the pages. Nothing
here asks a server; :mod:`alveole.services.naming` does.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from alveole.agent.protocol import Link
from alveole.config import Settings
from alveole.dns.rfc2136 import ALGORITHMS, NAME, Key
from alveole.errors import Problem
from alveole.loop.compile import hosts, site_domain
from alveole.model.names import DOMAIN, split_resolver
from alveole.model.site import Site
from alveole.requests import Body
from alveole.views import View

#: The zone's own address records, of which a name has at most these.
_ADDRESSES = ("A", "AAAA")
#: As many as anybody has; each is written into every name.
ADDRESSES_MAX = 16
SECONDARIES_MAX = 8
KEY_NAME = "alveole"
TRANSFER_KEY_NAME = "alveole-transfer"
#: What our own name server is called below the zone; no site can be called so.
OWN_SERVER = "ns1"


class Secondary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another name server of the zone, which fetches it from ours and is told when it has changed."""

    address: str
    """``192.0.2.53``, ``192.0.2.53:5353`` or ``[2001:db8::53]:53``."""
    name: str = ""
    """Its name in the zone's NS records, in full; empty: it is not told to the world."""


class DnsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the names of sites are published. ``here``: BIND on this machine, which is set up for it."""

    mode: Literal["here", "elsewhere"] = "here"
    zone: str = ""
    """Empty: the main domain."""
    server: str = ""
    """The address of the primary server; of ``here`` it is a setting of the machine."""
    port: int = 53
    key: str = ""
    """Name of the TSIG key; empty, of a server elsewhere: it lets this machine in by its address."""
    algorithm: str = ALGORITHMS[0]
    secret: str = ""
    """In Base64."""
    addresses: tuple[str, ...] = ()
    """Public addresses of this machine, IPv4 and IPv6; none: those that are found when this is stored."""
    follow: bool = False
    """The addresses are those that are found, and change when the machine's do (DHCP, a new prefix)."""
    alias: str = ""
    """A full name that the sites' names are aliases of (CNAME) instead of having the addresses themselves."""
    ttl: int = 300
    """How many seconds a resolver may remember an answer."""
    wildcard: bool = False
    """Publish ``*.DOMAIN`` too: every name that has no record of its own leads here."""
    wildcards: tuple[str, ...] = ()
    """Sites, by name (stored by id), whose every name below their own leads here: ``*.NAME.DOMAIN``."""
    secondaries: tuple[Secondary, ...] = ()
    """Of ``here``: who may fetch the zone."""
    transfer_by_key: bool = False
    """Of ``here``: secondaries must sign with the transfer key; their address alone is not enough."""
    transfer_secret: str = ""

    def check(self) -> tuple[Problem, ...]:
        problems: list[Problem] = []

        def wrong(field: str, message: str, hint: str = "") -> None:
            problems.append(Problem(field, message, hint))

        if self.zone and not re.match(DOMAIN, self.zone):
            wrong("zone", f"{self.zone[:80]!r} is not a domain name", "write it like example.org")
        if self.mode == "elsewhere":
            if not _is_address(self.server):
                wrong("server", f"{self.server[:80]!r} is not an address", "write it like 192.0.2.53 or 2001:db8::53")
            if bool(self.key) != bool(self.secret):
                wrong("secret", "goes with the name of a key", "give both, or neither")
            if self.secondaries:
                wrong(
                    "secondaries",
                    "are settings of that server",
                    "say there who may fetch the zone, and leave them out here",
                )
        for field in ("secret", "transfer_secret"):
            try:
                base64.b64decode(getattr(self, field), validate=True)
            except ValueError:
                wrong(field, "is not base64", "as tsig-keygen writes it")
        if not 1 <= self.port <= 65_535:
            wrong("port", f"{self.port} is not a port")
        if self.key and not re.match(NAME, self.key):
            wrong("key", f"{self.key[:80]!r} is not the name of a key")
        if self.algorithm not in ALGORITHMS:
            wrong("algorithm", f"{self.algorithm[:40]!r} is not known", f"one of {', '.join(ALGORITHMS)}")
        if not 30 <= self.ttl <= 604_800:
            wrong("ttl", f"{self.ttl} is outside 30..604800", "300 is usual")
        if len(self.addresses) > ADDRESSES_MAX:
            wrong("addresses", f"are more than {ADDRESSES_MAX}")
        for text in self.addresses:
            if not _is_address(text) or ipaddress.ip_address(text).is_unspecified:
                wrong("addresses", f"{text[:80]!r} is not an address", "write it like 192.0.2.1 or 2001:db8::1")
        if self.alias and (not re.match(DOMAIN, self.alias) or "." not in self.alias):
            wrong("alias", f"{self.alias[:80]!r} is not a full domain name")
        if len(self.secondaries) > SECONDARIES_MAX:
            wrong("secondaries", f"are more than {SECONDARIES_MAX}")
        for each in self.secondaries:
            try:
                split_resolver(each.address)
            except ValueError as error:
                wrong("secondaries", str(error), "write ADDRESS or ADDRESS:PORT")
            if each.name and (not re.match(DOMAIN, each.name) or "." not in each.name):
                wrong("secondaries", f"{each.name[:80]!r} is not a full domain name")
        return tuple(problems)

    @property
    def tsig(self) -> Key | None:
        return Key(self.key, self.secret, self.algorithm) if self.key else None


class WantedName(msgspec.Struct, frozen=True):
    """All that Alvéole wants at one name. ``records``: values by kind. ``ours``: nobody else can have put it there."""

    name: str
    site_id: str
    ttl: int
    records: dict[str, tuple[str, ...]]
    ours: bool = False


class NameView(View, frozen=True, kw_only=True):
    """One published name. ``held``: somebody else's record is there, and stays."""

    name: str
    site: str
    records: tuple[str, ...]
    """As a zone file has them: ``A 192.0.2.1``."""
    state: Literal["waiting", "published", "theirs", "held"]
    problem: str = ""
    at: float | None = None
    """When it was published, or found to be so."""


class DnsView(View, frozen=True, kw_only=True):
    """The settings, their secrets hidden, and how the zone stands."""

    settings: DnsSettings
    zone: str
    server: str
    port: int
    addresses: tuple[str, ...]
    ok: bool
    problem: str
    """Why the server cannot be written to; empty: it can."""
    since: float | None
    """Since when."""
    next_at: float | None
    """When it is tried again."""
    serial: int | None
    names: tuple[NameView, ...]
    delegation: tuple[str, ...]
    """Of ``here``: what the keeper of the zone above must be told, as lines of a zone file."""


class DnsTrial(View, frozen=True, kw_only=True):
    """What was tried, step by step."""

    ok: bool
    links: tuple[Link, ...]


class DnsLeft(View, frozen=True, kw_only=True):
    """How taking everything away ended. ``left``: what stays in the zone, and why."""

    left: tuple[str, ...]


class TryDns(Body, frozen=True, kw_only=True):
    settings: dict[str, Any] | None = None
    """Those of ``PUT /v1/dns``; ``None``: those that are stored."""


class TransferKey(View, frozen=True, kw_only=True):
    """What a secondary signs with when it fetches the zone."""

    name: str
    algorithm: str
    secret: str


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    # No interface of this machine's: it means nothing to anybody else.
    return "%" not in text


def zone_of(dns: DnsSettings, settings: Settings) -> str:
    return dns.zone or settings.domain


def server_of(dns: DnsSettings, settings: Settings) -> tuple[str, int]:
    if dns.mode == "here":
        return settings.nameserver.address, settings.nameserver.port
    return dns.server, dns.port


def inside(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def own_servers(dns: DnsSettings, settings: Settings) -> dict[str, tuple[str, ...]]:
    """The names of the zone's servers and the addresses they are told with, where these lie in the zone (glue)."""
    if dns.mode != "here":
        return {}
    zone = zone_of(dns, settings)
    found = {f"{OWN_SERVER}.{zone}": dns.addresses}
    for each in dns.secondaries:
        if each.name:
            glue = (split_resolver(each.address)[0],) if inside(each.name, zone) else ()
            found[each.name] = (*found.get(each.name, ()), *glue)
    return found


def by_family(addresses: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """``A`` and ``AAAA``, each only where there are any."""
    parsed = sorted({ipaddress.ip_address(each) for each in addresses}, key=lambda each: (each.version, int(each)))
    both = {
        kind: tuple(str(each) for each in parsed if each.version == v)
        for kind, v in zip(_ADDRESSES, (4, 6), strict=True)
    }
    return {kind: values for kind, values in both.items() if values}


def followed(
    known: Iterable[str], found: Iterable[str], gone: dict[str, float], now: float, patience: float
) -> tuple[str, ...]:
    """The addresses to publish when ``known`` are published and the machine has ``found``.

    A family that is missing keeps its address: an interface may be down for a moment. Only when the other one has been
    there without it for ``patience`` seconds it goes. ``gone``: since when each is missing; kept from look to look.
    """
    before, seen = by_family(known), by_family(found)
    for kind in _ADDRESSES:
        if not seen or kind in seen:
            gone.pop(kind, None)
        elif kind in before and now - gone.setdefault(kind, now) >= patience:
            before.pop(kind)
            gone.pop(kind)
    return tuple(each for kind in _ADDRESSES for each in seen.get(kind, before.get(kind, ())))


def wanted(
    dns: DnsSettings, settings: Settings, sites: Iterable[Site], besides: Mapping[str, str] | None = None
) -> Mapping[str, WantedName]:
    """What must be in the zone, by name. The platform's own names come first: no site takes one of them.

    ``besides``: names that lead here and are of no site, and the id that each is written under.
    """
    zone = zone_of(dns, settings)
    here = by_family(dns.addresses)
    found: dict[str, WantedName] = {}

    def put(name: str, site_id: str, records: dict[str, tuple[str, ...]], *, ours: bool = False) -> None:
        fine = inside(name, zone) and re.match(NAME, name) is not None
        if fine and records and name not in found:
            found[name] = WantedName(name, site_id, dns.ttl, records, ours)

    def lead_here(name: str, site_id: str = "") -> None:
        # Beside a CNAME there is nothing else (RFC 1034 §3.6.2), and the top of a zone has SOA and NS.
        alias = dns.alias if dns.alias and name not in (dns.alias, zone) else ""
        put(name, site_id, {"CNAME": (f"{alias}.",)} if alias else here)

    for name, addresses in own_servers(dns, settings).items():
        put(name, "", by_family(addresses), ours=True)
    lead_here(settings.domain)
    if settings.panel_domain:
        lead_here(settings.panel_domain)
    if dns.wildcard:
        lead_here(f"*.{settings.domain}")
    for site in sites:
        for host in hosts(site, settings):
            lead_here(host, site.id)
        if site.id in dns.wildcards:
            lead_here(f"*.{site_domain(site.name, settings)}", site.id)
    for name, id in (besides or {}).items():
        lead_here(name, id)
    return found


def lines(records: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    return tuple(f"{kind} {value}" for kind in sorted(records) for value in records[kind])
