"""Authorities, which certificates are wanted of them, what their budgets allow, and when to renew. Pure, but for the
list of public suffixes.

Budgets are those that Let's Encrypt publishes (https://letsencrypt.org/docs/rate-limits/, read 2026-11) unless an
authority is given others: what is counted here before asking is never refused there.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from alveole.dns.rfc2136 import Key, Updates
from alveole.errors import Problem, Refused
from alveole.issuing.suffixes import registered
from alveole.model.names import SITE_NAME, Port

WEEK = 7 * 86_400.0
HOUR = 3600.0
#: Seconds until something that failed is tried again: at first this long, doubled each time up to the second figure.
DELAYS = (300.0, 86_400.0)
#: Certificates with fewer days are warned of, and again at each of the later figures.
WARN_DAYS = (21, 7, 1)
#: No public authority has these to give: RFC 6761, RFC 8375, RFC 9476 and what has long been used likewise.
_INSIDE = frozenset({"localhost", "test", "invalid", "example", "local", "internal", "lan", "home", "corp", "alt"})
_INSIDE_BELOW = ("home.arpa", "example.com", "example.net", "example.org")


class OverBudget(Refused):
    """An authority's budget is used up; ``free_at``: when some of it is free again."""

    def __init__(self, message: str, free_at: float) -> None:
        super().__init__(message, field="authority", hint="alveole acme list shows what is spent")
        self.free_at = free_at


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """0: no limit."""

    domain_week: Annotated[int, msgspec.Meta(ge=0)] = 50
    """Certificates a week below one registered domain."""
    same_week: Annotated[int, msgspec.Meta(ge=0)] = 5
    """Certificates a week for exactly the same names."""
    failures_hour: Annotated[int, msgspec.Meta(ge=0)] = 5
    """Failed validations an hour of one name."""


class Authority(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who issues certificates, and what it knows this platform by."""

    name: str
    directory: str
    """Address of its directory."""
    email: str = ""
    """Where it writes when something is wrong."""
    eab_kid: str = ""
    """The account there that orders are bound to (external account binding), and its key, base64url."""
    eab_key: str = ""
    certificates: str = ""
    """The authorities to trust when it is asked (PEM); empty: the machine's."""
    private: bool = False
    """It is one's own: it also issues for names that nobody outside knows."""
    port: Port = 80
    """Where it comes to look over HTTP. RFC 8555 §8.3 knows only 80: another is for one's own."""
    challenge: str = ""
    """``http-01`` or ``dns-01``; empty: over HTTP where that can be, else by DNS."""
    seconds: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 180
    """How long it may take to look and to sign, before the order is gone on with later."""
    budget: Budget = Budget()
    account_key: str = ""
    """PEM; made when it is asked for the first time."""
    account: str = ""
    """Address of the account there."""

    def check(self) -> tuple[Problem, ...]:
        problems = []
        import re

        if not re.match(SITE_NAME, self.name):
            problems.append(Problem("name", f"{self.name[:60]!r} is no name", "lower case letters, digits and dashes"))
        try:
            parts = urlsplit(self.directory)
            good = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
        except ValueError:
            good = False
        if not good or not self.directory.isascii() or not self.directory.isprintable():
            problems.append(Problem("directory", f"{self.directory[:80]!r} is no address", "https://HOST/PATH"))
        if self.email and (self.email.count("@") != 1 or not self.email.isprintable() or " " in self.email):
            problems.append(Problem("email", f"{self.email[:80]!r} is no address of mail"))
        if bool(self.eab_kid) != bool(self.eab_key):
            problems.append(Problem("eab_key", "the key and its name belong together", "the authority gives both"))
        if self.challenge not in ("", "http-01", "dns-01"):
            problems.append(Problem("challenge", f"{self.challenge[:20]!r} is not http-01 or dns-01"))
        if self.certificates:
            try:
                ssl.create_default_context(cadata=self.certificates)
            except (ssl.SSLError, ValueError, TypeError) as error:
                problems.append(Problem("certificates", f"cannot be read: {error}", "give PEM text"))
        if self.port != 80 and not self.private:
            problems.append(Problem("port", "a public authority asks at port 80", "say private for one's own"))
        return tuple(problems)


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A zone that may be written to (RFC 2136), for challenges by DNS."""

    zone: str
    server: str
    port: Port = 53
    key: str = ""
    """Name of the TSIG key; empty: unsigned."""
    secret: str = ""
    algorithm: str = "hmac-sha256"
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=600)] = 5.0
    """How long its secondaries may take to have what was written."""

    def updates(self) -> Updates:
        """Raises ``InvalidInput``."""
        key = Key(self.key, self.secret, self.algorithm) if self.key else None
        return Updates(self.server, self.port, self.zone, key)

    def holds(self, name: str) -> bool:
        return name == self.zone or name.endswith(f".{self.zone}")


class OwnZone(Zone, frozen=True, forbid_unknown_fields=True):
    """The zone that the names of sites are published in. It is not stored here, and goes when names are published no
    more."""

    secondaries: tuple[str, ...] = ()
    """Those of the server on this machine, as ``ADDRESS`` or ``ADDRESS:PORT``: asked whether they have it by now."""


class AcmeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stored while running; see ``alveole acme``. Without an authority nothing is asked of anybody."""

    authorities: tuple[Authority, ...] = ()
    """Asked in this order."""
    automatic: bool = True
    """Every name that can have one gets a certificate; else only those that somebody asks for."""
    look: bool = True
    """Whether a name is asked for over HTTP before an authority is; off where this machine cannot reach itself."""
    zones: tuple[Zone, ...] = ()

    def zone_of(self, name: str) -> Zone | None:
        found = [each for each in self.zones if each.holds(name.removeprefix("*."))]
        return max(found, key=lambda each: len(each.zone), default=None)


class Spent(msgspec.Struct, frozen=True):
    """``kind``: ``issued``, or ``failed`` for a validation."""

    at: float
    authority: str
    kind: str
    domain: str
    """The registered domain of what was issued; the very name of what failed."""
    names: str


class WantedCertificate(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    site: str = ""
    """Id; empty: the platform's."""

    @property
    def key(self) -> str:
        return " ".join(self.names)


def is_public(name: str) -> bool:
    """Whether a public authority could issue for it."""
    plain = name.removeprefix("*.")
    last = plain.rpartition(".")[2]
    below = any(plain == each or plain.endswith(f".{each}") for each in _INSIDE_BELOW)
    return "." in plain and last not in _INSIDE and not last.isdigit() and not below


def may_issue(authority: Authority, names: Iterable[str]) -> bool:
    return authority.private or all(map(is_public, names))


def wanted(
    domain: str, panel: str, sites: Iterable[tuple[str, Sequence[str]]], settings: AcmeSettings
) -> tuple[WantedCertificate, ...]:
    """What there should be certificates for. ``sites``: ids with their names, each site's own name first.

    All names right below the main domain share a wildcard where a zone for it can be written to, which costs one of
    the budget; else, and elsewhere, each name has its own, so that one that leads astray holds up no other.
    """
    if not settings.automatic or not settings.authorities:
        return ()
    able = [each for each in settings.authorities if may_issue(each, (domain,))]
    by_dns = any(each.challenge != "http-01" for each in able)
    shared = by_dns and "." in domain and settings.zone_of(domain) is not None
    found = [WantedCertificate((domain, f"*.{domain}") if shared else (domain,))] if able else []
    every = [(site, name) for site, names in sites for name in names]
    for site, name in [("", panel), *every]:
        beside = shared and name.partition(".")[2] == domain
        if name and name != domain and not beside and any(may_issue(each, (name,)) for each in settings.authorities):
            found.append(WantedCertificate((name,), site))
    return tuple(found)


def challenge_of(authority: Authority, name: str, names: Collection[str], settings: AcmeSettings) -> str:
    """``http-01`` or ``dns-01`` for one of an order's ``names``; empty where there is no way to prove it.

    Beside a wildcard everything goes by DNS: the main domain itself need not lead anywhere.
    """
    wild = any(each.startswith("*.") for each in names)
    if wild and authority.challenge == "http-01":
        return ""
    if authority.challenge == "dns-01" or wild:
        return "dns-01" if settings.zone_of(name) is not None else ""
    return "http-01"


def check_budget(authority: Authority, names: Collection[str], spent: Iterable[Spent], now: float) -> None:
    """Raise :class:`OverBudget` where an order for ``names`` would be one too many."""
    budget = authority.budget
    own = [each for each in spent if each.authority == authority.name]
    problems: list[tuple[float, str]] = []

    def count(times: list[float], most: int, window: float, what: str) -> None:
        # What was counted while the clock was a day or more ahead is of no week that can be told.
        recent = sorted(at for at in times if -86_400.0 < now - at < window)
        if most and len(recent) >= most:
            problems.append((recent[-most] + window, f"{len(recent)} of {most} {what}"))

    issued = [each for each in own if each.kind == "issued"]
    for domain in sorted({registered(name) for name in names}):
        times = [each.at for each in issued if each.domain == domain]
        count(times, budget.domain_week, WEEK, f"certificates of this week for {domain} are used")
    same = " ".join(sorted(names))
    times = [each.at for each in issued if each.names == same]
    # Of one certificate with names of two domains there are two rows.
    count(list(dict.fromkeys(times)), budget.same_week, WEEK, "certificates of this week for these very names are used")
    for name in sorted({each.removeprefix("*.") for each in names}):
        times = [each.at for each in own if each.kind == "failed" and each.domain == name]
        count(times, budget.failures_hour, HOUR, f"failed validations of this hour for {name} are used")
    if problems:
        raise OverBudget("; ".join(text for _at, text in problems), max(at for at, _text in problems))


def delay(attempts: int) -> float:
    first, last = DELAYS
    return min(first * 2.0 ** min(max(attempts - 1, 0), 30), last)


def share(names: Iterable[str]) -> float:
    """A number in 0..1 that is always the same for these names: what is due at once is spread by it."""
    return int.from_bytes(hashlib.sha256(" ".join(names).encode()).digest()[:4]) / 2**32


def renew_at(issued: float, expires: float, names: Iterable[str]) -> float:
    """When to renew where the authority does not say: after two thirds of its life, spread over a twentieth of it."""
    life = expires - issued
    return issued + life * (2 / 3 - share(names) / 20)


def warning(issued: float, expires: float, warned: int, now: float) -> int:
    """The figure of :data:`WARN_DAYS` that is to be told of now; 0: none. ``warned``: the last that was.

    One that lives for a week only is not to be warned of all its life: not before a quarter of it is left.
    """
    if expires - now > (expires - issued) / 4:
        return 0
    left = (expires - now) / 86_400
    found = min((days for days in WARN_DAYS if left < days), default=0)
    return found if found and (warned == 0 or found < warned) else 0


def days_to_tell(issued: float, expires: float, now: float) -> float:
    """Days until a certificate ends, as a rule that tells of fewer than the first of :data:`WARN_DAYS` is to have them.

    One that lives for less than four times as long is stretched to that: it counts as ending soon when a quarter of its
    life is left, as in :func:`warning`, and not all its life.
    """
    least = 4 * WARN_DAYS[0]
    life = (expires - issued) / 86_400
    return (expires - now) / 86_400 * (least / life if 0 < life < least else 1.0)
