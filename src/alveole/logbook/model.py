"""What a log line, a question about lines and its answer are."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Source(StrEnum):
    OUT = "out"
    """What a site prints."""
    ACCESS = "access"
    """What was asked of it at the edge, and what it answered."""
    ERROR = "error"
    """Those of these that failed by the site or the way to it."""
    IN = "in"
    """What came for it by syslog."""
    OWN = "own"
    """Alvéole itself: agent, control, the doors, the proxy, and requests that belong to no site."""
    HOST = "host"
    """The machine: the systemd journal, or the files of /var/log."""


#: Of a site, and of none.
OF_SITES = (Source.OUT, Source.ACCESS, Source.ERROR, Source.IN)
OF_PLATFORM = (Source.OWN, Source.HOST)

#: RFC 5424, table 2: the words of syslog(3) by their number.
LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
LINES_MAX = 10_000
"""Most lines that one question gives."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``at`` is ISO 8601 in UTC (empty: unknown). ``text`` is one line that no terminal or page obeys."""

    at: str
    source: Source
    text: str
    level: str = ""
    """One of :data:`LEVELS`, when the line shows it; else it counts as ``info``."""
    site: str = ""
    """Its name; of one that is destroyed the name it had."""
    of: str = ""
    """The program or the part of Alvéole."""


class Wanted(msgspec.Struct, frozen=True):
    """``since`` and ``until``: seconds since the epoch. ``level``: this number or a graver one (smaller)."""

    since: float | None = None
    until: float | None = None
    level: int | None = None
    words: tuple[str, ...] = ()
    last: int = 500


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest lines that fit, oldest first."""

    lines: tuple[Entry, ...]
    complete: bool
    """Whether all of the time asked for was looked at, or as many lines found as were asked for."""
    reached: str = ""
    """Where the search stopped, when it is not complete: go on with this as ``until``."""
    read_bytes: int = 0
    seconds: float = 0.0


class SiteUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    site: str
    """Its name, or the id where no name is known any more."""
    bytes: int
    destroyed: bool = False


class LogUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes on the disk: of each site, of Alvéole itself, of the machine's lines; and the bounds of the settings."""

    bytes: int
    most_bytes: int
    site_most_bytes: int
    keep_seconds: float
    destroyed_seconds: float
    own_bytes: int
    host_bytes: int
    waiting_bytes: int
    """Lines of the proxy that the agent has still to hand out."""
    sites: tuple[SiteUse, ...] = ()
    forward: str = ""
    """How the sending to a syslog server goes; empty: none is set."""
    received: str = ""
    """How the taking in of syslog goes; empty: not set."""
