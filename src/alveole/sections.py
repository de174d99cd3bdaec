"""Sections of the settings that are whole in themselves. See :mod:`alveole.config`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.model.names import Port

User = Annotated[str, msgspec.Meta(pattern=r"^[a-z_][a-z0-9_-]{0,31}\Z")]


class Sleep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sites that sleep while nobody asks for them."""

    look_seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    """How often it is looked for sites that have been idle long enough."""
    least_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 60
    """The shortest idle time that a site may set."""
    parallel: Annotated[int, msgspec.Meta(ge=1, le=32)] = 4
    """Sites woken at once."""
    queue: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 64
    """Sites that may wait for their turn; requests for others are answered with 503 at once."""
    a_minute: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 120
    """Sites woken in a minute, beside the first ``queue`` of a burst: visits of a thousand sites do not start all."""
    wait_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 30.0
    """How long a request is held; then it is answered with 503."""
    waiting: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 2000
    """Requests that a worker of the edge holds at once."""
    waiting_site: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000
    """Of them, for one site."""


class Backups(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    repository: str = ""
    """A restic repository; empty: ``backups`` in the state directory."""
    by_itself: bool = True
    """Whether sites are saved each night and before they are destroyed, and backups proved; how: ``alveole backup
    policy``."""
    places: tuple[str, ...] = ("/var/backups", "/mnt", "/media", "/srv")
    """Directories below which a further repository may be: a disk, or a share that is mounted."""
    past_most: Annotated[int, msgspec.Meta(ge=0, le=100)] = 6
    """Past days that may be open at a time, of all sites: each runs like a site. 0: none."""
    past_each: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """Of them, of the sites of one person or team; sites that are nobody's own have only the limit of all."""


class Dns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where it is looked up whether a domain is its claimer's."""

    resolvers: tuple[str, ...] = ()
    """Name servers that are asked, as ADDRESS or ADDRESS:PORT; none: those of the machine."""
    seconds: Annotated[float, msgspec.Meta(gt=0, le=30)] = 5.0
    """How long they may take for one answer."""
    claim_seconds: Annotated[float, msgspec.Meta(ge=60)] = 7 * 86_400.0
    """A claim that was not proven ends after so long."""


class NameServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """BIND on this machine, for `alveole dns setup`; the values of Debian's package."""

    directory: str = "/etc/bind"
    """Where named.conf is, which includes named.conf.local; and rndc.key."""
    zones: str = "/var/lib/bind"
    """Where the zone and its journal are kept; the server writes there."""
    user: User = "bind"
    """Runs the server."""
    address: str = "127.0.0.1"
    """Where Alvéole asks it; it listens where its own configuration says."""
    port: Port = 53
    """Its port."""
    control_port: Port = 953
    """Where it takes the word of rndc."""


class Outgoing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What Alvéole itself asks of other machines because a person has said so."""

    check_hosts: tuple[str, ...] = ()
    """Hosts whose web services scenarios may call, beside the site's own names."""
    inside_hosts: tuple[str, ...] = ()
    """Hosts among these, and receivers of webhooks, that may have an address that is not public."""
    checks_parallel: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    """Sites that are watched by their scenarios at a time, one scenario each."""


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keep_seconds: Annotated[float, msgspec.Meta(ge=0)] = 400 * 86_400.0
    """How long a change that has ended stays in the journal; 0: for ever."""
    anchor_seconds: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """How often the agent is told the newest hash of the journal's chain, when there is a new one."""


class Incidents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    every_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10.0
    """How often the rules are asked."""
    keep_seconds: Annotated[float, msgspec.Meta(ge=86_400)] = 400 * 86_400.0
    """How long an incident that was closed is kept."""
