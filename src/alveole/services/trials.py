"""A copy of a site, tried on another base before the site itself is switched.

It has a number of its own, and no row, name or route, so that nothing but its lease tells of it; a lease without a
site is swept at the next start.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import msgspec

from alveole.agent import protocol
from alveole.errors import AlveoleError, Problem, StepFailed
from alveole.failpoints import hit
from alveole.journal import Live
from alveole.loop.compile import compile_site
from alveole.model.resource import Action, Kind, Step
from alveole.model.site import Base, HealthCheck, Site
from alveole.services.backups import BackupVerbs
from alveole.store import new_id, pastdays

log = logging.getLogger("alveole.services")
#: What a copy of a site is made of: everything but names and the address that its visitors know.
_CLONED = (Kind.STORAGE, Kind.RELEASE, Kind.CONFIG, Kind.WORKLOAD)
#: So long until it is tried again to take a copy away.
SWEEP_SECONDS = 5.0


class Trials(BackupVerbs):
    """The piece of an upgrade that tries it."""

    def _try(self, live: Live, site: Site, base: Base) -> None:
        """Run a copy of ``site`` on ``base`` and ask it what its checks ask. Raises what is wrong with it."""
        live.say(f"trying a copy of {site.name}")
        with self._clone(site, base) as copy:
            # Nobody has asked for what it would send or fetch.
            limits = msgspec.structs.replace(self._limits(site.plan), internet=False)
            needed = {
                kind: [each for each in compile_site(copy, self.settings, {site.plan: limits}) if each.id.kind is kind]
                for kind in _CLONED
            }
            for kind in _CLONED:
                for item in needed[kind]:
                    live.show(f"copy of {site.name}: {item.id.kind}")
                    self._make(Step(item.id, Action.CREATE, item.digest, item.spec, "tried before an upgrade"))
                if kind is Kind.STORAGE:
                    request = protocol.CloneSite(
                        site.id, site.number, site.data_generation, site.release, copy.id, copy.number
                    )
                    self.agent.call(request, say=live.show)
                    hit("services.cloned")
            hit("services.clone-runs")
            self._compare_health(live, site, copy)

    def _make(self, step: Step) -> None:
        outcome = self.agent.call(protocol.Apply(step))
        if not outcome.done:
            lines = [line.strip() for line in outcome.tail if line.strip()]
            said = f"; it printed: {lines[-1][:300]}" if lines else ""
            raise StepFailed(f"{outcome.message}{said}", field=f"{step.id.kind}")

    def _compare_health(self, live: Live, site: Site, copy: Site) -> None:
        """The checks of its modules, and the same answer at its health path as the live one gives."""
        health = HealthCheck(name="health", path=site.run.health)
        links: tuple[protocol.Link, ...] = self.agent.call(
            protocol.CheckHealth(copy.id, copy.slot, (health, *site.run.checks))
        )
        problems = [Problem(link.name, f"{link.name}: {link.asked}: {link.came}") for link in links[1:] if not link.ok]
        with contextlib.suppress(AlveoleError):
            (before,) = self.agent.call(protocol.CheckHealth(site.id, site.slot, (health,)))
            if before.came != links[0].came:
                problems.insert(0, Problem("health", f"{health.path} answers {links[0].came}, before {before.came}"))
        if problems:
            raise StepFailed(problems=problems)
        live.say(f"the copy of {site.name} is well: {', '.join(link.name for link in links)}")

    @contextlib.contextmanager
    def _clone(self, site: Site, base: Base) -> Iterator[Site]:
        """A site that is like ``site`` and in nobody's list; nothing of it is left at the end."""
        id = new_id("s")
        with self.store.write() as transaction:
            number = transaction.lease(id, self.addressing.capacity())
            self.loop.clones.add(id)
        hit("services.clone-leased")
        try:
            yield msgspec.structs.replace(
                site,
                id=id,
                number=number,
                name=f"copy-{id[1:]}",
                base=base,
                domains=(),
                path=None,
                published=(),
                shared=tuple(msgspec.structs.replace(each, writable=False) for each in site.shared),
                slot=0,
                incarnation=0,
                data_generation=1,
            )
        finally:
            # What cannot be taken away now is swept later.
            with contextlib.suppress(AlveoleError):
                self._drop_clone(id, number)

    def _drop_clone(self, id: str, number: int) -> None:
        try:
            observation = self.agent.call(protocol.Observe((id,)))
            # A copy that was tried has an instance alone; a past day whose row is damaged has all of them.
            for kind in (Kind.ROUTE, Kind.WORKLOAD, Kind.CERTIFICATE):
                for item in (each for each in observation.found if each.id.kind is kind):
                    self._make(Step(item.id, Action.DELETE, item.digest, None, "tried before an upgrade"))
            self.agent.call(protocol.RemoveSite(id, number, forget=True))
        finally:
            self.loop.clones.discard(id)
        with self.store.write() as transaction:
            pastdays.drop(transaction.connection, id)
            transaction.end_lease(id)

    def _sweep_clones(self) -> None:
        """Take away copies that a death of control has left: leases that belong to no site."""
        for number, id in self.store.stray_leases():
            if id not in self.loop.clones:
                log.info("taking away %s, a copy that was tried", id)
                self._drop_clone(id, number)

    def _sweep_at_start(self) -> None:
        """As soon as the agent answers."""
        while not self.loop.stopping and self.store.stray_leases():
            try:
                self._sweep_clones()
                return
            except AlveoleError as error:
                log.warning("a copy of a site could not be taken away yet: %s", error)
                self.loop.pause(SWEEP_SECONDS)
