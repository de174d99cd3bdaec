"""Control's side of the SSH door: who somebody is, what they may, what is started for them.

One thread a connection, as in :mod:`alveole.agent.server`. A ticket stands for an SSH connection in which somebody
has proven who they are. It ends with that connection, and so does everything that was started with it; whether the
person may still come in, and still may what they do, is asked again for each session.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import re
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from alveole import requests as ask
from alveole.agent import protocol
from alveole.agent.protocol import Done, Failed, Kill, Said, Started
from alveole.agent.wire import Wire
from alveole.config import Settings
from alveole.errors import AlveoleError, Denied, NotFound, Problem, Refused, Temporary
from alveole.journal import PROGRESS
from alveole.model.app import VERSION_NAME
from alveole.model.change import Change, ChangeState
from alveole.model.site import Arrival
from alveole.people.model import Actor, Person
from alveole.ports import Program
from alveole.printed import read_out
from alveole.services import Services
from alveole.services.doors import Place
from alveole.services.visits import GIT, GIT_DIRECTORY
from alveole.ssh.words import Deploy, First, Hello, Key, Later, Moved, Open, Password, Proof, Standing

log = logging.getLogger("alveole.ssh")
_firsts: msgspec.json.Decoder[First] = msgspec.json.Decoder(First)
_proofs: msgspec.json.Decoder[Proof] = msgspec.json.Decoder(Proof)
_laters: msgspec.json.Decoder[Later] = msgspec.json.Decoder(Later)
#: The branch that is deployed; the second one where a repository has no first.
BRANCHES = ("main", "master")
_MARK = "refs/alveole/deployed"
#: Bytes of what git prints that are kept.
_PIECE = 1 << 20
#: How often a ticket is looked at again: somebody may have been shut out meanwhile.
_AGAIN_SECONDS = 10.0
#: How long the door may take to say how much it has moved.
_LAST_WORD_SECONDS = 5.0


class _Standing(msgspec.Struct):
    """One SSH connection."""

    site: str
    address: str
    named: str
    """The person that the login names; empty: whoever proves to be one."""
    person: Person | None = None
    proven: bool = False
    by: str = ""


class _Ticket(msgspec.Struct, frozen=True):
    person: str
    via: str
    site: str
    address: str
    sessions: set[Program]


class Porter:
    def __init__(self, services: Services, settings: Settings) -> None:
        self._services = services
        self._settings = settings
        self._tickets: dict[str, _Ticket] = {}
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._stopped = threading.Event()

    # Life

    def start(self) -> None:
        """Listen, in threads of its own. Nothing when the door is not open."""
        if not self._settings.ssh.enabled:
            return
        path = self._settings.door_socket
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(path))
        # Everybody may knock; SO_PEERCRED decides.
        path.chmod(0o666)
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), name="porter", daemon=True).start()
        threading.Thread(target=self._look_again, name="porter-again", daemon=True).start()

    def close(self) -> None:
        """Hang up everywhere: no session outlives control."""
        self._stopped.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for ticket in list(self._tickets):
            self._forget(ticket)

    def _serve(self, listener: socket.socket) -> None:
        allowed = {0, os.getuid()}
        while not self._stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._stopped.wait(0.2):
                    return
                continue
            with contextlib.suppress(KeyError):
                allowed.add(pwd.getpwnam(self._settings.users.ssh).pw_uid)
            data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            uid = struct.unpack("3i", data)[1] & 0xFFFFFFFF
            if uid not in allowed:
                log.warning("a caller with uid %d was turned away", uid)
                connection.close()
                continue
            threading.Thread(target=self._one, args=(Wire(connection),), daemon=True).start()

    def _look_again(self) -> None:
        while not self._stopped.wait(_AGAIN_SECONDS):
            for id, ticket in list(self._tickets.items()):
                person = self._services.people.persons.get(ticket.person)
                try:
                    if person is None or not person.active:
                        raise Denied("the account is closed")
                    self._services.may_visit(self._actor(ticket), ticket.site)
                except (Denied, NotFound):
                    self._forget(id)
                except AlveoleError:
                    continue

    def _one(self, wire: Wire) -> None:
        try:
            first = wire.receive(_firsts)
            if isinstance(first, Hello):
                self._known(wire, first)
            elif isinstance(first, Open):
                self._session(wire, first)
            elif isinstance(first, Deploy):
                self._deploy(wire, first)
        except AlveoleError as error:
            with contextlib.suppress(OSError):
                wire.send(Failed(error.code, error.problems))
        except (OSError, msgspec.ValidationError, msgspec.DecodeError) as error:
            log.info("the door went away: %s", error)
        except Exception as error:
            log.exception("a request of the door failed by a fault of ours")
            with contextlib.suppress(OSError):
                wire.send(Failed(Temporary.code, (Problem("", f"a fault of ours: {type(error).__name__}"),)))
        finally:
            wire.close()

    # Who it is

    def _known(self, wire: Wire, hello: Hello) -> None:
        named, _, site = hello.user.rpartition("+")
        standing = _Standing(site=site, address=hello.address, named=named.lower())
        ticket = ""
        try:
            while (proof := wire.receive(_proofs)) is not None:
                try:
                    answer = self._prove(standing, proof)
                except AlveoleError as error:
                    standing.person, standing.proven = None, False
                    answer = Standing(False, message=str(error))
                if standing.proven and standing.person is not None and not ticket:
                    ticket = secrets.token_urlsafe(24)
                    via = f"ssh:{secrets.token_hex(6)}"
                    with self._lock:
                        self._tickets[ticket] = _Ticket(standing.person.id, via, site, hello.address, set())
                    log.info("%s came in to %s from %s by %s", standing.person.name, site, hello.address, standing.by)
                wire.send(msgspec.structs.replace(answer, ticket=ticket if answer.good else ""))
        finally:
            if ticket:
                self._forget(ticket)

    def _prove(self, standing: _Standing, proof: Proof) -> Standing:
        if isinstance(proof, Key):
            person = self._services.person_of_key(proof.fingerprint)
            good = person is not None and standing.named in ("", person.name)
            if good and proof.proven and person is not None:
                # Whoever registered it had given the second factor: the key stands for both.
                standing.person, standing.proven, standing.by = person, True, f"key {proof.fingerprint}"
                self._services.note_key_use(proof.fingerprint)
            return Standing(good)
        if isinstance(proof, Password):
            standing.proven = False
            place = Place(standing.address, "ssh")
            person, standing.by = self._services.prove(self._name(standing), proof.password, place)
            standing.person = person
            needs = self._services.needs(person)
            if needs == "enrol":
                raise Refused("a second factor is required: set one up in the pages first, or use a key")
            standing.proven = not needs
            return Standing(True, needs=needs)
        if standing.person is None or standing.proven:
            raise Denied("the password comes first")
        self._services.prove_code(standing.person, proof.code)
        standing.proven = True
        return Standing(True)

    def _name(self, standing: _Standing) -> str:
        """Whose password it has to be: the named person's, else the owner's of the site."""
        if standing.named:
            return standing.named
        owner = self._services.people.persons.get(self._services.owner_at(standing.site))
        # A name that nobody can have: as slow and as wrong as any other.
        return owner.name if owner is not None else f"-{standing.site[:60]}"

    def _ticket(self, id: str) -> _Ticket:
        ticket = self._tickets.get(id)
        if ticket is None:
            raise Denied("nobody is signed in")
        return ticket

    def _forget(self, id: str) -> None:
        with self._lock:
            ticket = self._tickets.pop(id, None)
        for session in list(ticket.sessions) if ticket is not None else ():
            session.hang_up()

    def _actor(self, ticket: _Ticket) -> Actor:
        person = self._services.people.persons.get(ticket.person)
        if person is None or not person.active:
            raise Denied("the account is closed")
        return self._services.people.actor(person, ticket.via)

    # Sessions

    def _session(self, wire: Wire, wanted: Open) -> None:
        ticket = self._ticket(wanted.ticket)
        actor = self._actor(ticket)
        visiting = self._services.visit(
            actor, ticket.site, wanted.command, wanted.subsystem, tty=wanted.tty, place=ticket.address
        )
        ended: protocol.Visited | None = None
        moved = Moved(0, 0)
        problem = "cut"
        try:
            session = self._services.start(visiting.request)
            ticket.sessions.add(session)
            if wanted.ticket not in self._tickets:
                # Taken back while the program was started: nobody else would end it.
                session.hang_up()
            try:
                ended, moved, problem = self._carry(wire, session)
            finally:
                ticket.sessions.discard(session)
        except AlveoleError as error:
            problem = str(error)
            raise
        finally:
            known = moved != Moved(0, 0)
            self._services.visit_ended(
                actor,
                visiting,
                ended,
                received=moved.received if known else None,
                sent=moved.sent if known else None,
                problem=problem,
            )

    @staticmethod
    def _carry(wire: Wire, session: Program) -> tuple[protocol.Visited | None, Moved, str]:
        last: list[Moved] = []
        told = threading.Event()

        def follow() -> None:
            with contextlib.suppress(OSError, AlveoleError, msgspec.DecodeError):
                while (order := wire.receive(_laters)) is not None:
                    if isinstance(order, Moved):
                        last.append(order)
                        told.set()
                    elif isinstance(order, Kill):
                        session.kill(order.signal)
                    else:
                        session.resize(order.rows, order.columns)
            # The door is gone, or has said its last word: either way nobody wants the program any more.
            told.set()
            session.hang_up()

        fds = session.fds
        try:
            wire.send(Started(len(fds)), fds)
        finally:
            for fd in fds:
                os.close(fd)
        threading.Thread(target=follow, daemon=True).start()
        problem = ""
        ended: protocol.Visited | None = None
        try:
            ended = session.ended()
            wire.send(Done(ended.status))
        except (AlveoleError, OSError) as error:
            problem = "the connection was cut" if told.is_set() else str(error)
            with contextlib.suppress(OSError):
                wire.send(Failed(Temporary.code, (Problem("", "the session was cut"),)))
        told.wait(_LAST_WORD_SECONDS)
        return ended, last[-1] if last else Moved(0, 0), problem

    # A push

    def _deploy(self, wire: Wire, wanted: Deploy) -> None:
        """Make a release of the branch that is deployed, when it has moved; every line of it goes to the pusher."""
        ticket = self._ticket(wanted.ticket)
        actor = self._actor(ticket)

        def say(text: str) -> None:
            # Progress is a courtesy: the deployment goes on when nobody listens any more.
            with contextlib.suppress(OSError):
                wire.send(Said(text))

        site = self._services.show_site(actor, ticket.site)
        branch, commit = self._head(actor, site.id)
        if not commit:
            say(f"Nothing is deployed: push to {BRANCHES[0]} for that.")
            wire.send(Done())
            return
        if commit == self._revision(actor, site.id, _MARK):
            say(f"Nothing is deployed: {branch} is where it was.")
            wire.send(Done())
            return
        of = self._services.apps.of_site(site.id)
        version = (self._tag(actor, site.id, commit) or f"git-{commit[:12]}") if of is not None else ""
        waits = site.on_push == Arrival.WAIT
        say(
            f"Sending {branch} as version {version}"
            if version
            else f"Deploying {branch} ({commit[:12]}) to {site.name}"
        )
        upload = self._services.new_upload(actor)
        try:
            self._archive(actor, site.id, commit, Path(upload.path), upload.id)
            tar, note = protocol.ArchiveFormat.TAR, f"git {commit[:12]}"
            if of is not None:
                sent = ask.SendVersion(version=version, upload=upload.id, format=tar, note=note)
                change = self._services.send_version(actor, of[0].id, sent)
            else:
                request = ask.UpdateSite(upload=upload.id, format=tar, note=note, live=not waits)
                change = self._services.update_site(actor, site.id, request)
        except BaseException:
            self._services.drop_upload(actor, upload.id)
            raise
        ended = self._follow(change.id, say)
        if ended is None or ended.state is not ChangeState.DONE:
            raise Refused(
                problems=ended.problems if ended is not None else (Problem("", "the deployment did not end"),)
            )
        self._run(actor, site.id, (*GIT, "-C", GIT_DIRECTORY, "update-ref", _MARK, commit))
        if of is not None:
            say(f"{of[0].name} has version {version}: alveole app show {of[0].name}")
            wire.send(Done())
            return
        where = "" if waits else f": {self._services.show_site(actor, site.id).urls[0]}"
        say(f"{site.name} {'has a release that waits' if waits else 'is deployed'}{where}")
        wire.send(Done())

    def _follow(self, change: str, say: Callable[[str], None]) -> Change | None:
        ended: Change | None = None
        for event in self._services.journal.follow(change, self._stopped.is_set):
            if isinstance(event, Change):
                ended = event
            elif event.level != PROGRESS and event.text:
                say(event.text)
        return ended

    def _head(self, actor: Actor, site: str) -> tuple[str, str]:
        for branch in BRANCHES:
            if commit := self._revision(actor, site, f"refs/heads/{branch}"):
                return branch, commit
        return BRANCHES[0], ""

    def _revision(self, actor: Actor, site: str, name: str) -> str:
        words = (*GIT, "-C", GIT_DIRECTORY, "rev-parse", "-q", "--verify", f"{name}^{{commit}}")
        text = self._run(actor, site, words, check=False).decode("ascii", "replace").strip()
        return text if len(text) in (40, 64) and text.isalnum() else ""

    def _tag(self, actor: Actor, site: str, commit: str) -> str:
        """The tag that was pushed with a commit, when it can be the name of a version."""
        words = (*GIT, "-C", GIT_DIRECTORY, "tag", "--points-at", commit)
        names = self._run(actor, site, words, check=False).decode("ascii", "replace").split()
        return next((name for name in names if re.match(VERSION_NAME, name)), "")

    def _archive(self, actor: Actor, site: str, commit: str, path: Path, upload: str) -> None:
        words = (
            "/usr/bin/git",
            "-C",
            GIT_DIRECTORY,
            "-c",
            "tar.umask=0022",
            "archive",
            "--format=tar",
            "--prefix=./",
            commit,
        )
        written = 0
        with path.open("wb") as file:

            def take(piece: bytes) -> None:
                nonlocal written
                written += len(piece)
                self._services.check_upload(actor, upload, written)
                file.write(piece)

            self._run(actor, site, words, take=take)

    def _run(
        self,
        actor: Actor,
        site: str,
        argv: tuple[str, ...],
        *,
        take: Callable[[bytes], None] | None = None,
        check: bool = True,
    ) -> bytes:
        """Run git over the working copy as the site's own user; what it printed. Raises ``Refused`` when it fails."""
        program = self._services.start(self._services.over_work(actor, site, argv))
        printed = read_out(program, most=_PIECE, take=take)
        if check and printed.status != 0:
            raise Refused(f"git failed: {printed.complaint[:500]}")
        return printed.text
