"""Ports and directories of the machine that a site is lent: what may be asked for, and what is taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import UNSET, UnsetType

from alveole import requests as ask
from alveole.config import Settings
from alveole.model.lent import HOST_PATH, Published, Shared, Transport
from alveole.model.names import check_mount_path
from alveole.model.site import Site
from alveole.requests.parts import PublishBody, ShareBody
from alveole.services.draft import Draft

_MOST = 32
#: Codes of /proc/net (include/net/tcp_states.h): a listener; a datagram socket that is connected to nobody.
_TABLES = (("tcp", Transport.TCP, "0A"), ("udp", Transport.UDP, "07"))


def listeners() -> set[tuple[Transport, int]]:
    """What programs of this machine listen at, whatever the address."""
    found = set()
    for name, transport, state in _TABLES:
        for family in ("", "6"):
            try:
                lines = Path(f"/proc/net/{name}{family}").read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                fields = line.split()
                if fields[3] == state:
                    found.add((transport, int(fields[1].rpartition(":")[2], 16)))
    return found


def own_ports(settings: Settings) -> set[int]:
    """Those that the settings give to Alvéole itself, whether it listens at this moment or not."""
    return {settings.edge.http_port, settings.edge.https_port, settings.api.port, settings.ssh.port}


def check_published(
    draft: Draft, wanted: Sequence[PublishBody], kept: tuple[Published, ...], others: Iterable[Site]
) -> tuple[Published, ...]:
    """``kept``: what the site has already; ``others``: every site, whose ports are its own as long as it is there."""
    field, settings = "published", draft.settings
    if len(wanted) > _MOST:
        draft.wrong(field, f"has {len(wanted)} entries; the limit is {_MOST}")
        return ()
    allowed = settings.sites.published()
    taken = {(each.protocol, each.host): site for site in others if site.id != draft.own for each in site.published}
    mine = {(each.protocol, each.host) for each in kept}
    busy = listeners() if wanted else set()
    found: list[Published] = []
    seen: set[tuple[Transport, int]] = set()
    for each in wanted:
        if each.protocol not in tuple(Transport):
            draft.wrong(field, f"{each.protocol[:20]!r} is no protocol of a port", "there is tcp and udp")
            continue
        if not 1 <= each.port <= 65_535:
            draft.wrong(field, f"{each.port} is outside 1..65535", "give the port that a program inside listens on")
            continue
        key = (Transport(each.protocol), each.host)
        if each.host not in allowed:
            hint = f"the settings allow {settings.sites.ports}" if allowed else "the settings allow none: [sites] ports"
            draft.wrong(field, f"{each.host} is not one of the ports that may lead into sites", hint)
        elif key in seen:
            draft.wrong(field, f"names {each.host}/{each.protocol} twice", "name each port of the machine once")
        elif each.host in own_ports(settings):
            draft.conflict(field, f"{each.host} is a port of Alvéole itself", "choose another")
        elif key in taken:
            draft.conflict(
                field, f"{each.host}/{each.protocol} leads to site {taken[key].name} already", "choose another"
            )
        elif key in busy and key not in mine:
            draft.conflict(field, f"a program of this machine listens at {each.host}/{each.protocol}", "choose another")
        else:
            found.append(Published(each.host, each.port, key[0]))
        seen.add(key)
    return tuple(sorted(found))


def check_shared(draft: Draft, wanted: Sequence[ShareBody], volumes: Iterable[str]) -> tuple[Shared, ...]:
    """By their text; the agent looks at what is there."""
    field, roots = "shared", draft.settings.sites.shared
    if len(wanted) > _MOST:
        draft.wrong(field, f"has {len(wanted)} entries; the limit is {_MOST}")
        return ()
    found: list[Shared] = []
    paths = set(volumes)
    for each in wanted:
        before = len(draft.problems)
        draft.problems.extend(check_mount_path(each.path, field))
        if not re.match(HOST_PATH, each.source) or len(each.source) > 1024:
            draft.wrong(field, f"{each.source[:80]!r} is not an absolute path", "write it like /srv/share/photos")
        elif not any(each.source == root or each.source.startswith(f"{root}/") for root in roots):
            hint = f"the settings allow {', '.join(roots)}" if roots else "the settings allow none: [sites] shared"
            draft.wrong(field, f"{each.source} is not below a directory that sites may see", hint)
        if each.path in paths:
            draft.wrong(field, f"use the path {each.path} twice", "give each directory and volume a path of its own")
        paths.add(each.path)
        if len(draft.problems) == before:
            found.append(Shared(each.source, each.path, each.writable))
    return tuple(sorted(found))


def asks_to_lend(request: ask.CreateSite | ask.SetSite) -> bool:
    """Whether it needs ``Right.MACHINE_LEND``: what gives a site anything of the machine, or takes it back."""
    given: tuple[object | UnsetType, ...] = (request.published, request.shared)
    return any(each is not UNSET and (isinstance(request, ask.SetSite) or each) for each in given)
