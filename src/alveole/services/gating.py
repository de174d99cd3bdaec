"""Checks around the switch: what was red before, what the new copy answers beside the old one, what it answers live.

A scenario is written once, for any environment of an application: the others ask it too, under their own names,
but for those that have one of the same name. Before the switch it is asked of the new instance, which no route
leads to yet; where there is none beside the old one (static content, one writer), it is asked after the switch only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from alveole.agent import protocol
from alveole.errors import Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live
from alveole.loop.compile import compile_site, workload_id
from alveole.model.app import App, Environment, Stage, Version
from alveole.model.resource import Desired
from alveole.model.site import Site, Wanted
from alveole.policy.lifecycle import span
from alveole.scenarios.model import Use
from alveole.services.delivery import DeliveryVerbs
from alveole.services.watching import CHECK

#: So long each check of a module may take.
_CHECK_SECONDS = 5.0


class GatingVerbs(DeliveryVerbs):
    def red_before(self, app: App, environment: Environment, version: Version) -> tuple[Problem, ...]:
        """The scenarios that are not green in the environment before, or were not for as long as is asked for."""
        before = app.before(environment.name)
        stored = self.store.sites.get(before.site) if before is not None else None
        if before is None or stored is None:
            return ()
        where = before.name.upper()
        red = tuple(
            Problem(each.field, f"fails in {where}: {each.message}", f"{each.hint} {stored.site.name}")
            for each in self.checks.standing(before.site)
        )
        return red or self._red_lately(app, before, environment.policy.soak_seconds, version)

    def _red_lately(self, app: App, before: Environment, soak: int, version: Version) -> tuple[Problem, ...]:
        """What watches the environment before, and has told since the version is live there that it failed."""
        now = time.time()
        ran = self.apps.at(app.id, before.name, Stage.LIVE)
        live_at = ran.live_at if ran is not None and ran.version == version.id else None
        if not soak or live_at is None:
            return ()
        # It is told when a scenario begins to fail, and when it passes again: either way it was red until then.
        last = {
            each.reason: each for each in reversed(self.journal.since(before.site, CHECK, max(now - soak, live_at)))
        }
        known = {each.name for each in self.checks.states(before.site)}
        return tuple(
            Problem(
                f"check/{name}",
                f"failed in {before.name.upper()} and is green again since {span(now - each.started_at)},"
                f" of {span(soak)}",
                "wait until it has been green for so long",
            )
            for name, each in last.items()
            if name in known
        )

    def red_after(self, app: App, environment: Environment, _version: Version) -> tuple[Problem, ...]:
        """What the scenarios say of what is live in an environment; they are run now."""
        stored = self.store.sites.get(environment.site)
        if stored is None:
            return ()
        return self.checks.run(stored.site, use=Use.VERIFY, borrowed=_others(app, environment.site)).problems

    @contextlib.contextmanager
    def _tried_beside(self, live: Live, app: App, old: Site, new: Site) -> Iterator[None]:
        """Before the body makes ``new`` the wanted one: start it beside ``old`` and ask what must pass.

        Raises ``Refused`` with what does not; the new copy is gone again then, and nothing was switched.
        """
        trial = self._flipped(old, new)
        borrowed = _others(app, old.id)
        asked = bool(new.run.checks) or any(self.checks.chosen(old.id, Use.GATE, borrowed))
        if trial.slot == old.slot or old.wanted is not Wanted.RUNNING or not asked:
            yield
            return
        more = [item for item in compile_site(trial, self.settings, self.loop.limits) if item.id == workload_id(trial)]

        def present() -> Sequence[Desired] | None:
            stored = self.store.sites.get(old.id)
            return None if stored is None or stored.site.version != old.version else self.loop.desired(stored)

        def both() -> Sequence[Desired] | None:
            found = present()
            return None if found is None else [*found, *more]

        with self.loop.hold(old.id) as poke:
            live.show("starting the new copy beside the old one")
            settled = self.loop.reach(old, both, live, poke)
            hit("delivery.beside")
            problems = settled.problems or self._asked_beside(live, trial, borrowed)
            if not problems:
                live.say("the new copy passes its checks, beside the old one")
                yield
                return
            for problem in problems:
                live.say(str(problem), level="error")
            self.loop.reach(old, present, live, poke)
        raise Refused(problems=problems)

    def _asked_beside(self, live: Live, trial: Site, borrowed: Sequence[str]) -> tuple[Problem, ...]:
        live.show("asking the new copy")
        problems = []
        if trial.run.checks:
            request = protocol.CheckHealth(trial.id, trial.slot, trial.run.checks, _CHECK_SECONDS)
            links: tuple[protocol.Link, ...] = self.agent.call(request)
            failing = [link for link in links if not link.ok]
            problems += [Problem(link.name, f"{link.name} fails: {link.asked}: {link.came}") for link in failing]
        problems += self.checks.run(trial, use=Use.GATE, slot=trial.slot, borrowed=borrowed).problems
        return tuple(problems)


def _others(app: App, site_id: str) -> tuple[str, ...]:
    """The sites of an application's other environments, in its order."""
    return tuple(each.site for each in app.environments if each.site != site_id)
