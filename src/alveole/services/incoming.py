"""The incoming folder of an application: archives that come by SFTP, scp or rsync become versions, and so do tags that
are pushed to it by git (:mod:`alveole.ssh.pushed`).

The folder is a working copy like a site's, under the application's own lease, in a container of its own, so that what
protects the machine from who writes there is the same. When the last session has left in good order, each archive is
sent as a version that is called like its file; what a session that was cut has left stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, NotFound, Refused
from alveole.model.app import VERSION_NAME, App
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.printed import read_out
from alveole.remote.distant import Distant
from alveole.services.platform import PlatformVerbs
from alveole.services.versions import VersionVerbs
from alveole.services.visits import PUSH, Visiting, VisitVerbs, wanted

#: After the name of an application: the login that leads to its folder. No site can be called so.
INCOMING = ".incoming"
_KINDS = ("sftp", "scp", "rsync", PUSH)
_ARCHIVE = re.compile(r"(?i)\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz|tbz2|txz|zip)$")
_SIGNATURES = (".minisig", ".asc")
_SIGNATURE_MAX = 16 * 1024
#: Names and what programs complain of, in bytes.
_TOLD_MAX = 64 * 1024


class IncomingVerbs(VersionVerbs, PlatformVerbs, VisitVerbs):
    _told_of: dict[tuple[str, str], tuple[str, str]]
    """By application and file that could not be sent: when it came, and why; forgotten with the process."""

    def may_visit(self, caller: Actor, login: str) -> None:
        """Whether sessions of this login may go on. Raises ``NotFound``, ``Denied``."""
        if login.endswith(INCOMING):
            self._app(caller, Right.VERSION_SEND, login.removesuffix(INCOMING))
        else:
            self.show_site(caller, login)

    def owner_at(self, login: str) -> str:
        """Id of who owns what a login leads to; empty: nobody."""
        if login.endswith(INCOMING):
            app = self.apps.app(login.removesuffix(INCOMING))
            return app.owner if app is not None else ""
        stored = self.store.site(login)
        return stored.site.owner if stored is not None else ""

    def visit(
        self, caller: Actor, site: str, command: str | None, subsystem: str, *, tty: bool, place: str
    ) -> Visiting:
        if not site.endswith(INCOMING):
            return super().visit(caller, site, command, subsystem, tty=tty, place=place)
        app = self._app(caller, Right.VERSION_SEND, site.removesuffix(INCOMING))
        kind, argv = wanted(command, subsystem)
        if kind not in _KINDS:
            raise Refused(
                "an incoming folder takes files and pushes only", field="command", hint="sftp, scp, rsync or git push"
            )
        self._need_room()
        with self.store.write() as transaction:
            live = self.journal.begin(
                "ssh", caller, site=app, reason=f"{kind} from {place}"[:500], transaction=transaction
            )
        with self._visitors_lock:
            self._visitors[app.store] += 1
        return Visiting(self._in_folder(app, argv), app.store, live.id, kind)

    def over_work(self, caller: Actor, site: str, argv: tuple[str, ...]) -> protocol.Visit | Distant:
        if not site.endswith(INCOMING):
            return super().over_work(caller, site, argv)
        return self._in_folder(self._app(caller, Right.VERSION_SEND, site.removesuffix(INCOMING)), argv)

    def _in_folder(self, app: App, argv: tuple[str, ...]) -> protocol.Visit:
        return protocol.Visit(
            site=app.store,
            number=app.number,
            base=self.loop.learn_host_base(),
            release=None,
            generation=1,
            volumes=(),
            argv=argv,
            tty=False,
        )

    def visit_ended(
        self,
        caller: Actor,
        visiting: Visiting,
        ended: protocol.Visited | None,
        *,
        received: int | None = None,
        sent: int | None = None,
        problem: str = "",
    ) -> None:
        super().visit_ended(caller, visiting, ended, received=received, sent=sent, problem=problem)
        app = next((each for each in self.apps.apps.values() if each.store == visiting.site), None)
        if app is None or problem:
            return
        with self._visitors_lock:
            busy = visiting.site in self._visitors
        if not busy:
            self.take_incoming(caller, app)

    # --- what lies there ------------------------------------------------------------------------
    def take_incoming(self, caller: Actor, app: App) -> None:
        """Send every archive that lies in the folder; one that cannot be sent stays there, and the journal says why."""
        try:
            found_there = self._names_in(app)
        except AlveoleError as error:
            self._tell_incoming(caller, app, "", error)
            return
        names = tuple(found_there)
        for gone in [key for key in list(self._told_of) if key[0] == app.id and key[1] not in found_there]:
            self._told_of.pop(gone, None)
        for name in names:
            found = _ARCHIVE.search(name)
            if found is None:
                continue
            try:
                signature = next((name + each for each in _SIGNATURES if name + each in names), "")
                self._send_incoming(caller, app, name, version_of(app.name, name), signature)
                self._told_of.pop((app.id, name), None)
            except AlveoleError as error:
                # The next session that leaves finds it again: of the same file the same is told once.
                told = (found_there[name], str(error))
                if self._told_of.get((app.id, name)) != told:
                    self._told_of[app.id, name] = told
                    self._tell_incoming(caller, app, name, error)

    def _names_in(self, app: App) -> dict[str, str]:
        """Each file that lies there, with when it last changed: when it was written is for the sender to say."""
        argv = ("/usr/bin/find", ".", "-maxdepth", "1", "-type", "f", "-printf", "%C@ %f\\0")
        text = self._read_there(app, argv, most=_TOLD_MAX)
        lines = (each.decode("utf-8", "replace").partition(" ") for each in text.split(b"\0") if each)
        return {name: changed for changed, _, name in sorted(lines, key=lambda line: line[2])}

    def _send_incoming(self, caller: Actor, app: App, name: str, version: str, signature: str) -> None:
        if not re.match(VERSION_NAME, version):
            told = f"{version[:80]!r} is not a version"
            raise Refused(told, field="version", hint=f"call the file like {app.name}-2.6.tar.gz")
        signed = None
        if signature and app.signers:
            signed = self._read_there(app, _reads(signature), most=_SIGNATURE_MAX).decode("utf-8", "replace")
        upload = self.new_upload(caller)
        try:
            written = 0
            with Path(upload.path).open("wb") as file:

                def take(piece: bytes) -> None:
                    nonlocal written
                    written += len(piece)
                    self.check_upload(caller, upload.id, written)
                    file.write(piece)

                self._read_there(app, _reads(name), take=take)
            request = ask.SendVersion(version=version, upload=upload.id, note=f"by SFTP: {name}", signature=signed)
            self.send_version(caller, app.id, request)
        except BaseException:
            self.drop_upload(caller, upload.id)
            raise
        gone = tuple(f"./{each}" for each in (name, signature) if each)
        self._read_there(app, ("/bin/rm", "-f", "--", *gone), most=0)

    def _tell_incoming(self, caller: Actor, app: App, name: str, error: AlveoleError) -> None:
        # Nobody is there to be told any more.
        live = self.journal.begin("send-version", caller, site=app, reason=name[:200] or "incoming")
        self.journal.end(live, error.problems)

    def _read_there(
        self, app: App, argv: tuple[str, ...], *, most: int = 0, take: Callable[[bytes], None] | None = None
    ) -> bytes:
        """Run a program in the folder as the application's own user; what it printed, at most ``most`` bytes."""
        printed = read_out(self.agent.exec(self._in_folder(app, argv)), most=most, take=take)
        if printed.status != 0:
            raise NotFound(f"{argv[0]}: {printed.complaint[:300]}", field="incoming")
        return printed.text


def _reads(name: str) -> tuple[str, ...]:
    return ("/bin/cat", "--", f"./{name}")


def version_of(app: str, file: str) -> str:
    """``shop-2.6.tar.gz``, or ``2.6.tar.gz``, of the application ``shop``: ``2.6``."""
    plain = _ARCHIVE.sub("", file)
    return plain.removeprefix(f"{app}-").removeprefix(f"{app}_") or plain
