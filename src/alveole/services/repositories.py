"""Where backups are kept, the key they are sealed with, and the platform's own."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator

import msgspec

from alveole.agent import protocol, saving
from alveole.errors import AlveoleError, InvalidInput, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.site import BaseKind
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.policy.backups import BackupPolicy, last_turn
from alveole.requests.backups import PutRepository
from alveole.services.proving import ProofVerbs
from alveole.store import Transaction, new_id
from alveole.views.backups import BackupKeyView, KeepingView, PlatformSaved, RepositoryView, SshKeyView

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")
_KEY, _PLATFORM = "backup-key", "platform-backup"


class _Exported(msgspec.Struct, frozen=True):
    at: float
    by: str


class RepositoryVerbs(ProofVerbs):
    # --- where --------------------------------------------------------------------------------
    def _repositories_known(self) -> tuple[saving.RepositoryState, ...]:
        found: tuple[saving.RepositoryState, ...] = self.agent.call(saving.ListRepositories())
        return found

    def list_repositories(self, caller: Actor) -> tuple[RepositoryView, ...]:
        self._allow(caller, Right.PLATFORM_LOOK)
        return tuple(self._repository_view(each) for each in self._repositories_known())

    def _repository_view(self, state: saving.RepositoryState) -> RepositoryView:
        copied = self._policy().copy_to == state.name
        return RepositoryView(copied_to=copied, **msgspec.structs.asdict(state))

    def put_repository(self, caller: Actor, name: str, request: PutRepository) -> RepositoryView:
        """Add a repository, or say anew how it is reached; it is reached at once, and made where it is not."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        problems = self._named(name)
        kinds = {str(each): each for each in saving.Kind if each is not saving.Kind.OTHER}
        if request.kind not in kinds:
            problems.append(Problem("kind", f"{request.kind[:80]!r} is not local, sftp or s3"))
        for field, most in (("place", 1000), ("host_key", 4096), ("user", 256), ("secret", 1024), ("region", 64)):
            value = getattr(request, field)
            if len(value) > most or not value.isprintable():
                problems.append(Problem(field, f"is longer than {most} characters or not printable"))
        if not request.place:
            problems.append(Problem("place", "is needed"))
        if problems:
            raise InvalidInput(problems=problems)
        host_key = " ".join(request.host_key.split()[:2])
        state = self.agent.call(
            saving.PutRepository(
                name, kinds[request.kind], request.place, host_key, request.user, request.secret, request.region
            )
        )
        self._note(caller, "add-repository", f"{name}: {request.kind} {request.place}")
        return self._repository_view(state)

    @staticmethod
    def _named(name: str) -> list[Problem]:
        if name == saving.LOCAL or not _NAME.match(name):
            return [Problem("name", f"{name[:80]!r} is no name for a repository", "use a-z, 0-9 and '-'")]
        return []

    def new_repository_key(self, caller: Actor, name: str) -> SshKeyView:
        """What a repository over SFTP will sign in with, so that it can be let in there first."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        if problems := self._named(name):
            raise InvalidInput(problems=problems)
        return SshKeyView(public_key=self.agent.call(saving.NewRepositoryKey(name)))

    def check_repository(self, caller: Actor, name: str) -> RepositoryView:
        """Reach it and have its structure compared. Raises what is wrong."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        return self._repository_view(self.agent.call(saving.CheckRepository(self._plain(name))))

    def _plain(self, name: str) -> str:
        if name != saving.LOCAL and (problems := self._named(name)):
            raise InvalidInput(problems=problems)
        return name

    def use_repository(self, caller: Actor, name: str) -> RepositoryView:
        """New backups go there; those that are made stay where they are, and can be restored from there."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        self.agent.call(saving.UseRepository(self._plain(name)))
        self._note(caller, "use-repository", name)
        return next(each for each in self.list_repositories(caller) if each.name == name)

    def forget_repository(self, caller: Actor, name: str) -> None:
        """What it holds stays there; backups that are only there are no longer listed."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        name = self._plain(name)
        if self._policy().copy_to == name:
            raise Refused(
                f"backups are copied to {name}", field="repository", hint="alveole backup policy set --copy-to ''"
            )
        only = [each for each in self.store.backups() if each.snapshot.startswith(f"{name}/")]
        if only:
            raise Refused(
                f"{len(only)} backups are kept in {name}, of {only[0].site_name} among them",
                field="repository",
                hint="delete them, or let them grow old",
            )
        self.agent.call(saving.ForgetRepository(name))
        self._note(caller, "forget-repository", name)

    # --- the key ------------------------------------------------------------------------------
    def export_backup_key(self, caller: Actor) -> BackupKeyView:
        """Give it out, and remember that it was."""
        self._allow(caller, Right.PLATFORM_KEY)
        key: str = self.agent.call(saving.BackupKey())
        self._put_setting(_KEY, _Exported(time.time(), caller.name))
        self._note(caller, "export-backup-key", "")
        return BackupKeyView(key=key)

    def keeping(self, caller: Actor) -> KeepingView:
        self._allow(caller, Right.PLATFORM_LOOK)
        exported = self._setting(_KEY, _Exported)
        return KeepingView(
            platform=self._setting(_PLATFORM, PlatformSaved),
            key_exported_at=exported.at if exported is not None else None,
            key_exported_by=exported.by if exported is not None else "",
        )

    def _backup_reminders(self) -> tuple[str, ...]:
        """What people still have to do, so that a lost machine can be made again."""
        found = []
        if self._setting(_KEY, _Exported) is None:
            found.append("keep the key of the backups somewhere else: alveole backup key export")
        with contextlib.suppress(AlveoleError):
            if len(self._repositories_known()) == 1 and not self.settings.backups.repository:
                found.append("all backups are on this machine alone: alveole backup repository add")
        return tuple(found)

    def _backup_links(self) -> tuple[protocol.Link, ...]:
        """For ``doctor``: the sites whose newest proof has failed, and what is to be done by hand."""
        bad = []
        for stored in self.store.sites.values():
            if not stored.pending and not stored.site.node:
                state = self._site_backups(stored.site)
                if state.unproved:
                    bad.append(f"{state.unproved} of {state.site}: {state.problem[:200]}")
        cure = "save these sites anew and prove that: alveole backup prove NAME" if bad else ""
        link = protocol.Link(
            "proofs", not bad, "the newest proof of each site", "; ".join(bad) or "none has failed", cure
        )
        reminders = self._backup_reminders()
        said = "; ".join(reminders) or "the key is kept elsewhere too, and so are backups"
        return link, protocol.Link("backup key", True, "whether it was exported", said)

    # --- the platform -------------------------------------------------------------------------
    def save_platform(self, caller: Actor, *, key: str | None = None) -> Change:
        """Save the platform itself now."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        digest = self._digest("save-platform")
        return self._accept(caller, digest, key, lambda within: self._platform_change(caller, within), self._need_room)

    def _platform_change(self, actor: Actor | str, transaction: Transaction) -> Live:
        work = Work(stored=True, backup=new_id("b"))
        return self.journal.begin("save-platform", actor, work=work, transaction=transaction)

    def _platform_due(self, policy: BackupPolicy, now: float) -> bool:
        saved = self._setting(_PLATFORM, PlatformSaved)
        return policy.nightly and (saved is None or saved.at < last_turn("platform", policy, now))

    def _begin_platform(self, actor: Actor | str) -> Live:
        with self.store.write() as transaction:
            live = self._platform_change(actor, transaction)
        self._go(live)
        return live

    def _flow_save_platform(self, live: Live) -> None:
        id = live.work.backup or ""
        live.show("copying the database")
        with self._database_copy() as copy:
            hit("services.platform-copied")
            made: saving.BackupMade = self.agent.call(saving.SavePlatform(id), (copy,), live.show)
        to = self._policy().copy_to
        if to and made.snapshot.rpartition("/")[0] != to:
            self.agent.call(saving.CopyBackup(id, made.snapshot, to), say=live.show)
        where = made.snapshot.rpartition("/")[0] or saving.LOCAL
        saved = PlatformSaved(id=id, at=time.time(), bytes=made.bytes, repository=where, copied_to=to)
        self._put_setting(_PLATFORM, saved)
        live.say(f"the platform, {made.bytes} bytes, in {where}{f' and {to}' if to else ''}")
        kept: saving.KeptSaved = self.agent.call(self._kept(to), say=live.show)
        hit("services.kept-saved")
        if kept.stored or kept.dropped:
            live.say(f"releases and images: {kept.stored} saved, {kept.dropped} let go")
        for problem in kept.problems:
            live.say(f"not saved: {problem}", level="warning")
        self.journal.end(live, (), {"bytes": made.bytes, "repository": where, "kept": kept.stored})

    def _kept(self, to: str) -> saving.SaveKept:
        """What a lost machine needs that no backup of a site surely holds: all releases (which of them a backup holds
        is in that alone, and the live one need not be the only one that is known), the versions of applications, and
        images."""
        contents: list[saving.Content] = []
        for stored in self.store.sites.values():
            site = stored.site
            if stored.pending or site.node:
                continue
            contents += [saving.Content(site.id, site.number, each.digest) for each in self.store.releases(site.id)]
        for app in self.apps.apps.values():
            versions = self.apps.versions(app.id)
            digests = {digest for each in versions for digest in (each.release, each.built) if digest is not None}
            contents += [saving.Content(app.store, app.number, each) for each in sorted(digests)]
        images = sorted(each.base.key for each in self.store.bases.values() if each.base.kind is BaseKind.OCI)
        return saving.SaveKept(tuple(contents), tuple(images), to or None)

    @contextlib.contextmanager
    def _database_copy(self) -> Iterator[int]:
        """An open file that holds the whole database as of one commit; gone with this process."""
        database = self.settings.database
        with tempfile.NamedTemporaryFile(dir=database.parent, prefix="copy-") as file:
            # SQLite's own backup: what is committed meanwhile does not get in (sqlite.org/backup.html).
            source = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
            with contextlib.closing(source), contextlib.closing(sqlite3.connect(file.name)) as target:
                source.backup(target)
            yield file.fileno()
