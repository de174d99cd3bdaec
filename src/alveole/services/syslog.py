"""The verbs about syslog: what is sent and taken in, set while Alvéole runs, and tried.

A section that nobody has set is the one of the settings file. What comes of both stands in a file for the porter
(:mod:`alveole.logbook.porter`), which control writes, and keeps as it should be; it is there only while there is
something to send or to take in.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from alveole import wholefile
from alveole.agent.protocol import Link
from alveole.errors import InvalidInput, NotFound, Problem
from alveole.logbook import places
from alveole.logbook.settings import Syslog, SyslogIn, SyslogOut, check_syslog, is_pem, split_listener, split_server
from alveole.masking import HIDDEN
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.requests import Body
from alveole.services.outside import OutsideVerbs, converted

log = logging.getLogger("alveole.syslog")
_SETTING = "syslog"
_TICK_SECONDS = 30.0
#: The porter says every two seconds how it goes; killed, it says nothing any more (seconds).
_SILENT_SECONDS = 30.0
_PATIENCE = 10.0
#: A server that does not want what it was sent closes the connection within about so long (seconds).
_SAYS_NO_SECONDS = 0.5
_SECTIONS: dict[str, type[SyslogOut] | type[SyslogIn]] = {"syslog_out": SyslogOut, "syslog_in": SyslogIn}


class SetSyslog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is set while Alvéole runs; ``null``: as the settings file says."""

    syslog_out: SyslogOut | None = None
    syslog_in: SyslogIn | None = None


class TrySyslog(Body, frozen=True, kw_only=True):
    settings: dict[str, Any] | None = None
    """Those of ``PUT /v1/syslog``; ``None``: what holds now."""


class SyslogView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How lines are sent and taken in. A key is shown as ``***``, and sites by their names."""

    syslog_out: SyslogOut
    syslog_in: SyslogIn
    set_here: tuple[str, ...]
    """The sections that were set while Alvéole runs; the others are those of the settings file."""
    forward: str = ""
    """How the sending goes; empty: none is set."""
    received: str = ""
    """How the taking in goes; empty: not set."""


class SyslogTrial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ok: bool
    links: tuple[Link, ...]


class SyslogVerbs(OutsideVerbs):
    _syslog_set: SetSyslog | None

    def syslog(self) -> Syslog:
        """What holds now, without lines for sites that are gone."""
        if self._syslog_set is None:
            self._syslog_set = self._setting(_SETTING, SetSyslog) or SetSyslog()
        kept = self._syslog_set
        taken = self.settings.syslog_in if kept.syslog_in is None else kept.syslog_in
        there = {host: id for host, id in taken.sites.items() if id in self.store.sites}
        return Syslog(
            syslog_out=self.settings.syslog_out if kept.syslog_out is None else kept.syslog_out,
            syslog_in=msgspec.structs.replace(taken, sites=there),
        )

    def show_syslog(self, caller: Actor) -> SyslogView:
        self._allow(caller, Right.SETTINGS_CHANGE)
        found = self.syslog()
        kept = self._syslog_set or SetSyslog()
        out, taken = found.syslog_out, found.syslog_in
        if is_pem(out.certificate):
            out = msgspec.structs.replace(out, certificate=HIDDEN)
        if is_pem(taken.certificate):
            taken = msgspec.structs.replace(taken, certificate=HIDDEN)
        named = {host: self.store.sites[id].site.name for host, id in found.syslog_in.sites.items()}
        return SyslogView(
            syslog_out=out,
            syslog_in=msgspec.structs.replace(taken, sites=named),
            set_here=tuple(name for name in _SECTIONS if getattr(kept, name) is not None),
            forward=self._porter_says("forward"),
            received=self._porter_says("received"),
        )

    def set_syslog(self, caller: Actor, raw: dict[str, Any]) -> SyslogView:
        """``syslog_out`` and ``syslog_in``, each whole; ``null``, or a section left out: as the settings file says.

        ``***`` for a certificate keeps the one that is there. It holds some seconds later, without a restart.
        """
        self._allow(caller, Right.SETTINGS_CHANGE)
        wanted = self._syslog_of(raw)
        self._put_syslog(wanted if wanted != SetSyslog() else None)
        now = self.syslog()
        doors = [each for each in (now.syslog_in.tcp, now.syslog_in.tls) if each]
        self._note(
            caller, "set-syslog", f"to {now.syslog_out.server or 'nowhere'}, from {', '.join(doors) or 'nobody'}"
        )
        return self.show_syslog(caller)

    def drop_syslog(self, caller: Actor) -> SyslogView:
        """What the settings file says holds again. ``NotFound`` when nothing else was set."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        if not self.show_syslog(caller).set_here:
            raise NotFound("nothing about syslog was set but in the settings file", field="syslog")
        self._put_syslog(None)
        self._note(caller, "drop-syslog", "")
        return self.show_syslog(caller)

    def _put_syslog(self, wanted: SetSyslog | None) -> None:
        self._put_setting(_SETTING, wanted)
        self._syslog_set = wanted or SetSyslog()
        with contextlib.suppress(OSError):
            self.tell_porter()

    def _syslog_of(self, raw: dict[str, Any]) -> SetSyslog:
        problems = [Problem(name, "is not a setting", ", ".join(_SECTIONS)) for name in raw if name not in _SECTIONS]
        made: dict[str, Any] = {}
        for name, kind in _SECTIONS.items():
            given = raw.get(name)
            if given is None:
                continue
            if not isinstance(given, dict):
                problems.append(Problem(name, "is not a table of settings"))
                continue
            given = dict(given)
            if given.get("certificate") == HIDDEN:
                given["certificate"] = getattr(self.syslog(), name).certificate
            if name == "syslog_in" and isinstance(given.get("sites"), dict):
                given["sites"] = {host: self._site_id(str(site)) for host, site in given["sites"].items()}
            try:
                made[name] = converted(given, kind)
            except InvalidInput as error:
                problems += [msgspec.structs.replace(each, field=f"{name}.{each.field}") for each in error.problems]
        found = SetSyslog(**made)
        problems += check_syslog(found.syslog_out or SyslogOut(), found.syslog_in or SyslogIn())
        for host, id in (found.syslog_in or SyslogIn()).sites.items():
            if places.is_site(id) and id not in self.store.sites:
                problems.append(Problem("syslog_in.sites", f"there is no site {id} for {host[:80]}"))
        if problems:
            raise InvalidInput(problems=problems)
        return found

    def _site_id(self, name: str) -> str:
        stored = self.store.site(name)
        return stored.site.id if stored is not None else name

    # --- the porter ---------------------------------------------------------------------------
    def _keep_syslog(self) -> None:
        self.ticker.add("syslog", _TICK_SECONDS, self._keep_telling, first=1.0)

    def _keep_telling(self) -> None:
        try:
            self.tell_porter()
        except OSError as error:
            # The agent makes the directory; on a full disk the porter goes on with what it was told.
            log.warning("the porter is not told what to do yet: %s", error)

    def tell_porter(self) -> None:
        """Write what it is to do, where that is not so yet. Raises ``OSError``."""
        wanted, file = self.syslog(), self.settings.logs / places.WANTED
        if not wanted.wanted:
            file.unlink(missing_ok=True)
            return
        text = msgspec.json.encode(wanted)
        with contextlib.suppress(OSError):
            if file.read_bytes() == text:
                return
        # The directory is set-group-id: control's group, which the porter is in, reads it and nobody else.
        wholefile.write(file, text, mode=0o640)

    def _porter_says(self, key: str) -> str:
        """What the process that sends and takes in says of itself; empty: it is not to do that."""
        now = self.syslog()
        wanted = now.syslog_out.server if key == "forward" else now.syslog_in.tcp or now.syslog_in.tls
        if not wanted:
            return ""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            file = self.settings.logs / places.STATE
            told = msgspec.json.decode(file.read_bytes())
            if said := str(told.get(key, ""))[:300]:
                old = time.time() - file.stat().st_mtime > _SILENT_SECONDS
                return f"it does not answer any more; before: {said}"[:300] if old else said
        return "it has not begun: see alveole serve"

    # --- trying -------------------------------------------------------------------------------
    def try_syslog(self, caller: Actor, raw: dict[str, Any] | None) -> SyslogTrial:
        """Reach the server and send it one message, see whether lines could be taken in; nothing is kept.

        With what is given, or with what holds now.
        """
        self._allow(caller, Right.SETTINGS_CHANGE)
        wanted = self.syslog()
        if raw is not None:
            made = self._syslog_of(raw)
            wanted = Syslog(made.syslog_out or self.settings.syslog_out, made.syslog_in or self.settings.syslog_in)
        links: list[Link] = []
        if wanted.syslog_out.server:
            links += _try_out(wanted.syslog_out)
        links += self._try_in(wanted.syslog_in)
        if not links:
            links.append(Link("syslog", True, "what is to be done", "nothing is sent and nothing taken in"))
        return SyslogTrial(ok=all(each.ok for each in links), links=tuple(links))

    def _try_in(self, taken: SyslogIn) -> list[Link]:
        links = []
        if taken.tls:
            links.append(_timed("certificate", "read it with its key", lambda: _read_certificate(taken)))
        now = self.syslog().syslog_in
        listens = self._porter_says("received").startswith("listening")
        for place in (taken.tcp, taken.tls):
            if place and place in (now.tcp, now.tls) and listens:
                links.append(Link(place, True, "listen there", "it is listened to already"))
            elif place:
                links.append(_timed(place, "listen there", partial(_bind, place), "choose another address or port"))
        return links


def _timed(name: str, asked: str, work: Callable[[], str], cure: str = "") -> Link:
    began = time.monotonic()
    try:
        ok, came = True, work()
    except (OSError, ValueError) as error:
        ok, came = False, str(error) or type(error).__name__
    return Link(name, ok, asked, came[:300], "" if ok else cure, (time.monotonic() - began) * 1000)


def _read_certificate(taken: SyslogIn) -> str:
    from alveole.logbook.tls import context_of

    try:
        context_of(server=True, authority=taken.authority, certificate=taken.certificate)
    except PermissionError as error:
        return f"only the porter may read {error.filename or 'the file'}"
    return "certificate and key belong together"


def _bind(place: str) -> str:
    import socket

    host, port = split_listener(place)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            probe.bind((host, 0))
            return "it is this machine's; a port below 1024 is given under systemd only"
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise OSError(f"{host} is no address of this machine") from None
            if error.errno == errno.EADDRINUSE:
                raise OSError(f"port {port} is taken") from None
            raise
    return "it is free"


def _try_out(out: SyslogOut) -> list[Link]:
    """Name, connection, TLS, one message: up to the first that fails."""
    import socket
    import ssl

    from alveole.logbook.model import Entry, Source
    from alveole.logbook.syslog import render
    from alveole.logbook.tls import context_of

    tls, host, port = split_server(out.server)
    links: list[Link] = []
    with contextlib.ExitStack() as stack:
        door: Any = None

        def reach() -> str:
            nonlocal door
            door = stack.enter_context(socket.create_connection((host, port), _PATIENCE))
            return f"{door.getpeername()[0]} answers"

        def secure() -> str:
            nonlocal door
            context = context_of(server=False, authority=out.authority, certificate=out.certificate)
            door = stack.enter_context(context.wrap_socket(door, server_hostname=host))
            until = ssl.cert_time_to_seconds(str(door.getpeercert().get("notAfter")))
            return f"{door.version()}, its certificate is good for {(until - time.time()) / 86_400:.0f} days"

        def say() -> str:
            entry = Entry("", Source.OWN, "a message to try the way to this server", "notice", of="try")
            door.sendall(render(entry, socket.gethostname(), out.facility))
            door.settimeout(_SAYS_NO_SECONDS)
            # A syslog server says nothing; one that does not want it closes, and TLS 1.3 says no only now.
            with contextlib.suppress(TimeoutError):
                if door.recv(1) == b"":
                    raise OSError("it closed the connection")
            return "it was sent, and the connection stays"

        steps: list[tuple[str, str, Callable[[], str], str]] = [
            ("connection", f"{host}, port {port}", reach, "is it running, and does a firewall let us through?"),
            ("tls", "encrypt it, and look at its certificate", secure, "does authority name who signed it?"),
            ("message", "send one", say, "does it take RFC 5424 with octets counted, and our certificate?"),
        ]
        for name, asked, work, cure in steps:
            if name == "tls" and not tls:
                continue
            links.append(_timed(name, asked, work, cure))
            if not links[-1].ok:
                break
    return links
