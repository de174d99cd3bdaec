"""Proving a backup: it is given back into a scratch site, whose checks and scenarios are asked.

The scratch site has a lease of its own and nothing else: no row, no name, no route, no address that anybody knows, no
way out, small limits. What a death leaves of it is a stray lease, which is swept at the next start
(:mod:`alveole.services.trials`). The backup's own manifest says what runs, as it would after the loss of all that is
here.
"""

from __future__ import annotations

import time

import msgspec

from alveole.agent import protocol
from alveole.errors import AlveoleError, NoRoom, NotFound, Problem, Refused, StepFailed, Temporary
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.loop.compile import compile_site
from alveole.model.change import Change
from alveole.model.resource import Action, Desired, Kind, Step
from alveole.model.site import MIB, Backup, HealthCheck, Limits, Run, Site, Wanted
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.requests.backups import ProveBackup
from alveole.scenarios.model import Report, Use
from alveole.services.backups import Manifest, read_manifest
from alveole.services.nightly import NightVerbs
from alveole.services.trials import Trials
from alveole.store import Transaction
from alveole.store import backups as backupstore
from alveole.store.backups import Evidence, Proof

#: What a scratch site is made of: all that is behind the names.
_MADE = (Kind.STORAGE, Kind.RELEASE, Kind.CONFIG, Kind.WORKLOAD)
_WHY = "given back into a scratch site"
#: Most that a scratch site gets of the machine: nobody waits for it.
_CPU_MILLIS = 1000
_DISK_BYTES = 256 * MIB


class ProofVerbs(NightVerbs, Trials):
    def prove_backup(self, caller: Actor, backup: str, *, key: str | None = None) -> Change:
        """Prove one backup now. The change fails, and names what is wrong, when it cannot be proved."""

        def build(transaction: Transaction) -> Live:
            found = self._backup(caller, Right.BACKUP_PROVE, backup)
            stored = self.store.sites.get(found.site_id)
            return self.journal.begin(
                "prove-backup",
                caller,
                site=stored.site if stored is not None else None,
                reason=f"{found.id} of {found.site_name}",
                work=Work(backup=found.id),
                result={"backup": found.id},
                transaction=transaction,
            )

        return self._accept(caller, self._digest("prove-backup", backup), key, build, self._need_room)

    def prove_site(self, caller: Actor, request: ProveBackup, *, key: str | None = None) -> Change:
        """Prove the newest backup of a site."""
        found = self.list_backups(caller, request.site)
        if not found:
            raise NotFound(f"there is no backup of {request.site}", field="site", hint="alveole backup create NAME")
        return self.prove_backup(caller, found[0].id, key=key)

    # --- the flow -----------------------------------------------------------------------------
    def _flow_prove_backup(self, live: Live) -> None:
        backup = self._at_hand(live, live.work.backup or "")
        if backup is None:
            raise Refused("the backup is gone", field="backup")
        began = time.time()
        links: tuple[protocol.Link, ...] = ()
        reports: tuple[Report, ...] = ()
        problems: tuple[Problem, ...] = ()
        try:
            links, reports = self._given_back(live, backup)
            problems = _failing(links, reports)
        except AlveoleError as error:
            if _not_its_fault(error):
                raise
            problems = error.problems
        if self.loop.stopping:
            return
        text = "; ".join(each.message for each in problems)
        proof = Proof(
            backup.id,
            backup.site_id,
            time.time(),
            not problems,
            round(time.time() - began, 3),
            text,
            Evidence(links, reports),
        )
        result: dict[str, str | int | float | None] = {"backup": backup.id, "proved": int(not problems)}
        if problems:
            hint = f"save it anew and prove that: alveole backup create {backup.site_name}"
            problems = tuple(msgspec.structs.replace(each, hint=each.hint or hint) for each in problems)
            live.say(f"{backup.id} of {backup.site_name} cannot be proved", level="error", resource="backup.unproved")
            result["kind"] = "backup.unproved"
        else:
            live.say(f"{backup.id} of {backup.site_name} is proved", resource="backup.proved")

        def keep(transaction: Transaction) -> None:
            if self.store.backup(backup.id) is not None:
                backupstore.put_proof(transaction.connection, proof)

        self.journal.end(live, problems, result, also=keep)

    def _given_back(self, live: Live, backup: Backup) -> tuple[tuple[protocol.Link, ...], tuple[Report, ...]]:
        """What the checks and the scenarios say of a site made of the backup. Nothing of it is left."""
        manifest, blank = self._read_backup(live, backup)
        stored = self.store.sites.get(backup.site_id)
        with self._clone(blank, manifest.base) as empty:
            copy = self._from_manifest(live, manifest, empty, False)
            copy, _names = self._start_scratch(live, backup, copy, "services.proof-restored")
            hit("services.proof-runs")
            live.say("the scratch site runs; asking it")
            return self._answers(copy, stored.site if stored is not None else None)

    def _read_backup(self, live: Live, backup: Backup) -> tuple[Manifest, Site]:
        """What the backup says of its site, and a site of the plan it has today that holds nothing yet."""
        live.show("reading the whole backup")
        manifest = read_manifest(self.agent.call(protocol.ReadBackup(backup.snapshot, backup.digest), say=live.show))
        stored = self.store.sites.get(backup.site_id)
        plan = stored.site.plan if stored is not None else manifest.plan
        plan = plan if plan in self.store.plans else next(iter(sorted(self.store.plans)))
        blank = Site(
            id=backup.site_id,
            number=1,
            name=backup.site_name,
            wanted=Wanted.RUNNING,
            plan=plan,
            base=manifest.base,
            run=Run(),
            owner=backup.owner,
            created_at=backup.created_at,
        )
        return manifest, blank

    def _start_scratch(self, live: Live, backup: Backup, copy: Site, point: str) -> tuple[Site, tuple[Desired, ...]]:
        """Unpack the backup as ``copy`` and start that, with small limits and no way out. What is given besides are
        its names, which are not made. Raises what a step says."""
        if problems := self.loop.ensure_base(copy.base, live):
            raise StepFailed(problems=problems)
        limits = _small(self._limits(copy.plan), backup.bytes)
        request = protocol.RestoreBackup(
            backup.snapshot, backup.digest, copy.id, copy.number, copy.data_generation, limits.disk_bytes
        )
        release = self.agent.call(request, say=live.show)
        hit(point)
        copy = msgspec.structs.replace(copy, release=release.digest if release is not None else None)
        desired = compile_site(copy, self.settings, {copy.plan: limits})
        for kind in _MADE:
            for item in (each for each in desired if each.id.kind is kind):
                live.show(f"scratch site: {item.id.kind}")
                self._make(Step(item.id, Action.CREATE, item.digest, item.spec, _WHY))
        return copy, tuple(each for each in desired if each.id.kind in (Kind.CERTIFICATE, Kind.ROUTE))

    def _answers(self, copy: Site, live_site: Site | None) -> tuple[tuple[protocol.Link, ...], tuple[Report, ...]]:
        health = HealthCheck(name="health", path=copy.run.health)
        links: tuple[protocol.Link, ...] = self.agent.call(
            protocol.CheckHealth(copy.id, copy.slot, (health, *copy.run.checks))
        )
        links = (_judged(links[0]), *links[1:])
        if live_site is None:
            return links, ()
        # Scenarios of the gate are written for an instance that no route leads to; they call it by the site's names.
        chosen, _others = self.checks.chosen(live_site.id, Use.GATE)
        named = msgspec.structs.replace(copy, name=live_site.name, domains=live_site.domains, path=live_site.path)
        return links, self.checks.run_these(named, chosen, Use.GATE, copy.slot, borrowed=(live_site.id,))


def _not_its_fault(error: AlveoleError) -> bool:
    """What says nothing of the backup: it is tried again, and nobody is told that the backup is bad."""
    # Of the plain kind is what a program said for which nothing has a word: restic that does not reach a repository.
    return type(error) in (AlveoleError, Temporary) or isinstance(error, NoRoom)


def _judged(link: protocol.Link) -> protocol.Link:
    """The health path: the loop calls a site ready whatever its status; that of a server which fails is too little."""
    status = link.came.removeprefix("status ").split()[:1]
    well = link.came.startswith("status ") and status[0].isdigit() and int(status[0]) < 500
    return msgspec.structs.replace(link, ok=True, cure="") if well else link


def _failing(links: tuple[protocol.Link, ...], reports: tuple[Report, ...]) -> tuple[Problem, ...]:
    found = [Problem(each.name, f"{each.name}: {each.asked}: {each.came}") for each in links if not each.ok]
    found += [Problem(f"check/{each.scenario}", f"{each.scenario}: {each.problem}") for each in reports if not each.ok]
    return tuple(found)


def _small(limits: Limits, archive_bytes: int) -> Limits:
    """Of a plan what a scratch site gets; a disk of its own always, so that it cannot fill the machine's."""
    disk = max(_DISK_BYTES, 2 * archive_bytes)
    return msgspec.structs.replace(
        limits, cpu_millis=min(limits.cpu_millis, _CPU_MILLIS), internet=False, disk_bytes=disk
    )
