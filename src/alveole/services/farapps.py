"""Environments of an application that live on another server of the fleet.

The other machine holds an application of the same name with the environments that live there; it delivers, deploys and
rolls back by itself, with its own agent and its own phases, whether or not this machine is up. This machine decides:
whether a version may enter, who has approved it, when. It sends the version as it was built here, once, and compares
what came; then one request begins what is to be done, under the id of the change here, so that it is begun once however
often it is sent. What is where is read from there and kept here (:meth:`FarAppVerbs._learn`): rows of this machine are
what that one has last told, never what was hoped for.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused, Temporary
from alveole.failpoints import hit
from alveole.journal import Live
from alveole.loop.compile import site_domain
from alveole.model.app import VERSION_NAME, App, Deployment, Environment, Phase, Stage, Version
from alveole.model.change import Change
from alveole.model.moving import Forward
from alveole.model.names import check_pattern
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.scenarios.model import Scenario
from alveole.services.appparts import settings_of_far
from alveole.services.farchecks import bring_checks, is_for_switch
from alveole.services.forwarding import understood
from alveole.services.moving import MovingVerbs
from alveole.services.syncing import SyncVerbs
from alveole.store import Transaction, new_id, tables
from alveole.views.apps import AppView, DeploymentView, DeployPlan, EnvironmentView, VersionView

log = logging.getLogger("alveole.remote.fleet")
#: What the other machine is told when it asks why its own order of environments is passed: there is none there.
REASON = "decided on the main machine"
_DEPLOYMENT = r"d[a-z2-7]{12}"
#: Instead of the digest of files that are on another machine alone.
_UNKNOWN = f"sha256:{'0' * 64}"
_LOST_SECONDS = 1.0
#: So long at least a change waits for a machine that goes away while it is at work.
_AWAY_SECONDS = 120.0
Got = TypeVar("Got")


class FarAppVerbs(SyncVerbs, MovingVerbs):
    #: By machine: two environments of one are not sent the same version at once.
    _sending: dict[str, threading.Lock]
    #: In the order of classes that joins the parts, another one's abstract method would stand before it.
    start = MovingVerbs.start

    # --- made there ---------------------------------------------------------------------------
    def _place_of(self, node: str, app: str, environment: str, plan: str | None) -> str:
        limits = self.store.plans.get(plan or "small")
        found = self._placed(node, limits.limits.memory_bytes if limits is not None else 0)
        if not found:
            return ""
        known = self.apps.app(app)
        ours = known is not None and any(self._site_at(each).node == found for each in known.environments)
        if ours and known is not None and self._lies_unused_there(known, found, environment):
            return found
        self._must_be_free_there(found, f"{app}-{environment}")
        if not ours:
            with contextlib.suppress(NotFound):
                self._api_of(found).get(f"/v1/apps/{app}")
                raise Refused(f"{found} has an application {app!r} of its own", field="node", hint="rename one of them")
        return found

    def _lies_unused_there(self, app: App, node: str, environment: str) -> bool:
        """Whether the application there has it, with nothing in it: what a change that gave up has left."""
        return any(
            each.name == environment and each.live is None and each.delivered is None
            for each in self._app_there(app, node).environments
        )

    def _flow_create_app(self, live: Live) -> None:
        for number, forward in enumerate(live.work.far):
            app = self.apps.app(live.change.site_id or "")
            try:
                self._patient(live, forward.node, partial(self._made_there, live, app, forward, number))
            except AlveoleError as error:
                if not self.loop.stopping:
                    self._take_back_far(live, number, error)
                return
        super()._flow_create_app(live)

    _flow_add_environment = _flow_create_app

    def _made_there(self, live: Live, app: App | None, forward: Forward, number: int) -> None:
        if app is None:
            raise Refused("the application is gone")
        live.show(f"asking {forward.node}")
        body = msgspec.json.decode(forward.body)
        try:
            begun = self._api_of(forward.node).send(forward.method, forward.path, body, key=f"{live.id}-{number}")
        except (InvalidInput, Refused):
            # An earlier change has made it, and had to give up before it was told so.
            if forward.path == "/v1/apps" or not self._lies_unused_there(app, forward.node, body["name"]):
                raise
        else:
            self._follow_there(live, forward.node, begun)
        hit("far.made")
        for site in (self._site_at(each) for each in app.environments):
            asked = site.node == forward.node and site.name in (
                f"{app.name}-{name}" for name in (*body.get("environments", ()), body["name"])
            )
            # Made like one that lives there, it has what that has.
            named = settings_of_far(site) if forward.path == "/v1/apps" else {}
            own = site_domain(site.name, self.settings)
            if own != f"{site.name}.{self._node(forward.node).domain}":
                # Visitors come by the name that it has here.
                named["add_domains"] = [own]
            if asked and named:
                path = f"/v1/sites/{site.name}"
                self._follow_there(
                    live, site.node, self._api_of(site.node).send("PATCH", path, named, key=f"{live.id}-{site.name}")
                )

    def _take_back_far(self, live: Live, number: int, error: AlveoleError) -> None:
        """An environment that could not be made is none, nor is one that was to be made after it; an application
        without any is none either."""
        forward = live.work.far[number]
        node = forward.node
        names = {live.change.reason}
        if live.change.verb == "create-app":
            names = {each for far in live.work.far[number:] for each in msgspec.json.decode(far.body)["environments"]}
        app = self.apps.app(live.change.site_id or "")
        gone = [each for each in app.environments if each.name in names] if app is not None else []

        def forget(transaction: Transaction) -> None:
            # As it is now: minutes have passed in which it may have been changed.
            found = self.apps.app(live.change.site_id or "")
            if found is None:
                return
            left = tuple(each for each in found.environments if each.name not in names)
            if left:
                fresh = msgspec.structs.replace(found, environments=left, version=found.version + 1)
                self.apps.put_app(transaction, fresh)
            else:
                self.apps.delete_app(transaction, found)
                transaction.end_lease(found.store)
            for each in gone:
                transaction.delete_site(each.site)

        hint = ""
        if app is not None and gone and len(gone) < len(app.environments):
            hint = f"alveole app add-env {app.name} {gone[0].name} --node {node}"
        if app is not None and forward.path == "/v1/apps":
            with contextlib.suppress(NotFound):
                with contextlib.suppress(Temporary):
                    self._api_of(node).get(f"/v1/apps/{app.name}")
                # It failed there after it was begun, or may have been.
                hint = f"first on {node}: alveole app destroy {app.name} --yes, and alveole site destroy of its sites"
        problems = tuple(
            msgspec.structs.replace(each, message=f"{node}: {each.message}", hint=each.hint or hint)
            for each in error.problems
        )
        if hint and isinstance(error, Temporary) and all(each.hint != hint for each in problems):
            problems = (*problems, Problem("node", f"{node} may have made it all the same", hint))
        self.journal.end(live, problems, {"code": error.code}, also=forget)
        for each in gone:
            self.loop.forget(each.site)

    def _flow_destroy_app(self, live: Live) -> None:
        problems: list[Problem] = []
        for forward in live.work.far:
            path, _, confirm = forward.path.partition("?confirm=")
            try:
                with contextlib.suppress(NotFound):
                    self._patient(live, forward.node, partial(self._gone_there, live, forward.node, path, confirm))
            except AlveoleError as error:
                if self.loop.stopping:
                    return
                told = f"{forward.node} holds its environments still: {error}"
                problems.append(Problem("app", told, f"on {forward.node}: alveole app destroy {confirm} --yes"))
        for problem in problems:
            live.say(str(problem), level="warning")
        super()._flow_destroy_app(live)

    def _gone_there(self, live: Live, node: str, path: str, name: str) -> None:
        change = self._api_of(node).send("DELETE", path, query={"confirm": name}, key=f"{live.id}-{node}")
        self._follow_there(live, node, change)

    # --- a version on its way -----------------------------------------------------------------
    def _flow_deliver(self, live: Live) -> None:
        if self._site_of(live).node:
            self._flow_there(live)
        else:
            super()._flow_deliver(live)

    def _flow_deploy(self, live: Live) -> None:
        if self._site_of(live).node:
            self._flow_there(live)
        else:
            super()._flow_deploy(live)

    def _flow_rollback(self, live: Live) -> None:
        if self._site_of(live).node:
            self._flow_there(live)
        else:
            super()._flow_rollback(live)

    def _flow_there(self, live: Live) -> None:
        """Prepare it, ask the machine once, follow it to its end, and keep what it tells then."""
        app, environment, delivery = self._delivered_to(live)
        site = self._site_at(environment)
        problems: tuple[Problem, ...] = ()
        code = ""
        told: dict[str, str | int | float | None] = {}
        try:
            if delivery.phase is Phase.BEGUN:
                # At once, and before anything: a machine that is away is no reason to hold the environment.
                self._app_there(app, site.node)
                self._prepare_there(live, app, environment, site)
                self._reach(live, Phase.SAVED)
            body = self._body_for(live, app, environment)
            ended = self._patient(live, site.node, lambda: self._asked(live, app, environment, site.node, body))
            told = self._result_there(ended)
        except AlveoleError as error:
            problems, code = error.problems, error.code
        if self.loop.stopping and problems:
            return
        hit("far.ended")
        try:
            if code == Temporary.code:
                # It was waited for already; an environment is not held for as long again.
                self._learn(app, environment, site, live)
            else:
                self._patient(live, site.node, lambda: self._learn(app, environment, site, live))
        except AlveoleError as error:
            if self.loop.stopping:
                return
            if self._phase(live) is Phase.SAVED:
                hint = "what was begun there ends by itself, and is told here when the way is back"
                problems = problems or (Problem("node", f"{site.node} is away: {error}", hint),)
                code = code or error.code
        delivered = self.apps.at(app.id, environment.name, Stage.DELIVERED)
        if problems and live.change.verb == "deliver" and delivered and delivered.version == delivery.version:
            # Begun by an earlier change that had to give up: it is there, which is what was asked for.
            problems, code = (), ""
        site = self._mirrored(site, self._site_there(site.node, site.name))
        with self.store.write() as transaction:
            transaction.save_site(site)
        settled = self.loop.settle(site, live, version=site.version)
        result: dict[str, str | int | float | None] = {"code": code}
        if not code:
            result = {key: each for key, each in told.items() if key not in ("app", "deployment")}
        self.journal.end(live, (*problems, *settled.problems), result)

    def _asked(self, live: Live, app: App, environment: Environment, node: str, body: dict[str, object]) -> Change:
        path = f"/v1/apps/{app.name}/environments/{environment.name}/{live.change.verb}"
        begun = self._api_of(node).send("POST", path, body, key=live.id)
        hit("far.asked")
        return self._follow_there(live, node, begun)

    def _body_for(self, live: Live, app: App, environment: Environment) -> dict[str, object]:
        _app, _environment, delivery = self._delivered_to(live)
        if live.change.verb == "rollback":
            target = self.apps.deployment(delivery.target)
            name = target.name if target is not None else ""
            return {"version": name, "with_data": delivery.with_data, "reason": REASON}
        return {"version": self._version(app, delivery.version).name, "reason": REASON}

    def _prepare_there(self, live: Live, app: App, environment: Environment, site: Site) -> None:
        """What the other machine needs before it can do it by itself."""
        _app, _environment, delivery = self._delivered_to(live)
        if live.change.verb == "deliver":
            version = self._built_here(live, app, self._version(app, delivery.version))
            with self._sending.setdefault(site.node, threading.Lock()):
                self._bring_version(live, app, version, site.node)
        if live.change.verb == "deploy":
            self._tell_policy(app, environment, site.node)
            self._bring_checks(app, site)

    def _patient(self, live: Live, node: str, ask: Callable[[], Got]) -> Got:
        """Ask again while the way is cut, until the machine counts as lost. ``ask`` must bear being done twice."""
        patience = max(_AWAY_SECONDS, self.settings.reconcile.lost_seconds)
        away: float | None = None
        while True:
            try:
                return ask()
            except Temporary as error:
                away = away or time.monotonic()
                if self.loop.stopping or time.monotonic() - away > patience:
                    raise
                live.show(f"waits for {node}: {error}")
                self.loop.pause(_LOST_SECONDS)

    # --- the version itself -------------------------------------------------------------------
    def _app_there(self, app: App, node: str) -> AppView:
        try:
            return understood(node, self._api_of(node).get(f"/v1/apps/{app.name}"), AppView)
        except NotFound:
            hint = "it was taken apart there; destroy the application here, or bring its site here"
            raise Refused(f"{node} has no application {app.name!r} any more", field="environment", hint=hint) from None

    def _built_here(self, live: Live, app: App, version: Version) -> Version:
        """Built as for an environment of this machine; as it was sent where none builds."""
        for site in map(self._site_at, app.environments):
            if not site.node and site.application is not None and site.application.building is not None:
                self._have(live, site.base)
                if version.built is not None:
                    return version
                return self._ready_version(live, app, version, site)
        return version

    def _bring_version(self, live: Live, app: App, version: Version, node: str) -> None:
        """Have the version there under its own name, and the same files. ``Refused``: another has that name."""
        release = version.built or version.release
        path = f"/v1/apps/{app.name}/versions"
        if not live.work.upload:
            if self._is_there(node, f"{path}/{version.name}", release):
                live.say(f"{node} has its files already: {release[:19]}")
                return
            sent, archive = self._sent_version(live, app, version, release, node)
            with self.store.write() as transaction:
                # Before it is asked for: the same request must be sent again, with the same upload.
                work = msgspec.structs.replace(live.work, upload=sent, note=archive)
                self.journal.save(live, transaction, work)
        hit("far.sent")
        carried = ask.CarriedVersion(live.work.note, release, version.made_for)
        body = ask.SendVersion(
            version=version.name, upload=live.work.upload, note=version.note, format=None, carried=carried
        )

        def asked() -> None:
            begun = self._api_of(node).send("POST", path, msgspec.to_builtins(body), key=f"{live.id}-version")
            self._follow_there(live, node, begun)

        self._patient(live, node, asked)
        with self.store.write() as transaction:
            self.journal.save(live, transaction, msgspec.structs.replace(live.work, upload=None, note=""))
        live.say(f"its files are on {node}: {release[:19]}, compared with what was sent")

    def _is_there(self, node: str, path: str, release: str) -> bool:
        """``False``: it is not, and its name is free."""
        try:
            found = understood(node, self._api_of(node).get(path), VersionView)
        except NotFound:
            return False
        if found.release == release:
            return True
        base, _, name = path.partition("/versions/")
        told = understood(node, self._api_of(node).get(f"{base}/history"), list[DeploymentView])
        if any(each.version == name and each.stage is Stage.LEFT for each in told):
            # It can be rolled back to there, or is of the people of that machine.
            raise Refused(f"{node} has another version {name}", field="version", hint="send it under another name")
        # Of a version that was forgotten here, and whose name was given again.
        self._api_of(node).send("DELETE", path)
        return False

    def _sent_version(self, live: Live, app: App, version: Version, release: str, node: str) -> tuple[str, str]:
        """The upload there, and the digest of its archive."""
        self._carried.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._carried) as archive:
            request = protocol.PackSite(new_id("b"), app.store, app.number, 0, 1, release, "{}")
            packed: protocol.Packed = self.agent.call(request, (archive.fileno(),), live.show)
            live.show(f"sending {packed.bytes} bytes to {node}")
            hit("far.packed")
            sent = self._patient(live, node, lambda: self._send_there(node, Path(archive.name)))
        live.say(f"sent version {version.name} to {node}: {packed.bytes} bytes")
        return sent, packed.digest

    # --- what it is asked with ----------------------------------------------------------------
    def _tell_policy(self, app: App, environment: Environment, node: str) -> None:
        """What is done around the switch is done there; who may, and when, is decided here."""
        names = ("verify_seconds", "snapshot", "before", "after", "hook_seconds")
        body = {name: getattr(environment.policy, name) for name in names}
        there = next((each for each in self._app_there(app, node).environments if each.name == environment.name), None)
        if there is None or any(getattr(there.policy, name) != value for name, value in body.items()):
            self._api_of(node).send("PATCH", f"/v1/apps/{app.name}/environments/{environment.name}", body)

    def _bring_checks(self, app: App, site: Site) -> None:
        """The scenarios of the application, so that the new copy is asked there before requests go to it."""
        others = [each.site for each in app.environments if each.site != site.id]
        wanted: dict[str, tuple[str, str]] = {}
        secrets: dict[str, str] = {}
        table = tables.scenarios
        columns = (table.c.name, table.c.text, table.c.document)
        with self.store.read() as connection:
            for id in (site.id, *others):
                rows = connection.execute(sa.select(*columns).where(table.c.site_id == id)).all()
                wanted = {**{row.name: (row.text, row.document) for row in rows}, **wanted}
                secrets = {**self.checks.secrets(id), **secrets}
        texts = {
            name: text
            for name, (text, document) in wanted.items()
            if is_for_switch(msgspec.json.decode(document, type=Scenario))
        }
        bring_checks(self._api_of(site.node), site.node, f"/v1/sites/{site.name}", texts, secrets)

    # --- what is where ------------------------------------------------------------------------
    def _learn(self, app: App, environment: Environment, site: Site, live: Live | None = None) -> None:
        """Keep here what the machine tells of the versions in an environment. ``live``: the change that did it."""
        query = {"environment": environment.name}
        answer = self._api_of(site.node).get(f"/v1/apps/{app.name}/history", query)
        told = understood(site.node, answer, list[DeploymentView])
        versions = {each.name: each for each in self.apps.versions(app.id)}
        with self.store.write() as transaction:
            rows = self.apps.deployments(app.id, environment.name)
            known = {each.id: each for each in rows}
            there: set[str] = set()
            for view in reversed(told):
                if not re.fullmatch(_DEPLOYMENT, view.id) or check_pattern(view.version, VERSION_NAME, "", "", ""):
                    continue
                if view.id not in known and self.apps.deployment(view.id) is not None:
                    # An id of another environment's says nothing about this one.
                    continue
                there.add(view.id)
                old = known.get(view.id)
                fresh = old or _new_row(app, environment, site, versions.get(view.version), view, live)
                new = _as_told(fresh, site, view)
                if live is not None and old is not None and old.stage is not new.stage and new.stage is not Stage.LEFT:
                    new = msgspec.structs.replace(new, change=live.id)
                if new != old:
                    self.apps.put_deployment(transaction, new)
            serves = any(view.stage is Stage.LIVE for view in told if view.id in there)
            for row in rows:
                # Of a time at which it lived elsewhere.
                if row.id not in there and (row.stage is Stage.DELIVERED or (row.stage is Stage.LIVE and serves)):
                    gone = Stage.WITHDRAWN if row.stage is Stage.DELIVERED else Stage.LEFT
                    self.apps.put_deployment(transaction, msgspec.structs.replace(row, stage=gone, left_at=time.time()))
        hit("far.learnt")

    def _look_at_node(self, name: str) -> None:
        super()._look_at_node(name)
        if name in self._node_problems:
            return
        for app in list(self.apps.apps.values()):
            own = [each for each in app.environments if (s := self.store.sites.get(each.site)) and s.site.node == name]
            try:
                there = {each.name: each for each in self._app_there(app, name).environments} if own else {}
                for each in own:
                    if each.name in there and self._has_moved_on(app, each, there[each.name]):
                        self._learn(app, each, self._site_at(each))
                    self._learn_wanted(self._site_at(each))
            except AlveoleError as error:
                log.warning("node %s: what is live of %s is not known: %s", name, app.name, error)

    def _learn_wanted(self, site: Site) -> None:
        """Whether it is to run is decided there too; what is asked for here must not go by what it once was."""
        look = self._node_looks.get(site.node)
        seen = look.sites.get(site.name) if look is not None else None
        fresh = self._mirrored(site, seen)
        if seen is None or msgspec.structs.replace(fresh, version=site.version) == site:
            return
        with self.store.write() as transaction:
            stored = self.store.sites.get(site.id)
            if stored is None or stored.site.version != site.version or stored.pending:
                return
            if self.journal.of_site(site.id) is None:
                transaction.save_site(fresh)

    def _has_moved_on(self, app: App, environment: Environment, told: EnvironmentView) -> bool:
        """Whether something was done there that no change of this machine is about to tell."""
        if self.journal.of_site(environment.site) is not None:
            return False
        for stage, view in ((Stage.LIVE, told.live), (Stage.DELIVERED, told.delivered)):
            row = self.apps.at(app.id, environment.name, stage)
            if (row.id if row is not None else None) != (view.id if view is not None else None):
                return True
        return False

    def _environment_view(self, environment: Environment, history: tuple[Deployment, ...]) -> EnvironmentView:
        view = super()._environment_view(environment, history)
        if not view.node:
            return view
        shown = self._view(self.store.sites[environment.site], None)
        return msgspec.structs.replace(view, state=shown.state, problem=shown.problem, seen_at=shown.seen_at)

    # --- looked at beforehand, and what does not go ------------------------------------------
    def preview_deploy(self, caller: Actor, app: str, environment: str, request: ask.DeployVersion) -> DeployPlan:
        plan = super().preview_deploy(caller, app, environment, request)
        found, own = self._environment(caller, Right.APP_DEPLOY, app, environment)
        return self._planned_there(found, own, "deploy", {"version": plan.version}, plan)

    def preview_roll_back(self, caller: Actor, app: str, environment: str, request: ask.RollBack) -> DeployPlan:
        found, own = self._environment(caller, Right.APP_ROLLBACK, app, environment)
        if not self._site_at(own).node:
            return super().preview_roll_back(caller, app, environment, request)
        target = self._target(found, own, request.version)
        live = self.apps.at(found.id, own.name, Stage.LIVE)
        plan = DeployPlan(
            environment=own.name,
            version=target.name,
            before=live.name if live is not None else "",
            steps=(),
            interruption="",
            refused=(),
            answers={},
        )
        return self._planned_there(
            found, own, "rollback", {"version": target.name, "with_data": request.with_data}, plan
        )

    def _planned_there(
        self, app: App, environment: Environment, verb: str, body: dict[str, object], plan: DeployPlan
    ) -> DeployPlan:
        """``plan`` with what only the machine where an environment lives can say; a page opens while that is away."""
        node = self._site_at(environment).node
        if not node:
            return plan
        path = f"/v1/apps/{app.name}/environments/{environment.name}/{verb}"
        try:
            if verb == "deploy":
                # It plans by what it was last told.
                self._tell_policy(app, environment, node)
            answer = self._api_of(node).send("POST", path, {**body, "reason": REASON}, query={"dry_run": True})
            told = understood(node, answer, DeployPlan)
        except AlveoleError as error:
            return msgspec.structs.replace(plan, refused=(*plan.refused, *map(str, error.problems)))
        return msgspec.structs.replace(
            plan,
            steps=told.steps,
            interruption=told.interruption,
            configuration=told.configuration,
            answers=told.answers,
        )

    def _snapshot(self, app: App, environment: Environment) -> str:
        if not self._site_at(environment).node:
            return super()._snapshot(app, environment)
        live = self.apps.at(app.id, environment.name, Stage.LIVE)
        if live is None or not live.backup:
            raise Refused(
                f"nothing of the data of {environment.name} was saved before the present version was deployed",
                field="with_data",
                hint="see: alveole backup list",
            )
        return live.backup

    def _to_synchronise(
        self, caller: Actor, app: str, environment: str, request: ask.Synchronise
    ) -> tuple[App, Environment, Environment, Version | None]:
        found = super()._to_synchronise(caller, app, environment, request)
        problems = [
            Problem(
                field,
                f"{each.name} lives on {node}, and only environments of this server are synchronised",
                "content: deliver and deploy it there; data: a backup of it, restored --as another site",
            )
            for field, each in (("source", found[1]), ("environment", found[2]))
            if (node := self._site_at(each).node)
        ]
        if problems:
            raise Refused(problems=problems)
        return found


def _new_row(
    app: App, environment: Environment, site: Site, version: Version | None, view: DeploymentView, live: Live | None
) -> Deployment:
    """``version`` ``None``: its people have brought in there what was never sent here."""
    return Deployment(
        id=view.id,
        app=app.id,
        environment=environment.name,
        site=site.id,
        version=version.id if version is not None else "",
        name=view.version,
        stage=view.stage,
        release=(version.built or version.release) if version is not None else _UNKNOWN,
        created_at=view.created_at,
        by=live.change.actor if live is not None else view.by,
        change=live.id if live is not None else "",
        made_for=version.made_for if version is not None else {},
    )


def _as_told(row: Deployment, site: Site, view: DeploymentView) -> Deployment:
    """Who approved it, and who delivered it, is known here; ``was`` says where it is kept."""
    return msgspec.structs.replace(
        row,
        stage=view.stage,
        live_at=view.live_at,
        left_at=view.left_at,
        went_back=view.went_back,
        backup=view.backup,
        was=(row.was or site) if view.stage is Stage.LEFT else None,
    )
