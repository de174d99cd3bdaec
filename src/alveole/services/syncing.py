"""Synchronise: give an environment the content, the data, or both, of another one.

It is the same flow as deploy and roll back (:class:`~alveole.model.app.Phase`): until one commit stores the new wish
nothing of what runs has changed, and every step before it does no harm when it is done twice. The data of the target
are saved first and are offered back; those of the source go through a backup that is dropped again, and are masked on
the way (:mod:`alveole.services.washing`), before anybody can reach them.
"""

from __future__ import annotations

import time

import msgspec

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, Problem, Refused, Temporary
from alveole.failpoints import hit
from alveole.journal import Live
from alveole.model.app import App, Delivery, Deployment, Environment, Phase, Stage, Version
from alveole.model.change import Change
from alveole.model.site import Backup, Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.policy import masks
from alveole.policy.lifecycle import may_deploy
from alveole.services.appparts import interruption
from alveole.services.switching import SwitchingVerbs
from alveole.services.washing import WashingVerbs, against, needs_washing
from alveole.store import Transaction, new_id
from alveole.views.apps import SyncPlan, SyncVolume

_LOST_SECONDS = 1.0
#: So often it is tried to drop what was taken of the source, where the agent answers and cannot.
_DROPS = 3


class SyncVerbs(SwitchingVerbs, WashingVerbs):
    def synchronise(
        self, caller: Actor, app: str, environment: str, request: ask.Synchronise, *, key: str | None = None
    ) -> Change:
        """Give ``environment`` what ``request.source`` has. Who does that must own, or administrate, both."""

        def build(transaction: Transaction) -> Live:
            found, source, own, version = self._to_synchronise(caller, app, environment, request)
            if request.data and request.confirm.lower() != own.name:
                told = f"{request.confirm!r} is not the environment whose data are replaced"
                raise InvalidInput(told, field="confirm", hint=f"confirm with {own.name!r}")
            self._idle(source)
            site = self._idle(own)
            problems, life = self._against_synchronising(caller, found, source, own, version, request)
            if problems:
                raise Refused(problems=problems)
            self._pass(caller, found, own, life, request.reason)
            delivery = Delivery(
                found.id,
                own.name,
                version.id if version is not None else "",
                new_id("d") if version is not None else "",
                snapshot=new_id("b") if site.volumes and (request.data or self._saves(own, site)) else "",
                source=source.name,
                data=request.data,
                taken=new_id("b") if request.data else "",
                masked=new_id("b") if request.data else "",
            )
            what = " and ".join(filter(None, (version.name if version else "", "data" if request.data else "")))
            reason = f"from {source.name}{': ' if request.reason else ''}{request.reason}"
            return self._begin("synchronise", caller, site, what, delivery, reason, transaction)

        return self._accept(
            caller, self._digest("sync", app, environment, request.digest()), key, build, self._need_room
        )

    def _to_synchronise(
        self, caller: Actor, app: str, environment: str, request: ask.Synchronise
    ) -> tuple[App, Environment, Environment, Version | None]:
        found, own = self._environment(caller, Right.APP_SYNC, app, environment)
        if found.environment(request.source) is None:
            names = ", ".join(each.name for each in found.environments)
            raise InvalidInput(f"there is no environment {request.source!r}", field="source", hint=f"it has {names}")
        _app, source = self._environment(caller, Right.APP_SYNC, app, request.source)
        if source.name == own.name:
            raise InvalidInput(f"{own.name} cannot be given what it has itself", field="source", hint="name another")
        if not request.content and not request.data:
            raise InvalidInput("names neither content nor data", field="content", hint="one of them, or both")
        if not request.content:
            return found, source, own, None
        self._allow(caller, Right.APP_DEPLOY, self.people.held_app(found, own.site))
        there = self.apps.at(found.id, source.name, Stage.LIVE)
        here = self.apps.at(found.id, own.name, Stage.LIVE)
        if there is None:
            raise Refused(f"no version is live in {source.name}", field="source", hint=f"see: alveole app show {app}")
        if here is not None and here.version == there.version:
            if not request.data:
                raise Refused(f"version {there.name} is live in {own.name} already", field="content")
            return found, source, own, None
        return found, source, own, self._version(found, there.version)

    def _against_synchronising(
        self,
        caller: Actor,
        app: App,
        source: Environment,
        own: Environment,
        version: Version | None,
        request: ask.Synchronise,
    ) -> tuple[list[Problem], list[Problem]]:
        """What forbids it, and what the life cycle says against it, which a reason passes."""
        problems, life = [], []
        if request.data:
            problems += against(app.masks, self._site_at(source), self._site_at(own))
            if not self._site_at(source).volumes:
                problems.append(Problem("data", f"{source.name} has no data", "only content can come from there"))
        if version is not None:
            life += self._against(app, own, version)
            life += may_deploy(own, _as_delivered(app, own, version), caller.key, time.time())
        return problems, life

    def preview_synchronise(self, caller: Actor, app: str, environment: str, request: ask.Synchronise) -> SyncPlan:
        """What would be replaced by what, before anything is done."""
        found, source, own, version = self._to_synchronise(caller, app, environment, request)
        problems, life = self._against_synchronising(caller, found, source, own, version, request)
        before, after = self._site_at(own), self._site_at(source)
        here = self.apps.at(found.id, own.name, Stage.LIVE)
        volumes: list[SyncVolume] = []
        if request.data:
            there = {each.name: each for each in self._looked_at(after)}
            ours = {each.name: each for each in self._looked_at(before)}
            nothing = protocol.VolumeState("", 0, 0, 0.0)
            for name in sorted(there.keys() | ours.keys()):
                new, old = there.get(name, nothing), ours.get(name, nothing)
                volumes.append(_replaced(name, old, new))
        return SyncPlan(
            source=source.name,
            environment=own.name,
            before=here.name if here is not None else "",
            version=version.name if version is not None else "",
            volumes=tuple(volumes),
            masks=found.masks if request.data else (),
            interruption=interruption(before) if request.data or version is not None else "",
            saved=bool(before.volumes) and (request.data or self._saves(own, before)),
            refused=tuple(str(each) for each in (*problems, *life)),
        )

    def _looked_at(self, site: Site) -> tuple[protocol.VolumeState, ...]:
        found: tuple[protocol.VolumeState, ...] = self.agent.call(
            protocol.LookAtData(site.id, site.number, site.data_generation)
        )
        return found

    # --- the flow -----------------------------------------------------------------------------
    def _flow_synchronise(self, live: Live) -> None:
        app, environment, delivery = self._delivered_to(live)
        if delivery.phase is Phase.BEGUN:
            try:
                self._fetch(live, app, environment, delivery)
            except Exception:
                self._throw_away(live, app, delivery)
                raise
        if self._phase(live) is Phase.SAVED:
            self._throw_away(live, app, delivery)
            if delivery.data:
                self._switch_data(live, environment, delivery)
            else:
                self._switch_to(live, app, environment)
        self._after_switch(live)

    def _fetch(self, live: Live, app: App, environment: Environment, delivery: Delivery) -> None:
        """All that takes time: beside what runs, which nothing of it touches."""
        site = self._site_at(environment)
        self._have(live, site.base)
        brought = self._brought_in(live, app, environment, delivery) if delivery.deployment else None
        backup = self._save_data(live, site, delivery.snapshot) if delivery.snapshot else None
        if delivery.data:
            found = app.environment(delivery.source)
            if found is None:
                raise Refused(f"{delivery.source} is gone", field="source")
            self._bring_data(live, app, self._site_at(found), site, delivery)
        if brought is not None:
            with self.store.write() as transaction:
                self._put_delivered(transaction, *brought)
        self._reach(live, Phase.SAVED, backup)

    def _bring_data(self, live: Live, app: App, source: Site, site: Site, delivery: Delivery) -> None:
        if problems := against(app.masks, source, site):
            raise Refused(problems=problems)
        washing = needs_washing(app.masks, source, site)
        ready = self._made(delivery.masked) if washing else None
        if ready is None:
            self._be_awake(source, live.change.actor)
            live.show(f"saving the data of {source.name}")
            taken = self._made(delivery.taken)
            if taken is None:
                # Nobody restores it as a site: no configuration and no password of the source is in it.
                taken = self.agent.call(
                    protocol.CreateBackup(
                        delivery.taken,
                        source.id,
                        source.number,
                        source.slot,
                        source.data_generation,
                        None,
                        "{}",
                        source.volumes,
                    ),
                    say=live.show,
                )
            live.say(f"took the data of {source.name}: {taken.bytes} bytes")
            hit("syncing.taken")
            ready = self._washed(live, app.masks, source, site, taken, delivery.masked) if washing else taken
            hit("syncing.washed")
        live.show("unpacking the data")
        self._unpack(live, ready, site, site.data_generation + 1, masks.patterns(app.masks))
        hit("syncing.unpacked")

    def _throw_away(self, live: Live, app: App, delivery: Delivery) -> None:
        """Drop what was taken of the source. Where that fails it is shown among the backups, never forgotten."""
        ids = {delivery.taken, delivery.masked} - {""}
        tries = 0
        while ids and not self.loop.stopping:
            found: list[protocol.BackupMade] = []
            try:
                found = [each for each in self.agent.call(protocol.ListBackups()) if each.id in ids]
                for each in found:
                    self.agent.call(protocol.DropBackup(each.snapshot))
                return
            except Temporary:
                live.show("the agent does not answer; going on in a moment")
            except AlveoleError as error:
                tries += 1
                if tries == _DROPS:
                    live.say(f"what was taken of {delivery.source} is still among the backups: {error}", level="error")
                    self._keep_shown(app, delivery, found)
                    return
            self.loop.pause(_LOST_SECONDS)

    def _keep_shown(self, app: App, delivery: Delivery, found: list[protocol.BackupMade]) -> None:
        source = app.environment(delivery.source)
        if source is None or source.site not in self.store.sites:
            return
        site = self._site_at(source)
        with self.store.write() as transaction:
            for each in found:
                transaction.put_backup(
                    Backup(
                        each.id,
                        site.id,
                        site.name,
                        each.snapshot,
                        each.bytes,
                        each.created_at or time.time(),
                        each.digest,
                        site.owner,
                    )
                )

    def _switch_data(self, live: Live, environment: Environment, delivery: Delivery) -> None:
        """The one commit after which the new data, and the version if one came with them, are what is wanted."""
        site = self._site_at(environment)
        new = msgspec.structs.replace(site, data_generation=site.data_generation + 1)
        deployment = self.apps.deployment(delivery.deployment) if delivery.deployment else None
        if deployment is not None:
            new = self._with_version(new, deployment)
        self._want(live, site, new, deployment)


def _as_delivered(app: App, environment: Environment, version: Version) -> Deployment:
    """What the life cycle is asked about: nobody has approved it yet."""
    return Deployment(
        id="",
        app=app.id,
        environment=environment.name,
        site=environment.site,
        version=version.id,
        name=version.name,
        stage=Stage.DELIVERED,
        release=version.release,
        created_at=0.0,
        by="",
        change="",
    )


def _replaced(name: str, old: protocol.VolumeState, new: protocol.VolumeState) -> SyncVolume:
    return SyncVolume(name, old.bytes, old.files, old.changed_at, new.bytes, new.files, new.changed_at)
