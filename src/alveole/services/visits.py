"""Working on a site's content from outside: keys, sessions over the working copy, publishing it."""

from __future__ import annotations

import shlex
import threading
import time
from abc import abstractmethod
from collections import Counter
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.journal import Live, Work
from alveole.loop.compile import has_storage
from alveole.model.change import Change
from alveole.model.resource import Kind
from alveole.model.site import Arrival, Site
from alveole.people.model import Actor, Person
from alveole.people.names import check_text
from alveole.people.rights import Right
from alveole.people.sshkeys import parse
from alveole.ports import Program
from alveole.remote.apiclient import pairs
from alveole.remote.distant import Distant, reached
from alveole.services.factors import FactorVerbs
from alveole.services.sites import SiteVerbs
from alveole.store import Stored, Transaction, new_id, tables

_MOST_KEYS = 50
_SEEN_SECONDS = 3600.0
#: What the working copy's container is asked to run. Words that a client sends follow, and are never read by a shell.
SFTP = ("/usr/lib/openssh/sftp-server", "-u", "0022")
#: No hook runs, nothing is fetched or collected behind the push, and our own mark is nobody's business.
GIT = (
    "/usr/bin/git",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "receive.autogc=false",
    "-c",
    "transfer.hideRefs=refs/alveole",
    "-c",
    "receive.denyCurrentBranch=ignore",
    "-c",
    "safe.directory=/site/git",
)
GIT_DIRECTORY = "/site/git"
#: A constant: makes the repository at its first use, then becomes the program that is named after it.
_FIRST = 'test -e /site/git/HEAD || /usr/bin/git init -q --bare --initial-branch=main /site/git; exec "$@"'
_SHELL = 'for shell in /bin/bash /bin/sh; do test -x "$shell" && exec "$shell" -l; done'
PUSH = "git-receive-pack"
CONSOLE = "console"
#: Of one person (or token) at a time.
CONSOLES = 5
_GIT_WORDS = {PUSH: "receive-pack", "git-upload-pack": "upload-pack", "git-upload-archive": "upload-archive"}


class Visiting(msgspec.Struct, frozen=True):
    """A session that was let in: what to start, and the change that tells of it."""

    request: protocol.Visit | protocol.Exec | Distant
    site: str
    change: str
    kind: str
    """``sftp``, ``scp``, ``rsync``, ``git-receive-pack``…, ``shell``, ``command``, ``console``."""


class VisitVerbs(SiteVerbs, FactorVerbs):
    _visitors: Counter[str]
    _consoles: Counter[str]
    _visitors_lock: threading.Lock

    # --- keys ---------------------------------------------------------------------------------
    def list_keys(self, caller: Actor, account: str | None = None) -> tuple[views.KeyView, ...]:
        person = self._account(caller, account, Right.ACCOUNT_LOOK)
        return tuple(_key_view(row) for row in self._keys(person.id))

    def _keys(self, person: str) -> list[Any]:
        table = tables.ssh_keys
        with self.store.read() as connection:
            query = sa.select(table).where(table.c.person_id == person).order_by(table.c.created_at)
            return list(connection.execute(query).all())

    def add_key(self, caller: Actor, request: ask.AddKey, account: str | None = None) -> views.KeyView:
        """Raises ``InvalidInput`` for what is no key or too weak, ``Refused`` for one that is known already."""
        person = self._account(caller, account, Right.ACCOUNT_KEYS)
        key = parse(request.key)
        name = request.name.strip() or "".join(char for char in key.comment if char.isprintable())[:64]
        if problems := check_text(name, "name", 64):
            raise InvalidInput(problems=problems)
        table = tables.ssh_keys
        row = {
            "id": new_id("k"),
            "person_id": person.id,
            "name": name or key.kind,
            "kind": key.kind,
            "fingerprint": key.fingerprint,
            "created_at": time.time(),
            "used_at": None,
        }
        with self.store.write() as transaction:
            known = transaction.connection.execute(
                sa.select(table).where(table.c.fingerprint == key.fingerprint)
            ).one_or_none()
            if known is not None and known.person_id in self.people.persons:
                # One key means one person: else a login without a person's name would mean two.
                raise Refused("this key is in use already", field="key", hint="make another: ssh-keygen -t ed25519")
            if known is not None:
                transaction.connection.execute(sa.delete(table).where(table.c.id == known.id))
            if len(self._keys(person.id)) >= _MOST_KEYS:
                raise Refused(f"there are {_MOST_KEYS} keys already", field="key", hint="remove one first")
            transaction.connection.execute(sa.insert(table).values(**row))
        self._note(caller, "add-key", f"{key.fingerprint} of {person.name}")
        return views.KeyView(**{key: value for key, value in row.items() if key != "person_id"})  # type: ignore[arg-type]  # a row

    def remove_key(self, caller: Actor, key: str, account: str | None = None) -> None:
        """``key`` is an id, a fingerprint, or ``all``."""
        person = self._account(caller, account, Right.ACCOUNT_KEYS)
        table = tables.ssh_keys
        mine = table.c.person_id == person.id
        if key != "all":
            mine = sa.and_(mine, sa.or_(table.c.id == key, table.c.fingerprint == key))
        with self.store.write() as transaction:
            gone = transaction.connection.execute(sa.delete(table).where(mine)).rowcount
        if not gone and key != "all":
            raise NotFound(f"there is no key {key!r}", field="key", hint="see: alveole account key list")
        self._note(caller, "remove-key", f"{key} of {person.name}")

    def person_of_key(self, fingerprint: str) -> Person | None:
        """Whose key this is; ``None`` when it is nobody's, or theirs who may not come in."""
        table = tables.ssh_keys
        with self.store.read() as connection:
            row = connection.execute(sa.select(table).where(table.c.fingerprint == fingerprint)).one_or_none()
        person = self.people.persons.get(row.person_id) if row is not None else None
        return person if person is not None and person.active else None

    def note_key_use(self, fingerprint: str) -> None:
        table = tables.ssh_keys
        now = time.time()
        seen = sa.or_(table.c.used_at.is_(None), table.c.used_at < now - _SEEN_SECONDS)
        with self.store.read() as connection:
            query = sa.select(table.c.id).where(table.c.fingerprint == fingerprint, seen)
            row = connection.execute(query).one_or_none()
        if row is not None:
            with self.store.write() as transaction:
                transaction.connection.execute(sa.update(table).where(table.c.id == row.id).values(used_at=now))

    # --- sessions -----------------------------------------------------------------------------
    def visit(
        self, caller: Actor, site: str, command: str | None, subsystem: str, *, tty: bool, place: str
    ) -> Visiting:
        """Let a session of the SSH door in. ``command`` is what the client sent; ``None``: a shell.

        Raises ``NotFound`` also for a foreign site, ``Denied``, ``InvalidInput``, ``Refused``.
        """
        kind, argv = wanted(command, subsystem)
        shell = kind in ("shell", "command")
        stored = self._stored(caller, Right.SITE_EXEC if shell else Right.SITE_FILES, site, elsewhere=True)
        if kind == PUSH:
            self._allow(caller, Right.SITE_RELEASE, self.people.held(stored.site))
        asked = ask.Visit(command=command, subsystem=subsystem, tty=tty)
        return self._let_in(caller, stored, kind, argv, asked, place)

    def console(self, caller: Actor, site: str, place: str) -> Visiting:
        """Let somebody to a shell in a page, with a terminal. Raises as :meth:`visit` does; ``Refused`` beyond
        :data:`CONSOLES` at a time."""
        stored = self._stored(caller, Right.SITE_CONSOLE, site, elsewhere=True)
        with self._visitors_lock:
            if self._consoles[caller.key] >= CONSOLES:
                raise Refused(f"{CONSOLES} consoles are open already", field="site", hint="close one first")
            self._consoles[caller.key] += 1
        try:
            return self._let_in(caller, stored, CONSOLE, ("/bin/sh", "-c", _SHELL), ask.Visit(tty=True), place)
        except BaseException:
            self._console_ended(caller)
            raise

    def _console_ended(self, caller: Actor) -> None:
        with self._visitors_lock:
            self._consoles[caller.key] -= 1
            if not self._consoles[caller.key]:
                del self._consoles[caller.key]

    def _let_in(
        self, caller: Actor, stored: Stored, kind: str, argv: tuple[str, ...], asked: ask.Visit, place: str
    ) -> Visiting:
        found = stored.site
        shell = kind in ("shell", "command", CONSOLE)
        if stored.pending:
            raise Refused(f"site {found.name} is not there yet, or not any more", field="site")
        self._need_room()
        request: protocol.Visit | protocol.Exec | Distant
        if found.node:
            request = _distant(found, msgspec.structs.replace(asked, place=f"{caller.name}, {place}"))
        else:
            request = self._over_work(found, argv, tty=asked.tty)
        look = self.loop.looks.get(found.id)
        slots = [item.id.name for item in look.found if item.id.kind is Kind.WORKLOAD and item.ready] if look else []
        if shell and slots and not found.node:
            slot = found.slot if str(found.slot) in slots else int(slots[0])
            request = protocol.Exec(site=found.id, slot=slot, argv=argv, tty=asked.tty)
        with self.store.write() as transaction:
            # Stored at once: a session that a death of control cuts is told of all the same.
            verb, reason = (CONSOLE, f"from {place}") if kind == CONSOLE else ("ssh", f"{kind} from {place}")
            live = self.journal.begin(verb, caller, site=found, reason=reason[:500], transaction=transaction)
        with self._visitors_lock:
            self._visitors[found.id] += 1
        return Visiting(request, found.id, live.id, kind)

    def over_work(self, caller: Actor, site: str, argv: tuple[str, ...]) -> protocol.Visit | Distant:
        """A program of our own over the working copy of ``site``, for a push that was let in."""
        return self._work_program(self._stored(caller, Right.SITE_RELEASE, site, elsewhere=True).site, argv)

    def _work_program(self, site: Site, argv: tuple[str, ...]) -> protocol.Visit | Distant:
        return _distant(site, ask.Visit(argv=argv)) if site.node else self._over_work(site, argv, tty=False)

    def _file_program(self, site: Site, order: str) -> protocol.Visit | Distant:
        """What carries out an order of the file manager, where the site lives."""
        return (
            _distant(site, ask.Visit(order=order))
            if site.node
            else self._over_work(site, self._file_argv(order), tty=False)
        )

    @abstractmethod
    def _file_argv(self, order: str) -> tuple[str, ...]:
        """Supplied by the class that joins the parts."""

    def visit_from(self, caller: Actor, site: str, request: ask.Visit) -> Visiting:
        """What another machine, which drives this one, lets somebody do here; it has asked for their rights."""
        self._allow(caller, Right.NODE_CHANGE)
        argv = self._file_argv(request.order) if request.order else request.argv
        if argv:
            stored = self._stored(caller, Right.SITE_FILES, site)
            return Visiting(self._over_work(stored.site, argv, tty=False), stored.site.id, "", "work")
        return self.visit(
            caller, site, request.command, request.subsystem, tty=request.tty, place=request.place[:200] or "a machine"
        )

    @abstractmethod
    def start(self, request: protocol.Visit | protocol.Exec | Distant) -> Program:
        """Supplied by the class that joins the parts: start it where the site lives."""

    def _over_work(self, site: Site, argv: tuple[str, ...], *, tty: bool) -> protocol.Visit:
        return protocol.Visit(
            site=site.id,
            number=site.number,
            base=self.loop.learn_host_base(),
            release=site.release,
            generation=site.data_generation,
            volumes=site.volumes if has_storage(site) else (),
            argv=argv,
            tty=tty,
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
        """Tell the journal; the last one out publishes what was changed, where the site says so."""
        if visiting.kind == CONSOLE:
            self._console_ended(caller)
        with self._visitors_lock:
            self._visitors[visiting.site] -= 1
            last = not self._visitors[visiting.site]
            if last:
                del self._visitors[visiting.site]
        live = self.journal.live(visiting.change)
        if live is None:
            return
        changes = ended.changes if ended is not None else protocol.Changes()
        for name in changes.names:
            live.say(f"changed: {name}")
        result: dict[str, str | int | float | None] = {
            "exit_status": ended.status if ended is not None else None,
            "seconds": round(time.time() - live.change.started_at, 1),
            "received_bytes": received,
            "sent_bytes": sent,
            "changed_files": changes.files,
            "changed_bytes": changes.bytes,
        }
        self.journal.end(live, (Problem("", problem),) if problem else (), result)
        if last:
            self._publish_by_itself(caller, visiting)

    def _publish_by_itself(self, caller: Actor, visiting: Visiting) -> None:
        stored = self.store.sites.get(visiting.site)
        if stored is None or stored.site.node:
            # The machine where it lives sees to it.
            return
        if stored.site.on_files is not Arrival.LIVE or visiting.kind.startswith("git-"):
            return
        site = stored.site
        try:
            state: protocol.WorkState = self.agent.call(protocol.LookAtWork(site.id, site.number))
            if state.fresh.files:
                self.publish_work(caller, site.id, ask.PublishWork(note="by itself, after a visit"))
        except AlveoleError as error:
            # Nobody is there to be told; the working copy stays as it is and can be published by hand.
            live = self.journal.begin("publish", caller, site=None, reason=f"{site.name}, by itself")
            self.journal.end(live, error.problems)

    @abstractmethod
    def send_version(self, caller: Actor, app: str, request: ask.SendVersion, *, key: str | None = None) -> Change:
        """Supplied by the class that joins the parts."""

    # --- the working copy ---------------------------------------------------------------------
    def show_work(self, caller: Actor, site: str) -> views.WorkView:
        found = self._stored(caller, Right.SITE_FILES, site, elsewhere=True).site
        who = f"{caller.name}+{found.name}" if caller.person else found.name
        address = f"-P {self.settings.ssh.port} {who}@{self.settings.domain}" if self.settings.ssh.enabled else ""
        if told := self._asked_there(caller, Right.SITE_FILES, site, "/work", views.WorkView):
            return msgspec.structs.replace(told, address=address)
        state: protocol.WorkState = self.agent.call(protocol.LookAtWork(found.id, found.number))
        return views.WorkView(
            site=found.name,
            there=state.there,
            release=state.release,
            behind=state.there and found.release not in (state.release, state.published),
            published=state.published,
            files=state.fresh.files,
            bytes=state.fresh.bytes,
            names=state.fresh.names,
            visitors=state.visitors,
            address=address,
        )

    def publish_work(
        self,
        caller: Actor,
        site: str,
        request: ask.PublishWork,
        *,
        key: str | None = None,
        version: int | None = None,
    ) -> Change:
        """Make a release of the working copy; of an environment a version of its application, named by the moment.

        Raises ``Refused`` when there is none.
        """
        stored = self.store.site(site)
        of = self.apps.of_site(stored.site.id) if stored is not None else None
        if of is not None and self._stored(caller, Right.SITE_FILES, site):
            name = time.strftime("%Y%m%d-%H%M%S")
            wanted = ask.SendVersion(version=name, work=of[1].name, note=request.note)
            return self.send_version(caller, of[0].id, wanted, key=key)

        if there := self._there(caller, Right.SITE_RELEASE, "publish", site, "POST", "/work/publish", request, key):
            return there

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, Right.SITE_RELEASE, site, version)
            work = Work(note=request.note, waits=not request.live)
            return self.journal.begin(
                "publish", caller, site=old, work=work, result={"site": old.id}, transaction=transaction
            )

        return self._accept(caller, self._digest("publish", site, request.digest(), str(version)), key, build)

    def drop_work(self, caller: Actor, site: str) -> None:
        """Forget what was changed in the working copy. Raises ``Refused`` while somebody works on it."""
        found = self._stored(caller, Right.SITE_FILES, site, elsewhere=True).site
        if found.node:
            self._send_to_node(found, "DELETE", "/work")
        else:
            self.agent.call(protocol.DropWork(found.id, found.number))
        self._note(caller, "drop-work", "", found)


def _distant(site: Site, wanted: ask.Visit) -> Distant:
    query = pairs([("wanted", msgspec.json.encode(wanted).decode())])
    return reached(Distant(site.node, f"/v1/sites/{site.name}/visit?{query}", wanted.tty))


def _key_view(row: Any) -> views.KeyView:
    return views.KeyView(
        id=row.id,
        name=row.name,
        kind=row.kind,
        fingerprint=row.fingerprint,
        created_at=row.created_at,
        used_at=row.used_at,
    )


def wanted(command: str | None, subsystem: str) -> tuple[str, tuple[str, ...]]:
    """What a client asks for, and what is started for it. Raises ``InvalidInput``."""
    if subsystem:
        if subsystem != "sftp":
            raise InvalidInput(f"there is no subsystem {subsystem[:40]!r}", field="subsystem", hint="there is sftp")
        return "sftp", SFTP
    if command is None:
        return "shell", ("/bin/sh", "-c", _SHELL)
    if "\0" in command or len(command) > 65_536:
        raise InvalidInput("the command holds a NUL byte or is too long", field="command")
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words[:1] == ["git"] and len(words) > 1:
        words = [f"git-{words[1]}", *words[2:]]
    name = words[0] if words else ""
    if name in _GIT_WORDS:
        # Whatever path was given: a site has one repository.
        return name, ("/bin/sh", "-c", _FIRST, "sh", *GIT, _GIT_WORDS[name], GIT_DIRECTORY)
    if name == "scp":
        return "scp", ("/usr/bin/scp", *words[1:])
    if name == "rsync" and words[1:2] == ["--server"]:
        return "rsync", ("/usr/bin/rsync", *words[1:])
    return "command", ("/bin/sh", "-c", command)
