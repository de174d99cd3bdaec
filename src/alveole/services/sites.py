"""The verbs on sites."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable

import msgspec
from msgspec import UNSET

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.agent.lending import CheckShared
from alveole.errors import AlveoleError, InvalidInput, Refused
from alveole.journal import Live, Work
from alveole.loop.compile import compile_site, has_storage, is_static, site_domain
from alveole.model.change import Change
from alveole.model.lent import Shared
from alveole.model.names import ENV_FORBIDDEN
from alveole.model.resource import Action, Kind
from alveole.model.site import Base, BaseKind, Run, Site, Wanted
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.policy.sleeping import why_awake
from alveole.services.draft import Draft, find_base, newest_base
from alveole.services.elsewhere import ElsewhereVerbs, check_no_copies
from alveole.services.flows import work_for
from alveole.services.lending import asks_to_lend, check_published, check_shared
from alveole.services.modules import DEFAULT_PLAN, Composed
from alveole.store import KnownBase, Stored, Transaction, new_id

#: Stands for content that is not unpacked yet, in a dry run.
_NO_DIGEST = "sha256:" + "0" * 64
#: Serves static content in a base that has nothing else to serve it.
_WEB_SERVER = "nginx"


class SiteVerbs(ElsewhereVerbs):
    """A site's life: create, start, stop, restart, sleep, update, set, rename, destroy.

    What all verbs take, give and raise stands in :mod:`alveole.services`.
    """

    # --- create -------------------------------------------------------------------------------
    def create_site(self, caller: Actor, request: ask.CreateSite, *, key: str | None = None) -> Change:
        """Make a site of an upload, of modules, or of a base and a command. Raises ``NoRoom``: no address is free."""
        if request.node:
            return self._create_there(caller, request, key)
        owner = self._owner_for(caller, request.owner)
        base: Base | None = None
        composed: Composed | None = None
        upload = request.upload

        def before() -> None:
            nonlocal base, composed, upload
            # Once: what is made up (passwords) must be the same to the end.
            composed = self._compose_new(request) if request.modules else None
            # Everything is checked before the agent is asked for anything, and again in the transaction.
            self._draft(caller, request, _placeholder(request), composed=composed)
            self._check_shared_there(request)
            self._need_room()
            base = self._base_for(request, composed)
            own = composed.composition.content if composed and composed.composition else ""
            if own and upload is None:
                upload = self._pack_content(own)

        def build(transaction: Transaction) -> Live:
            draft = self._draft(caller, request, base or _placeholder(request), composed=composed)
            id = new_id("s")
            number = transaction.lease(id, self.addressing.capacity())
            site = msgspec.structs.replace(draft, id=id, number=number, owner=owner)
            self._check_quota(owner, site)
            waits = upload is not None
            transaction.insert_site(site, self._names(site), "create" if waits else "")
            work = Work(stored=not waits, upload=upload, format=request.format, note=request.note)
            return self.journal.begin(
                "create", caller, site=site, work=work, result={"site": id}, transaction=transaction
            )

        try:
            return self._accept(caller, request.digest(), key, build, before)
        except AlveoleError:
            if upload != request.upload:
                self._drop_upload(upload)
            raise

    def preview_create(self, caller: Actor, request: ask.CreateSite, *, content: bool = False) -> views.DryRun:
        """What ``create_site`` would make, with nothing stored; ``content``: it will come with an upload."""
        self._owner_for(caller, request.owner)
        composed = self._compose_new(request, content) if request.modules else None
        self._draft(caller, request, _placeholder(request), content, composed)
        self._check_shared_there(request)
        base = self._base_for(request, composed, keep=False)
        draft = self._draft(caller, request, base, content, composed)
        taken = {stored.site.number for stored in self.store.sites.values()}
        number = next(each for each in range(1, len(taken) + 2) if each not in taken)
        if number > self.addressing.capacity():
            raise Refused("all addresses are taken", hint="destroy a site, or widen network.ipv4 in the settings")
        site = msgspec.structs.replace(draft, number=number)
        brings = content or request.upload or (composed and composed.composition and composed.composition.content)
        shown = msgspec.structs.replace(site, release=_NO_DIGEST) if brings else site
        needed = compile_site(shown, self.settings, self.loop.limits)
        steps = [
            views.StepView(action=str(Action.CREATE), resource=f"{item.id.kind}/{item.id.name}", reason="missing")
            for item in needed
        ]
        if not self.loop.base_ready(site.base):
            steps.insert(0, views.StepView(action="create", resource=f"base/{site.base.key}", reason="missing"))
        return views.DryRun(site=self._view(Stored(site), None), steps=tuple(steps), files=self._new_files(site))

    def _base_for(self, request: ask.CreateSite, composed: Composed | None, *, keep: bool = True) -> Base:
        if composed is not None and composed.composition is not None:
            made = composed.composition
            return self._resolve_base("debian", made.packages, not made.run.processes, keep=keep)
        return self._resolve_base(request.base, request.packages, _wants_static(request), keep=keep)

    def _draft(
        self,
        caller: Actor,
        request: ask.CreateSite,
        base: Base,
        content: bool = False,
        composed: Composed | None = None,
        own: Site | None = None,
    ) -> Site:
        """The site that is asked for; raises everything that is wrong with it.

        ``content``: what it shall serve (an upload or an image) is still to be sent. ``composed``: of its modules.
        ``own``: the site that has the name already, since it was reserved.
        """
        draft = Draft(self.settings, self.store.owner_of, own.id if own is not None else "")
        known = find_base(request.base, self.store.bases)
        draft.name(request.name, own is None and self.store.site(request.name) is not None)
        domains = draft.domains(request.domains, request.name)
        path = draft.path(request.path)
        draft.claim(caller, domains, path)
        draft.packages(request.packages, base.kind)
        if request.base not in ("host", "debian") and known is None:
            draft.wrong("base", f"there is no base {request.base!r}", "choose host, debian or an imported image")
        command, port = request.command, request.port
        if known is not None and known.image is not None and not command and not request.processes:
            # An image without a command given runs its own.
            command = known.image.argv
            port = port if port is not None else next(iter(known.image.ports), None)
            if not command:
                draft.wrong("command", "the image names none", "give --command")
            elif port is None:
                draft.wrong("port", "the image names none", "give --port")
        run = Run()
        if composed is None:
            run = draft.run(
                command, request.processes, port, request.health, request.ready_seconds, request.stop_seconds
            )
        made = composed.composition if composed is not None else None
        plan = request.plan or (composed.plan if composed is not None else DEFAULT_PLAN)
        draft.plan(plan, self.store.plans)
        if composed is not None:
            draft.problems.extend(composed.problems)
            draft.with_modules(request)
        elif request.answers:
            draft.wrong("answers", "are given, but no module that asks", "name one: --module NAME")
        env = draft.env(request.env)
        if known is not None and known.image is not None:
            env = {**_image_env(known.image), **env}
        volumes = draft.volumes(request.volumes)
        if asks_to_lend(request):
            self._allow(caller, Right.MACHINE_LEND)
        sites = [each.site for each in self.store.sites.values()]
        published = check_published(draft, request.published, (), sites)
        shared = check_shared(draft, request.shared, [each.path for each in request.volumes])
        access = draft.access(request.allow, request.deny)
        if request.upload is not None:
            draft.problems.extend(self._check_upload_there(request.upload))
        elif composed is None and not content and not run.processes and not draft.problems:
            draft.wrong("from", "nothing to serve", "give content (--from), a program (--command) or a --module")
        if made is not None:
            self._check_plan(draft, plan, made.least_plan)
            run, volumes = made.run, made.volumes
            env = {**made.env, **env}
        application = made.application if made is not None else None
        draft.sleep(request.sleep_after, run, application)
        draft.finish()
        return Site(
            id=new_id("s"),
            number=1,
            name=request.name,
            wanted=Wanted.STOPPED if request.stopped else Wanted.RUNNING,
            plan=plan,
            base=base,
            run=run,
            domains=domains,
            env=env,
            volumes=volumes,
            published=published,
            shared=shared,
            persistent=request.persistent,
            path=path,
            access=access,
            https_only=request.https_only,
            files=made.files if made is not None else (),
            application=application,
            sleep_after=request.sleep_after,
            woken_by=request.woken_by,
            created_at=time.time(),
        )

    def _check_shared_there(self, request: ask.CreateSite | ask.SetSite) -> None:
        """Have the agent look whether the directories can be shown. Raises ``InvalidInput``."""
        if request.shared is UNSET or not request.shared:
            return
        wanted = tuple(Shared(each.source, each.path, each.writable) for each in request.shared)
        if problems := self.agent.call(CheckShared(wanted)):
            raise InvalidInput(problems=problems)

    def _resolve_base(self, base: str, packages: tuple[str, ...], static: bool, *, keep: bool = True) -> Base:
        known = find_base(base, self.store.bases)
        if base == "host":
            return self.loop.learn_host_base()
        if base == "debian":
            names = set(packages)
            if static and not any(name.startswith("nginx") for name in names):
                names.add(_WEB_SERVER)
            wanted = tuple(sorted(names))
            if (newest := newest_base(wanted, self.store.bases)) is not None:
                return newest
            resolved: Base = self.agent.call(protocol.ResolveBase("debian", wanted))
            if keep and resolved.key not in self.store.bases:
                with self.store.write() as transaction:
                    transaction.put_base(KnownBase(resolved, time.time()))
            return resolved
        if known is None:
            raise InvalidInput(f"there is no base {base!r}", field="base")
        return known.base

    @abstractmethod
    def _is_saved_first(self, site: Site) -> bool:
        """Supplied by the class that joins the parts: whether a backup is made before it is destroyed."""

    # --- start, stop, restart, destroy --------------------------------------------------------
    def start_site(self, caller: Actor, site: str, *, key: str | None = None, version: int | None = None) -> Change:
        """Raises ``Refused`` for one that runs."""

        def to(old: Site) -> Site:
            if old.runs:
                raise Refused(f"site {old.name} is already running", field="site", hint="see: alveole why")
            return msgspec.structs.replace(old, wanted=Wanted.RUNNING)

        there = self._there(caller, Right.SITE_RUN, "start", site, "POST", "/start", None, key)
        return there or self._change(caller, Right.SITE_RUN, "start", site, "", key, version, to)

    def stop_site(self, caller: Actor, site: str, *, key: str | None = None, version: int | None = None) -> Change:
        """Also during a change, which then ends as superseded. Raises ``Refused`` for one that does not run."""

        def to(old: Site) -> Site:
            if old.wanted is Wanted.STOPPED:
                raise Refused(f"site {old.name} is not running", field="site", hint="see: alveole site start")
            return msgspec.structs.replace(old, wanted=Wanted.STOPPED)

        there = self._there(caller, Right.SITE_RUN, "stop", site, "POST", "/stop", None, key)
        return there or self._change(caller, Right.SITE_RUN, "stop", site, "", key, version, to, superseding=True)

    def restart_site(self, caller: Actor, site: str, *, key: str | None = None, version: int | None = None) -> Change:
        """The instance ends, then is made anew; nobody answers meanwhile. Raises ``Refused`` unless it runs."""

        def to(old: Site) -> Site:
            if old.wanted is Wanted.STOPPED:
                raise Refused(f"site {old.name} is not running", field="site", hint="see: alveole site start")
            return msgspec.structs.replace(old, incarnation=old.incarnation + 1)

        there = self._there(caller, Right.SITE_RUN, "restart", site, "POST", "/restart", None, key)
        return there or self._change(caller, Right.SITE_RUN, "restart", site, "", key, version, to)

    def sleep_site(self, caller: Actor, site: str, *, key: str | None = None, version: int | None = None) -> Change:
        """Put a site to sleep now. Raises ``Refused`` for one that cannot sleep, or is at work."""

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, Right.SITE_RUN, site, version)
            if not old.runs:
                told = f"site {old.name} is asleep already" if old.asleep else f"site {old.name} is not running"
                raise Refused(told, field="site", hint="see: alveole site show")
            if reason := why_awake(old):
                raise Refused(f"site {old.name} does not sleep: {reason}", field="site")
            if going_on := self._at_work(old.id):
                raise Refused(
                    f"site {old.name} is busy: {', '.join(sorted(going_on))}", field="site", hint="wait for it to end"
                )
            return self._put_to_sleep(transaction, old, caller, "")

        there = self._there(caller, Right.SITE_RUN, "sleep", site, "POST", "/sleep", None, key)
        return there or self._accept(caller, self._digest("sleep", site, str(version)), key, build)

    def _change(
        self,
        caller: Actor,
        right: Right,
        verb: str,
        site: str,
        digest: str,
        key: str | None,
        version: int | None,
        to: Callable[[Site], Site],
        *,
        superseding: bool = False,
        blue_green: bool = False,
        before: Callable[[], None] | None = None,
    ) -> Change:
        """Store ``to(site)`` and let the loop reach it; with ``blue_green`` beside the old instance."""

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, right, site, version, superseding=superseding)
            new = msgspec.structs.replace(to(old), version=old.version + 1, asleep=0.0)
            if new.plan != old.plan:
                self._check_quota(new.owner, new)
            undo = None
            if blue_green:
                new = self._flipped(old, new)
                undo = old
            transaction.save_site(new, self._names(new))
            result: dict[str, str | int | float | None] = {"site": new.id, "version": new.version}
            return self.journal.begin(
                verb, caller, site=new, work=work_for(undo), result=result, transaction=transaction
            )

        return self._accept(caller, self._digest(verb, site, digest, str(version)), key, build, before)

    def destroy_site(
        self,
        caller: Actor,
        site: str,
        request: ask.DestroySite,
        *,
        key: str | None = None,
        version: int | None = None,
    ) -> Change:
        """End a stopped site and delete its data, after a backup unless ``request.unsaved``."""

        def build(transaction: Transaction) -> Live:
            stored = self._stored(caller, Right.SITE_DESTROY, site)
            old = stored.site
            if request.confirm != old.name:
                raise InvalidInput(f"{request.confirm!r} is not the site's name", field="confirm")
            # A destroy that failed half-way, and a create that could not be cleaned up, may be ended.
            if not stored.pending:
                self._free_to_change(caller, Right.SITE_DESTROY, site, version)
            # A proof works on a copy of a backup and holds up nothing.
            going_on = [live for live in self.journal.all_of_site(old.id) if live.change.verb != "prove-backup"]
            if going_on:
                verbs = ", ".join(live.change.verb for live in going_on)
                raise Refused(f"site {old.name} is busy: {verbs}", field="site", hint="wait for it to end")
            if old.wanted is Wanted.RUNNING and not stored.pending:
                raise Refused(f"site {old.name} is running", field="site", hint="stop it first")
            look = self.loop.looks.get(old.id)
            if not stored.pending and look and any(item.id.kind is Kind.WORKLOAD for item in look.found):
                raise Refused(f"site {old.name} is still stopping", field="site", hint="wait a moment")
            gone = msgspec.structs.replace(old, wanted=Wanted.STOPPED, version=old.version + 1)
            transaction.save_site(gone, None, "destroy")
            work = work_for()
            if not request.unsaved and not stored.pending and self._is_saved_first(gone):
                work = msgspec.structs.replace(work, backup=new_id("b"))
            return self.journal.begin("destroy", caller, site=gone, work=work, transaction=transaction)

        return self._accept(caller, self._digest("destroy", site, request.digest()), key, build)

    # --- update, set, rename ------------------------------------------------------------------
    def update_site(
        self, caller: Actor, site: str, request: ask.UpdateSite, *, key: str | None = None, version: int | None = None
    ) -> Change:
        """Make an upload, or a release that is kept, live. A new instance is ready before the old one goes."""
        if there := self._there(caller, Right.SITE_RELEASE, "update", site, "POST", "/releases", request, key):
            return there

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, Right.SITE_RELEASE, site, version)
            wanted = self._kept_release(old, request)
            work = Work(
                upload=request.upload,
                format=request.format,
                note=request.note,
                release=wanted,
                build_network=request.build_network,
                waits=not request.live,
            )
            return self.journal.begin(
                "update", caller, site=old, work=work, result={"site": old.id}, transaction=transaction
            )

        return self._accept(caller, self._digest("update", site, request.digest(), str(version)), key, build)

    def _kept_release(self, site: Site, request: ask.UpdateSite) -> str | None:
        if (request.upload is None) == (request.release is None):
            raise InvalidInput(
                "give new content or a kept release, one of the two", field="from", hint="--from or --release"
            )
        if request.upload is not None:
            if problems := self._check_upload_there(request.upload):
                raise InvalidInput(problems=problems)
            return None
        start = (request.release or "").removeprefix("sha256:")
        found = [
            each.digest
            for each in self.store.releases(site.id)
            if len(start) >= 8 and each.digest.removeprefix("sha256:").startswith(start)
        ]
        if len(found) != 1:
            raise InvalidInput(
                f"no release of {site.name} starts with {start!r}" if not found else f"{start!r} starts several",
                field="release",
                hint="give at least eight digits of a release that 'site show' lists",
            )
        if found[0] == site.release:
            raise Refused("this release is live already", field="release")
        return found[0]

    def set_site(
        self, caller: Actor, site: str, request: ask.SetSite, *, key: str | None = None, version: int | None = None
    ) -> Change:
        """Change what is given in ``request``; all else stays. Raises ``InvalidInput`` when that is nothing."""
        if request == ask.SetSite():
            raise InvalidInput("nothing to change", hint="give at least one option")
        if asks_to_lend(request):
            self._allow(caller, Right.MACHINE_LEND)
        if there := self._set_there(caller, "set", site, request, key, version):
            return there
        base: Base | None = None

        def before() -> None:
            nonlocal base
            old = self._free_to_change(caller, Right.SITE_CHANGE, site, version)
            # All checks first, then the agent is asked for the base.
            self._redraft(caller, old, request, old.base)
            self._check_shared_there(request)
            self._need_room()
            if request.base is not UNSET or request.packages is not UNSET:
                kind = request.base if request.base is not UNSET else str(old.base.kind)
                packages = request.packages if request.packages is not UNSET else old.base.packages
                base = self._resolve_base(kind, packages if kind == "debian" else (), is_static(old))

        return self._change(
            caller,
            Right.SITE_CHANGE,
            "set",
            site,
            request.digest(),
            key,
            version,
            lambda old: self._redraft(caller, old, request, base or old.base),
            blue_green=True,
            before=before,
        )

    def _redraft(self, caller: Actor, old: Site, request: ask.SetSite, base: Base) -> Site:
        draft = Draft(self.settings, self.store.owner_of, old.id)
        plan = old.plan if request.plan is UNSET else request.plan
        limits = draft.plan(plan, self.store.plans)
        if limits is not None and old.wanted is Wanted.RUNNING and has_storage(old):
            draft.disk(self._limits(old.plan), limits)
        domains = draft.changed_domains(old, request)
        path = draft.path(old.path if request.path is UNSET else request.path)
        draft.claim(caller, set(domains) - set(old.domains), path if path != old.path else None)
        access = draft.access(
            old.access.allow if request.allow is UNSET else request.allow,
            old.access.deny if request.deny is UNSET else request.deny,
        )
        env = dict(old.env)
        if request.env is not UNSET:
            for key, value in request.env.items():
                if value is None:
                    env.pop(key, None)
                else:
                    env[key] = value
        env = draft.env(env)
        volumes = old.volumes if request.volumes is UNSET else draft.volumes(request.volumes)
        published, shared = old.published, old.shared
        if request.published is not UNSET:
            sites = [each.site for each in self.store.sites.values()]
            published = check_published(draft, request.published, old.published, sites)
        if request.shared is not UNSET:
            shared = check_shared(draft, request.shared, [each.path for each in volumes])
        if old.application is None:
            run = self._rerun(draft, old, request)
        else:
            run = old.run
            draft.not_of_modules(request)
            self._check_plan(draft, plan, self._least_plan_of(old))
        sleep_after = old.sleep_after if request.sleep_after is UNSET else request.sleep_after
        if request.sleep_after is not UNSET or run != old.run:
            draft.sleep(sleep_after, run, old.application)
        # What an environment serves is delivered to it later.
        empty = old.application is None and old.release is None and self.apps.of_site(old.id) is None
        if empty and not run.processes and not draft.problems:
            draft.wrong("command", "nothing to serve: this site has no content", "update it with content first")
        known = request.base is UNSET or request.base in ("host", "debian") or find_base(request.base, self.store.bases)
        if not known:
            draft.wrong("base", f"there is no base {request.base!r}", "choose host, debian or an imported image")
        if request.packages is not UNSET:
            wanted = request.base if request.base is not UNSET else str(old.base.kind)
            draft.packages(request.packages, BaseKind.DEBIAN if wanted == "debian" else None)
        draft.finish()
        return msgspec.structs.replace(
            old,
            plan=plan,
            base=base,
            earlier=old.earlier if base.key == old.base.key else None,
            run=run,
            domains=domains,
            env=env,
            volumes=volumes,
            published=published,
            shared=shared,
            persistent=old.persistent if request.persistent is UNSET else request.persistent,
            path=path,
            access=access,
            https_only=old.https_only if request.https_only is UNSET else request.https_only,
            sleep_after=sleep_after,
            woken_by=old.woken_by if request.woken_by is UNSET else request.woken_by,
            on_push=old.on_push if request.on_push is UNSET else request.on_push,
            on_files=old.on_files if request.on_files is UNSET else request.on_files,
        )

    @staticmethod
    def _rerun(draft: Draft, old: Site, request: ask.SetSite) -> Run:
        processes = tuple(ask.ProcessBody(name=each.name, argv=each.argv) for each in old.run.processes)
        if request.processes is not UNSET:
            processes = request.processes
        command: tuple[str, ...] = ()
        if request.command is not UNSET:
            command = request.command
            if request.processes is UNSET:
                processes = ()
        return draft.run(
            command,
            processes,
            old.run.port if request.port is UNSET else request.port,
            old.run.health if request.health is UNSET else request.health,
            old.run.ready_seconds if request.ready_seconds is UNSET else request.ready_seconds,
            old.run.stop_seconds if request.stop_seconds is UNSET else request.stop_seconds,
        )

    def rename_site(
        self, caller: Actor, site: str, request: ask.RenameSite, *, key: str | None = None, version: int | None = None
    ) -> Change:
        """Another name, and with it another domain of its own; id, data and addresses stay."""

        def to(old: Site) -> Site:
            draft = Draft(self.settings, self.store.owner_of, old.id)
            draft.name(request.name, self.store.site(request.name) is not None)
            if site_domain(request.name, self.settings) in old.domains:
                draft.wrong("name", "is a domain of this site", "remove the domain first")
            # Names below its own go with it.
            was, now = (f"*.{site_domain(name, self.settings)}" for name in (old.name, request.name))
            domains = tuple(now if each == was else each for each in old.domains)
            draft.finish()
            check_no_copies(old)
            return msgspec.structs.replace(old, name=request.name, domains=domains)

        if there := self._rename_there(caller, site, request, key, version):
            return there
        return self._change(caller, Right.SITE_RENAME, "rename", site, request.digest(), key, version, to)


def _placeholder(request: ask.CreateSite) -> Base:
    """For the checks that come before the agent is asked which base it is."""
    kind = {"host": BaseKind.HOST, "debian": BaseKind.DEBIAN}.get(request.base, BaseKind.OCI)
    return Base(kind, f"{kind}-{'0' * 16}")


def _wants_static(request: ask.CreateSite) -> bool:
    return not request.command and not request.processes


def _image_env(image: protocol.Image) -> dict[str, str]:
    return {key: value for key, value in image.env.items() if key not in ENV_FORBIDDEN}
