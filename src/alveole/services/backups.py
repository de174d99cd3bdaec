"""Saving a site and giving it back.

A backup holds content, volumes and a *manifest*: the site's configuration as control knew it. What
comes back from a backup is input like any other: it is decoded field by field and checked with the
same grammars as a request. Rights, owner, ids, addresses and uids are never read from it (threat 10).
"""

from __future__ import annotations

import contextlib
import time

import msgspec

from alveole import requests as ask
from alveole.agent import protocol
from alveole.agent.saving import LOCAL
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.site import (
    Access,
    Application,
    Backup,
    Base,
    BaseKind,
    ConfigFile,
    Release,
    Run,
    Site,
    VolumeMount,
    Wanted,
)
from alveole.people.model import Actor
from alveole.people.rights import Right, may
from alveole.policy.backups import Cause
from alveole.services.draft import Draft, find_base
from alveole.services.modules import recomposed, with_texts
from alveole.services.sites import SiteVerbs
from alveole.store import Transaction, new_id
from alveole.store import backups as backupstore
from alveole.store.backups import Mark, Proof
from alveole.views.backups import BackupView

#: What a change that brings a lost site back remembers.
HERE = "here"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configuration kept inside a backup. An unknown field makes the whole manifest refused."""

    format: int
    name: str
    plan: str
    base: Base
    run: Run
    release: str | None
    domains: tuple[str, ...] = ()
    env: dict[str, str] = {}
    volumes: tuple[VolumeMount, ...] = ()
    files: tuple[ConfigFile, ...] = ()
    application: Application | None = None
    path: str | None = None
    access: Access = Access()
    https_only: bool = False


def manifest_of(site: Site) -> Manifest:
    names = {field.name for field in msgspec.structs.fields(Manifest)} - {"format"}
    return Manifest(format=1, **{name: getattr(site, name) for name in names})


def read_manifest(text: str) -> Manifest:
    """Raises ``Refused`` for anything that is not a manifest of ours."""
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise Refused(f"the backup's manifest is not one of ours: {error}", field="backup") from error
    if manifest.format != 1:
        raise Refused(f"the backup's manifest has format {manifest.format}; this version reads 1", field="backup")
    return manifest


class BackupVerbs(SiteVerbs):
    def create_backup(self, caller: Actor, request: ask.CreateBackup, *, key: str | None = None) -> Change:
        def build(transaction: Transaction) -> Live:
            stored = self._stored(caller, Right.BACKUP_CREATE, request.site)
            if stored.pending:
                raise Refused(f"site {stored.site.name} is not complete", field="site")
            id = new_id("b")
            return self.journal.begin(
                "backup",
                caller,
                site=stored.site,
                work=Work(backup=id),
                result={"backup": id},
                transaction=transaction,
            )

        return self._accept(caller, self._digest("backup", request.digest()), key, build, self._need_room)

    def list_backups(self, caller: Actor, site: str | None = None) -> tuple[BackupView, ...]:
        self._allow(caller, Right.SITE_LIST)
        stored = self.store.site(site) if site is not None else None
        if stored is not None and not self._sees(caller, stored.site):
            stored = None
        found = [
            each
            for each in self.store.backups(stored.site.id if stored is not None else site)
            if may(caller, Right.BACKUP_LOOK, self.people.held_by_id(each.site_id, each.owner))
        ]
        if site is not None and stored is None and not found:
            raise NotFound(f"there is no site {site!r} and no backup of one", field="site")
        with self.store.read() as connection:
            marks = backupstore.marks_of(connection)
            proofs = {each.backup_id: each for each in backupstore.proofs_of(connection)}
        return tuple(self._backup_view(each, marks.get(each.id, Mark()), proofs.get(each.id)) for each in found)

    def _backup_view(self, backup: Backup, mark: Mark, proof: Proof | None) -> BackupView:
        where, _slash, _snapshot = backup.snapshot.rpartition("/")
        return BackupView(
            id=backup.id,
            site=backup.site_name,
            site_id=backup.site_id,
            exists=backup.site_id in self.store.sites,
            bytes=backup.bytes,
            created_at=backup.created_at,
            digest=backup.digest,
            cause=mark.cause,
            pinned=mark.pinned,
            repository=where or LOCAL,
            copies=tuple(sorted(mark.copies)),
            proved=None if proof is None else proof.ok,
            proved_at=None if proof is None else proof.at,
            problem="" if proof is None else proof.problem,
        )

    def _backup(self, caller: Actor, right: Right, id: str) -> Backup:
        backup = self.store.backup(id)
        held = self.people.held_by_id(backup.site_id, backup.owner) if backup is not None else None
        if backup is None or held is None or not (caller.entering or may(caller, Right.BACKUP_LOOK, held)):
            raise NotFound(f"there is no backup {id!r}", field="backup", hint="see: alveole backup list")
        self._allow(caller, right, held)
        return backup

    def restore_backup(
        self, caller: Actor, backup: str, request: ask.RestoreBackup, *, key: str | None = None
    ) -> Change:
        def build(transaction: Transaction) -> Live:
            return self._begin_restore(caller, backup, request, transaction)

        return self._accept(caller, self._digest("restore", backup, request.digest()), key, build, self._need_room)

    def _begin_restore(self, caller: Actor, backup: str, request: ask.RestoreBackup, transaction: Transaction) -> Live:
        found = self._backup(caller, Right.BACKUP_RESTORE, backup)
        work = Work(backup=found.id, names=may(caller, Right.DOMAIN_CLAIM))
        # A site that was destroyed comes back under its own name, as a new one.
        name = request.name or (None if found.site_id in self.store.sites else found.site_name)
        if name is None:
            site = self._free_to_change(caller, Right.BACKUP_RESTORE, found.site_id, None, elsewhere=request.here)
            work = msgspec.structs.replace(work, note=HERE if request.here else "")
        else:
            gone = found.site_id not in self.store.sites and self.people.whom(found.owner) is not None
            owner = found.owner if gone else self._owner_for(caller, None)
            site = self._reserve(owner, name, transaction)
        return self.journal.begin(
            "restore",
            caller,
            site=site,
            work=work,
            result={"site": site.id, "backup": found.id},
            transaction=transaction,
        )

    def _reserve(self, owner: str, name: str, transaction: Transaction) -> Site:
        """A row with a name and a number; everything else comes from the manifest once it is read."""
        draft = Draft(self.settings, self.store.owner_of)
        draft.name(name, self.store.site(name) is not None)
        draft.finish()
        id = new_id("s")
        number = transaction.lease(id, self.addressing.capacity())
        site = Site(
            id=id,
            number=number,
            name=name,
            wanted=Wanted.STOPPED,
            plan=next(iter(sorted(self.store.plans))),
            base=Base(BaseKind.HOST, f"host-{'0' * 16}"),
            run=Run(),
            owner=owner,
            created_at=time.time(),
        )
        transaction.insert_site(site, self._names(site), "create")
        return site

    def delete_backup(self, caller: Actor, backup: str, *, key: str | None = None) -> Change:
        def build(transaction: Transaction) -> Live:
            found = self._backup(caller, Right.BACKUP_DELETE, backup)
            return self.journal.begin(
                "delete-backup",
                caller,
                reason=f"{found.id} of {found.site_name}",
                work=Work(stored=True, backup=found.id),
                transaction=transaction,
            )

        return self._accept(caller, self._digest("delete-backup", backup), key, build)

    # --- flows --------------------------------------------------------------------------------
    def _flow_backup(self, live: Live) -> None:
        site = self._site_of(live)
        backup = self._save(live, site, live.work.backup or "", work=True)
        mark = Mark(Cause(live.work.note or Cause.HAND))
        hit("services.backup-made")
        live.say(f"{backup.bytes} bytes, snapshot {backup.snapshot}")
        self.journal.end(
            live, (), {"bytes": backup.bytes}, also=lambda transaction: self._keep(transaction, backup, mark)
        )

    @staticmethod
    def _keep(transaction: Transaction, backup: Backup, mark: Mark) -> None:
        transaction.put_backup(backup)
        backupstore.put_mark(transaction.connection, backup.id, mark)

    def _manifest(self, site: Site) -> str:
        """JSON. What somebody typed into a file is saved as what it is: a text that stays."""
        texts = {each.path: each.text for each in self._config_states(site) if each.changed and each.text}
        return msgspec.json.encode(manifest_of(with_texts(site, texts))).decode()

    def _save(self, live: Live, site: Site, id: str, *, work: bool) -> Backup:
        """The backup called ``id``; the one that is there when an earlier try has made it."""
        made = self._made(id)
        if made is None:
            manifest = self._manifest(site)
            made = self.agent.call(
                protocol.CreateBackup(
                    id,
                    site.id,
                    site.number,
                    site.slot,
                    site.data_generation,
                    site.release,
                    manifest,
                    site.volumes,
                    work=work,
                ),
                say=live.show,
            )
        return Backup(
            id, site.id, site.name, made.snapshot, made.bytes, made.created_at or time.time(), made.digest, site.owner
        )

    def _saved_first(self, live: Live, site: Site) -> bool:
        """Save what is about to be destroyed; where that fails the site stays, and the change has ended."""
        id = live.work.backup
        if id is None or self.store.backup(id) is not None:
            return True
        try:
            backup = self._save(live, site, id, work=True)
        except AlveoleError as error:
            if self.loop.stopping:
                return False
            hint = f"destroy it without: alveole site destroy {site.name} --unsaved"
            problems = [msgspec.structs.replace(each, hint=each.hint or hint) for each in error.problems]
            live.say(f"it could not be saved, and stays; {hint}", level="error")
            back = msgspec.structs.replace(site, version=site.version + 1)
            self.journal.end(live, problems, {"code": error.code}, also=lambda transaction: transaction.save_site(back))
            return False
        with self.store.write() as transaction:
            self._keep(transaction, backup, Mark(Cause.DESTROY))
        hit("services.saved-first")
        live.say(f"saved first: backup {backup.id}, {backup.bytes} bytes")
        return True

    def _made(self, id: str) -> protocol.BackupMade | None:
        """The backup, when an earlier try of the same change made it and control ended before it was noted."""
        with contextlib.suppress(AlveoleError):
            made: tuple[protocol.BackupMade, ...] = self.agent.call(protocol.ListBackups())
            return next((each for each in made if each.id == id), None)
        return None

    def _flow_delete_backup(self, live: Live) -> None:
        backup = self.store.backup(live.work.backup or "")
        if backup is not None:
            self._drop_everywhere(live, backup, prune=True)
            hit("services.backup-dropped")
        self.journal.end(live, (), also=lambda transaction: self._forget(transaction, live.work.backup or ""))

    def _drop_everywhere(self, live: Live, backup: Backup, *, prune: bool) -> None:
        with self.store.read() as connection:
            copies = backupstore.mark_of(connection, backup.id).copies
        for snapshot in (*copies.values(), backup.snapshot):
            self.agent.call(protocol.DropBackup(snapshot, prune), say=live.show)

    @staticmethod
    def _forget(transaction: Transaction, id: str) -> None:
        transaction.delete_backup(id)
        backupstore.drop_mark(transaction.connection, id)

    def _flow_restore(self, live: Live) -> None:
        site = self._site_of(live)
        pending = self.store.sites[site.id].pending == "create"
        if not live.work.stored:
            try:
                backup = self._at_hand(live, live.work.backup or "")
                if backup is None:
                    raise NotFound("the backup is gone", field="backup")
                live.show("reading the whole backup")
                manifest = read_manifest(
                    self.agent.call(protocol.ReadBackup(backup.snapshot, backup.digest), say=live.show)
                )
                generation = 1 if pending else site.data_generation + 1
                wanted = self._from_manifest(live, manifest, site, pending)
                wanted = self._landed(live, msgspec.structs.replace(wanted, data_generation=generation))
                release: Release | None = self.agent.call(
                    protocol.RestoreBackup(
                        backup.snapshot,
                        backup.digest,
                        site.id,
                        site.number,
                        generation,
                        self._limits(wanted.plan).disk_bytes,
                        work=True,
                    ),
                    say=live.show,
                )
                hit("services.restored")
                if release is not None:
                    release = msgspec.structs.replace(
                        release, created_at=time.time(), sender=live.change.actor, note=f"backup {backup.id}"
                    )
                wanted = msgspec.structs.replace(wanted, release=release.digest if release else None)
                if pending:
                    site = self._store_new(live, site, wanted, release)
                else:
                    site = self._store_content(live, site, wanted, release)
            except AlveoleError as error:
                if not pending:
                    raise
                self._take_back_create(live, site, error.problems, error.code)
                return
        self._finish(live, site, attempts=2)

    def _at_hand(self, live: Live, id: str) -> Backup | None:
        """The backup, with a snapshot that this machine's agent can open; ``None``: it is gone."""
        return self.store.backup(id)

    def _landed(self, live: Live, site: Site) -> Site:
        """What a site is to be that comes back from a backup, where it lived on another machine."""
        return site

    def _store_new(self, live: Live, old: Site, new: Site, release: Release | None) -> Site:
        new = msgspec.structs.replace(new, wanted=Wanted.RUNNING, version=old.version + 1)
        with self.store.write() as transaction:
            if release is not None:
                transaction.put_release(new.id, release)
            transaction.save_site(new, self._names(new))
            self.journal.save(live, transaction, msgspec.structs.replace(live.work, stored=True))
        return new

    def _from_manifest(self, live: Live, manifest: Manifest, site: Site, as_new: bool) -> Site:
        """What runs comes from the backup; names, plan and access of a living site stay its own."""
        draft = Draft(self.settings, self.store.owner_of, site.id)
        if manifest.application is None:
            run = draft.run(
                (),
                tuple(ask.ProcessBody(name=each.name, argv=each.argv) for each in manifest.run.processes),
                manifest.run.port,
                manifest.run.health,
                manifest.run.ready_seconds,
                manifest.run.stop_seconds,
            )
            draft.volumes(tuple(ask.VolumeBody(name=each.name, path=each.path) for each in manifest.volumes))
        else:
            # Composed of modules: users, tasks and the rest, each within its grammar by its type. All of it is
            # of the inside of the container, where it can ask for nothing that a command could not.
            run = manifest.run
            draft.composed(run, manifest.volumes)
        env = draft.env(manifest.env)
        draft.finish()
        self._check_hand_made(site, manifest)
        base = self._base_of_manifest(manifest)
        changed = msgspec.structs.replace(
            site,
            run=run,
            env=env,
            volumes=manifest.volumes,
            files=manifest.files,
            application=manifest.application,
            base=base,
        )
        if not as_new:
            return changed
        draft = Draft(self.settings, self.store.owner_of, site.id)
        draft.plan(manifest.plan, self.store.plans)
        access = draft.access(manifest.access.allow, manifest.access.deny)
        draft.finish()
        domains = tuple(each for each in manifest.domains if self._still_free(each, changed, live, domain=True))
        path = manifest.path
        if path is not None and not self._still_free(path, changed, live, domain=False):
            path = None
        new = msgspec.structs.replace(
            changed, plan=manifest.plan, access=access, domains=domains, path=path, https_only=manifest.https_only
        )
        same = (manifest.name, manifest.domains) == (new.name, new.domains)
        return new if same else self._renamed(live, new, manifest)

    def _check_hand_made(self, site: Site, manifest: Manifest) -> None:
        """What was changed by hand in a living site is never overwritten silently."""
        then = {each.path: each.text for each in manifest.files}
        now = {each.path: each.text for each in site.files}
        lost = [
            each.path
            for each in self._config_states(site)
            if each.changed and each.text is not None and then.get(each.path) not in (each.text, now.get(each.path))
        ]
        if lost:
            hint = "see: alveole site configure, --keep and --take-back"
            raise Refused(
                problems=[Problem(path, "was changed by hand, and would be overwritten", hint) for path in lost]
            )

    def _renamed(self, live: Live, site: Site, manifest: Manifest) -> Site:
        """A site of modules, composed again under the name that it has now; passwords and data stay."""
        application = site.application
        if application is None:
            return site
        catalogue = self.catalogue()
        other = [
            name
            for name, digest in application.modules.items()
            if (module := catalogue.modules.get(name)) is None or module.digest != digest
        ]
        if other:
            live.say(
                f"its files still name {manifest.name}: {', '.join(other)} is not here as it was then; "
                "alveole site configure renders them again",
                level="warning",
            )
            return site
        context = self._context(site.name, site.plan, site.domains, site.https_only, manifest.release is not None)
        made = self._compose_again(catalogue, application.asked, {}, context, application)
        return recomposed(site, made, site.base)

    def _still_free(self, name: str, site: Site, live: Live, *, domain: bool) -> bool:
        if not live.work.names:
            # Threat 27: that a site once had it does not say whose it is today.
            cure = "claim it again: alveole site domain add" if domain else "ask an operator or an administrator"
            live.say(f"left out: {name}; {cure}", level="warning")
            return False
        draft = Draft(self.settings, self.store.owner_of, site.id)
        if domain:
            draft.domains((name,), site.name)
        else:
            draft.path(name)
        for problem in draft.problems:
            live.say(f"left out: {problem}", level="warning")
        return not draft.problems

    def _base_of_manifest(self, manifest: Manifest) -> Base:
        base = manifest.base
        if base.kind is BaseKind.OCI:
            known = find_base(base.key, self.store.bases)
            if known is None:
                raise Refused(
                    f"the image {base.label} is not here any more", field="base", hint="import it, then restore again"
                )
            return known.base
        draft = Draft(self.settings, self.store.owner_of)
        packages = draft.packages(base.packages, base.kind)
        if draft.problems:
            raise InvalidInput(problems=(Problem("backup", "names packages that are none"), *draft.problems))
        return self._resolve_base(str(base.kind), packages, not manifest.run.processes)
