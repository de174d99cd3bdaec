"""After the switch: verified and concluded, or taken back; and rolling back to any version that was live.

What a deploy and a roll back have in common begins at :attr:`Phase.SWITCHING`: the new state is what is wanted.
The agent may go away at any moment; then the flow waits for it, for what is wanted is stored.
"""

from __future__ import annotations

import time

import msgspec

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, Problem, Refused, Temporary
from alveole.failpoints import hit
from alveole.journal import Live
from alveole.loop.compile import is_static
from alveole.masking import HIDDEN
from alveole.model.app import App, Delivery, Deployment, Environment, Phase, Stage
from alveole.model.change import Change
from alveole.model.site import Release, Site, Wanted
from alveole.people.model import Actor
from alveole.people.names import check_text
from alveole.people.rights import Right
from alveole.services.appparts import interruption
from alveole.services.backups import manifest_of
from alveole.services.configure import ConfigureVerbs
from alveole.services.gating import GatingVerbs
from alveole.services.modules import is_secret
from alveole.store import Transaction, new_id
from alveole.views.apps import DeployPlan

_LOST_SECONDS = 1.0
#: A check that fails is asked once more: a process may have been started anew this moment.
_AGAIN_SECONDS = 2.0
_ASKED_SECONDS = (0.2, 5.0)
#: What a version brings back with it. Name, domains, plan, access and owner stay those of the environment.
_CONFIGURATION = ("run", "files", "application", "base", "env", "volumes", "release")


class SwitchingVerbs(GatingVerbs, ConfigureVerbs):
    def _after_switch(self, live: Live) -> None:
        while True:
            try:
                self._conclude(live)
                return
            except Temporary as error:
                if self.loop.stopping:
                    return
                live.show(f"{error}; going on in a moment")
                self.loop.pause(_LOST_SECONDS)

    def _conclude(self, live: Live) -> None:
        app, environment, delivery = self._delivered_to(live)
        if delivery.phase is Phase.BACK:
            self._end_back(live, delivery)
            return
        if delivery.phase is Phase.SWITCHING:
            site = self._site_at(environment)
            settled = self.loop.settle(site, live, attempts=2, version=site.version)
            if self.loop.stopping and settled.problems:
                return
            if settled.problems and not settled.superseded:
                if not self.loop.agent_answers:
                    raise Temporary("the agent does not answer")
                if settled.essential:
                    self._give_up(live, settled.problems)
                    return
                for problem in settled.problems:
                    live.say(str(problem), level="warning")
            self._reach(live, Phase.SWITCHED, switched_at=time.time())
            live.say(f"{environment.name.upper()} serves it")
        problems = self._verify(live, app, environment)
        if self.loop.stopping:
            return
        if problems and _goes_back(live):
            self._give_up(live, problems)
            return
        if delivery.deployment:
            self._end_live(live, app, environment)
        else:
            warning = "; ".join(each.message for each in problems)
            self.journal.end(
                live, (), {"backup": delivery.snapshot or None, **({"warning": warning} if warning else {})}
            )

    # --- verifying ----------------------------------------------------------------------------
    def _verify(self, live: Live, app: App, environment: Environment) -> tuple[Problem, ...]:
        """What is wrong with what is live now; asked for as long as the environment says."""
        delivery = live.work.delivery
        policy = environment.policy
        site = self._site_at(environment)
        if delivery is None or site.wanted is not Wanted.RUNNING:
            return ()
        if policy.after and _goes_back(live):
            problem = self._hook(live, site, "after", policy.after, policy.hook_seconds)
            if problem is not None:
                return (problem,)
            hit("delivery.verified-once")
        until = delivery.switched_at + policy.verify_seconds
        pause = min(_ASKED_SECONDS[1], max(_ASKED_SECONDS[0], policy.verify_seconds / 10))
        while True:
            problems = self._problems_of(app, environment, delivery, site)
            if problems:
                self.loop.pause(_AGAIN_SECONDS)
                problems = self._problems_of(app, environment, delivery, site)
            for problem in problems:
                live.say(str(problem), level="warning")
            left = until - time.time()
            if problems or left <= 0 or self.loop.stopping or not _goes_back(live):
                return problems
            live.show("verifying", 1 - left / policy.verify_seconds)
            self.loop.pause(min(pause, left))

    def _problems_of(self, app: App, environment: Environment, delivery: Delivery, site: Site) -> tuple[Problem, ...]:
        failing = [link for link in self.check_links(site) if not link.ok]
        found = [Problem(link.name, f"{link.name} fails: {link.asked}: {link.came}") for link in failing]
        version = self.apps.version(app.id, delivery.version)
        if version is not None:
            for verifier in self.verifiers:
                found += verifier(app, environment, version)
        return tuple(found)

    # --- the end ------------------------------------------------------------------------------
    def _end_live(self, live: Live, app: App, environment: Environment) -> None:
        """One commit: the version before has left, as it was; this one is live."""
        delivery, undo = live.work.delivery, live.work.undo
        if delivery is None:
            raise Refused("the environment is gone")
        site = self._site_at(environment)
        before = self.apps.at(app.id, environment.name, Stage.LIVE)
        own = self._becoming(live, delivery, site)
        back = live.change.verb == "rollback"
        dropped = self._drop_old_releases(site)

        def store(transaction: Transaction) -> None:
            if before is not None and before.id != own.id:
                left = msgspec.structs.replace(
                    before, stage=Stage.LEFT, left_at=delivery.switched_at, went_back=back, was=undo
                )
                self.apps.put_deployment(transaction, left)
            self.apps.put_deployment(transaction, own)
            for digest in dropped:
                transaction.delete_release(site.id, digest)

        result: dict[str, str | int | float | None] = {"release": site.release, "backup": own.backup}
        self._drop_old_snapshots(live, app, environment)
        self.journal.end(live, (), result, also=store)

    def _drop_old_snapshots(self, live: Live, app: App, environment: Environment) -> None:
        """What was saved before deploys long ago goes, as old releases do; what people have saved stays."""
        saved = [each for each in self.apps.deployments(app.id, environment.name) if each.backup]
        for each in saved[self.settings.content.releases_kept :]:
            backup = self.store.backup(each.backup or "")
            try:
                if backup is not None:
                    self._drop_everywhere(live, backup, prune=True)
            except AlveoleError as error:
                live.say(f"backup {each.backup} could not be dropped, and is tried again next time: {error}")
                continue
            with self.store.write() as transaction:
                self._forget(transaction, each.backup or "")
                self.apps.put_deployment(transaction, msgspec.structs.replace(each, backup=None))

    def _becoming(self, live: Live, delivery: Delivery, site: Site) -> Deployment:
        """The deployment that is live from now on: the delivered one, or for a roll back one more of the target."""
        known = self.apps.deployment(delivery.deployment)
        if known is None:
            target = self.apps.deployment(delivery.target)
            if target is None:
                raise Refused("what was to come back is gone")
            known = msgspec.structs.replace(
                target,
                id=delivery.deployment,
                created_at=time.time(),
                by=live.change.actor,
                approvals=(),
                left_at=None,
                went_back=False,
                backup=None,
                was=None,
            )
        return msgspec.structs.replace(
            known,
            stage=Stage.LIVE,
            live_at=delivery.switched_at,
            change=live.id,
            backup=delivery.snapshot or None if not delivery.target else None,
        )

    def _give_up(self, live: Live, why: tuple[Problem, ...]) -> None:
        """One commit: the old state is wanted again; then reach it and say why."""
        undo, delivery = live.work.undo, live.work.delivery
        if undo is None or delivery is None:
            raise Refused("there is nothing to go back to")
        live.say(f"it does not hold: going back ({why[0].message})", level="error")
        now = self._site_of(live)
        back = msgspec.structs.replace(undo, version=now.version + 1)
        if now.wanted is not undo.wanted and now.version > undo.version + 1:
            # Somebody stopped it meanwhile, and that is still wanted.
            back = msgspec.structs.replace(back, wanted=now.wanted)
        delivery = msgspec.structs.replace(delivery, phase=Phase.BACK, why=why)
        with self.store.write() as transaction:
            transaction.save_site(back, self._names(back))
            self.journal.save(live, transaction, msgspec.structs.replace(live.work, delivery=delivery))
        hit("delivery.back")
        self._end_back(live, delivery)

    def _end_back(self, live: Live, delivery: Delivery) -> None:
        site = self._site_of(live)
        settled = self.loop.settle(site, live, version=site.version)
        if self.loop.stopping and settled.problems:
            return
        if settled.problems and not self.loop.agent_answers:
            raise Temporary("the agent does not answer")
        known = self.apps.deployment(delivery.deployment)

        def store(transaction: Transaction) -> None:
            if known is not None:
                failed = msgspec.structs.replace(
                    known,
                    stage=Stage.FAILED,
                    change=live.id,
                    went_back=True,
                    live_at=delivery.switched_at or None,
                    left_at=time.time(),
                    backup=delivery.snapshot or None,
                )
                self.apps.put_deployment(transaction, failed)

        saved = self._data_after(live, delivery)
        if saved and not settled.problems:
            live.say(saved, level="warning")
        hints = ("; ".join(filter(None, (each.hint, saved))) for each in delivery.why)
        why = tuple(msgspec.structs.replace(each, hint=hint) for each, hint in zip(delivery.why, hints, strict=True))
        result: dict[str, str | int | float | None] = {"went_back": site.name}
        if not settled.problems and all(each.field == "after" or each.field.startswith("check/") for each in why):
            # The version itself is at fault: to try again helps nobody. Unless the old state was not reached either.
            result["code"] = Refused.code
        self.journal.end(live, (*why, *settled.problems), result, also=store)

    def _data_after(self, live: Live, delivery: Delivery) -> str:
        """What has become of the data of an environment that went back by itself, in words for people."""
        if not delivery.snapshot:
            return ""
        backup = f"alveole backup restore {delivery.snapshot}"
        if delivery.data:
            return f"its own data are in their place again; they are saved too: {backup}"
        app, environment, _delivery = self._delivered_to(live)
        ran = environment.policy.before and self.apps.at(app.id, environment.name, Stage.LIVE) is not None
        left = "as the program before the switch has left them" if ran else "as they are now"
        return f"its data stay {left}; as they were before: {backup}"

    # --- roll back ----------------------------------------------------------------------------
    def roll_back(
        self, caller: Actor, app: str, environment: str, request: ask.RollBack, *, key: str | None = None
    ) -> Change:
        """Make a version live again that was, with the configuration and the answers it had. No gate is asked."""

        def build(transaction: Transaction) -> Live:
            found, own = self._environment(caller, Right.APP_ROLLBACK, app, environment)
            site = self._idle(own)
            if problems := check_text(request.reason, "reason", 500):
                raise InvalidInput(problems=problems)
            target = self._target(found, own, request.version)
            snapshot = ""
            if request.with_data:
                self._allow(caller, Right.BACKUP_RESTORE, self.people.held_app(found, own.site))
                snapshot = self._snapshot(found, own)
            delivery = Delivery(
                found.id,
                own.name,
                target.version,
                new_id("d"),
                target=target.id,
                with_data=request.with_data,
                snapshot=snapshot,
            )
            return self._begin("rollback", caller, site, target.name, delivery, request.reason, transaction)

        return self._accept(caller, self._digest("rollback", app, environment, request.digest()), key, build)

    def _target(self, app: App, environment: Environment, version: str | None) -> Deployment:
        history = self.apps.deployments(app.id, environment.name)
        live = next((each for each in history if each.stage is Stage.LIVE), None)
        node = self._site_at(environment).node
        # Kept where it ran: what ran on another machine is not there any more.
        left = [each for each in history if each.stage is Stage.LEFT and each.was is not None and each.was.node == node]
        if version is None:
            left = [each for each in left if not each.went_back and (live is None or each.version != live.version)]
        else:
            left = [each for each in left if version in (each.name, each.version)]
            if live is not None and version in (live.name, live.version):
                raise Refused(f"version {live.name} is live in {environment.name} already", field="version")
        if not left:
            what = f"version {version} was never" if version is not None else "no other version was ever"
            hint = f"see: alveole app history {app.name}"
            raise Refused(f"{what} live in {environment.name}", field="version", hint=hint)
        return left[0]

    def _snapshot(self, app: App, environment: Environment) -> str:
        """The data as they were just before the present version came."""
        live = self.apps.at(app.id, environment.name, Stage.LIVE)
        backup = self.store.backup(live.backup) if live is not None and live.backup else None
        if backup is None:
            raise Refused(
                f"nothing of the data of {environment.name} was saved before the present version was deployed",
                field="with_data",
                hint="see: alveole backup list",
            )
        return backup.id

    def preview_roll_back(self, caller: Actor, app: str, environment: str, request: ask.RollBack) -> DeployPlan:
        found, own = self._environment(caller, Right.APP_ROLLBACK, app, environment)
        site = self._site_at(own)
        target = self._target(found, own, request.version)
        live = self.apps.at(found.id, own.name, Stage.LIVE)
        snapshot = live.backup if live is not None else None
        new = self._as_it_was(site, target)
        offered = ""
        if request.with_data:
            of = live.name if live is not None else "it"
            offered = f"bring the data back as they were before {of}: {self._told(self._snapshot(found, own))}"
        elif snapshot:
            offered = f"leave the data as they are (--with-data brings back {self._told(snapshot)})"
        steps = [
            offered,
            "switch the content" if is_static(site) else interruption(site) or "start it beside the present one",
        ]
        plan = self._plan_of(site, new, {}, (), ())
        return DeployPlan(
            environment=own.name,
            version=target.name,
            before=live.name if live is not None else "",
            steps=tuple(filter(None, steps)),
            interruption=interruption(new) or interruption(site),
            refused=(),
            configuration=plan.files,
            answers=self._changed_answers(site, new),
        )

    def _told(self, id: str) -> str:
        """A backup with its size and its date, in the machine's own time."""
        backup = self.store.backup(id)
        if backup is None:
            return f"backup {id}, which is gone"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(backup.created_at))
        return f"backup {id} of {when}, {backup.bytes:,} bytes"

    def _changed_answers(self, old: Site, new: Site) -> dict[str, str]:
        catalogue = self.catalogue()
        one, other = (site.application.answers if site.application is not None else {} for site in (old, new))
        found = {}
        for module in sorted(one.keys() | other.keys()):
            before, after = one.get(module, {}), other.get(module, {})
            for question in sorted(before.keys() | after.keys()):
                if before.get(question) != after.get(question):
                    hidden = is_secret(catalogue, module, question)
                    shown = (HIDDEN, HIDDEN) if hidden else (before.get(question), after.get(question))
                    found[f"{module}.{question}".lstrip(".")] = f"{shown[0]} → {shown[1]}"
        return found

    @staticmethod
    def _as_it_was(site: Site, target: Deployment) -> Site:
        was = target.was or site
        return msgspec.structs.replace(
            site, **{name: getattr(was, name) for name in _CONFIGURATION}, earlier=None, wanted=Wanted.RUNNING
        )

    def _flow_rollback(self, live: Live) -> None:
        app, environment, delivery = self._delivered_to(live)
        if delivery.phase in (Phase.BEGUN, Phase.SAVED):
            target = self.apps.deployment(delivery.target)
            if target is None:
                raise Refused("what was to come back is gone")
            self._bring_back(live, app, environment, target)
        self._after_switch(live)

    def _bring_back(self, live: Live, app: App, environment: Environment, target: Deployment) -> None:
        site = self._site_at(environment)
        new = self._as_it_was(site, target)
        self._check_hand_made(site, manifest_of(new))
        if not self.loop.base_ready(new.base):
            self._have(live, new.base)
        delivery = live.work.delivery
        if new.release is not None:
            try:
                request = protocol.CopyRelease(app.store, app.number, new.release, site.id, site.number)
                self.agent.call(request, say=live.show)
            except AlveoleError as error:
                raise Refused(f"the files of version {target.name} are gone: {error}", field="version") from error
        if delivery is not None and delivery.with_data:
            generation = site.data_generation + 1
            if delivery.phase is Phase.BEGUN:
                self._restore_data(live, site, delivery.snapshot, generation)
                self._reach(live, Phase.SAVED)
            new = msgspec.structs.replace(new, data_generation=generation)
        hit("delivery.brought-back")
        self._want(live, site, new, target)

    def _restore_data(self, live: Live, site: Site, snapshot: str, generation: int) -> None:
        backup = self.store.backup(snapshot)
        if backup is None:
            raise Refused("the backup is gone", field="with_data")
        live.show("bringing the data back")
        disk = self._limits(site.plan).disk_bytes
        request = protocol.RestoreBackup(backup.snapshot, backup.digest, site.id, site.number, generation, disk)
        release: Release | None = self.agent.call(request, say=live.show)
        hit("delivery.restored")
        if release is not None:
            with self.store.write() as transaction:
                transaction.put_release(site.id, msgspec.structs.replace(release, note=f"backup {backup.id}"))
        live.say(f"its data are there again as of backup {backup.id}")


def _goes_back(live: Live) -> bool:
    """Whether a check that fails takes the switch back: not a roll back, and not once other data are in their place."""
    delivery = live.work.delivery
    return live.change.verb == "deploy" or (bool(delivery and delivery.source) and not (delivery and delivery.data))
