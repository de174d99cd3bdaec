"""Applications and their environments: made, looked at, grown, taken apart."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import UNSET

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused, Temporary
from alveole.failpoints import hit
from alveole.journal import BESIDE, Live
from alveole.model.app import (
    DEFAULT_ENVIRONMENTS,
    ENVIRONMENTS_MAX,
    App,
    DeliveryPolicy,
    Deployment,
    Environment,
    Stage,
    Version,
    VersionState,
    check_window,
)
from alveole.model.change import Change
from alveole.model.moving import Forward
from alveole.model.names import check_site_name
from alveole.model.site import Answer, Base, Site, Wanted
from alveole.people.model import Actor, Near
from alveole.people.rights import Right, may
from alveole.policy.masks import check_masks
from alveole.services.appparts import (
    asked_like,
    asked_of_nodes,
    check_builds_here,
    check_environment_name,
    check_here,
    check_signers,
    interruption,
    like_of,
    made_like,
    objects,
    row_of_far,
    sibling,
    site_request,
)
from alveole.services.appshow import deployment_view, saved_view, version_view
from alveole.services.flows import work_for
from alveole.services.modules import Composed, is_secret
from alveole.services.show import problem_of, state_of, urls
from alveole.services.sites import SiteVerbs
from alveole.store import Transaction, new_id
from alveole.trust import signatures
from alveole.views.apps import AppPreview, AppView, DeploymentView, EnvironmentView

#: Of the version that a site brings with it when it becomes an application.
INITIAL = "initial"


class AppVerbs(SiteVerbs):
    # --- finding ------------------------------------------------------------------------------
    def _sees_app(self, caller: Actor, app: App) -> bool:
        """Who may look at one of its environments may look at it."""
        return any(may(caller, Right.APP_LOOK, self.people.held_app(app, site)) for site in objects(app))

    def _app(self, caller: Actor, right: Right, name: str) -> App:
        """The application of this name or id. ``NotFound`` for one that ``caller`` may not look at; ``Denied``."""
        app = self.apps.app(name)
        if app is None or not (caller.entering or self._sees_app(caller, app) or self._may_app(caller, right, app)):
            raise NotFound(f"there is no application {name!r}", field="app", hint="see: alveole app list")
        if not (right is Right.APP_LOOK and self._sees_app(caller, app)):
            self._allow(caller, right, self.people.held_app(app))
        return app

    def _may_app(self, caller: Actor, right: Right, app: App) -> bool:
        return may(caller, right, self.people.held_app(app))

    def _environment(self, caller: Actor, right: Right, name: str, environment: str) -> tuple[App, Environment]:
        """One environment; whoever its site is shared with counts too."""
        app = self.apps.app(name)
        found = app.environment(environment) if app is not None else None
        if app is None or not (caller.entering or self._sees_app(caller, app)):
            raise NotFound(f"there is no application {name!r}", field="app", hint="see: alveole app list")
        if found is None:
            names = ", ".join(each.name for each in app.environments)
            raise NotFound(
                f"{app.name} has no environment {environment!r}", field="environment", hint=f"it has {names}"
            )
        self._allow(caller, right, self.people.held_app(app, found.site))
        return app, found

    def _site_at(self, environment: Environment) -> Site:
        stored = self.store.sites.get(environment.site)
        if stored is None:
            raise Refused(f"the site of {environment.name} is gone", field="environment")
        return stored.site

    # --- create -------------------------------------------------------------------------------
    def create_app(self, caller: Actor, request: ask.CreateApp, *, key: str | None = None) -> Change:
        """Each environment becomes a site that stands still until a version is deployed there."""
        if request.from_site is not None:
            return self._create_from_site(caller, request, key)
        owner = self._owner_for(caller, request.owner)
        self._allow(caller, Right.APP_CREATE, self.people.held_by_id(None, owner))
        made: dict[str, tuple[Base, Composed | None]] = {}
        where: dict[str, str] = {}

        def before() -> None:
            problems = self._check_app(request)
            for name in request.environments if not problems else ():
                wanted = site_request(request, name)
                # For each anew: what is made up (passwords) is of this environment alone.
                composed = self._compose_new(wanted, True) if wanted.modules else None
                try:
                    base = self._base_for(wanted, composed, keep=name not in request.nodes)
                    self._draft(caller, wanted, base, True, composed)
                    made[name] = base, composed
                    where[name] = self._place_of(request.nodes.get(name, ""), request.name, name, wanted.plan)
                except Temporary:
                    raise
                except AlveoleError as error:
                    problems += [each for each in error.problems if each not in problems]
            problems += check_builds_here(where, [composed for _base, composed in made.values()])
            if problems:
                raise InvalidInput(problems=problems)
            self._need_room()

        def build(transaction: Transaction) -> Live:
            sites = []
            for name in request.environments:
                base, composed = made[name]
                draft = self._draft(caller, site_request(request, name), base, True, composed)
                sites.append(self._new_environment(transaction, owner, draft, where[name]))
            self._check_quota(owner, *sites)
            environments = tuple(
                Environment(name, site.id) for name, site in zip(request.environments, sites, strict=True)
            )
            return self._begin_app(caller, request, owner, environments, transaction, where)

        return self._accept(caller, request.digest(), key, build, before)

    def preview_app(self, caller: Actor, request: ask.CreateApp) -> tuple[AppPreview, ...]:
        """What :meth:`create_app` would make, by environment; nothing is stored. Raises all that is wrong."""
        owner = self._owner_for(caller, request.owner)
        self._allow(caller, Right.APP_CREATE, self.people.held_by_id(None, owner))
        if problems := self._check_app(request):
            raise InvalidInput(problems=problems)
        found = []
        for name in request.environments:
            try:
                would = self.preview_create(caller, site_request(request, name), content=True)
                found.append(AppPreview(name=name, site=would.site, files=would.files))
            except AlveoleError as error:
                problems += [each for each in error.problems if each not in problems]
        if problems:
            raise InvalidInput(problems=problems)
        return tuple(found)

    def _new_environment(self, transaction: Transaction, owner: str, draft: Site, node: str = "") -> Site:
        id = new_id("s")
        draft = row_of_far(draft, node) if node else draft
        number = transaction.lease(id, self.addressing.capacity())
        site = msgspec.structs.replace(draft, id=id, number=number, owner=owner, wanted=Wanted.STOPPED)
        transaction.insert_site(site, self._names(site))
        return site

    def _begin_app(
        self,
        caller: Actor,
        request: ask.CreateApp,
        owner: str,
        environments: tuple[Environment, ...],
        transaction: Transaction,
        where: Mapping[str, str] = MappingProxyType({}),
    ) -> Live:
        if self.apps.app(request.name) is not None:
            raise Refused(f"there is an application {request.name!r} already", field="name", hint="choose another name")
        store = new_id("s")
        app = App(
            id=new_id("a"),
            name=request.name,
            owner=owner,
            store=store,
            number=transaction.lease(store, self.addressing.capacity()),
            environments=environments,
            accept=request.accept,
            signers=tuple(signatures.line_of(each) for each in request.signers),
            created_at=time.time(),
        )
        self.apps.put_app(transaction, app)
        work = msgspec.structs.replace(work_for(), far=asked_of_nodes(request, where))
        return self.journal.begin(
            "create-app", caller, site=app, work=work, result={"app": app.id}, transaction=transaction
        )

    @abstractmethod
    def _place_of(self, node: str, app: str, environment: str, plan: str | None) -> str:
        """Supplied by the class that joins the parts: the machine for an environment, which is free there; empty: this
        one. Raises what speaks against it."""

    def _check_app(self, request: ask.CreateApp) -> list[Problem]:
        problems = list(check_site_name(request.name))
        if self.apps.app(request.name) is not None:
            problems.append(Problem("name", f"there is an application {request.name!r} already", "choose another name"))
        if not 1 <= len(request.environments) <= ENVIRONMENTS_MAX:
            problems.append(Problem("environments", f"are not 1 to {ENVIRONMENTS_MAX}"))
        if len(set(request.environments)) != len(request.environments):
            problems.append(Problem("environments", "name one twice", "name each once"))
        for name in request.environments:
            problems += check_environment_name(name)
        for name in request.plans.keys() - set(request.environments):
            problems.append(Problem("plans", f"there is no environment {name[:40]!r} among those named"))
        for name in request.nodes.keys() - set(request.environments):
            problems.append(Problem("nodes", f"there is no environment {name[:40]!r} among those named"))
        problems += check_signers(request.signers)
        return problems

    def _create_from_site(self, caller: Actor, request: ask.CreateApp, key: str | None) -> Change:
        names = request.environments if request.environments != DEFAULT_ENVIRONMENTS else ("prod",)

        def build(transaction: Transaction) -> Live:
            site = self._free_to_change(caller, Right.SITE_GIVE, request.from_site or "", None)
            problems = self._check_app(msgspec.structs.replace(request, environments=names))
            problems += check_here(site, "from_site")
            if request.nodes:
                problems.append(
                    Problem("nodes", "is given with a site that exists", "leave it out: the site lives here")
                )
            if len(names) != 1:
                problems.append(Problem("environments", "are several", "one is the site; the others: app add-env"))
            if self.apps.of_site(site.id) is not None:
                problems.append(Problem("from_site", f"{site.name} is an environment already"))
            if problems:
                raise InvalidInput(problems=problems)
            return self._begin_app(caller, request, site.owner, (Environment(names[0], site.id),), transaction)

        return self._accept(caller, request.digest(), key, build)

    def _flow_create_app(self, live: Live) -> None:
        """Its environments are made real; what a site brought with it becomes the first version."""
        app = self.apps.app(live.change.site_id or "")
        if app is None:
            raise Refused("the application is gone")
        problems: list[Problem] = []
        for environment in app.environments:
            site = self._site_at(environment)
            if not site.node:
                self._have(live, site.base)
            live.show(f"making {environment.name}")
            settled = self.loop.settle(site, live, version=site.version)
            problems += settled.problems
            if site.release is not None and not self.apps.deployments(app.id, environment.name):
                self._adopt(live, app, environment, site)
        if not self.loop.stopping:
            self.journal.end(live, problems)

    _flow_add_environment = _flow_create_app

    def _adopt(self, live: Live, app: App, environment: Environment, site: Site) -> None:
        """The release that a site already serves, as a version of the application that it became."""
        release = next((each for each in self.store.releases(site.id) if each.digest == site.release), None)
        if release is None or site.release is None:
            return
        if not self.apps.versions(app.id):
            self.agent.call(protocol.CopyRelease(site.id, site.number, release.digest, app.store, app.number))
        hit("apps.adopted")
        building = site.application.building if site.application is not None else None
        made_for = building.made_for if building is not None else {}
        known = self.apps.version(app.id, INITIAL)
        now = time.time()
        version = known or Version(
            id=new_id("v"),
            app=app.id,
            name=INITIAL,
            state=VersionState.ACCEPTED,
            archive=release.digest,
            release=release.digest,
            bytes=release.bytes,
            files=release.files,
            created_at=release.created_at,
            sender=release.sender,
            note=release.note,
            built=release.digest,
            made_for=made_for,
        )
        if version.release != release.digest:
            return
        deployment = Deployment(
            id=new_id("d"),
            app=app.id,
            environment=environment.name,
            site=site.id,
            version=version.id,
            name=version.name,
            stage=Stage.LIVE,
            release=release.digest,
            created_at=now,
            by=live.change.actor,
            change=live.id,
            made_for=made_for,
            live_at=release.created_at,
        )
        with self.store.write() as transaction:
            self.apps.put_version(transaction, version)
            self.apps.put_deployment(transaction, deployment)
        live.say(f"{site.name} serves version {version.name}")

    # --- looking ------------------------------------------------------------------------------
    def list_apps(self, caller: Actor) -> tuple[AppView, ...]:
        self._allow(caller, Right.SITE_LIST)
        found = sorted((each for each in self.apps.apps.values() if self._sees_app(caller, each)), key=lambda a: a.name)
        return tuple(self._app_view(each) for each in found)

    def show_app(self, caller: Actor, app: str) -> AppView:
        return self._app_view(self._app(caller, Right.APP_LOOK, app))

    def app_history(self, caller: Actor, app: str, environment: str | None = None) -> tuple[DeploymentView, ...]:
        """Newest first: every version that was ever brought into an environment."""
        found = self._app(caller, Right.APP_LOOK, app)
        return tuple(map(deployment_view, self.apps.deployments(found.id, environment)))

    def _app_view(self, app: App) -> AppView:
        history = self.apps.deployments(app.id)
        versions = self.apps.versions(app.id)
        return AppView(
            name=app.name,
            id=app.id,
            owner=self.people.shown(app.owner),
            accept=app.accept,
            signers=app.signers,
            masks=app.masks,
            created_at=app.created_at,
            version=app.version,
            environments=tuple(self._environment_view(each, history) for each in app.environments),
            versions=tuple(version_view(each, history) for each in versions),
        )

    def _environment_view(self, environment: Environment, history: tuple[Deployment, ...]) -> EnvironmentView:
        stored = self.store.sites[environment.site]
        site, look, known = stored.site, self.loop.looks.get(environment.site), self.loop.agent_answers
        own = [each for each in history if each.environment == environment.name]
        working = self.journal.of_site(site.id)
        live = next((each for each in own if each.stage is Stage.LIVE), None)
        left = [
            each.name
            for each in own
            if each.stage is Stage.LEFT and each.was is not None and each.was.node == site.node
        ]
        return EnvironmentView(
            name=environment.name,
            site=site.name,
            urls=urls(site, self.settings),
            state=state_of(stored, look, working, known),
            problem=problem_of(look, known),
            policy=environment.policy,
            live=deployment_view(live) if live else None,
            delivered=next((deployment_view(each) for each in own if each.stage is Stage.DELIVERED), None),
            saved=saved_view(self.store.backup(live.backup) if live is not None and live.backup else None),
            back_to=tuple(dict.fromkeys(name for name in left if live is None or name != live.name)),
            node=site.node,
            interruption=interruption(site),
            held=f"{working.change.actor}: {working.change.verb}, change {working.id}" if working else "",
        )

    # --- change -------------------------------------------------------------------------------
    def add_environment(
        self, caller: Actor, app: str, request: ask.AddEnvironment, *, key: str | None = None
    ) -> Change:
        """A new site with the configuration of another environment, but passwords, domains and data of its own."""
        composed: list[tuple[Site, Composed | None, Base]] = []
        node = ""

        def before() -> None:
            nonlocal node
            found = self._app(caller, Right.APP_CHANGE, app)
            self._check_new_environment(caller, found, request)
            if request.site is None:
                like = self._like(found, request)
                name = f"{found.name}-{request.name}"
                again = self._composed_like(like, name)
                composed.append((like, again, like.base))
                node = self._place_of(request.node or "", found.name, request.name, like.plan)
                self._made_like(found, request, node)
            self._need_room()

        def build(transaction: Transaction) -> Live:
            found = self._app(caller, Right.APP_CHANGE, app)
            self._check_new_environment(caller, found, request)
            far: tuple[Forward, ...] = ()
            if request.site is not None:
                site = self._free_to_change(caller, Right.SITE_GIVE, request.site, None)
            else:
                like, again, base = composed[0]
                draft = sibling(like, f"{found.name}-{request.name}", again, base)
                site = self._new_environment(transaction, found.owner, draft, node)
                self._check_quota(found.owner, site)
                if node:
                    beside = self._made_like(found, request, node)
                    far = (asked_like(found, request.name, like, node, self._answers_of(like), beside),)
            names = [each.name for each in found.environments]
            at = names.index(request.before) if request.before is not None else len(names)
            own = Environment(request.name, site.id)
            grown = (*found.environments[:at], own, *found.environments[at:])
            self.apps.put_app(
                transaction, msgspec.structs.replace(found, environments=grown, version=found.version + 1)
            )
            return self.journal.begin(
                "add-environment",
                caller,
                site=found,
                reason=request.name,
                work=msgspec.structs.replace(work_for(), far=far),
                result={"app": found.id, "site": site.id},
                transaction=transaction,
            )

        return self._accept(caller, self._digest("add-env", app, request.digest()), key, build, before)

    def _check_new_environment(self, caller: Actor, app: App, request: ask.AddEnvironment) -> None:
        problems = list(check_environment_name(request.name))
        if app.environment(request.name) is not None:
            problems.append(Problem("name", f"{app.name} has an environment {request.name!r} already"))
        if len(app.environments) >= ENVIRONMENTS_MAX:
            problems.append(Problem("name", f"{app.name} has {ENVIRONMENTS_MAX} environments, the most there are"))
        for field in ("before", "like"):
            named = getattr(request, field)
            if named is not None and app.environment(named) is None:
                problems.append(Problem(field, f"{app.name} has no environment {named!r}"))
        if request.site is not None:
            site = self._stored(caller, Right.SITE_GIVE, request.site).site
            problems += check_here(site, "site")
            if self.apps.of_site(site.id) is not None:
                problems.append(Problem("site", f"{site.name} is an environment already"))
            if site.owner != app.owner:
                problems.append(Problem("site", f"{site.name} belongs to somebody else", "see: alveole site give"))
            if request.node:
                problems.append(
                    Problem("node", "is given with a site that exists", "leave it out: the site lives here")
                )
        elif self.store.site(f"{app.name}-{request.name}") is not None:
            problems.append(Problem("name", f"there is a site {app.name}-{request.name} already", "or name it: --site"))
        away = self._like(app, request).node if request.site is None and not problems else ""
        if away and away != request.node:
            some = any(not self._site_at(each).node for each in app.environments)
            hint = "name one that lives here: --like" if some else f"let it live there too: --node {away}"
            problems.append(Problem("like", f"{app.name} has its configuration on another server", hint))
        if problems:
            raise InvalidInput(problems=problems)

    def _like(self, app: App, request: ask.AddEnvironment) -> Site:
        return like_of({each.name: self._site_at(each) for each in app.environments}, request)

    def _made_like(self, app: App, request: ask.AddEnvironment, node: str) -> str | None:
        return made_like({each.name: self._site_at(each) for each in app.environments}, request, node)

    def _composed_like(self, like: Site, name: str) -> Composed | None:
        """The modules of ``like`` with its answers, but for passwords, which are made up anew."""
        application = like.application
        if application is None:
            return None
        request = ask.CreateSite(name=name, modules=application.asked, answers=self._answers_of(like), plan=like.plan)
        composed = self._compose_new(request, True)
        if composed.problems:
            raise InvalidInput(problems=composed.problems)
        return composed

    def _answers_of(self, site: Site) -> dict[str, Answer]:
        """What people have answered for a site, but for passwords."""
        application = site.application
        if application is None:
            return {}
        catalogue = self.catalogue()
        return {
            f"{module}.{question}" if module else question: application.answers[module][question]
            for module, questions in application.given.items()
            for question in questions
            if question in application.answers.get(module, {}) and not is_secret(catalogue, module, question)
        }

    def set_environment(self, caller: Actor, app: str, environment: str, request: ask.SetEnvironment) -> AppView:
        """What an environment asks for from now on."""
        given = {name: value for name, value in msgspec.structs.asdict(request).items() if value is not UNSET}
        self._environment(caller, Right.APP_CHANGE, app, environment)
        if not given:
            raise InvalidInput("nothing to change", hint="give at least one option")
        problems = [problem for text in given.get("windows", ()) for problem in check_window(text)]
        for name in ("before", "after"):
            if any("\0" in word or len(word) > 4096 for word in given.get(name, ())) or len(given.get(name, ())) > 64:
                problems.append(Problem(name, "is no command", "at most 64 words without NUL"))
        for name, value in given.items():
            try:
                msgspec.convert({name: value}, type=DeliveryPolicy)
            except msgspec.ValidationError as error:
                problems.append(Problem(name, str(error).partition(" - ")[0]))
        if problems:
            raise InvalidInput(problems=problems)
        with self.store.write() as transaction:
            found, own = self._environment(caller, Right.APP_CHANGE, app, environment)
            fresh = msgspec.structs.replace(own, policy=msgspec.structs.replace(own.policy, **given))
            environments = tuple(fresh if each.name == own.name else each for each in found.environments)
            found = msgspec.structs.replace(found, environments=environments, version=found.version + 1)
            self.apps.put_app(transaction, found)
        words = ", ".join(f"{name}={value}" for name, value in sorted(given.items()))
        self._note_app(caller, "set-environment", found, f"{own.name}: {words}")
        return self._app_view(found)

    def set_app(self, caller: Actor, app: str, request: ask.SetApp) -> AppView:
        found = self._app(caller, Right.APP_CHANGE, app)
        if request == ask.SetApp():
            raise InvalidInput("nothing to change", hint="give at least one option")
        problems = check_masks(request.masks or ()) + check_signers(request.signers or ())
        if problems:
            raise InvalidInput(problems=problems)
        with self.store.write() as transaction:
            found = self._app(caller, Right.APP_CHANGE, app)
            found = msgspec.structs.replace(
                found,
                accept=found.accept if request.accept is UNSET else request.accept,
                signers=found.signers
                if request.signers is UNSET
                else tuple(signatures.line_of(each) for each in request.signers),
                masks=found.masks if request.masks is UNSET else tuple(each.strip() for each in request.masks),
                version=found.version + 1,
            )
            self.apps.put_app(transaction, found)
        self._note_app(
            caller, "set-app", found, f"accept={found.accept}, {len(found.signers)} signers, {len(found.masks)} masks"
        )
        return self._app_view(found)

    def give_app(self, caller: Actor, app: str, request: ask.GiveApp) -> AppView:
        """Let it belong to somebody else, with the sites of its environments; they count in their quota."""
        self._app(caller, Right.APP_GIVE, app)
        owner = self._owner_for(caller, request.owner)
        with self.store.write() as transaction:
            found = self._app(caller, Right.APP_GIVE, app)
            sites = [self._site_at(each) for each in found.environments]
            for site in sites:
                if (live := self.journal.of_site(site.id)) is not None:
                    raise Refused(f"{site.name} is busy: {live.change.verb}", field="app", hint="wait for it to end")
            if owner != found.owner:
                self._check_quota(owner, *sites)
            for site in sites:
                transaction.save_site(msgspec.structs.replace(site, owner=owner, version=site.version + 1))
                self.people.share(transaction, site.id, owner, Near.FOREIGN)
            given = msgspec.structs.replace(found, owner=owner, version=found.version + 1)
            self.apps.put_app(transaction, given)
        shown = f"{self.people.shown(found.owner)} -> {self.people.shown(owner)}"
        self._note_app(caller, "give-app", given, shown)
        return self._app_view(given)

    def _note_app(self, caller: Actor, verb: str, app: App, reason: str) -> None:
        self.journal.end(self.journal.begin(verb, caller, site=app, reason=reason[:500]))

    # --- destroy ------------------------------------------------------------------------------
    def destroy_app(self, caller: Actor, app: str, request: ask.DestroyApp, *, key: str | None = None) -> Change:
        """The application, its versions and its history go; its environments go on as plain sites."""

        def build(transaction: Transaction) -> Live:
            found = self._app(caller, Right.APP_DESTROY, app)
            if request.confirm != found.name:
                raise InvalidInput(f"{request.confirm!r} is not the application's name", field="confirm")
            for site in (found.id, *(each.site for each in found.environments)):
                busy = [live for live in self.journal.all_of_site(site) if live.change.verb not in BESIDE]
                if busy:
                    raise Refused(
                        f"{found.name} is busy: {busy[0].change.verb}", field="app", hint="wait for it to end"
                    )
            nodes = sorted({self.store.sites[each.site].site.node for each in found.environments} - {""})
            path = f"/v1/apps/{found.name}?confirm={found.name}"
            far = tuple(Forward(node, "DELETE", path) for node in nodes)
            work = msgspec.structs.replace(work_for(), note=f"{found.store} {found.number}", far=far)
            self.apps.delete_app(transaction, found)
            return self.journal.begin("destroy-app", caller, site=found, work=work, transaction=transaction)

        return self._accept(caller, self._digest("destroy-app", app, request.digest()), key, build)

    def _flow_destroy_app(self, live: Live) -> None:
        store, _, number = live.work.note.partition(" ")
        self.agent.call(protocol.RemoveSite(store, int(number)), say=live.show)
        hit("apps.removed")
        live.say("its versions are gone; its environments are plain sites now")
        self.journal.end(live, also=lambda transaction: transaction.end_lease(store))
