"""Deliver, deploy, approve: bringing a version into an environment, and making it live.

Two rules make every flow here safe to cut anywhere. Nothing of what runs changes before one commit stores the
new wish together with its change (:class:`~alveole.model.app.Phase`); and a flow that is taken up again begins
at its stored phase, whose step does no harm when it is done twice. So an environment is wholly the old or wholly
the new version, and the operation ends by itself. What happens after the switch is in ``rollback``.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, Denied, InvalidInput, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.loop.compile import is_static
from alveole.model.app import (
    App,
    Approval,
    Delivery,
    Deployment,
    Environment,
    Phase,
    Stage,
    Version,
)
from alveole.model.change import Change
from alveole.model.site import SITE_RELEASES, SITE_UID, Backup, HealthCheck, Release, Site, Wanted
from alveole.people.model import Actor
from alveole.people.names import check_text
from alveole.people.rights import Right, may
from alveole.policy.backups import Cause
from alveole.policy.lifecycle import may_deploy, may_enter
from alveole.services.appparts import interruption
from alveole.services.backups import BackupVerbs
from alveole.services.versions import VersionVerbs
from alveole.store import Transaction, new_id
from alveole.store.backups import Mark
from alveole.views.apps import AppView, DeployPlan

#: What is asked before a version enters an environment, and again and again after it went live there.
Gate = Callable[[App, Environment, Version], tuple[Problem, ...]]


class DeliveryVerbs(VersionVerbs, BackupVerbs):
    gates: list[Gate]
    """Asked before a version enters an environment, with that environment; each gives what speaks against it."""
    verifiers: list[Gate]
    """Asked after the switch; the first problem rolls back."""

    # --- deliver ------------------------------------------------------------------------------
    def deliver_version(
        self, caller: Actor, app: str, environment: str, request: ask.DeliverVersion, *, key: str | None = None
    ) -> Change:
        """Bring a version in, ready to be made live; what runs is not touched."""

        def build(transaction: Transaction) -> Live:
            found, own = self._environment(caller, Right.APP_DELIVER, app, environment)
            version = self._version(found, request.version)
            site = self._idle(own)
            for stage in (Stage.LIVE, Stage.DELIVERED):
                there = self.apps.at(found.id, own.name, stage)
                if there is not None and there.version == version.id:
                    raise Refused(f"version {version.name} is {stage} in {own.name} already", field="version")
            problems = self._against(found, own, version)
            self._pass(caller, found, own, problems, request.reason)
            delivery = Delivery(found.id, own.name, version.id, new_id("d"))
            return self._begin("deliver", caller, site, version.name, delivery, request.reason, transaction)

        return self._accept(
            caller, self._digest("deliver", app, environment, request.digest()), key, build, self._need_room
        )

    def _against(self, app: App, environment: Environment, version: Version) -> list[Problem]:
        """What the life cycle says against a version in an environment."""
        before = app.before(environment.name)
        ran = self.apps.deployments(app.id, before.name) if before is not None else ()
        problems = list(may_enter(app, environment, version, ran, time.time()))
        for gate in self.gates:
            problems += gate(app, environment, version)
        return problems

    def _pass(self, caller: Actor, app: App, environment: Environment, problems: list[Problem], reason: str) -> None:
        """Raise ``Refused`` for ``problems``, unless somebody who may gives a reason to pass."""
        if wrong := check_text(reason, "reason", 500):
            raise InvalidInput(problems=wrong)
        if reason and not may(caller, Right.APP_PASS, self.people.held_app(app, environment.site)):
            raise Denied(f"{caller.name} ({caller.role}) may not pass the life cycle", hint="ask an administrator")
        if problems and not reason:
            raise Refused(problems=problems)

    def _begin(
        self,
        verb: str,
        caller: Actor,
        site: Site,
        version: str,
        delivery: Delivery,
        reason: str,
        transaction: Transaction,
    ) -> Live:
        words = f"{version}: {reason}" if reason else version
        result: dict[str, str | int | float | None] = {
            "site": site.id,
            "app": delivery.app,
            "environment": delivery.environment,
            "version": version,
        }
        return self.journal.begin(
            verb,
            caller,
            site=site,
            reason=words,
            work=Work(delivery=delivery),
            result=result,
            transaction=transaction,
        )

    def _idle(self, environment: Environment) -> Site:
        """The site of an environment at which nobody is at work; ``Refused`` names who is."""
        stored = self.store.sites.get(environment.site)
        if stored is None or stored.pending:
            raise Refused(f"the site of {environment.name} is not complete", field="environment")
        live = self.journal.of_site(stored.site.id)
        if live is not None:
            doing = f"{live.change.verb} {live.change.reason}" if live.change.reason else live.change.verb
            raise Refused(
                f"{environment.name.upper()} is held by {live.change.actor}: {doing}",
                field="environment",
                hint=f"wait for it: alveole change follow {live.id}",
            )
        return stored.site

    def _flow_deliver(self, live: Live) -> None:
        deployment, kept = self._brought_in(live, *self._delivered_to(live))
        result: dict[str, str | int | float | None] = {"deployment": deployment.id, "release": deployment.release}
        self.journal.end(live, (), result, also=lambda transaction: self._put_delivered(transaction, deployment, kept))

    def _brought_in(
        self, live: Live, app: App, environment: Environment, delivery: Delivery
    ) -> tuple[Deployment, Release]:
        """Build it, copy it, prove the copy, try its configuration: all that needs no traffic."""
        site = self._site_at(environment)
        version = self._version(app, delivery.version)
        self._have(live, site.base)
        version = self._ready_version(live, app, version, site)
        release = version.built or version.release
        live.show("copying the content")
        self.agent.call(protocol.CopyRelease(app.store, app.number, release, site.id, site.number), say=live.show)
        hit("delivery.copied")
        live.say(f"its files are in {environment.name}: {release[:19]}, compared with what was sent")
        self._try_configuration(live, site)
        now = time.time()
        deployment = Deployment(
            id=delivery.deployment,
            app=app.id,
            environment=environment.name,
            site=site.id,
            version=version.id,
            name=version.name,
            stage=Stage.DELIVERED,
            release=release,
            created_at=now,
            by=live.change.actor,
            change=live.id,
            made_for=version.made_for,
        )
        return deployment, Release(release, version.bytes, version.files, now, version.sender, version.name)

    def _put_delivered(self, transaction: Transaction, deployment: Deployment, kept: Release) -> None:
        """It lies ready; what did so before is withdrawn."""
        other = self.apps.at(deployment.app, deployment.environment, Stage.DELIVERED)
        if other is not None and other.id != deployment.id:
            self.apps.put_deployment(transaction, msgspec.structs.replace(other, stage=Stage.WITHDRAWN))
        self.apps.put_deployment(transaction, deployment)
        transaction.put_release(deployment.site, kept)

    def _delivered_to(self, live: Live) -> tuple[App, Environment, Delivery]:
        delivery = live.work.delivery
        app = self.apps.app(delivery.app) if delivery is not None else None
        environment = app.environment(delivery.environment) if app is not None and delivery is not None else None
        if app is None or environment is None or delivery is None:
            raise Refused("the environment is gone")
        return app, environment, delivery

    def _try_configuration(self, live: Live, site: Site) -> None:
        """Render the environment's configuration with its answers once more. Raises ``InvalidInput``."""
        application = site.application
        if application is None:
            return
        made = self._compose_again(self.catalogue(), application.asked, {}, self._context_of(site), application)
        before = {each.path: each.text for each in site.files}
        other = [each.path for each in made.files if before.get(each.path) != each.text]
        live.say(f"its configuration is sound: {len(made.files)} files")
        if other:
            live.say(
                f"modules would render {', '.join(other)} differently now: alveole site configure {site.name}",
                level="warning",
            )

    # --- approve ------------------------------------------------------------------------------
    def approve_version(self, caller: Actor, app: str, environment: str, request: ask.ApproveVersion) -> AppView:
        """Say that what is delivered may go live. One approval a person; that of who deploys does not count."""
        with self.store.write() as transaction:
            found, own = self._environment(caller, Right.APP_APPROVE, app, environment)
            delivered = self.apps.at(found.id, own.name, Stage.DELIVERED)
            if delivered is None or request.version not in (delivered.name, delivered.version):
                there = f"{delivered.name} is" if delivered is not None else "nothing is"
                raise Refused(f"{there} delivered to {own.name}, not {request.version}", field="version")
            if any(each.key == caller.key for each in delivered.approvals):
                raise Refused(f"{caller.name} has approved it already", field="approvals")
            approval = Approval(caller.name, caller.key, time.time())
            fresh = msgspec.structs.replace(delivered, approvals=(*delivered.approvals, approval))
            self.apps.put_deployment(transaction, fresh)
        self._note(caller, "approve", f"{own.name}: {delivered.name}", self._site_at(own))
        return self._app_view(found)

    # --- deploy -------------------------------------------------------------------------------
    def deploy_version(
        self, caller: Actor, app: str, environment: str, request: ask.DeployVersion, *, key: str | None = None
    ) -> Change:
        """Make live what is delivered: the new copy is started beside the old one, proven, and switched to."""

        def build(transaction: Transaction) -> Live:
            found, own = self._environment(caller, Right.APP_DEPLOY, app, environment)
            site = self._idle(own)
            delivered, version = self._to_deploy(found, own, request)
            problems = self._against(found, own, version)
            problems += may_deploy(own, delivered, caller.key, time.time())
            self._pass(caller, found, own, problems, request.reason)
            delivery = Delivery(
                found.id, own.name, version.id, delivered.id, snapshot=new_id("b") if self._saves(own, site) else ""
            )
            return self._begin("deploy", caller, site, delivered.name, delivery, request.reason, transaction)

        return self._accept(
            caller, self._digest("deploy", app, environment, request.digest()), key, build, self._need_room
        )

    def preview_deploy(self, caller: Actor, app: str, environment: str, request: ask.DeployVersion) -> DeployPlan:
        found, own = self._environment(caller, Right.APP_DEPLOY, app, environment)
        site = self._site_at(own)
        delivered, version = self._to_deploy(found, own, request)
        problems = self._against(found, own, version) + list(may_deploy(own, delivered, caller.key, time.time()))
        live = self.apps.at(found.id, own.name, Stage.LIVE)
        policy = own.policy
        steps = [
            f"save the data of {site.name}" if self._saves(own, site) else "",
            f"run inside the old copy: {' '.join(policy.before)}" if policy.before and site.release else "",
            "switch the content" if is_static(site) else interruption(site) or "start the new copy beside the old one",
            f"run inside the new copy: {' '.join(policy.after)}" if policy.after else "",
            f"ask its checks for {policy.verify_seconds} s; one that fails rolls back"
            if policy.verify_seconds
            else "ask its checks; one that fails rolls back",
        ]
        return DeployPlan(
            environment=own.name,
            version=delivered.name,
            before=live.name if live is not None else "",
            steps=tuple(filter(None, steps)),
            interruption=interruption(site),
            refused=tuple(str(each) for each in problems),
            answers={},
        )

    def _to_deploy(self, app: App, environment: Environment, request: ask.DeployVersion) -> tuple[Deployment, Version]:
        delivered = self.apps.at(app.id, environment.name, Stage.DELIVERED)
        if delivered is None or (
            request.version is not None and request.version not in (delivered.name, delivered.version)
        ):
            there = f"{delivered.name} is" if delivered is not None else "nothing is"
            hint = f"alveole app deliver {app.name} {environment.name} {request.version or 'VERSION'}"
            raise Refused(f"{there} delivered to {environment.name}", field="version", hint=hint)
        return delivered, self._version(app, delivered.version)

    @staticmethod
    def _saves(environment: Environment, site: Site) -> bool:
        return environment.policy.snapshot and bool(site.volumes) and site.release is not None

    def _flow_deploy(self, live: Live) -> None:
        app, environment, delivery = self._delivered_to(live)
        if delivery.phase is Phase.BEGUN:
            site = self._site_at(environment)
            self._have(live, site.base)
            backup = self._save_data(live, site, delivery.snapshot) if delivery.snapshot else None
            self._reach(live, Phase.SAVED, backup)
        if self._phase(live) is Phase.SAVED:
            self._switch_to(live, app, environment)
        self._after_switch(live)

    def _save_data(self, live: Live, site: Site, id: str) -> Backup:
        live.show("saving the data")
        made = self._save(live, site, id, work=False)
        live.say(f"saved its data: backup {id}, {made.bytes} bytes")
        return made

    def _switch_to(self, live: Live, app: App, environment: Environment) -> None:
        """Run the program before, then the one commit that makes the new version the wanted one."""
        _app, _environment, delivery = self._delivered_to(live)
        site = self._site_at(environment)
        deployment = self.apps.deployment(delivery.deployment)
        if deployment is None:
            raise Refused("what was delivered is gone")
        policy = environment.policy
        if policy.before and site.wanted is Wanted.RUNNING and site.release is not None:
            place = f"{SITE_RELEASES}/{deployment.release.removeprefix('sha256:')}"
            argv = tuple(word.replace("{release}", place) for word in policy.before)
            if problem := self._hook(live, site, "before", argv, policy.hook_seconds):
                # One that runs since before kept releases were shown inside; a restart gives it what is shown now.
                blind = argv != policy.before and not self._has_there(site, place)
                cure = f"the site runs without the directory {place}: alveole site restart {site.name}" if blind else ""
                hint = "; ".join(filter(None, (problem.hint, cure)))
                saved = f"; its data as before: alveole backup restore {delivery.snapshot}" if delivery.snapshot else ""
                raise Refused(problems=(msgspec.structs.replace(problem, hint=hint + saved),))
            hit("delivery.hook-ran")
        new = self._with_version(site, deployment)
        with self._tried_beside(live, app, site, new):
            self._want(live, site, new, deployment)

    @staticmethod
    def _with_version(site: Site, deployment: Deployment) -> Site:
        application = site.application
        if application is not None and application.building is not None:
            building = msgspec.structs.replace(application.building, made_for=deployment.made_for)
            application = msgspec.structs.replace(application, building=building)
        return msgspec.structs.replace(
            site, release=deployment.release, application=application, wanted=Wanted.RUNNING, asleep=0.0
        )

    @abstractmethod
    def _tried_beside(self, live: Live, app: App, old: Site, new: Site) -> AbstractContextManager[None]:
        """Supplied by the class that joins the parts."""

    def _want(self, live: Live, old: Site, new: Site, deployment: Deployment | None) -> None:
        """The one commit after which the new state is what is wanted; ``deployment``: with the content of that."""
        new = self._flipped(old, msgspec.structs.replace(new, version=old.version + 1))
        self._tell_plan(live, new)
        delivery = live.work.delivery
        if delivery is None:
            raise Refused("the environment is gone")
        work = msgspec.structs.replace(
            live.work, stored=True, undo=old, delivery=msgspec.structs.replace(delivery, phase=Phase.SWITCHING)
        )
        with self.store.write() as transaction:
            stored = self.store.sites.get(old.id)
            if stored is None or stored.site.version != old.version:
                raise Refused("another change took its place meanwhile")
            if deployment is not None:
                kept = next((each for each in self.store.releases(old.id) if each.digest == deployment.release), None)
                # The newest of the site's, so that it is not the first to be dropped.
                fresh = kept or Release(deployment.release, 0, 0, 0.0, deployment.by, deployment.name)
                transaction.put_release(new.id, msgspec.structs.replace(fresh, created_at=time.time()))
            transaction.save_site(new, self._names(new))
            self.journal.save(live, transaction, work)
        hit("delivery.wanted")

    def _hook(self, live: Live, site: Site, name: str, argv: tuple[str, ...], seconds: int) -> Problem | None:
        """Run a program inside the live instance; what is wrong when it does not end with status 0 in time."""
        live.say(f"running {name}: {' '.join(argv)}")
        check = HealthCheck(name=name, argv=argv, uid=SITE_UID)
        (link,) = self.agent.call(protocol.CheckHealth(site.id, site.slot, (check,), float(seconds)))
        live.say(f"{name}: {link.came}", level="output", seconds=(link.milliseconds or 0) / 1000)
        return None if link.ok else Problem(name, f"{' '.join(argv)}: {link.came}", "see its log")

    def _has_there(self, site: Site, place: str) -> bool:
        """Whether the live instance has the directory ``place``; also when that cannot be told."""
        check = HealthCheck(name="there", argv=("/usr/bin/test", "-d", place), uid=SITE_UID)
        try:
            (link,) = self.agent.call(protocol.CheckHealth(site.id, site.slot, (check,), 10.0))
        except AlveoleError:
            return True
        return bool(link.ok or link.came != "status 1")

    # --- phases -------------------------------------------------------------------------------
    @staticmethod
    def _phase(live: Live) -> Phase:
        return live.work.delivery.phase if live.work.delivery is not None else Phase.BEGUN

    def _reach(self, live: Live, phase: Phase, backup: Backup | None = None, *, switched_at: float = 0.0) -> None:
        """Store how far the change has come, before the next step begins."""
        if live.work.delivery is None:
            raise Refused("the environment is gone")
        delivery = msgspec.structs.replace(live.work.delivery, phase=phase, switched_at=switched_at)
        with self.store.write() as transaction:
            if backup is not None:
                self._keep(transaction, backup, Mark(Cause.DEPLOY))
            self.journal.save(live, transaction, msgspec.structs.replace(live.work, delivery=delivery))
        hit(f"delivery.{phase}")

    @abstractmethod
    def _after_switch(self, live: Live) -> None:
        """Supplied by the class that joins the parts."""
