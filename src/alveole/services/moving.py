"""A site from one machine to another.

::

    copying   it serves where it was; what is needed of it is carried as a passport and made there, beside; of one with
              volumes first while it runs, then, once it is stopped, what has changed since
    switched  it is wanted there: the route follows, the copy that is left stays stopped for a set time
    back      it did not hold here after coming back: it is wanted where it was

A site with volumes is stopped before they are packed, so that what was written last goes along and no two copies of
them ever live; one without runs on until the route has left it. Each phase is stored before its work begins, and each
request to the other machine carries the change's id as its key: a control that dies in between goes on where it was.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from alveole import views, wholefile
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import RECONCILER, Live, Work
from alveole.loop.compile import site_domain
from alveole.model.change import Change
from alveole.model.moving import Moving
from alveole.model.site import Site, Wanted
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.remote import fleet, passport
from alveole.remote.passport import Statement
from alveole.services.backups import read_manifest
from alveole.services.forwarding import understood
from alveole.services.nodes import ANY, HERE, NodeVerbs
from alveole.services.passports import FIRST
from alveole.store import Transaction

log = logging.getLogger("alveole.remote.fleet")
#: So long what somebody has just done with the files may take to end.
_LEAVING_SECONDS = 3.0
#: How often copies are looked at whose time is over.
SWEEP_SECONDS = 60.0


class _Stands(msgspec.Struct):
    """Of a site on another machine, whether it is to run there and what is at work on it."""

    wanted: str
    change: str | None = None


class MovingVerbs(NodeVerbs):
    # --- verbs --------------------------------------------------------------------------------
    def move_site(self, caller: Actor, site: str, request: fleet.MoveSite, *, key: str | None = None) -> Change:
        """Bring a site with its data to another machine, or ``here``, or where there is most room (``any``)."""
        target = ""

        def before() -> None:
            nonlocal target
            old = self._stored(caller, Right.SITE_MOVE, site).site
            memory = self._limits(old.plan).memory_bytes
            target = self._placed(request.to, memory, without=old.node or HERE)
            self._check_move(old, target)
            self._nobody_works_on(caller, old)
            if target and target not in old.kept_at:
                self._must_be_free_there(target, old.name)

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, Right.SITE_MOVE, site, None)
            self._check_move(old, target)
            moving = Moving(target, old.node, request.keep_seconds, was_running=old.wanted is Wanted.RUNNING)
            reason = f"{old.node or HERE} → {target or HERE}"
            return self.journal.begin(
                "move",
                caller,
                site=old,
                reason=reason,
                work=Work(moving=moving),
                result={"site": old.id, "node": target or HERE},
                transaction=transaction,
            )

        return self._accept(caller, self._digest("move", site, request.digest()), key, build, before)

    def _check_move(self, site: Site, target: str) -> None:
        if site.node == target:
            raise Refused(f"{site.name} lives there already", field="to", hint="see: alveole node list")
        problems = []
        if site.path is not None and target:
            problems.append(
                Problem("path", "leads to sites of this machine only", "take it away first: site set --no-path")
            )
        for field, what, cure in (
            ("published", "ports", "--unset published"),
            ("shared", "directories", "--unset shared"),
        ):
            if getattr(site, field):
                problems.append(Problem(field, f"it has {what} of this machine", f"take them back: site set {cure}"))
        of = self.apps.of_site(site.id)
        if of is not None:
            where = f" --node {target}" if target else ""
            problems.append(
                Problem(
                    "site",
                    f"it is {of[1].name.upper()} of the application {of[0].name}, and environments do not move",
                    f"make one more where it is to be: alveole app add-env {of[0].name} NAME{where}",
                )
            )
        if problems:
            raise Refused(problems=problems)

    def _nobody_works_on(self, caller: Actor, site: Site) -> None:
        """The working copy goes along as it is when it is packed: what is typed later would be lost."""
        until = time.monotonic() + _LEAVING_SECONDS
        while True:
            state = self._asked_there(caller, Right.SITE_MOVE, site.id, "/work", views.WorkView)
            if not (state or self.agent.call(protocol.LookAtWork(site.id, site.number))).visitors:
                return
            if time.monotonic() > until:
                hint = "ask them to leave first"
                raise Refused("somebody works on its files at this moment", field="site", hint=hint)
            self.loop.pause(0.1)

    def _must_be_free_there(self, node: str, name: str) -> None:
        try:
            self._api_of(node).get(f"/v1/sites/{name}")
        except NotFound:
            return
        raise Refused(f"{node} has a site {name!r} of its own", field="to", hint="rename one of them")

    def confirm_move(self, caller: Actor, site: str, *, key: str | None = None) -> Change:
        """Remove now the copies that moves have left; by themselves they go when their time is over."""

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, Right.SITE_MOVE, site, None)
            if not old.kept_at:
                raise Refused(f"no copy of {old.name} is kept anywhere", field="site")
            return self.journal.begin("confirm-move", caller, site=old, work=Work(stored=True), transaction=transaction)

        return self._accept(caller, self._digest("confirm-move", site), key, build)

    def targets(self, caller: Actor, site: str) -> tuple[str, ...]:
        """Where a site could go, for a list to choose from."""
        found = self._stored(caller, Right.SITE_MOVE, site).site
        names = (HERE, *sorted(self._nodes()), ANY)
        return tuple(name for name in names if name != (found.node or HERE)) if self.has_nodes() else ()

    def copies(self, caller: Actor, site: str) -> tuple[str, ...]:
        """Machines (empty: this one) that keep a copy since a move."""
        return tuple(self._stored(caller, Right.SITE_MOVE, site).site.kept_at)

    def has_nodes(self) -> bool:
        return bool(self._nodes())

    def drain_node(self, caller: Actor, node: str, *, drain: bool = True) -> tuple[Change, ...]:
        """Place nothing more on a node, and bring its sites to where there is room. Not ``drain``: use it again."""
        self._allow(caller, Right.NODE_CHANGE)
        found = self._node(node)
        self._put_nodes({**self._nodes(), node: msgspec.structs.replace(found, draining=drain)})
        self._note(caller, "drain-node" if drain else "use-node", node)
        if not drain:
            return ()
        sites = [each.site.id for each in self._visible(caller) if each.site.node == node]
        return tuple(self.move_site(caller, id, fleet.MoveSite(to=ANY)) for id in sites)

    # --- the flow -----------------------------------------------------------------------------
    def _flow_move(self, live: Live) -> None:
        moving = live.work.moving
        if moving is None:
            raise Refused("nothing says where it goes")
        site = self._site_of(live)
        if moving.phase == "copying":
            try:
                site = self._bring(live, site, moving)
            except AlveoleError as error:
                if self.loop.stopping:
                    return
                self._stay(live, self._site_of(live), error)
                return
        hit("services.move-switched")
        self._arrive(live, site)

    def _save_moving(self, live: Live, transaction: Transaction, **changed: str | float | bool) -> Moving:
        if live.work.moving is None:
            raise Refused("nothing says where it goes")
        moving = msgspec.structs.replace(live.work.moving, **changed)
        self.journal.save(live, transaction, msgspec.structs.replace(live.work, moving=moving))
        return moving

    def _bring(self, live: Live, site: Site, moving: Moving) -> Site:
        """To the commit that makes it wanted there."""
        target = self._node(moving.to).key if moving.to else self._identity().public
        moving = self._first_copy(live, site, moving, target)
        site = self._site_of(live)
        if not live.work.upload:
            path = self._packed_at_origin(live, site, moving, target)
            site = self._site_of(live)
            if not moving.to:
                return self._made_here(live, site, path)
            live.show(f"sending the site to {moving.to}")
            sent = self._sent(moving, path)
            with self.store.write() as transaction:
                self.journal.save(live, transaction, msgspec.structs.replace(live.work, upload=sent))
            path.unlink(missing_ok=True)
        hit("services.move-sent")
        asked = {"upload": live.work.upload, "name": site.name, "stopped": not moving.was_running}
        if moving.first:
            asked["onto"] = True
        change = self._api_of(moving.to).send("POST", "/v1/passports", asked, key=live.id)
        self._follow_there(live, moving.to, change)
        hit("services.move-made")
        return self._switched(live, site)

    def _sent(self, moving: Moving, path: Path) -> str:
        if moving.origin:
            signer = {"key": self._node(moving.origin).key}
            self._api_of(moving.to).send("PUT", f"/v1/signers/{moving.origin}", signer)
        return self._send_there(moving.to, path)

    def _first_copy(self, live: Live, site: Site, moving: Moving, target: str) -> Moving:
        """All of a site with volumes, while it runs: how long it is stopped does not hang on how much it holds."""
        if live.work.upload:
            return moving
        if moving.to and moving.to in site.kept_at and not moving.first_upload:
            # What was left there by an earlier move is older than what comes now.
            self._destroy_there(live, moving.to, site.name)
            site = self._forgotten(site, moving.to)
        if not moving.first:
            if moving.stopped_at or not self._is_written_to(site, moving):
                return moving
            live.say("copying it while it runs")
            path, archive = self._exported(live, site, moving, target, FIRST)
            upload = self._sent(moving, path) if moving.to else "-"
            with self.store.write() as transaction:
                moving = self._save_moving(live, transaction, first=archive, first_upload=upload)
        hit("services.move-first")
        path = self._carried / f"{live.id}-{FIRST}"
        if moving.to:
            asked = {"upload": moving.first_upload, "name": site.name, "stopped": True}
            change = self._api_of(moving.to).send("POST", "/v1/passports", asked, key=f"{live.id}-{FIRST}")
            self._follow_there(live, moving.to, change)
        elif path.exists():
            with self._from_origin(moving, site, path) as (statement, archive_file):
                release = self._unpacked(live, self._beside(live, site, statement), statement, archive_file)
            if release is not None:
                with self.store.write() as transaction:
                    transaction.put_release(site.id, release)
        path.unlink(missing_ok=True)
        return moving

    def _is_written_to(self, site: Site, moving: Moving) -> bool:
        if not moving.origin:
            return bool(site.volumes) and site.wanted is Wanted.RUNNING
        seen = understood(moving.origin, self._api_of(moving.origin).get(f"/v1/sites/{site.name}"), views.SiteView)
        return bool(seen.volumes) and seen.wanted is Wanted.RUNNING

    def _exported(self, live: Live, site: Site, moving: Moving, target: str, after: str) -> tuple[Path, str]:
        """A passport from where the site is, as a file here, and the digest of its archive."""
        name = f"{live.id}-{FIRST}" if after == FIRST else live.id
        if not moving.origin:
            extra: tuple[str, ...] = ()
            own = site_domain(site.name, self.settings)
            if own != f"{site.name}.{self._node(moving.to).domain}":
                extra = (own,)
            packed = msgspec.structs.replace(site, domains=(*site.domains, *extra), path=None)
            return self._pack(live, packed, target, name, after)
        asked = {"to": target, **({"first": True} if after == FIRST else {"since": after} if after else {})}
        client = self._api_of(moving.origin)
        key = f"{live.id}-export-{FIRST}" if after == FIRST else f"{live.id}-export"
        change = client.send("POST", f"/v1/sites/{site.name}/passports", asked, key=key)
        ended = self._follow_there(live, moving.origin, change)
        self._carried.mkdir(mode=0o700, exist_ok=True)
        path = self._carried / name
        where = f"/v1/sites/{site.name}/passports/{ended.result['passport']}"
        with self._api_of(moving.origin).open("GET", where, patience=120.0) as answer, wholefile.writing(path) as out:
            for block in answer.blocks():
                out.write(block)
        return path, str(ended.result.get("archive", ""))

    def _packed_at_origin(self, live: Live, site: Site, moving: Moving, target: str) -> Path:
        """The passport of the site where it is now, as a file here."""
        data = bool(site.volumes)
        if not moving.origin:
            if data and site.wanted is Wanted.RUNNING:
                self._stop_here(live, site)
                site = self._site_of(live)
            return self._exported(live, site, moving, target, moving.first)[0]
        client = self._api_of(moving.origin)
        seen = understood(moving.origin, client.get(f"/v1/sites/{site.name}"), views.SiteView)
        if seen.volumes and seen.wanted is Wanted.RUNNING:
            live.say(f"stopping it on {moving.origin}: its data must not change any more")
            self._told_stopped(live)
            change = client.send("POST", f"/v1/sites/{site.name}/stop", key=f"{live.id}-stop")
            self._follow_there(live, moving.origin, change)
        return self._exported(live, site, moving, target, moving.first)[0]

    def _told_stopped(self, live: Live) -> None:
        if live.work.moving is not None and not live.work.moving.stopped_at:
            with self.store.write() as transaction:
                self._save_moving(live, transaction, stopped_at=time.time())

    def _stop_here(self, live: Live, site: Site) -> None:
        live.say("stopping it: its data must not change any more")
        stopped = msgspec.structs.replace(site, wanted=Wanted.STOPPED, version=site.version + 1)
        with self.store.write() as transaction:
            transaction.save_site(stopped)
            self._save_moving(live, transaction, stopped_at=time.time())
        hit("services.move-stopped")
        settled = self.loop.settle(stopped, live, version=stopped.version)
        if settled.problems:
            raise Refused(problems=settled.problems)

    def _switched(self, live: Live, site: Site) -> Site:
        """The one commit after which it lives on the node."""
        moving = live.work.moving
        if moving is None:
            raise Refused("nothing says where it goes")
        kept = {name: until for name, until in site.kept_at.items() if name != moving.to}
        wanted = Wanted.RUNNING if moving.was_running else Wanted.STOPPED
        new = msgspec.structs.replace(
            site,
            node=moving.to,
            kept_at={**kept, moving.origin: time.time() + moving.keep_seconds},
            wanted=wanted,
            version=site.version + 1,
        )
        self._site_there(moving.to, site.name)
        with self.store.write() as transaction:
            transaction.save_site(new, self._names(new))
            self._save_moving(live, transaction, phase="switched")
        return new

    def _made_here(self, live: Live, site: Site, path: Path) -> Site:
        """Unpack a passport beside what may be kept here, and make the site wanted here: one commit."""
        moving = live.work.moving
        if moving is None:
            raise Refused("nothing says where it goes")
        with self._from_origin(moving, site, path) as (statement, archive):
            wanted = self._beside(live, site, statement)
            own = site_domain(site.name, self.settings)
            wanted = msgspec.structs.replace(
                wanted,
                node="",
                kept_at={
                    **{name: until for name, until in site.kept_at.items() if name},
                    moving.origin: time.time() + moving.keep_seconds,
                },
                domains=tuple(each for each in site.domains if each != own),
                wanted=Wanted.RUNNING if moving.was_running else Wanted.STOPPED,
                version=site.version + 1,
            )
            # As with the copies that nodes keep: what is here of it is older than what comes.
            self.agent.call(protocol.DropWork(site.id, site.number, whole=True))
            release = self._unpacked(live, wanted, statement, archive)
            if moving.first:
                wanted_release = read_manifest(statement.manifest).release
                kept = (each for each in self.store.releases(site.id) if each.digest == wanted_release)
                release = next(kept, None)
        wanted = msgspec.structs.replace(wanted, release=release.digest if release else None)
        path.unlink(missing_ok=True)
        with self.store.write() as transaction:
            if release is not None:
                transaction.put_release(wanted.id, release)
            transaction.save_site(wanted, self._names(wanted))
            self._save_moving(live, transaction, phase="switched")
        return wanted

    @contextlib.contextmanager
    def _from_origin(self, moving: Moving, site: Site, path: Path) -> Iterator[tuple[Statement, IO[bytes]]]:
        """What a passport says that came from where the site is, and its archive. Raises ``Refused`` for another's."""
        with path.open("rb") as file:
            head = passport.read_head(file)
        if head.signer != self._node(moving.origin).key or head.name != site.name:
            raise Refused(f"what came is not signed by {moving.origin}, or is not {site.name}", field="node")
        with self._opened(path) as opened:
            yield opened

    def _beside(self, live: Live, site: Site, statement: Statement) -> Site:
        """The site as it comes back here, with a generation of its data beside what may be kept."""
        wanted = self._from_manifest(live, read_manifest(statement.manifest), site, False)
        return msgspec.structs.replace(wanted, data_generation=site.data_generation + 1)

    def _stay(self, live: Live, site: Site, error: AlveoleError) -> None:
        """It could not be carried: wholly where it was, and as it was."""
        moving = live.work.moving
        if moving is None:
            return
        live.say("it stays where it is", level="error")
        for name in (live.id, f"{live.id}-{FIRST}"):
            (self._carried / name).unlink(missing_ok=True)
        if moving.to and (live.work.upload or moving.first_upload):
            with contextlib.suppress(AlveoleError):
                self._destroy_there(live, moving.to, site.name)
        if moving.stopped_at and moving.was_running:
            if moving.origin:
                with contextlib.suppress(AlveoleError):
                    change = self._api_of(moving.origin).send(
                        "POST", f"/v1/sites/{site.name}/start", key=f"{live.id}-start"
                    )
                    self._follow_there(live, moving.origin, change)
            else:
                site = msgspec.structs.replace(site, wanted=Wanted.RUNNING, version=site.version + 1)
                with self.store.write() as transaction:
                    transaction.save_site(site)
                self.loop.settle(site, live, version=site.version)
        self.journal.end(live, error.problems, {"code": error.code, "node": moving.origin or HERE})

    def _arrive(self, live: Live, site: Site) -> None:
        """The route follows; then what is left behind is stopped."""
        moving = live.work.moving
        if moving is None:
            return
        settled = self.loop.settle(site, live, attempts=2, version=site.version)
        if self.loop.stopping and settled.problems:
            return
        if settled.problems and settled.essential and moving.origin and moving.phase == "switched" and not moving.to:
            live.say(f"it does not hold here: back to {moving.origin}", level="error")
            back = msgspec.structs.replace(
                site,
                node=moving.origin,
                kept_at={name: until for name, until in site.kept_at.items() if name != moving.origin},
                version=site.version + 1,
            )
            with self.store.write() as transaction:
                transaction.save_site(back, self._names(back))
                self._save_moving(live, transaction, phase="back")
            self.loop.settle(back, live, version=back.version)
            self._stay(live, back, Refused(problems=settled.problems))
            return
        if moving.phase == "back":
            self._stay(live, site, Refused("it did not hold here", field="to"))
            return
        if moving.origin:
            self._stop_there(live, moving.origin, site.name)
        result: dict[str, str | int | float | None] = {"node": moving.to or HERE, "version": site.version}
        if moving.stopped_at:
            result["stopped_seconds"] = round(time.time() - moving.stopped_at, 3)
            live.say(f"nothing answered for {result['stopped_seconds']} s")
        self.journal.end(live, settled.problems, result)

    def _stop_there(self, live: Live, node: str, name: str) -> None:
        """What is left behind must not run; a node that is away is told at the next sweep of copies."""
        try:
            client = self._api_of(node)
            if understood(node, client.get(f"/v1/sites/{name}"), _Stands).wanted == "running":
                change = client.send("POST", f"/v1/sites/{name}/stop", key=f"{live.id}-left")
                self._follow_there(live, node, change)
        except AlveoleError as error:
            live.say(f"what is left on {node} could not be stopped: {error}", level="warning")

    # --- what is left behind ------------------------------------------------------------------
    def _destroy_there(self, live: Live, node: str, name: str) -> None:
        client = self._api_of(node)
        try:
            seen = understood(node, client.get(f"/v1/sites/{name}"), _Stands)
        except NotFound:
            return
        if seen.change:
            with contextlib.suppress(Refused):
                self._follow_there(live, node, {"id": seen.change})
            seen = understood(node, client.get(f"/v1/sites/{name}"), _Stands)
        if seen.wanted == "running":
            change = client.send("POST", f"/v1/sites/{name}/stop")
            self._follow_there(live, node, change)
        change = client.send("DELETE", f"/v1/sites/{name}", query={"confirm": name})
        self._follow_there(live, node, change)

    def _forgotten(self, site: Site, node: str) -> Site:
        kept = {name: until for name, until in site.kept_at.items() if name != node}
        new = msgspec.structs.replace(site, kept_at=kept, version=site.version + 1)
        with self.store.write() as transaction:
            transaction.save_site(new)
        return new

    def _flow_confirm_move(self, live: Live) -> None:
        site = self._site_of(live)
        self._drop_copies(live, site, set(site.kept_at))

    def _drop_copies(self, live: Live, site: Site, which: set[str]) -> None:
        problems: list[Problem] = []
        for node in sorted(which):
            try:
                if node:
                    self._destroy_there(live, node, site.name)
                    site = self._forgotten(site, node)
                elif not site.node:
                    site = self._forgotten(site, node)
                else:
                    site = self._forgotten(site, node)
                    settled = self.loop.settle(site, live, version=site.version)
                    problems.extend(settled.problems)
                    self.agent.call(protocol.RemoveSite(site.id, site.number), say=live.show)
                    with self.store.write() as transaction:
                        for release in self.store.releases(site.id):
                            transaction.delete_release(site.id, release.digest)
                live.say(f"the copy on {node or HERE} is gone")
            except (AlveoleError, InvalidInput) as error:
                problems.extend(error.problems)
        self.journal.end(live, problems)

    def _sweep_copies(self) -> None:
        """Remove copies whose time is over, one site at a time; what is kept longer must not run."""
        now = time.time()
        for stored in list(self.store.sites.values()):
            due = {
                node for node, until in stored.site.kept_at.items() if until <= now and node not in self._node_problems
            }
            if due and not stored.pending and self.journal.of_site(stored.site.id) is None:
                live = self.journal.begin("confirm-move", RECONCILER, site=stored.site, reason="its time is over")
                self._drop_copies(live, stored.site, due)
            elif not stored.pending and self.journal.of_site(stored.site.id) is None:
                self._stop_left(stored.site)

    def _stop_left(self, site: Site) -> None:
        """A machine that was away when its site began to live elsewhere still lets its copy run when it is back."""
        for node in sorted(site.kept_at.keys() - {"", site.node} - self._node_problems.keys()):
            try:
                client = self._api_of(node)
                if understood(node, client.get(f"/v1/sites/{site.name}"), _Stands).wanted == "running":
                    client.send("POST", f"/v1/sites/{site.name}/stop")
                    log.warning("node %s: the copy of %s that is left there ran, and is stopped", node, site.name)
            except NotFound:
                continue
            except AlveoleError as error:
                log.warning("node %s: the copy of %s that is left there: %s", node, site.name, error)
