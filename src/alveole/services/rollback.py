"""Going back: the base that a site had before an upgrade, for the night in which the new one turns out wrong.

An upgrade leaves with each site which base it left and when. That base stays on the disk for
``bases.earlier_seconds``, and for so long one change takes sites back to it, each by a change of its own that
is taken back like any other when the instance does not get ready. Nothing is tried on a copy first: what the
site goes back to has served it before, and whoever asks for this does not want to wait. Content that was built
for the programs of the newer base does not run on the earlier one: what the site ran there comes back with it, or,
where it has got other content since, that is built again.
"""

from __future__ import annotations

import msgspec

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused, Temporary
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change, ChangeState
from alveole.model.site import Base, Site
from alveole.people.model import Actor, Role
from alveole.people.rights import Right
from alveole.services.bases import ROLLBACK, BaseVerbs, change_view
from alveole.store import Transaction


class RollbackVerbs(BaseVerbs):
    def preview_rollback(self, caller: Actor, request: ask.RollbackBases) -> tuple[views.RollbackView, ...]:
        """Where each site would go back to, and which packages that changes."""
        self._allow(caller, Right.BASE_CHANGE)
        packages: dict[str, dict[str, str]] = {}
        found = []
        for site, base in self._going_back(request):
            for key in (site.base.key, base.key):
                if key not in packages:
                    states: tuple[protocol.BaseState, ...] = self.agent.call(protocol.ListBases(key))
                    packages[key] = states[0].installed if states else {}
            changes = _between(packages[site.base.key], packages[base.key])
            content = ""
            if self._had(site) is not None:
                content = "earlier"
            elif self._must_build(site, base):
                content = "rebuilt"
            view = views.RollbackView(
                site=site.name,
                label=base.label,
                base=site.base.key,
                earlier=base.key,
                changes=changes,
                content=content,
            )
            found.append(view)
        return tuple(found)

    def _going_back(self, request: ask.RollbackBases) -> tuple[tuple[Site, Base], ...]:
        """Each site with its earlier base. Raises all that is wrong with the request at once."""
        states: tuple[protocol.BaseState, ...] = self.agent.call(protocol.ListBases())
        there = {state.base.key: state for state in states}
        problems: list[Problem] = []
        sites: dict[str, Site] = {}
        if not request.sites and not request.bases:
            raise InvalidInput("names neither a site nor a base", field="sites", hint="see: alveole base list")
        for name in request.sites:
            stored = self.store.site(name)
            if stored is None:
                problems.append(Problem("sites", f"there is no site {name!r}", "see: alveole site list"))
                continue
            sites[stored.site.id] = stored.site
            if stored.site.earlier is None:
                message = f"site {stored.site.name} has no earlier base"
                problems.append(Problem("sites", message, "only an upgrade of its base leaves one"))
        for text in request.bases:
            try:
                base, _ = self._named_base(text, there)
            except NotFound as error:
                problems.extend(error.problems)
                continue
            users = [site for site in self._users(base.key) if site.earlier is not None]
            sites |= {site.id: site for site in users}
            if not users:
                problems.append(Problem("bases", f"no site came to {base.label} ({base.key}) by an upgrade"))
        found = [(site, site.earlier.base) for site in sites.values() if site.earlier is not None]
        for site, base in found:
            if base.key not in there:
                message = f"the earlier base of {site.name}, {base.key}, is not there any more"
                problems.append(Problem("sites", message, "bases.earlier_seconds says how long it is kept"))
        if problems:
            unknown = any(problem.message.startswith("there is no") for problem in problems)
            raise (InvalidInput if unknown else Refused)(problems=problems)
        return tuple(sorted(found, key=lambda each: each[0].name))

    def rollback_bases(self, caller: Actor, request: ask.RollbackBases, *, key: str | None = None) -> Change:
        self._allow(caller, Right.BASE_CHANGE)
        found: tuple[tuple[Site, Base], ...] = ()

        def before() -> None:
            nonlocal found
            found = self._going_back(request)

        def build(transaction: Transaction) -> Live:
            self._no_other_upgrade()
            return self.journal.begin(
                ROLLBACK,
                caller,
                reason=", ".join(site.name for site, _ in found)[:500],
                work=Work(stored=True, back={site.id: base for site, base in found}),
                transaction=transaction,
            )

        return self._accept(caller, request.digest(), key, build, before)

    def _flow_rollback_base(self, live: Live) -> None:
        self._through_losses(live, self._rollback)

    def _rollback(self, live: Live) -> None:
        """Every site is tried: one that cannot go back is no reason to leave the others where they are."""
        problems: list[Problem] = []
        done = 0
        for number, (id, base) in enumerate(live.work.back.items()):
            live.show(f"going back to {base.key}", number / len(live.work.back))
            self._await_site(live, id)
            stored = self.store.sites.get(id)
            if stored is None or stored.pending:
                continue
            site = stored.site
            if site.earlier is None or site.earlier.base.key != base.key:
                # Done already when control was started anew meanwhile; else somebody changed its base.
                done += site.base.key == base.key
                continue
            try:
                ended = self._go_back(live, site, base)
            except AlveoleError as error:
                if error.code == Temporary.code:
                    raise
                problems += [Problem(site.name, f"site {site.name} stays: {each.message}") for each in error.problems]
                continue
            if ended.state is ChangeState.DONE:
                done += 1
                live.say(f"{site.name} is back on {base.key}")
            else:
                said = ended.problems[0].message if ended.problems else "was not switched"
                message = f"site {site.name} did not get ready on its earlier base: {said}"
                problems.append(Problem(site.name, message, f"alveole change show {ended.id}"))
        self.journal.end(live, problems, {"sites": done})

    def _go_back(self, live: Live, site: Site, base: Base) -> Change:
        if found := self.loop.ensure_base(base, live):
            raise Refused(problems=found)

        had = self._had(site)
        moved = had or self._fitting(live, site, base)

        def to(old: Site) -> Site:
            if old.earlier is None or old.earlier.base.key != base.key:
                raise Refused("its base was changed meanwhile")
            if old.release != site.release:
                raise Refused("it got other content meanwhile")
            return msgspec.structs.replace(
                old, base=base, release=moved.release, application=moved.application, earlier=None
            )

        caller = Actor(live.change.actor, Role.ADMIN, "rollback")
        change = self._change(
            caller, Right.SITE_CHANGE, "rollback-site", site.id, base.key, None, None, to, blue_green=True
        )
        hit("services.site-going-back")
        ended = self._await_change(change.id)
        if ended.state is not ChangeState.DONE and had is None:
            self._drop_built(site, moved)
        return ended

    def _had(self, site: Site) -> Site | None:
        """``site`` with the content that it ran on its earlier base; ``None`` when it is not to have that."""
        left, application = site.earlier, site.application
        if left is None or left.rebuilt is None or left.rebuilt != site.release or application is None:
            return None
        if application.building is None or all(each.digest != left.release for each in self.store.releases(site.id)):
            return None
        building = msgspec.structs.replace(application.building, made_for=left.made_for)
        application = msgspec.structs.replace(application, building=building)
        return msgspec.structs.replace(site, base=left.base, release=left.release, application=application)


def _between(now: dict[str, str], then: dict[str, str]) -> tuple[views.PackageView, ...]:
    names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    changes = (protocol.PackageChange(name, now.get(name, ""), then.get(name, "")) for name in names)
    return tuple(change_view(each) for each in changes)
