"""Routes: one symbolic link a name, whose text says where the name leads.

::

    R/edge/routes/blog.example.org -> "unix:/run/alveole/sockets/sabc….0/web.sock site=sabc… stamp=… sum=…"
    R/edge/routes/far.example.org  -> "node:/run/alveole/lines/paris/web site=… stamp=… sum=…"
    R/edge/routes/idle.example.org -> "asleep site=… stamp=… sum=…"
    R/edge/routes/soon.example.org -> "starting site=… stamp=… sum=…"
    R/edge/routes/past-1a2b.example -> "unix:… site=… https=1 past=1 stamp=… sum=…"
    R/edge/routes/@|my-app         -> "tcp:10.1.65.1:8000 site=… https=1 allow=10.0.0.0/8 stamp=… sum=…"

Tokens are separated by single spaces. The edge reads the link for every request; it refuses a text
it does not fully understand. ``stamp`` is the desired digest, ``sum`` (CRC-32) covers all before
it and the name, so that a text changed by hand is noticed.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import zlib
from collections.abc import Collection
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import msgspec

from alveole.actuators.edge_logs import make_log_directory
from alveole.actuators.linktable import LinkTable
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, InvalidInput, Temporary
from alveole.host import paths
from alveole.model.names import check_network
from alveole.model.resource import (
    PLATFORM,
    Action,
    Defect,
    Kind,
    NodeRouteSpec,
    Observation,
    Observed,
    Outcome,
    PanelSpec,
    ResourceId,
    RouteSpec,
    RouteTarget,
    Step,
)

#: What a link can hold: a page without its final NUL (symlink(2)), less one for the edge's buffer.
MAX_TEXT = 4000
#: NAME_MAX.
MAX_NAME = 255
#: What is no address: the edge answers by itself, or asks that the site be woken.
AT_REST = frozenset(set(RouteTarget) - {RouteTarget.WORKLOAD})

_UNIX = re.compile(r"unix:(?:/[A-Za-z0-9._-]+)+\Z")
_NODE = re.compile(r"node:(?:/[A-Za-z0-9._-]+)+\Z")
_TCP = re.compile(r"tcp:(\d{1,3}(?:\.\d{1,3}){3}):(\d{1,5})\Z")
_SITE = re.compile(r" site=(\S+) ")
_TOKEN = re.compile(r"[A-Za-z0-9:./_,-]*\Z")


class RouteText(msgspec.Struct, frozen=True):
    """What a link says. ``target``: ``unix:/path``, ``tcp:address:port``, ``node:/path``, or one of ``AT_REST``."""

    target: str
    site: str
    stamp: str
    https: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    past: bool = False
    """The edge asks control for every request whether its visitor may."""


def link_name(name: str) -> str:
    """File name of the route ``name`` (a domain, or ``@/prefix``)."""
    return name.replace("/", "|")


def route_name(file_name: str) -> str:
    """The inverse of :func:`link_name`."""
    return file_name.replace("|", "/")


def write_text(route: RouteText, name: str) -> str:
    """The text of the link for ``name``.

    Raises ``InvalidInput`` for what the grammar cannot hold, so that no value can add a token.
    """
    if route.target not in AT_REST and not any(each.match(route.target) for each in (_UNIX, _TCP, _NODE)):
        raise InvalidInput(f"{route.target!r} is not a target of a route")
    problems = [
        problem
        for field in ("allow", "deny")
        for network in getattr(route, field)
        for problem in check_network(network, f"access.{field}")
    ]
    if problems:
        raise InvalidInput(problems=problems)
    tokens = [route.target, f"site={route.site}"]
    if route.https:
        tokens.append("https=1")
    if route.past:
        tokens.append("past=1")
    tokens.extend(
        # In the one form the edge reads: it takes neither a bare address nor a dotted mask.
        f"{field}={','.join(str(ip_network(each, strict=False)) for each in getattr(route, field))}"
        for field in ("allow", "deny")
        if getattr(route, field)
    )
    tokens.append(f"stamp={route.stamp}")
    for token in tokens:
        if not _TOKEN.match(token.partition("=")[2] if "=" in token else token):
            raise InvalidInput(f"{token!r} cannot stand in a route")
    text = " ".join(tokens)
    text = f"{text} sum={_sum(text, name)}"
    if len(text) > MAX_TEXT:
        raise InvalidInput(
            f"the rules of {name} take {len(text)} characters; the limit is {MAX_TEXT}",
            field="access",
            hint="join networks into larger ones",
        )
    return text


def parse_text(text: str, name: str) -> tuple[RouteText, bool] | None:
    """What ``text`` says, and whether its sum fits; ``None`` when it is no text of ours."""
    body, found, checksum = text.rpartition(" sum=")
    if not found:
        return None
    words = body.split(" ")
    target = words[0]
    known: dict[str, str] = {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        known[key] = value
    if "site" not in known or "stamp" not in known:
        return None
    if known.keys() - {"site", "stamp", "https", "past", "allow", "deny"}:
        return None
    route = RouteText(
        target=target,
        site=known["site"],
        stamp=known["stamp"],
        https=known.get("https") == "1",
        allow=tuple(known["allow"].split(",")) if "allow" in known else (),
        deny=tuple(known["deny"].split(",")) if "deny" in known else (),
        past=known.get("past") == "1",
    )
    return route, checksum == _sum(body, name)


def _site_of(_name: str, text: str) -> str | None:
    found = _SITE.search(text)
    return found[1] if found else None


def _sum(body: str, name: str) -> str:
    return f"{zlib.crc32(f'{name} {body}'.encode('utf-8', 'surrogateescape')):08x}"


def text_for(settings: Settings, spec: RouteSpec | NodeRouteSpec | PanelSpec, digest: str, name: str) -> str:
    """The text of the link that makes ``spec`` real."""
    if isinstance(spec, PanelSpec):
        return write_text(RouteText(f"unix:{settings.panel_socket}", PLATFORM, digest, https=True), name)
    if isinstance(spec, NodeRouteSpec):
        target = f"node:{paths.lines(settings) / spec.node / 'web'}"
        return write_text(RouteText(target, spec.site, digest, spec.https_only), name)
    if spec.target in AT_REST:
        target = str(spec.target)
    elif spec.port is None:
        target = f"unix:{paths.web_socket(settings, spec.site, spec.slot)}"
    else:
        target = f"tcp:{settings.addressing().instance(spec.number, spec.slot).own4}:{spec.port}"
    access = spec.access
    route = RouteText(target, spec.site, digest, spec.https_only, access.allow, access.deny, spec.past is True)
    return write_text(route, name)


class RoutesActuator:
    """Actuator of :attr:`Kind.ROUTE` and :attr:`Kind.PANEL`, which is a route of the platform."""

    kinds = frozenset({Kind.ROUTE, Kind.PANEL})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._table = paths.routes(settings)
        self._links = LinkTable(self._table, _site_of)
        network = settings.addressing()
        self._first = int(network.network4.network_address)
        self._quarter = network.quarter

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        """Every link of ours (in ``scopes``); links of others are not ours to report or to delete."""
        found: list[Observed] = []
        try:
            for file_name, _site, text in self._links.read(scopes):
                name = route_name(file_name)
                parsed = parse_text(text, name)
                if parsed is None:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    since = os.lstat(f"{self._table}/{file_name}").st_mtime
                    found.append(self._observed(name, parsed[0], parsed[1], since))
        except FileNotFoundError:
            return Observation(())
        except OSError as error:
            return Observation((), tuple((kind, str(error)) for kind in sorted(self.kinds)))
        return Observation(tuple(found))

    def _observed(self, name: str, route: RouteText, intact: bool, since: float) -> Observed:
        defects = () if intact else (Defect("changed", f"the route of {name} was changed by hand"),)
        slot = self._slot(route.target)
        uses = (ResourceId(Kind.WORKLOAD, route.site, str(slot)),) if slot is not None else ()
        return Observed(
            ResourceId(Kind.PANEL if route.site == PLATFORM else Kind.ROUTE, route.site, name),
            route.stamp,
            intact,
            defects,
            uses,
            {"target": route.target, "since": since},
        )

    def _slot(self, target: str) -> int | None:
        """Which of a site's two instances ``target`` leads to."""
        if target.startswith("unix:"):
            return {"0": 0, "1": 1}.get(target.rpartition("/")[0].rpartition(".")[2])
        tcp = _TCP.match(target)
        if tcp:
            with contextlib.suppress(ValueError):
                slot = (int(IPv4Address(tcp.group(1))) - self._first) // self._quarter - 1
                return slot if slot in (0, 1) else None
        return None

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        begun = time.monotonic()
        try:
            if step.action is Action.DELETE:
                self._delete(step.id)
            elif not isinstance(step.spec, RouteSpec | NodeRouteSpec | PanelSpec):
                raise InvalidInput(f"{step.action} {step.id} needs its specification", field="step.spec")
            else:
                self._write(step.id, step.spec, step.digest)
        except InvalidInput as error:
            return Outcome(False, str(error), False, time.monotonic() - begun)
        except (OSError, AlveoleError) as error:
            return Outcome(False, str(error), True, time.monotonic() - begun)
        return Outcome(True, seconds=time.monotonic() - begun)

    def _write(self, route: ResourceId, spec: RouteSpec | NodeRouteSpec | PanelSpec, digest: str) -> None:
        text = text_for(self._settings, spec, digest, route.name)
        link = self._link(route.name)
        if isinstance(spec, RouteSpec) and spec.target is RouteTarget.STARTING:
            self._reserve(link, route.scope, text)
            return
        holder = self._holder(link, route.name)
        if holder not in (None, route.scope):
            raise Temporary(f"the name {route.name} still leads to the site {holder}")
        self._table.mkdir(parents=True, exist_ok=True)
        make_log_directory(paths.edge_log(self._settings, route.scope), self._settings)
        # Beside the table, not in it: a half-made link must never be a name.
        beside = self._table.with_name(f".route.{zlib.crc32(link.name.encode()):08x}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        os.symlink(text, beside)  # noqa: PTH211  Path would normalise the text
        try:
            with self._links.changing(link.name, route.scope):
                beside.replace(link)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def _reserve(self, link: Path, site: str, text: str) -> None:
        self._table.mkdir(parents=True, exist_ok=True)
        make_log_directory(paths.edge_log(self._settings, site), self._settings)
        with contextlib.suppress(FileExistsError), self._links.changing(link.name, site):
            os.symlink(text, link)  # noqa: PTH211  Path would normalise the text

    def _delete(self, route: ResourceId) -> None:
        link = self._link(route.name)
        # The name may belong to another site by now.
        if self._holder(link, route.name) == route.scope:
            with self._links.changing(link.name, None):
                link.unlink(missing_ok=True)

    def _link(self, name: str) -> Path:
        file_name = link_name(name)
        if len(file_name) > MAX_NAME or file_name in ("", ".", "..", f"*.{self._settings.domain}") or "\0" in file_name:
            raise InvalidInput(f"{name!r} cannot be the name of a route", hint=f"at most {MAX_NAME} characters")
        return self._table / file_name

    def _holder(self, link: Path, name: str) -> str | None:
        """The site whose route ``link`` is; ``None`` when it is no route of ours."""
        try:
            parsed = parse_text(os.readlink(link), name)  # noqa: PTH115  Path would normalise the text
        except OSError:
            return None
        return parsed[0].site if parsed else None

    def forget(self, site: str) -> None:
        """Remove the edge's logs of a site that is destroyed; its routes go one by one before.

        One that lives on another machine now is only not kept here any more: its names still lead through this edge.
        """
        if any(str(each.detail.get("target")).startswith("node:") for each in self.observe((site,)).found):
            return
        import shutil

        directory = paths.edge_log(self._settings, site)
        if directory.parent == self._settings.logs / "edge" and site:
            shutil.rmtree(directory, ignore_errors=True)
