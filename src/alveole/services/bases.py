"""The verbs on bases: look, verify, upgrade site by site, prune.

An upgrade of a base is one change that can be cut anywhere: which base became which is stored with it, and
every site is switched by a change of its own, so that whoever takes it up again sees what is left to do. A
site is switched only after a copy of it has run on the new base (``trials``).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused, StepFailed, Temporary
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change, ChangeState
from alveole.model.resource import PLATFORM, Kind
from alveole.model.site import Base, BaseKind, Earlier, Site, Wanted
from alveole.people.model import Actor, Role
from alveole.people.rights import Right
from alveole.services.draft import find_base
from alveole.services.trials import SWEEP_SECONDS, Trials
from alveole.store import KnownBase, Transaction

log = logging.getLogger("alveole.services")
UPGRADE, ROLLBACK = "upgrade-base", "rollback-base"
#: So many changed packages are told one by one.
_TOLD = 40
#: So often an upgrade goes on after the agent went away.
_LOST_MAX = 5


class BaseVerbs(Trials):
    # --- looking ------------------------------------------------------------------------------
    def _base_states(self) -> dict[str, protocol.BaseState]:
        with contextlib.suppress(AlveoleError):
            states: tuple[protocol.BaseState, ...] = self.agent.call(protocol.ListBases())
            return {state.base.key: state for state in states}
        return {}

    def _all_bases(self, states: dict[str, protocol.BaseState]) -> dict[str, tuple[Base, float]]:
        bases = {key: (known.base, known.created_at) for key, known in self.store.bases.items()}
        for stored in self.store.sites.values():
            bases.setdefault(stored.site.base.key, (stored.site.base, 0.0))
        if self.loop.host_base is not None:
            bases.setdefault(self.loop.host_base.key, (self.loop.host_base, 0.0))
        for key, state in states.items():
            bases.setdefault(key, (state.base, state.made_at))
        return bases

    def _users(self, key: str) -> tuple[Site, ...]:
        found = [stored.site for stored in self.store.sites.values() if stored.site.base.key == key]
        return tuple(sorted(found, key=lambda site: site.name))

    def _kept_for(self, key: str) -> tuple[Site, ...]:
        """The sites that may still go back to the base: it was theirs before an upgrade, not too long ago."""
        since = time.time() - self.settings.bases.earlier_seconds
        found = [
            stored.site
            for stored in self.store.sites.values()
            if (left := stored.site.earlier) is not None and left.base.key == key and left.left_at > since
        ]
        return tuple(sorted(found, key=lambda site: site.name))

    def _earlier_builder(self, site: Site) -> tuple[str, ...]:
        """The key of the base on which content for the earlier base of the site can still be built, if any."""
        left_at = site.earlier.left_at if site.earlier is not None else 0.0
        return tuple(known.base.key for known in self._builders(site) if known.created_at <= left_at)[:1]

    def list_bases(self, caller: Actor) -> tuple[views.BaseView, ...]:
        self._allow(caller, Right.CATALOGUE_LOOK)
        states = self._base_states()
        found = sorted(self._all_bases(states).items(), key=lambda item: (item[1][0].label, item[1][1]))
        return tuple(self._base_view(caller, base, made, states.get(key)) for key, (base, made) in found)

    def show_base(self, caller: Actor, base: str) -> views.BaseView:
        """With every package it holds and what an update would change."""
        self._allow(caller, Right.CATALOGUE_LOOK)
        states = self._base_states()
        found, made = self._named_base(base, states)
        state = states.get(found.key)
        with contextlib.suppress(AlveoleError):
            state = self.agent.call(protocol.ListBases(found.key))[0]
        return self._base_view(caller, found, made, state)

    def _named_base(self, text: str, states: dict[str, protocol.BaseState]) -> tuple[Base, float]:
        """By its key, its label or its image's digest; the newest when several have the label."""
        bases = self._all_bases(states)
        if text in bases:
            return bases[text]
        known = find_base(text, self.store.bases)
        found = [each for each in bases.values() if each[0].label == text]
        if found:
            return max(found, key=lambda each: each[1])
        if known is None:
            raise NotFound(f"there is no base {text!r}", field="base", hint="see: alveole base list")
        return known.base, known.created_at

    def _base_view(self, caller: Actor, base: Base, made: float, state: protocol.BaseState | None) -> views.BaseView:
        users = [site for site in self._users(base.key) if self._sees(caller, site)]
        updates = state.updates if state else None
        return views.BaseView(
            key=base.key,
            kind=str(base.kind),
            label=base.label,
            image=base.image,
            packages=base.packages,
            ready=self.loop.base_ready(base),
            sites=len(users),
            created_at=made,
            site_names=tuple(site.name for site in users),
            builds_of=tuple(site.name for site in self._built_on(base.key) if self._sees(caller, site)),
            earlier_of=tuple(site.name for site in self._kept_for(base.key) if self._sees(caller, site)),
            bytes=state.bytes if state else None,
            lower=state.lower if state and state.lower else None,
            damage=state.damage if state else "",
            verified_at=state.verified_at if state else None,
            updates=None if updates is None else len(updates),
            security_updates=None if updates is None else sum(each.security for each in updates),
            changes=tuple(change_view(each) for each in updates or ()),
            checked_at=state.checked_at if state else None,
            installed=state.installed if state else {},
        )

    def base_links(self, site: Site) -> tuple[protocol.Link, ...]:
        """For ``why``: what is wrong with the files that a site runs from. Nothing when nothing is."""
        states = self._base_states()
        state = states.get(site.base.key)
        asked = "compare the files of its base with their digests"
        if state is None:
            # None at all: the agent does not answer, which another link says.
            if not states or site.wanted is not Wanted.RUNNING:
                return ()
            return (
                protocol.Link("base", False, asked, "the base is not there", "it is made by itself: alveole journal"),
            )
        look = self.loop.looks.get(site.id)
        since = [item.detail.get("since", 0.0) for item in look.found if item.id.kind is Kind.WORKLOAD] if look else []
        if state.damage:
            cure = "import the image again" if site.base.kind is BaseKind.OCI else "it is being made anew"
            return (protocol.Link("base", False, asked, state.damage, cure),)
        if state.set_aside_at and any(isinstance(at, float | int) and at <= state.set_aside_at for at in since):
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(state.set_aside_at))
            came = f"the site runs from files that were found damaged, {when}; the base was made anew since"
            return (protocol.Link("base", False, asked, came, f"alveole site restart {site.name}"),)
        return ()

    # --- deleting -----------------------------------------------------------------------------
    def delete_base(self, caller: Actor, base: str, *, key: str | None = None) -> Change:
        self._allow(caller, Right.BASE_CHANGE)
        states: dict[str, protocol.BaseState] = {}

        def before() -> None:
            states.update(self._base_states())

        def build(transaction: Transaction) -> Live:
            if self.loop.host_base is not None and base in (self.loop.host_base.key, BaseKind.HOST):
                raise Refused("the host's own base is always kept", field="base")
            found, _ = self._named_base(base, states)
            users = self._users(found.key)
            if users:
                raise Refused(f"{len(users)} sites use it, {users[0].name} among them", field="base")
            layers = [state.base.label for state in states.values() if state.lower == found.key]
            if layers:
                raise Refused(f"{len(layers)} bases lean on it, {layers[0]} among them", field="base")
            work = Work(stored=True, base=found.key)
            return self.journal.begin("delete-base", caller, reason=found.label, work=work, transaction=transaction)

        return self._accept(caller, self._digest("delete-base", base), key, build, before)

    def preview_prune(self, caller: Actor, request: ask.PruneBases) -> tuple[views.BaseView, ...]:
        """The bases that would go, layers before what they lean on."""
        self._allow(caller, Right.BASE_CHANGE)
        states = self._base_states()
        bases = self._all_bases(states)
        going = self._prunable(request, states)
        return tuple(self._base_view(caller, *bases[key], states.get(key)) for key in going)

    def _prunable(self, request: ask.PruneBases, states: dict[str, protocol.BaseState]) -> list[str]:
        kept = {self._named_base(text, states)[0].key for text in request.keep}
        bases = self._all_bases(states)
        if not request.earlier:
            kept |= {key for key in bases if self._kept_for(key)}
            kept |= {key for key in bases for site in self._kept_for(key) for key in self._earlier_builder(site)}
        stays = kept | set(self._builds_on()) | {stored.site.base.key for stored in self.store.sites.values()}
        stays |= {key for key, (base, _) in bases.items() if base.kind is BaseKind.HOST}
        stays = {each for key in stays for each in _chain(key, states)}
        going = [key for key in bases if key not in stays]
        return sorted(going, key=lambda key: (-len(_chain(key, states)), key))

    def prune_bases(self, caller: Actor, request: ask.PruneBases, *, key: str | None = None) -> Change:
        self._allow(caller, Right.BASE_CHANGE)
        states: dict[str, protocol.BaseState] = {}

        def before() -> None:
            states.update(self._base_states())

        def build(transaction: Transaction) -> Live:
            keys = tuple(self._prunable(request, states))
            reason = f"{len(keys)} bases that no site uses"
            work = Work(stored=True, bases=keys)
            return self.journal.begin("prune-bases", caller, reason=reason, work=work, transaction=transaction)

        return self._accept(caller, request.digest(), key, build, before)

    def _flow_prune_bases(self, live: Live) -> None:
        problems: list[Problem] = []
        freed = gone = 0
        states = self._base_states()
        for key in live.work.bases:
            # A site may have come since.
            if self._users(key):
                live.say(f"{key} stays: a site uses it now")
                continue
            live.show(f"dropping {key}")
            try:
                self.agent.call(protocol.DropBase(key))
            except Refused as error:
                problems.extend(error.problems)
                continue
            with self.store.write() as transaction:
                transaction.delete_base(key)
            if key in states:
                freed, gone = freed + states[key].bytes, gone + 1
                live.say(f"{states[key].base.label} ({key}) is gone")
        self.journal.end(live, problems, {"bases": gone, "bytes": freed})
        self.loop.trigger(PLATFORM)

    # --- verifying ----------------------------------------------------------------------------
    def verify_bases(self, caller: Actor, request: ask.NameBases, *, key: str | None = None) -> Change:
        """Compare every file of the named bases (of all) with its digest; the change fails when one is damaged."""
        self._allow(caller, Right.BASE_CHANGE)
        states: dict[str, protocol.BaseState] = {}

        def before() -> None:
            states.update(self._base_states())

        def build(transaction: Transaction) -> Live:
            named = [self._named_base(text, states)[0].key for text in request.bases]
            keys = tuple(dict.fromkeys(named)) or tuple(states)
            reason = ", ".join(request.bases) or "all bases"
            work = Work(stored=True, bases=keys)
            return self.journal.begin("verify-bases", caller, reason=reason, work=work, transaction=transaction)

        return self._accept(caller, request.digest(), key, build, before)

    def _flow_verify_bases(self, live: Live) -> None:
        problems: list[Problem] = []
        keys = live.work.bases
        for number, key in enumerate(keys):

            def show(text: str, share: float | None = None, done: int = number) -> None:
                live.show(text, None if share is None else (done + share) / len(keys))

            try:
                state: protocol.BaseState = self.agent.call(protocol.VerifyBase(key), say=show)
            except NotFound:
                continue
            if not state.damage:
                live.say(f"{state.base.label} ({key}): sound, {state.files} files")
                continue
            live.say(f"{state.base.label} ({key}): {state.damage}", level="error")
            cure = "import the image again" if state.base.kind is BaseKind.OCI else "it is made anew by itself"
            users = ", ".join(site.name for site in self._users(key))
            told = f"{cure}; restart the sites that run from it: {users}" if users else cure
            problems.append(Problem(key, f"is damaged: {state.damage}", told))
        self.journal.end(live, problems, {"bases": len(keys), "damaged": len(problems)})
        self.loop.trigger("*")

    # --- upgrading ----------------------------------------------------------------------------
    def preview_upgrade(self, caller: Actor, request: ask.UpgradeBases) -> tuple[views.UpgradeView, ...]:
        """What an upgrade of these bases would change, and for whom. Fetches the package lists."""
        self._allow(caller, Right.BASE_CHANGE)
        found = []
        for number, base in enumerate(self._upgradable(request)):
            check = protocol.CheckBase(base.key, fetch=number == 0)
            changes: tuple[protocol.PackageChange, ...] = self.agent.call(check)
            found.append(
                views.UpgradeView(
                    key=base.key,
                    label=base.label,
                    changes=tuple(change_view(each) for each in changes),
                    sites=tuple(site.name for site in self._users(base.key)) if changes else (),
                    builds=tuple(site.name for site in self._built_on(base.key)) if changes else (),
                )
            )
        return tuple(found)

    def _upgradable(self, request: ask.UpgradeBases) -> tuple[Base, ...]:
        states = self._base_states()
        if not request.bases:
            used = {stored.site.base.key: stored.site.base for stored in self.store.sites.values()}
            used |= {key: base for key, (base, _) in self._builds_on().items()}
            return _small_first(base for base in used.values() if base.kind is BaseKind.DEBIAN and base.key in states)
        found = {base.key: base for base in (self._named_base(text, states)[0] for text in request.bases)}
        problems = [
            Problem("bases", f"{base.label} is not made of packages", "only bases of packages are upgraded")
            for base in found.values()
            if base.kind is not BaseKind.DEBIAN
        ]
        if problems:
            raise InvalidInput(problems=problems)
        for key, (base, sites) in self._builds_on().items():
            if key in states and any(site.base.key in found for site in sites):
                found.setdefault(key, base)
        return _small_first(found.values())

    def upgrade_bases(self, caller: Actor, request: ask.UpgradeBases, *, key: str | None = None) -> Change:
        self._allow(caller, Right.BASE_CHANGE)
        bases: tuple[Base, ...] = ()

        def before() -> None:
            nonlocal bases
            bases = self._upgradable(request)
            self._need_room()

        def build(transaction: Transaction) -> Live:
            self._no_other_upgrade()
            return self.journal.begin(
                UPGRADE,
                caller,
                reason=", ".join(base.label for base in bases) or "no base is used",
                work=Work(stored=True, bases=tuple(base.key for base in bases)),
                transaction=transaction,
            )

        return self._accept(caller, request.digest(), key, build, before)

    def _no_other_upgrade(self) -> None:
        going_on = [live for live in self.journal.all_live() if live.change.verb in (UPGRADE, ROLLBACK)]
        if going_on:
            what = "an upgrade" if going_on[0].change.verb == UPGRADE else "a way back"
            raise Refused(f"{what} is going on: change {going_on[0].id}", hint="wait for it to end")

    def _flow_upgrade_base(self, live: Live) -> None:
        self._through_losses(live, self._upgrade)

    def _through_losses(self, live: Live, work: Callable[[Live], None]) -> None:
        """``work`` again, from what is stored, when the agent goes away in the middle of it."""
        lost = 0
        while True:
            try:
                work(live)
                return
            except Temporary as error:
                # The agent is started again by itself; what was done is stored, and the rest goes on.
                lost += 1
                if error.code != Temporary.code or lost > _LOST_MAX or self.loop.stopping:
                    raise
                live.say(f"{error}; going on in a moment", level="warning")
                self.loop.pause(SWEEP_SECONDS)

    def _upgrade(self, live: Live) -> None:
        self._sweep_clones()
        switched = 0
        for number, key in enumerate(live.work.bases):
            share = (number / len(live.work.bases), 1 / len(live.work.bases))
            new = self._renewed(live, key, share)
            if new.key == key:
                live.say(f"{new.label}: nothing newer")
                continue
            problems = self.loop.ensure_base(new, live)
            if problems:
                raise StepFailed(problems=problems)
            sites = self._users(key)
            for place, site in enumerate(sites):
                live.show(f"trying {site.name} on {new.key}", share[0] + share[1] * (0.5 + 0.5 * place / len(sites)))
                switched += self._upgrade_site(live, site.id, key, new)
        self.journal.end(live, (), {"bases": len(live.work.bases), "sites": switched})

    def _renewed(self, live: Live, key: str, share: tuple[float, float]) -> Base:
        """The base that comes after ``key``; stored with the change, so that it is made once."""
        if key in live.work.renewed:
            return live.work.renewed[key]

        def show(text: str, part: float | None = None) -> None:
            live.show(text, None if part is None else share[0] + share[1] * part / 2)

        renewed: protocol.Renewed = self.agent.call(protocol.RenewBase(key), say=show)
        hit("services.base-renewed")
        base = renewed.base
        for change in renewed.changes[:_TOLD]:
            live.say(_words(change))
        if len(renewed.changes) > _TOLD:
            live.say(f"and {len(renewed.changes) - _TOLD} packages more")
        sites = [site.name for site in self._users(key)]
        users = ", ".join([*sites, *(f"builds of {site.name}" for site in self._built_on(key))]) or "no site"
        if base.key != key:
            live.say(f"{base.label}: {key} → {base.key}, used by {users}")
        work = msgspec.structs.replace(live.work, renewed={**live.work.renewed, key: base})
        with self.store.write() as transaction:
            if base.key != key:
                # Later than any other of its set: sites to come take it.
                transaction.put_base(KnownBase(base, time.time()))
            self.journal.save(live, transaction, work)
        return base

    def _upgrade_site(self, live: Live, id: str, key: str, new: Base) -> bool:
        """Try it, then switch it; whether it was. Raises ``StepFailed`` naming the site, which then is as it was."""
        self._await_site(live, id)
        stored = self.store.sites.get(id)
        if stored is None or stored.pending or stored.site.base.key != key:
            return False
        site = stored.site
        moved = site
        try:
            moved = self._fitting(live, site, new)
            if site.wanted is Wanted.RUNNING:
                self._be_awake(site, live.change.actor)
                self._try(live, moved, new)
        except AlveoleError as error:
            self._drop_built(site, moved)
            if error.code == Temporary.code:
                raise
            message = f"site {site.name} does not work on the new base: {error.problems[0].message}"
            hint = "it and all that follow stay on the old one"
            raise StepFailed(problems=[Problem(site.name, message, hint), *error.problems[1:]]) from error
        hit("services.clone-tried")
        live.say(f"switching {site.name}")

        def to(old: Site) -> Site:
            if old.base.key != key:
                raise Refused("its base was changed meanwhile")
            if old.release != site.release:
                raise Refused("it got other content meanwhile")
            return msgspec.structs.replace(
                old,
                base=new,
                release=moved.release,
                application=moved.application,
                earlier=_earlier(old, moved),
            )

        caller = Actor(live.change.actor, Role.ADMIN, "upgrade")
        change = self._change(caller, Right.SITE_CHANGE, "upgrade-site", id, new.key, None, None, to, blue_green=True)
        hit("services.site-switching")
        ended = self._await_change(change.id)
        if ended.state is not ChangeState.DONE:
            found = ended.problems or (Problem("", "was not switched"),)
            message = f"site {site.name} did not get ready on the new base: {found[0].message}"
            raise StepFailed(problems=[Problem(site.name, message, f"alveole change show {ended.id}"), *found[1:]])
        live.say(f"{site.name} runs on the new base" if site.wanted is Wanted.RUNNING else f"{site.name}: stored")
        return True

    def _await_change(self, id: str) -> Change:
        while True:
            change = self.journal.wait(id, 0.5)
            if change is not None and change.ended_at is not None:
                return change
            if self.loop.stopping:
                raise Temporary("control is being stopped")

    def _await_site(self, live: Live, id: str) -> None:
        """Wait until no other change is at work on the site."""
        while (other := self.journal.of_site(id)) is not None:
            live.show(f"waits for {other.change.verb} of {other.change.site_name}")
            self._await_change(other.id)


def _chain(key: str, states: dict[str, protocol.BaseState]) -> tuple[str, ...]:
    """The base and those it lies over, one after the other."""
    found = [key]
    while (state := states.get(found[-1])) is not None and state.lower and state.lower not in found:
        found.append(state.lower)
    return tuple(found)


def _small_first(bases: Iterable[Base]) -> tuple[Base, ...]:
    """What others may come to lie over before these."""
    return tuple(sorted(bases, key=lambda base: (len(base.packages), base.key)))


def _earlier(old: Site, moved: Site) -> Earlier:
    """How ``old`` is to be had back when it has become ``moved``."""
    building = old.application.building if old.application is not None else None
    if moved.release == old.release or building is None:
        return Earlier(old.base, time.time())
    return Earlier(old.base, time.time(), old.release, building.made_for, moved.release)


def change_view(change: protocol.PackageChange) -> views.PackageView:
    return views.PackageView(name=change.name, before=change.before, after=change.after, security=change.security)


def _words(change: protocol.PackageChange) -> str:
    how = f"{change.before or 'new'} → {change.after or 'gone'}"
    return f"{change.name} {how}{' (security)' if change.security else ''}"
