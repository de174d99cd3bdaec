"""Looking at sites: one, all, and what they use."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from typing import TypeVar

import msgspec

from alveole import views
from alveole.agent import protocol
from alveole.backends.base import Usage
from alveole.catalogue.sources import Catalogue
from alveole.errors import AlveoleError
from alveole.figures.load import Loads
from alveole.figures.traffic import Counted, Traffic
from alveole.logbook.places import bytes_of
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.modules import Compositions
from alveole.services.show import site_view, state_of
from alveole.store import Stored, claims

USAGE_SECONDS = 5.0
Told = TypeVar("Told")


class LookVerbs(Compositions):
    loads: Loads
    traffic: Traffic
    _usage: dict[str, Usage]
    _usage_at: float

    # --- looking ------------------------------------------------------------------------------
    def list_sites(self, caller: Actor) -> tuple[views.SiteView, ...]:
        self._allow(caller, Right.SITE_LIST)
        usage = self._usage_of_all()
        stored = self._visible(caller)
        made = any(each.site.application is not None for each in stored)
        catalogue = self.catalogue() if made else None
        return tuple(self._view(each, usage.get(each.site.id), catalogue) for each in stored)

    def show_site(self, caller: Actor, site: str, *, show_env: bool = False) -> views.SiteView:
        stored = self._stored(caller, Right.SITE_SECRETS if show_env else Right.SITE_LOOK, site, elsewhere=True)
        id = stored.site.id
        if stored.site.node:
            view = msgspec.structs.replace(self._view(stored, None), claims=self._claimed(id))
            return self._shown_there(stored, view, show_env)
        usage: Usage | None = None
        try:
            usage = self.agent.call(protocol.GetUsage((id,))).get(id)
        except AlveoleError:
            usage = self._usage.get(id)
        releases = self.store.releases(id)
        return site_view(
            stored,
            self.settings,
            self.addressing,
            look=self.loop.looks.get(id),
            live=self.journal.of_site(id),
            known=self.loop.agent_answers,
            usage=usage,
            releases=releases,
            show_env=show_env,
            application=self._application_view(stored.site, show_env, look=True),
            process_states=self._process_views(stored.site),
            log_bytes=bytes_of(self.settings.logs, id),
            owner=self.people.shown(stored.site.owner),
            load=self.loads.saw(id, usage.cpu_seconds) if usage is not None else 0.0,
            traffic=self.traffic.look((id,))[id],
            plans=self.store.plans,
            checks=self.checks.states(id),
            claims=self._claimed(id),
        )

    def _claimed(self, site_id: str) -> tuple[str, ...]:
        with self.store.read() as connection:
            return tuple(each.domain for each in claims.of_site(connection, site_id))

    def _process_views(self, site: Site) -> tuple[views.ProcessView, ...]:
        """Of the live instance; of the other one while an update has not switched yet."""
        with contextlib.suppress(AlveoleError):
            for slot in (site.slot, 1 - site.slot):
                states: tuple[protocol.ProcessState, ...] = self.agent.call(protocol.ListProcesses(site.id, slot))
                if states:
                    return tuple(views.ProcessView(**msgspec.structs.asdict(each)) for each in states)
        return ()

    def _view(
        self,
        stored: Stored,
        usage: Usage | None,
        catalogue: Catalogue | None = None,
        traffic: Counted | None = None,
    ) -> views.SiteView:
        view = site_view(
            stored,
            self.settings,
            self.addressing,
            look=self.loop.looks.get(stored.site.id),
            live=self.journal.of_site(stored.site.id),
            known=self.loop.agent_answers,
            usage=usage,
            application=self._application_view(stored.site, catalogue=catalogue),
            owner=self.people.shown(stored.site.owner),
            load=self.loads.of((stored.site.id,)).get(stored.site.id, 0.0),
            traffic=traffic,
            plans=self.store.plans,
            checks=self.checks.states(stored.site.id),
        )
        return self._elsewhere(stored, view) if stored.site.node else view

    def _usage_of_all(self) -> dict[str, Usage]:
        """At most five seconds old while somebody looks; a list never waits for a second reading."""
        now = time.monotonic()
        age = now - self._usage_at
        if age > USAGE_SECONDS:
            self._usage_at = now
            if age > 60:
                self._read_usage()
            else:
                self.loop.submit(self._read_usage)
        return self._usage

    def _read_usage(self) -> None:
        try:
            self._usage = self.agent.call(protocol.GetUsage(None))
            self.loads.saw_all(self._usage)
            self.traffic.forget(self.store.sites)
        except AlveoleError:
            self._usage = {}

    @abstractmethod
    def _asked_there(self, caller: Actor, right: Right, site: str, path: str, kind: type[Told]) -> Told | None:
        """A document about a site from where it lives; ``None`` for one of this machine."""

    @abstractmethod
    def _why_there(self, site: Site) -> tuple[protocol.Link, views.WhyView | None]:
        """Whether the machine that a site lives on tells its chain, and what it tells."""

    @abstractmethod
    def _shown_there(self, stored: Stored, view: views.SiteView, show_env: bool) -> views.SiteView:
        """``view`` with what only the machine where the site lives can say: its variables, its releases."""

    @abstractmethod
    def _state_elsewhere(self, stored: Stored, state: views.State) -> views.State:
        """The state of a site on another machine; ``state`` is what it would be here."""

    def _state(self, stored: Stored) -> views.State:
        """What a site does now, without asking anybody."""
        id = stored.site.id
        state = state_of(stored, self.loop.looks.get(id), self.journal.of_site(id), self.loop.agent_answers)
        return self._state_elsewhere(stored, state) if stored.site.node else state

    @abstractmethod
    def _elsewhere(self, stored: Stored, view: views.SiteView) -> views.SiteView:
        """The document of a site on another machine."""
