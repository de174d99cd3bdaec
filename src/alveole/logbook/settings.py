"""Settings of log lines: three sections of the settings file (:mod:`alveole.config`)."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

import msgspec

from alveole.errors import Problem
from alveole.logbook.model import Source
from alveole.model.names import DOMAIN, check_network
from alveole.model.site import GIB, MIB

_SITE = re.compile(r"^s[a-z2-7]{12}\Z")


class Logbook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long lines are kept and how much room they may take; what of them is shown of people."""

    keep_seconds: Annotated[float, msgspec.Meta(ge=3600)] = 90 * 86_400.0
    """Older lines are removed."""
    destroyed_seconds: Annotated[float, msgspec.Meta(ge=0)] = 30 * 86_400.0
    """How long administrators find the lines of a site after it was destroyed."""
    site_bytes: Annotated[int, msgspec.Meta(ge=1 * MIB)] = 512 * MIB
    """Room of one site's older lines, packed; the oldest go first."""
    total_bytes: Annotated[int, msgspec.Meta(ge=16 * MIB)] = 8 * GIB
    """The same for all lines of all sites and of the platform together."""
    rotate_seconds: Annotated[float, msgspec.Meta(ge=600)] = 86_400.0
    """A file whose first line is older is closed and packed, however small it is."""
    host: bool = True
    """Whether the machine's own lines are gathered: the systemd journal, or the files of /var/log."""
    short_addresses: bool = True
    """Whether figures of visitors know addresses only as networks: /24 of IPv4, /48 of IPv6."""
    drop_queries: bool = True
    """Whether they leave out what stands after the question mark of an address."""


class SyslogOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines as RFC 5424 messages to a server of one's own."""

    server: str = ""
    """``tcp://HOST:PORT`` (RFC 6587, octets counted) or ``tls://HOST:PORT`` (RFC 5425); empty: none is sent."""
    sources: tuple[str, ...] = ("out", "error", "own", "host")
    """Which lines: out, access, error, in, own, host."""
    facility: Annotated[int, msgspec.Meta(ge=0, le=23)] = 16
    """16 is local0."""
    buffer_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024)] = 16 * MIB
    """What waits in memory while the server is away; beyond it the oldest are lost, and counted."""
    authority: str = ""
    """Who signs the server's certificate: a PEM file, or the PEM itself; empty: the machine's own authorities."""
    certificate: str = ""
    """The certificate with its key that is shown to the server: likewise; empty: none."""


class SyslogIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines that come by syslog over TCP and TLS."""

    tcp: str = ""
    """``ADDRESS:PORT`` where it is taken in unencrypted; empty: nowhere."""
    tls: str = ""
    """The same for TLS."""
    networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Whose connections are taken."""
    certificate: str = ""
    """Certificate with its key, for TLS: a PEM file, or the PEM itself."""
    authority: str = ""
    """Who signs the certificates of those who send: likewise; then only those are let in."""
    sites: dict[str, str] = {}
    """Which site (its id) the lines of a host belong to, by the host's name in it; others belong to none."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 64
    """Connections at a time; beyond it the address that has most of them loses the one that says least."""
    bytes_per_second: Annotated[int, msgspec.Meta(ge=1024)] = 1 * MIB
    """What is read from one connection in a second; its sender waits."""


class Syslog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both of them: what is set while Alvéole runs, and what the porter is told (:data:`places.WANTED`)."""

    syslog_out: SyslogOut = SyslogOut()
    syslog_in: SyslogIn = SyslogIn()

    @property
    def wanted(self) -> bool:
        """Whether there is anything to send or to take in: only then there is a process for it."""
        return bool(self.syslog_out.server or self.syslog_in.tcp or self.syslog_in.tls)


def is_pem(text: str) -> bool:
    """Whether this is a certificate itself, and no path."""
    return "-----BEGIN " in text


def split_server(text: str) -> tuple[bool, str, int]:
    """Whether TLS, host and port of ``tcp://HOST:PORT`` or ``tls://HOST:PORT``. Raises ``ValueError``."""
    found = re.match(r"^(tcp|tls)://(\[[0-9a-fA-F:.]{2,45}\]|[a-zA-Z0-9.-]{1,253}):(\d{1,5})\Z", text)
    if found is None or not 0 < int(found[3]) < 65_536:
        raise ValueError(f"{text[:80]!r} is not tcp://HOST:PORT nor tls://HOST:PORT")
    host = found[2].strip("[]")
    if ":" in host:
        ip_address(host)
    elif not re.match(DOMAIN, host) and not re.match(r"^\d{1,3}(?:\.\d{1,3}){3}\Z", host):
        raise ValueError(f"{host[:80]!r} is not a host")
    return found[1] == "tls", host, int(found[3])


def split_listener(text: str) -> tuple[str, int]:
    """Address and port of ``ADDRESS:PORT``. Raises ``ValueError``."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text[:80]!r} is not ADDRESS:PORT")
    ip_address(host)
    return host, int(port)


def check_logbook(kept: Logbook, out: SyslogOut, taken: SyslogIn) -> list[Problem]:
    """All that is wrong with them."""
    problems = []
    if kept.total_bytes < kept.site_bytes:
        problems.append(Problem("logbook.total_bytes", "is less than logbook.site_bytes"))
    return problems + check_syslog(out, taken)


def check_syslog(out: SyslogOut, taken: SyslogIn) -> list[Problem]:
    """All that is wrong with the two."""
    problems = []

    def tried(field: str, check: object, value: str, hint: str = "") -> None:
        try:
            check(value)  # type: ignore[operator]  # one of the two above
        except ValueError as error:
            problems.append(Problem(field, str(error), hint))

    if out.server:
        tried("syslog_out.server", split_server, out.server)
    for place, source in enumerate(out.sources):
        if source not in list(Source):
            problems.append(Problem(f"syslog_out.sources[{place}]", f"{source[:40]!r} is none of {', '.join(Source)}"))
    for name in ("tcp", "tls"):
        if value := getattr(taken, name):
            tried(f"syslog_in.{name}", split_listener, value, "like 127.0.0.1:6514")
    if taken.tls and not taken.certificate:
        problems.append(Problem("syslog_in.certificate", "is needed for TLS"))
    for section, each in (("syslog_out", out), ("syslog_in", taken)):
        for name in ("authority", "certificate"):
            value = getattr(each, name)
            if is_pem(value) and not value.isascii():
                problems.append(Problem(f"{section}.{name}", "is PEM with letters that are not ASCII"))
            elif value and not is_pem(value) and not re.match(r"^/[^\0\n]{1,1000}\Z", value):
                problems.append(Problem(f"{section}.{name}", "is neither PEM nor the absolute path of a PEM file"))
    for place, network in enumerate(taken.networks):
        problems.extend(check_network(network, f"syslog_in.networks[{place}]"))
    for host, site in taken.sites.items():
        if not _SITE.match(site):
            problems.append(
                Problem(
                    "syslog_in.sites", f"{site[:40]!r} of {host[:80]} is not the id of a site", "see: alveole site show"
                )
            )
    return problems
