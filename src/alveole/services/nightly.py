"""Backups by themselves: each night, thinned out, copied; and what people decide about it.

A tick looks once a minute what is due and sets it going as a change of its own, a few at a time. What was missed is due
until it was done. Nothing is remembered between ticks but how often something has failed.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod

import msgspec
from msgspec import UNSET

from alveole.agent.saving import CopyBackup, PruneBackups, RepositoryState
from alveole.errors import AlveoleError, InvalidInput, Problem, Refused
from alveole.journal import BESIDE, Live, Work
from alveole.model.site import Backup, Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.policy.backups import (
    DAY,
    BackupPolicy,
    Cause,
    KeptBackup,
    SitePolicy,
    is_due,
    last_turn,
    proof_due,
    retry_after,
    superfluous,
)
from alveole.requests.backups import PinBackup, SetPolicy, SetSitePolicy
from alveole.services.backups import BackupVerbs
from alveole.services.outside import OutsideVerbs, converted
from alveole.store import Stored, new_id
from alveole.store import backups as backupstore
from alveole.views import calendar as backup_calendar
from alveole.views.backups import BackupDetail, BackupView, CalendarView, PolicyView, SiteBackupsView

log = logging.getLogger("alveole.backups")
#: Who does what nobody has asked for.
NIGHTLY = "nightly"
_TICK_SECONDS = 60.0
#: After a start the sites come first.
_FIRST_SECONDS = 120.0
_SETTING = "backups"


class NightVerbs(BackupVerbs, OutsideVerbs):
    _night_failures: dict[str, tuple[int, float]]
    """By what was tried: how often it has failed in a row, and when it is tried again."""
    _tidied_at: float

    # --- what people decide -------------------------------------------------------------------
    def _policy(self) -> BackupPolicy:
        return self._setting(_SETTING, BackupPolicy) or BackupPolicy()

    def _policy_of(self, site_id: str) -> tuple[SitePolicy, BackupPolicy]:
        with self.store.read() as connection:
            own = backupstore.site_policies(connection).get(site_id, SitePolicy())
        return own, own.over(self._policy())

    def regularly_saved(self) -> frozenset[str]:
        """Ids of the sites that are to have a backup of the last night: all, where others than Alvéole see to it."""
        policy = self._policy()
        with self.store.read() as connection:
            own = backupstore.site_policies(connection)
        return frozenset(
            id
            for id in self.store.sites
            if not self.settings.backups.by_itself or own.get(id, SitePolicy()).over(policy).nightly
        )

    def backup_policy(self, caller: Actor) -> PolicyView:
        self._allow(caller, Right.PLATFORM_LOOK)
        return PolicyView(policy=self._policy(), by_itself=self.settings.backups.by_itself)

    def set_backup_policy(self, caller: Actor, request: SetPolicy) -> PolicyView:
        self._allow(caller, Right.SETTINGS_CHANGE)
        changed = {name: value for name in request.__struct_fields__ if (value := getattr(request, name)) is not UNSET}
        policy = converted({**msgspec.structs.asdict(self._policy()), **changed}, BackupPolicy)
        problems = list(policy.check())
        if policy.copy_to and policy.copy_to not in {each.name for each in self._repositories_known()}:
            hint = "see: alveole backup repository list"
            problems.append(Problem("copy_to", f"there is no repository {policy.copy_to[:80]!r}", hint))
        if problems:
            raise InvalidInput(problems=problems)
        self._put_setting(_SETTING, policy)
        self._note(caller, "set-backups", ", ".join(f"{name}={value}" for name, value in changed.items()))
        self.ticker.poke("backups")
        return self.backup_policy(caller)

    def site_backups(self, caller: Actor, site: str) -> SiteBackupsView:
        return self._site_backups(self._stored(caller, Right.BACKUP_LOOK, site).site)

    def _site_backups(self, site: Site) -> SiteBackupsView:
        own, policy = self._policy_of(site.id)
        backups = self.store.backups(site.id)
        with self.store.read() as connection:
            proofs = backupstore.proofs_of(connection, site.id)
            proved_at = backupstore.last_proved(connection, site.id)
        bad = proofs[0] if proofs and not proofs[0].ok else None
        now = time.time()
        next_at = None
        if policy.nightly and self.settings.backups.by_itself and not site.node:
            turn = last_turn(site.id, policy, now)
            missing = is_due(site.id, site.created_at, backups[0].created_at if backups else None, policy, now)
            next_at = now if missing else last_turn(site.id, policy, turn + 1.5 * DAY)
        return SiteBackupsView(
            site=site.name,
            own=own,
            policy=policy,
            backups=len(backups),
            saved_at=backups[0].created_at if backups else None,
            proved_at=proved_at,
            unproved=bad.backup_id if bad is not None else "",
            problem=bad.problem if bad is not None else "",
            next_at=next_at,
        )

    def set_site_backups(self, caller: Actor, site: str, request: SetSitePolicy) -> SiteBackupsView:
        found = self._stored(caller, Right.SITE_CHANGE, site).site
        changed = {name: value for name in request.__struct_fields__ if (value := getattr(request, name)) is not UNSET}
        own = converted({**msgspec.structs.asdict(self._policy_of(found.id)[0]), **changed}, SitePolicy)
        if problems := own.over(self._policy()).check():
            raise InvalidInput(problems=problems)
        with self.store.write() as transaction:
            backupstore.put_site_policy(transaction.connection, found.id, own)
        said = ", ".join(f"{name}={'as for all' if value is None else value}" for name, value in changed.items())
        self._note(caller, "set-backups", said, found)
        return self._site_backups(found)

    def show_backup(self, caller: Actor, backup: str) -> BackupDetail:
        found = self._backup(caller, Right.BACKUP_LOOK, backup)
        with self.store.read() as connection:
            mark = backupstore.mark_of(connection, found.id)
            proof = backupstore.proof_of(connection, found.id)
        view = self._backup_view(found, mark, proof)
        if proof is None:
            return BackupDetail(backup=view)
        return BackupDetail(
            backup=view, seconds=proof.seconds, links=proof.evidence.links, reports=proof.evidence.reports
        )

    def backup_calendar(self, caller: Actor, site: str, month: str = "") -> CalendarView:
        """A month of a site's backups; of a destroyed one too. Raises ``InvalidInput``, ``NotFound``."""
        there = self.store.site(site) is not None
        stored = self._stored(caller, Right.BACKUP_LOOK, site) if there else None
        month = month or backup_calendar.month_of(time.time())
        begin, end = backup_calendar.bounds(month)
        listed = self.list_backups(caller, site)
        id = stored.site.id if stored is not None else listed[0].site_id
        with self.store.read() as connection:
            failed = backupstore.failed_between(connection, id, begin, end)
        first = backup_calendar.month_of(listed[-1].created_at) if listed else month
        days = backup_calendar.days(month, listed, failed)
        return CalendarView(site=site, month=month, days=days, first=first)

    def pin_backup(self, caller: Actor, backup: str, request: PinBackup) -> BackupView:
        """A pinned backup is never thinned out."""
        found = self._backup(caller, Right.BACKUP_DELETE, backup)
        with self.store.write() as transaction:
            mark = backupstore.mark_of(transaction.connection, found.id)
            mark = msgspec.structs.replace(mark, pinned=request.pinned)
            backupstore.put_mark(transaction.connection, found.id, mark)
        stored = self.store.sites.get(found.site_id)
        verb = "pin-backup" if request.pinned else "unpin-backup"
        self._note(caller, verb, found.id, stored.site if stored is not None else None)
        return self.show_backup(caller, backup).backup

    def _is_saved_first(self, site: Site) -> bool:
        if not self.settings.backups.by_itself or site.node:
            return False
        return self._policy().before_destroy and bool(site.release or site.volumes)

    # --- by itself ----------------------------------------------------------------------------
    def _keep_backups(self) -> None:
        if self.settings.backups.by_itself:
            self.ticker.add("backups", _TICK_SECONDS, self._backups_tick, first=_FIRST_SECONDS)

    def _backups_tick(self) -> None:
        """Set going what is due, as far as there is room for it beside what goes on."""
        if self.store.reserve.short():
            return
        now, policy = time.time(), self._policy()
        with self.store.read() as connection:
            kept = backupstore.kept(connection)
            own = backupstore.site_policies(connection)
            tried: dict[str, tuple[float, bool]] = {}
            for proof in backupstore.proofs_of(connection):
                tried.setdefault(proof.site_id, (proof.at, proof.ok))
        going = [live.change.verb for live in self.journal.all_live() if live.change.actor == NIGHTLY]
        room = policy.parallel - going.count("backup")
        sites = [each for each in self.store.sites.values() if self._may_begin(each)]
        for stored in sorted(sites, key=lambda each: last_turn(each.site.id, policy, now)):
            site = stored.site
            mine = own.get(site.id, SitePolicy()).over(policy)
            newest = kept[site.id][0].at if site.id in kept else None
            if room > 0 and is_due(site.id, site.created_at, newest, mine, now) and self._again(site.id, now):
                self._begin_night("backup", site, new_id("b"), Cause.NIGHT)
                room -= 1
            elif (
                "prove-backup" not in going
                and newest is not None
                and proof_due(site.id, newest, tried.get(site.id), mine, now)
                and self._again(f"prove {site.id}", now)
            ):
                self._begin_night("prove-backup", site, kept[site.id][0].id, "")
                going.append("prove-backup")
        if "save-platform" not in going and self._platform_due(policy, now) and self._again("platform", now):
            self._begin_platform(NIGHTLY)
        if policy.copy_to and "copy-backup" not in going:
            self._copy_one(policy.copy_to, kept, now)
        if last_turn("tidy", policy, now) > self._tidied_at and "thin-backups" not in going:
            self._tidied_at = now
            self.loop.submit(self._tidy)

    def _may_begin(self, stored: Stored) -> bool:
        site = stored.site
        if stored.pending or site.node or self.journal.of_site(site.id) is not None:
            return False
        return not any(live.change.verb in BESIDE & {"backup"} for live in self.journal.all_of_site(site.id))

    def _again(self, what: str, now: float) -> bool:
        """Whether ``what`` may be tried; then it counts as failed until it is no longer due."""
        failures, at = self._night_failures.get(what, (0, 0.0))
        if at > now:
            return False
        if now - at > DAY:
            failures = 0
        self._night_failures[what] = (failures + 1, now + retry_after(failures + 1))
        return True

    def _begin_night(self, verb: str, site: Site, backup: str, note: str) -> None:
        with self.store.write() as transaction:
            work = Work(backup=backup, note=note)
            reason = "each night" if verb == "backup" else f"{backup} of {site.name}"
            live = self.journal.begin(
                verb, NIGHTLY, site=site, reason=reason, work=work, result={"backup": backup}, transaction=transaction
            )
        self._go(live)

    # --- copies -------------------------------------------------------------------------------
    def _copy_one(self, to: str, kept: dict[str, list[KeptBackup]], now: float) -> None:
        """Copy the newest backup of some site that the other repository has not."""
        with self.store.read() as connection:
            marks = backupstore.marks_of(connection)
        for found in kept.values():
            newest = found[0]
            mark = marks.get(newest.id, backupstore.Mark())
            if to not in mark.copies and newest.cause != Cause.DEPLOY and self._again(f"copy {newest.id}", now):
                with self.store.write() as transaction:
                    work = Work(backup=newest.id, note=to)
                    live = self.journal.begin(
                        "copy-backup", NIGHTLY, reason=f"{newest.id} to {to}", work=work, transaction=transaction
                    )
                self._go(live)
                return

    def _flow_copy_backup(self, live: Live) -> None:
        backup = self.store.backup(live.work.backup or "")
        if backup is None:
            raise Refused("the backup is gone", field="backup")
        to = live.work.note
        snapshot = backup.snapshot
        if backup.snapshot.rpartition("/")[0] != to:
            snapshot = self.agent.call(CopyBackup(backup.id, backup.snapshot, to), say=live.show)
        with self.store.write() as transaction:
            mark = backupstore.mark_of(transaction.connection, backup.id)
            mark = msgspec.structs.replace(mark, copies={**mark.copies, to: snapshot})
            backupstore.put_mark(transaction.connection, backup.id, mark)
        self.journal.end(live, (), {"backup": backup.id, "repository": to})

    # --- thinning out -------------------------------------------------------------------------
    def _superfluous(self) -> list[Backup]:
        policy, now = self._policy(), time.time()
        with self.store.read() as connection:
            kept = backupstore.kept(connection)
            own = backupstore.site_policies(connection)
            proved: dict[str, str] = {}
            for proof in backupstore.proofs_of(connection):
                if proof.ok:
                    proved.setdefault(proof.site_id, proof.backup_id)
        used = {live.work.backup for live in self.journal.all_live()}
        ids: list[str] = []
        for site_id, found in kept.items():
            if site_id in self.store.sites:
                mine = own.get(site_id, SitePolicy()).over(policy)
                ids += superfluous(found, mine, proved.get(site_id, ""))
            else:
                old = (each for each in found if each.at < now - policy.gone_days * DAY)
                ids += [each.id for each in old if each.cause in (Cause.NIGHT, Cause.DESTROY) and not each.pinned]
        found_backups = (self.store.backup(id) for id in ids if id not in used)
        return [each for each in found_backups if each is not None]

    def _tidy(self) -> None:
        """Drop what the policy lets go, and give its room back; the proofs of what is gone with it."""
        with self.store.write() as transaction:
            backupstore.forget_gone(transaction.connection, set(self.store.sites))
        gone = self._superfluous()
        if not gone:
            return
        live = self.journal.begin("thin-backups", NIGHTLY, reason=f"{len(gone)} that the policy lets go")
        try:
            for backup in gone:
                self._drop_everywhere(live, backup, prune=False)
                with self.store.write() as transaction:
                    self._forget(transaction, backup.id)
                live.say(f"{backup.id} of {backup.site_name}")
            self.agent.call(PruneBackups(), say=live.show)
        except AlveoleError as error:
            self.journal.end(live, error.problems)
            return
        self.journal.end(live, (), {"gone": len(gone)})

    @abstractmethod
    def _platform_due(self, policy: BackupPolicy, now: float) -> bool:
        """Likewise: whether the platform itself is to be saved."""

    @abstractmethod
    def _begin_platform(self, actor: Actor | str) -> Live:
        """Likewise: save it."""

    @abstractmethod
    def _repositories_known(self) -> tuple[RepositoryState, ...]:
        """Supplied by the class that joins the parts."""
