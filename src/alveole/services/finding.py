"""Finding sites among thousands: words, states, owners, modules, and a page of what is found."""

from __future__ import annotations

import time

from alveole import requests as ask
from alveole import views
from alveole.errors import InvalidInput
from alveole.loop.compile import hosts
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.draft import Draft
from alveole.services.inside import InsideVerbs
from alveole.services.looking import USAGE_SECONDS
from alveole.store import Stored

PAGE_MAX = 500


class FindVerbs(InsideVerbs):
    def find_sites(self, caller: Actor, request: ask.FindSites) -> views.FoundSites:
        """A page of the sites that fit every word and filter, by name.

        Asks the agent nothing: what is shown of usage is at most some seconds old. Raises ``InvalidInput``.
        """
        self._allow(caller, Right.SITE_LIST)
        if not 1 <= request.limit <= PAGE_MAX or request.page < 1:
            raise InvalidInput(f"a page has 1 to {PAGE_MAX} sites, and the first is 1", field="page")
        self._renew_usage()
        visible = self._visible(caller)
        states: dict[str, int] = dict.fromkeys(map(str, views.State), 0)
        owners: set[str] = set()
        modules: set[str] = set()
        found: list[Stored] = []
        text = request.text.lower().split()
        for stored in visible:
            site = stored.site
            state = self._state(stored)
            owner = self.people.shown(site.owner)
            states[state] += 1
            owners.add(owner)
            own = site.application.asked if site.application is not None else ()
            modules.update(own)
            if request.state and state != request.state:
                continue
            if (request.owner and owner != request.owner) or (request.module and request.module not in own):
                continue
            if text and not self._fits(site, owner, text):
                continue
            found.append(stored)
        start = (request.page - 1) * request.limit
        shown = found[start : start + request.limit]
        catalogue = self.catalogue() if any(each.site.application is not None for each in shown) else None
        traffic = self.traffic.look([each.site.id for each in shown])
        return views.FoundSites(
            sites=tuple(
                self._view(each, self._usage.get(each.site.id), catalogue, traffic[each.site.id]) for each in shown
            ),
            found=len(found),
            total=len(visible),
            page=request.page,
            pages=max(1, -(-len(found) // request.limit)),
            states=states,
            owners=tuple(sorted(owners)),
            modules=tuple(sorted(modules)),
        )

    def _fits(self, site: Site, owner: str, words: list[str]) -> bool:
        modules = site.application.asked if site.application is not None else ()
        text = " ".join((site.name, site.id, owner, site.plan, site.path or "", *hosts(site, self.settings), *modules))
        return all(word in text.lower() for word in words)

    def allow_site(self, caller: Actor, right: Right, site: str) -> None:
        """For a page that only offers what would be refused. Raises ``NotFound``, ``Denied``."""
        self._stored(caller, right, site, elsewhere=True)

    def is_free(self, caller: Actor, name: str) -> tuple[str, ...]:
        """What speaks against ``name`` for a new site, in words; nothing: it can be had."""
        self._allow(caller, Right.SITE_LIST)
        draft = Draft(self.settings, self.store.owner_of)
        draft.name(name, self.store.site(name) is not None)
        return tuple(each.message for each in draft.problems)

    def _renew_usage(self) -> None:
        """Read in the background what is older than some seconds: a page never waits for it."""
        now = time.monotonic()
        if now - self._usage_at > USAGE_SECONDS:
            self._usage_at = now
            self.loop.submit(self._read_usage)

    def show_listed(self, caller: Actor, site: str) -> views.SiteView:
        """A site as lists show it: nothing is asked of the agent."""
        stored = self._stored(caller, Right.SITE_LOOK, site)
        id = stored.site.id
        return self._view(stored, self._usage.get(id), traffic=self.traffic.look((id,))[id])
