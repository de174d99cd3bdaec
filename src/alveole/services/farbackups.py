"""Backups of sites that live on other machines.

They are made, kept, thinned out and proved by the machine where the site lives, in its own repositories, by its own
nights. Here is a row of each, so that whose they are, how they stand and that they are there is known while that
machine is away; its snapshot says where it is (``paris:local/-``). Where backups of this machine are copied to another
repository, the newest of each of those sites is fetched into that too: it outlives the other machine, and is opened
here as any backup is.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec

from alveole import requests as ask
from alveole.agent import saving
from alveole.errors import AlveoleError, NoRoom, NotFound, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.moving import Forward
from alveole.model.site import Backup, Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.policy.backups import Cause
from alveole.requests.backups import PinBackup, RestoreFile, SetSitePolicy
from alveole.services.backups import HERE
from alveole.services.browsing import BrowseVerbs
from alveole.services.contentback import CONTENT
from alveole.services.forwarding import understood
from alveole.services.installing import InstallVerbs
from alveole.store import Stored, Transaction
from alveole.store import backups as backupstore
from alveole.store.backups import Evidence, Mark, Proof
from alveole.views.backups import BackupDetail, BackupView, PolicyView, PreviewView, SiteBackupsView, TreeView

log = logging.getLogger("alveole.remote.fleet")
#: How often the rows are compared with what the machines say.
LOOK_SECONDS = 300.0
#: After a start: the ways to the machines are opened first.
_FIRST_SECONDS = 20.0
#: How long the copy on a machine that was lost stays, should that machine come back.
_LOST_SECONDS = 7 * 86_400.0
#: What goes on where the site lives, by the verb of the change here.
_FORWARDED = frozenset({"backup", "restore", "delete-backup", "prove-backup", "restore-file"})
#: What needs no open archive, or fetches it first.
_WITHOUT_IT = frozenset({Right.BACKUP_LOOK, Right.BACKUP_RESTORE, Right.BACKUP_DELETE, Right.BACKUP_PROVE})


class _SiteThere(msgspec.Struct):
    """Of a site on another machine, what its backups are known by."""

    id: str
    name: str


def node_of(backup: Backup) -> str:
    """The machine that keeps it; empty: this one."""
    return backup.snapshot.partition(":")[0] if ":" in backup.snapshot else ""


class FarBackupVerbs(BrowseVerbs, InstallVerbs):
    #: One at a time of each machine: of two at once the later could take what the earlier has just kept for left.
    _mirroring: dict[str, threading.Lock]
    #: By machine, which of our sites there are saved each night, as it last said.
    _nights: dict[str, frozenset[str]]

    # --- finding ------------------------------------------------------------------------------
    def _far(self, caller: Actor, right: Right, id: str) -> Backup:
        """The row as it is, wherever the backup lies. Raises ``NotFound``, ``Denied``."""
        return super()._backup(caller, right, id)

    def _backup(self, caller: Actor, right: Right, id: str) -> Backup:
        found = self._far(caller, right, id)
        if not (node := node_of(found)):
            return found
        if (copy := self._copied(found)) is not None:
            return copy
        if right not in _WITHOUT_IT:
            raise Refused(f"the backup {id} is kept on {node}", field="backup", hint="see: docs/how-to/fleet.md")
        return found

    def _copied(self, backup: Backup) -> Backup | None:
        """The same with the snapshot of its copy in a repository of this machine, where it has one."""
        with self.store.read() as connection:
            copies = backupstore.mark_of(connection, backup.id).copies
        return msgspec.structs.replace(backup, snapshot=next(iter(copies.values()))) if copies else None

    def _node_with(self, backup: Backup) -> str:
        """The machine that is asked about a backup: where it lies, unless that is away and there is a copy here."""
        node = node_of(backup)
        lost = node and node in self._node_problems and self._copied(backup) is not None
        return "" if lost else node

    def _living_at(self, site: str) -> Stored | None:
        """The site, where it lives on another machine."""
        stored = self.store.site(site)
        return stored if stored is not None and stored.site.node else None

    # --- asking -------------------------------------------------------------------------------
    def _ask_for(
        self,
        live_verb: str,
        caller: Actor,
        stored: Site | None,
        node: str,
        method: str,
        path: str,
        body: Any,
        transaction: Transaction,
        backup: str | None = None,
    ) -> Live:
        text = msgspec.json.encode(body).decode() if body is not None else ""
        work = Work(stored=True, forward=Forward(node, method, path, text), backup=backup)
        result: dict[str, str | int | float | None] = {"backup": backup} if backup else {}
        return self.journal.begin(
            live_verb, caller, site=stored, reason=f"on {node}", work=work, result=result, transaction=transaction
        )

    def create_backup(self, caller: Actor, request: ask.CreateBackup, *, key: str | None = None) -> Change:
        if self._living_at(request.site) is None:
            return super().create_backup(caller, request, key=key)

        def build(transaction: Transaction) -> Live:
            stored = self._stored(caller, Right.BACKUP_CREATE, request.site, elsewhere=True)
            site = stored.site
            if stored.pending:
                raise Refused(f"site {site.name} is not complete", field="site")
            body = msgspec.structs.replace(request, site=site.name)
            return self._ask_for("backup", caller, site, site.node, "POST", "/v1/backups", body, transaction)

        return self._accept(caller, self._digest("backup", request.digest()), key, build)

    def _about(
        self, verb: str, right: Right, caller: Actor, id: str, method: str, path: str, body: Any, key: str | None
    ) -> Change | None:
        """Ask the machine that keeps the backup ``id``; ``None`` where this one can do it, or knows of none."""
        row = self.store.backup(id)
        node = self._node_with(row) if row is not None else ""
        if not node:
            return None
        words = (msgspec.json.encode(body).decode(),) if body is not None else ()

        def build(transaction: Transaction) -> Live:
            found = self._far(caller, right, id)
            stored = self.store.sites.get(found.site_id)
            site = stored.site if stored else None
            where = f"/v1/backups/{found.id}{path}"
            return self._ask_for(verb, caller, site, node, method, where, body, transaction, found.id)

        # As for one of this machine: what was asked there, and is done by now, is told as it was.
        return self._accept(caller, self._digest(verb, id, *words), key, build)

    def delete_backup(self, caller: Actor, backup: str, *, key: str | None = None) -> Change:
        there = self._about("delete-backup", Right.BACKUP_DELETE, caller, backup, "DELETE", "", None, key)
        return there or super().delete_backup(caller, backup, key=key)

    def prove_backup(self, caller: Actor, backup: str, *, key: str | None = None) -> Change:
        there = self._about("prove-backup", Right.BACKUP_PROVE, caller, backup, "POST", "/prove", None, key)
        return there or super().prove_backup(caller, backup, key=key)

    def restore_file(self, caller: Actor, backup: str, request: RestoreFile, *, key: str | None = None) -> Change:
        found = self._far(caller, Right.BACKUP_RESTORE, backup)
        stored = self.store.sites.get(found.site_id)
        if stored is not None and stored.site.node:
            self._must_lie_there(found, stored.site)
            if request.path.strip("/").startswith(CONTENT):
                # It becomes a release of the site there.
                self._stored(caller, Right.SITE_RELEASE, stored.site.id, elsewhere=True)
            there = self._about("restore-file", Right.BACKUP_RESTORE, caller, backup, "POST", "/files", request, key)
            if there is not None:
                return there
        return super().restore_file(caller, backup, request, key=key)

    def _must_lie_there(self, backup: Backup, site: Site) -> None:
        if node_of(backup) != site.node:
            raise Refused(
                f"site {site.name} lives on {site.node}, and this backup does not lie there",
                field="backup",
                hint="restore it as a new site, which is made here: --as NAME",
            )

    def _begin_restore(self, caller: Actor, backup: str, request: ask.RestoreBackup, transaction: Transaction) -> Live:
        """Into a site where it lives; with a name as a new one of this machine, for which the archive is fetched.

        With ``here`` a site whose machine is lost lives on this one from now on, from a copy that was fetched before.
        """
        found = self._far(caller, Right.BACKUP_RESTORE, backup)
        stored = self.store.sites.get(found.site_id)
        if request.here:
            self._check_lost(caller, found, stored, request)
        elif stored is not None and stored.site.node and request.name is None:
            self._must_lie_there(found, stored.site)
            free = self._free_to_change(caller, Right.BACKUP_RESTORE, found.site_id, None, elsewhere=True)
            path = f"/v1/backups/{found.id}/restore"
            return self._ask_for("restore", caller, free, free.node, "POST", path, {}, transaction, found.id)
        return super()._begin_restore(caller, backup, request, transaction)

    def _check_lost(self, caller: Actor, backup: Backup, stored: Stored | None, request: ask.RestoreBackup) -> None:
        """What ``here`` asks for besides a backup: the site changes its machine, and the old one is surely gone."""
        if stored is not None:
            self._stored(caller, Right.SITE_MOVE, stored.site.id)
        problems = []
        if stored is None or not stored.site.node:
            problems.append(Problem("here", "is for a site that lives on another machine", "leave it out"))
        elif stored.site.node not in self._node_problems:
            hint = f"bring it with its data: alveole site move {stored.site.name} --to here"
            problems.append(Problem("here", f"{stored.site.node} answers, and the site lives there", hint))
        elif (left := self._lost_in(stored.site.node)) > 0:
            message = f"{stored.site.node} is away since a moment only, and may come back with the site"
            problems.append(Problem("here", message, f"ask again in {left:.0f} seconds, if it is still away then"))
        if request.name is not None:
            problems.append(Problem("name", "cannot be given together with here", "one of the two"))
        if node_of(backup) and self._copied(backup) is None:
            problems.append(Problem("backup", f"it lies on {node_of(backup)} alone", "take one that was copied"))
        if problems:
            raise Refused(problems=problems)

    def _lost_in(self, node: str) -> float:
        """After how many seconds of further absence a machine is taken for lost; not above 0: it is."""
        since = self._node_away.get(node, time.monotonic())
        return self.settings.reconcile.lost_seconds - (time.monotonic() - since)

    # --- answered at once ---------------------------------------------------------------------
    def pin_backup(self, caller: Actor, backup: str, request: PinBackup) -> BackupView:
        found = self._far(caller, Right.BACKUP_DELETE, backup)
        if node := self._node_with(found):
            self._api_of(node).send("PUT", f"/v1/backups/{found.id}/pinned", request)
        return super().pin_backup(caller, backup, request)

    def show_backup(self, caller: Actor, backup: str) -> BackupDetail:
        found = self._far(caller, Right.BACKUP_LOOK, backup)
        here = super().show_backup(caller, backup)
        if not node_of(found):
            return here
        if node := self._node_with(found):
            with contextlib.suppress(AlveoleError):
                told = understood(node, self._api_of(node).get(f"/v1/backups/{found.id}"), BackupDetail)
                return msgspec.structs.replace(told, backup=self._row_view(found))
        return msgspec.structs.replace(here, backup=self._row_view(found))

    def _previewed_there(self, caller: Actor, backup: str, path: str) -> PreviewView | None:
        found = self._far(caller, Right.BACKUP_READ, backup)
        stored = self.store.sites.get(found.site_id)
        if stored is None or not stored.site.node:
            return None
        self._stored(caller, Right.SITE_FILES, stored.site.id, elsewhere=True)
        self._must_lie_there(found, stored.site)
        node = stored.site.node
        told = self._api_of(node).get(f"/v1/backups/{found.id}/preview", {"path": path})
        return understood(node, told, PreviewView)

    def _row_view(self, backup: Backup) -> BackupView:
        with self.store.read() as connection:
            mark = backupstore.mark_of(connection, backup.id)
            proof = backupstore.proof_of(connection, backup.id)
        return self._backup_view(backup, mark, proof)

    def browse_backup(self, caller: Actor, backup: str, path: str = "") -> TreeView:
        found = self._far(caller, Right.BACKUP_READ, backup)
        if node := self._node_with(found):
            told = self._api_of(node).get(f"/v1/backups/{found.id}/tree", {"path": path})
            return understood(node, told, TreeView)
        return super().browse_backup(caller, backup, path)

    @contextlib.contextmanager
    def open_backup(self, caller: Actor, backup: str, path: str = "") -> Iterator[tuple[int, int, str]]:
        found = self._far(caller, Right.BACKUP_READ, backup)
        if not (node := self._node_with(found)):
            with super().open_backup(caller, backup, path) as opened:
                yield opened
            return
        self._need_room()
        with self._archive_of(node, found, path) as (fd, size):
            stored = self.store.sites.get(found.site_id)
            self._note(caller, "download-backup", f"{path or 'all'} of {found.id}", stored.site if stored else None)
            yield fd, size, path.rpartition("/")[2] or f"{found.site_name}-{found.id}.tar"

    @contextlib.contextmanager
    def _archive_of(self, node: str, backup: Backup, path: str = "") -> Iterator[tuple[int, int]]:
        """What another machine keeps of it, as an open file and its size; gone with the block.

        Nothing longer than the backup is taken, and a whole one only as it was. Raises ``NoRoom``, ``Refused``.
        """
        with self._spooled() as file:
            if shutil.disk_usage(self._uploads).free - backup.bytes < self.settings.content.reserve_bytes:
                raise NoRoom(
                    "the state disk has no room for it", field="backup", hint="free some space, then try again"
                )
            query = {"path": path} if path else None
            asked = f"/v1/backups/{backup.id}/archive"
            size, total = 0, hashlib.sha256()
            with self._api_of(node).open("GET", asked, query=query, patience=600.0) as answer:
                for block in answer.blocks():
                    size += len(block)
                    if size > backup.bytes:
                        break
                    total.update(block)
                    file.write(block)
            if size > backup.bytes or (not path and f"sha256:{total.hexdigest()}" != backup.digest):
                raise Refused(
                    f"what {node} sends is not the backup {backup.id} as it was made",
                    field="backup",
                    hint=f"prove it: alveole backup prove {backup.id}",
                )
            file.flush()
            file.seek(0)
            yield file.fileno(), size

    def site_backups(self, caller: Actor, site: str) -> SiteBackupsView:
        stored = self._living_at(site)
        if stored is None:
            return super().site_backups(caller, site)
        found = self._stored(caller, Right.BACKUP_LOOK, site, elsewhere=True).site
        with contextlib.suppress(AlveoleError):
            if found.node not in self._node_problems:
                path = f"/v1/sites/{found.name}/backups"
                return understood(found.node, self._api_of(found.node).get(path), SiteBackupsView)
        return self._site_backups(found)

    def set_site_backups(self, caller: Actor, site: str, request: SetSitePolicy) -> SiteBackupsView:
        if self._living_at(site) is None:
            return super().set_site_backups(caller, site, request)
        found = self._stored(caller, Right.SITE_CHANGE, site, elsewhere=True).site
        told = self._send_to_node(found, "PATCH", "/backups", request)
        self._note(caller, "set-backups", f"on {found.node}", found)
        return understood(found.node, told, SiteBackupsView)

    # --- the rows -----------------------------------------------------------------------------
    def list_backups(self, caller: Actor, site: str | None = None) -> tuple[BackupView, ...]:
        stored = self._living_at(site) if site is not None else None
        if stored is not None and self._sees(caller, stored.site) and stored.site.node not in self._node_problems:
            with contextlib.suppress(AlveoleError):
                self._mirror_backups(stored.site.node)
        return super().list_backups(caller, site)

    def _keep_backups(self) -> None:
        super()._keep_backups()
        self.ticker.add("far-backups", LOOK_SECONDS, self._look_for_far, first=_FIRST_SECONDS)

    def _look_for_far(self) -> None:
        for node in sorted({each.site.node for each in self.store.sites.values() if each.site.node}):
            if node not in self._node_problems:
                self.loop.submit(partial(self._look_at_far, node))

    def _look_at_far(self, node: str) -> None:
        self._mirror_quietly(node)
        with contextlib.suppress(AlveoleError):
            self._learn_nights(node)

    def _learn_nights(self, node: str) -> None:
        """Which of our sites there are to have a backup of the last night, as that machine says."""
        client = self._api_of(node)
        by_itself = understood(node, client.get("/v1/backup-policy"), PolicyView).by_itself
        saved = set()
        for stored in list(self.store.sites.values()):
            site = stored.site
            if site.node != node or stored.pending:
                continue
            with contextlib.suppress(NotFound):
                stand = understood(node, client.get(f"/v1/sites/{site.name}/backups"), SiteBackupsView)
                if stand.policy.nightly or not by_itself:
                    saved.add(site.id)
        self._nights[node] = frozenset(saved)

    def regularly_saved(self) -> frozenset[str]:
        """Also of sites on other machines: as those last said."""
        sites = self.store.sites
        here = {id for id in super().regularly_saved() if id in sites and not sites[id].site.node}
        return frozenset(here).union(*self._nights.values())

    def _mirror_quietly(self, node: str) -> None:
        # A machine that is away is told by the watch of machines; the rows stay as they were.
        with contextlib.suppress(AlveoleError):
            self._mirror_backups(node)

    def _mirror_backups(self, node: str, gone: Mapping[str, Site] = MappingProxyType({})) -> None:
        """Keep of each backup of our sites on ``node`` a row, with its mark and its proof, as the node says they are.

        ``gone``: our sites by the ids that they had there until this moment.
        """
        with self._mirroring.setdefault(node, threading.Lock()):
            self._mirror_in_turn(node, gone)

    def _mirror_in_turn(self, node: str, gone: Mapping[str, Site]) -> None:
        client = self._api_of(node)
        # Before the machine is asked: what comes while it answers was not left by it.
        rows = {each.id: each for each in self.store.backups() if node_of(each) == node}
        told = understood(node, client.get("/v1/backups"), list[dict[str, Any]])
        ours = {each.site.name: each.site for each in self.store.sites.values() if each.site.node == node}
        sites = understood(node, client.get("/v1/sites"), list[_SiteThere])
        there = {each.id: ours[each.name] for each in sites if each.name in ours}
        there.update(gone)
        with self.store.read() as connection:
            marks = backupstore.marks_of(connection)
            proofs = {each.backup_id: each for each in backupstore.proofs_of(connection)}
        fresh: list[tuple[Backup, Mark, Proof | None]] = []
        for each in told:
            try:
                view = msgspec.convert(each, BackupView)
                row, site = rows.get(view.id), there.get(view.site_id)
                known = row is not None
                if row is None:
                    if site is None or self.store.backup(view.id) is not None:
                        # Of a site that is not ours, or kept here already: an id means one backup.
                        continue
                    row = _row(view, site, node)
                cause = msgspec.convert(view.cause, Cause)
            except msgspec.ValidationError as error:
                log.warning("node %s: backup %.40r is not taken note of: %s", node, each.get("id"), error)
                continue
            mark = Mark(cause, view.pinned, marks.get(row.id, Mark()).copies)
            proof = proofs.get(row.id)
            if view.proved is not None and (proof is None or proof.at != view.proved_at):
                at = view.proved_at or time.time()
                proof = Proof(row.id, row.site_id, at, view.proved, 0.0, view.problem, Evidence())
            else:
                proof = None
            if not known or mark != marks.get(row.id, Mark()) or proof is not None:
                fresh.append((row, mark, proof))
        # Also what is not understood is there.
        said = {str(each.get("id")) for each in told}
        left = [each for id, each in rows.items() if id not in said]
        if fresh or left:
            with self.store.write() as transaction:
                for row, mark, proof in fresh:
                    # As they are now: one may have been fetched meanwhile.
                    copies = backupstore.mark_of(transaction.connection, row.id).copies
                    self._keep(transaction, row, msgspec.structs.replace(mark, copies=copies))
                    if proof is not None:
                        backupstore.put_proof(transaction.connection, proof)
                for row in left:
                    self._left_by_its_machine(transaction, row, backupstore.mark_of(transaction.connection, row.id))

    def _left_by_its_machine(self, transaction: Transaction, row: Backup, mark: Mark) -> None:
        """A backup that its machine has no more: what was fetched of it is this machine's own, and thinned out as that.

        Never dropped: a machine that lost its own must not take the copies with it.
        """
        if not mark.copies:
            self._forget(transaction, row.id)
            return
        copies = dict(mark.copies)
        snapshot = copies.pop(next(iter(copies)))
        self._keep(
            transaction, msgspec.structs.replace(row, snapshot=snapshot), msgspec.structs.replace(mark, copies=copies)
        )

    def remove_node(self, caller: Actor, node: str, *, lost: bool = False) -> None:
        super().remove_node(caller, node, lost=lost)
        with self.store.read() as connection:
            marks = backupstore.marks_of(connection)
        with self.store.write() as transaction:
            for row in self.store.backups():
                if node_of(row) == node:
                    self._left_by_its_machine(transaction, row, marks.get(row.id, Mark()))

    def _superfluous(self) -> list[Backup]:
        return [each for each in super()._superfluous() if not node_of(each)]

    def _destroy_there(self, live: Live, node: str, name: str) -> None:
        """What is saved there first is a backup of the site here, which nobody could name once both are gone."""
        ours, look = self.store.site(name), self._node_looks.get(node)
        seen = look.sites.get(name) if look is not None else None
        super()._destroy_there(live, node, name)
        if ours is not None and seen is not None:
            with contextlib.suppress(AlveoleError):
                self._mirror_backups(node, {seen.id: ours.site})

    # --- flows --------------------------------------------------------------------------------
    def _flow_forward(self, live: Live) -> None:
        forward = live.work.forward
        if live.change.verb not in _FORWARDED or forward is None:
            super()._flow_forward(live)
            return
        problems: tuple[Problem, ...] = ()
        result: dict[str, str | int | float | None] = {}
        try:
            ended = self._ask_there(live)
            result = {key: value for key, value in ended.result.items() if key not in ("site", "node", "version")}
        except AlveoleError as error:
            if self.loop.stopping:
                return
            problems, result = error.problems, {"code": error.code}
        if live.change.verb == "delete-backup" and not problems:
            self._drop_copies_of(live)
        self._mirror_quietly(forward.node)
        hit("services.backup-mirrored")
        if live.change.verb == "prove-backup" and problems:
            with self.store.read() as connection:
                proof = backupstore.proof_of(connection, live.work.backup or "")
            if proof is not None and not proof.ok and proof.at >= live.change.started_at:
                result["kind"] = "backup.unproved"
        if live.change.verb == "restore":
            site = self._site_of(live)
            site = self._mirrored(site, self._site_there(site.node, site.name))
            with self.store.write() as transaction:
                transaction.save_site(site, self._names(site))
            settled = self.loop.settle(site, live, version=site.version)
            problems = (*problems, *settled.problems)
        self.journal.end(live, problems, result)

    def _drop_copies_of(self, live: Live) -> None:
        backup = self.store.backup(live.work.backup or "")
        if backup is None:
            return
        with self.store.read() as connection:
            copies = backupstore.mark_of(connection, backup.id).copies
        for snapshot in copies.values():
            self.agent.call(saving.DropBackup(snapshot), say=live.show)
        with self.store.write() as transaction:
            self._forget(transaction, backup.id)

    def _drop_everywhere(self, live: Live, backup: Backup, *, prune: bool) -> None:
        if node_of(backup):
            # Deleted while its machine is away: what is kept there stays, and is told again when that is back.
            self._drop_copies_of(live)
            return
        super()._drop_everywhere(live, backup, prune=prune)

    def _at_hand(self, live: Live, id: str) -> Backup | None:
        backup = self.store.backup(id)
        if backup is None or not (node := node_of(backup)):
            return backup
        copied = self._copied(backup)
        if copied is not None:
            return copied
        to = self._policy().copy_to or next(each.name for each in self._repositories_known() if each.used)
        return msgspec.structs.replace(backup, snapshot=self._take(live, backup, node, to))

    def _take(self, live: Live, backup: Backup, node: str, to: str) -> str:
        """Fetch the archive from its machine into a repository of this one, once; gives its name there."""
        live.say(f"fetching {backup.bytes} bytes from {node}")
        with self._archive_of(node, backup) as (fd, _size):
            hit("services.backup-fetched")
            request = saving.TakeBackup(backup.id, backup.site_id, backup.digest, to)
            snapshot: str = self.agent.call(request, (fd,), live.show)
        hit("services.backup-taken")
        with self.store.write() as transaction:
            mark = backupstore.mark_of(transaction.connection, backup.id)
            mark = msgspec.structs.replace(mark, copies={**mark.copies, to: snapshot})
            backupstore.put_mark(transaction.connection, backup.id, mark)
        return snapshot

    def _flow_copy_backup(self, live: Live) -> None:
        backup = self.store.backup(live.work.backup or "")
        if backup is None or not (node := node_of(backup)):
            super()._flow_copy_backup(live)
            return
        self._take(live, backup, node, live.work.note)
        self.journal.end(live, (), {"backup": backup.id, "repository": live.work.note})

    def _landed(self, live: Live, site: Site) -> Site:
        """A site whose machine is lost, on this one. Should that machine come back, its copy is taken away there."""
        if live.work.note != HERE or not site.node:
            return site
        node = self._node(site.node)
        live.say(f"{site.name} lives here from now on; {node.name} is taken for lost")
        return msgspec.structs.replace(site, node="", kept_at={**site.kept_at, node.name: time.time() + _LOST_SECONDS})


def _row(view: BackupView, site: Site, node: str) -> Backup:
    """What another machine says is looked at like any input: its ids and digests have their grammars."""
    return msgspec.convert(
        {
            "id": view.id,
            "site_id": site.id,
            "site_name": site.name,
            "snapshot": f"{node}:{view.repository[:64]}/-",
            "bytes": view.bytes,
            "created_at": view.created_at,
            "digest": view.digest,
            "owner": site.owner,
        },
        Backup,
    )
