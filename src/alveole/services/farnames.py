"""Names of sites that live on other machines.

Names lead to this machine: here they are reserved, routed and certified, and their owners prove them by the DNS as
for any site. The machine where the site lives only has to know them, so that its own edge takes what is passed on. At
every moment a name that leads somewhere leads to the site: what comes is known there before it is routed here, what
goes is forgotten there last.
"""

from __future__ import annotations

import contextlib

import msgspec
from msgspec import UNSET

from alveole import requests as ask
from alveole.errors import AlveoleError
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.loop.compile import site_domain
from alveole.model.change import Change
from alveole.model.moving import Forward
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.draft import Draft
from alveole.services.elsewhere import check_no_copies, check_stays
from alveole.services.forwarding import ForwardVerbs
from alveole.store import Transaction, claims


class FarNameVerbs(ForwardVerbs):
    # --- domains, and whatever else is set --------------------------------------------------------
    def _set_there(
        self,
        caller: Actor,
        verb: str,
        site: str,
        request: ask.SetSite,
        key: str | None,
        version: int | None,
        *,
        proven: bool = False,
    ) -> Change | None:
        """Its new domains are reserved here before they are asked for there, so that nobody takes them in between."""
        found = self.store.site(site)
        if found is None or not found.site.node:
            return None

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, Right.SITE_CHANGE, site, version, elsewhere=True)
            check_stays(old, request)
            draft = Draft(self.settings, self.store.owner_of, old.id)
            domains = draft.changed_domains(old, request)
            more = tuple(each for each in domains if each not in old.domains)
            if not proven:
                draft.claim(caller, more, None)
            draft.finish()
            asked = msgspec.structs.replace(request, domains=UNSET, add_domains=more, remove_domains=(), path=UNSET)
            forward = Forward(
                old.node,
                "PATCH",
                f"/v1/sites/{old.name}",
                msgspec.json.encode(asked).decode() if asked != ask.SetSite() else "",
                domains,
                tuple(each for each in old.domains if each not in domains),
            )
            if more:
                reserved = msgspec.structs.replace(old, version=old.version + 1)
                transaction.save_site(reserved, (*self._names(old), *more))
            return self.journal.begin(
                verb,
                caller,
                site=old,
                reason=f"on {old.node}",
                work=Work(stored=True, forward=forward),
                result={"site": old.id},
                transaction=transaction,
            )

        return self._accept(caller, self._digest(verb, site, request.digest(), str(version)), key, build)

    def _flow_forward(self, live: Live) -> None:
        forward = live.work.forward
        if forward is None or forward.domains is None:
            super()._flow_forward(live)
            return
        site = self._site_of(live)
        result: dict[str, str | int | float | None] = {}
        try:
            if forward.body:
                result = self._result_there(self._ask_there(live))
        except AlveoleError as error:
            if self.loop.stopping:
                return
            if not self._known_there(site, forward):
                self._names_as_before(live, site, error)
                return
        hit("services.domains-there")
        site = self._mirrored(site, self._site_there(site.node, site.name))
        site = msgspec.structs.replace(site, domains=forward.domains, version=site.version + 1)
        with self.store.write() as transaction:
            transaction.save_site(site, (*self._names(site), *forward.gone))
            for domain in forward.domains:
                claims.drop(transaction.connection, site.id, domain)
        settled = self.loop.settle(site, live, version=site.version)
        if self.loop.stopping and settled.problems:
            return
        hit("services.domains-here")
        if not self._forgotten_there(live, site, forward.gone):
            return
        names = self._names(site)
        told = {**result, "version": site.version}
        self.journal.end(live, settled.problems, told, also=lambda transaction: transaction.save_site(site, names))

    def _known_there(self, site: Site, forward: Forward) -> bool:
        """Whether new domains, and nothing else, were asked for, and they are there since a request whose end nobody
        heard of."""
        asked = msgspec.json.decode(forward.body)
        alone = asked.keys() <= {"add_domains", "remove_domains"}
        there = self._site_there(site.node, site.name) if alone else None
        return there is not None and set(asked["add_domains"]) <= set(there.domains)

    def _forgotten_there(self, live: Live, site: Site, gone: tuple[str, ...]) -> bool:
        """Take domains away where the site lives; whether the change can end."""
        there = self._site_there(site.node, site.name) if gone else None
        gone = tuple(each for each in gone if there is None or each in there.domains)
        if gone:
            try:
                body = {"remove_domains": list(gone)}
                self._change_there(live, site.node, "PATCH", f"/v1/sites/{site.name}", body)
            except AlveoleError as error:
                if self.loop.stopping:
                    return False
                live.say(f"still among its names on {site.node}: {', '.join(gone)}: {error}", level="warning")
        self._site_there(site.node, site.name)
        return True

    def _names_as_before(self, live: Live, site: Site, error: AlveoleError) -> None:
        names = self._names(site)
        self.journal.end(
            live, error.problems, {"code": error.code}, also=lambda transaction: transaction.save_site(site, names)
        )

    # --- another name -------------------------------------------------------------------------
    def _rename_there(
        self, caller: Actor, site: str, request: ask.RenameSite, key: str | None, version: int | None
    ) -> Change | None:
        """The name is reserved here before it is asked for there, so that nobody takes it in between."""
        found = self.store.site(site)
        if found is None or not found.site.node:
            return None

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, Right.SITE_RENAME, site, version, elsewhere=True)
            draft = Draft(self.settings, self.store.owner_of, old.id)
            draft.name(request.name, self.store.site(request.name) is not None)
            if site_domain(request.name, self.settings) in old.domains:
                draft.wrong("name", "is a domain of this site", "remove the domain first")
            draft.finish()
            check_no_copies(old)
            reserved = msgspec.structs.replace(old, version=old.version + 1)
            transaction.save_site(reserved, (*self._names(old), site_domain(request.name, self.settings)))
            return self.journal.begin(
                "rename",
                caller,
                site=old,
                reason=f"{old.name} → {request.name}, on {old.node}",
                work=Work(stored=True, note=request.name),
                result={"site": old.id},
                transaction=transaction,
            )

        return self._accept(caller, self._digest("rename", site, request.digest(), str(version)), key, build)

    def _flow_rename(self, live: Live) -> None:
        """There the new names come beside the old ones, then here; the old ones go last: one answers always."""
        site, name = self._site_of(live), live.work.note
        if not site.node or not name:
            self._flow_settle(live)
            return
        old, new = (site_domain(each, self.settings) for each in (live.change.site_name or site.name, name))
        # Under the same main domain the site has these names there by being called so.
        extra = not old.endswith(f".{self._node(site.node).domain}")
        if site.name != name:
            try:
                # Done there already by an earlier try, of which nobody heard the end.
                there = self._site_there(site.node, name)
                if there is not None and new not in (there.domains if extra else (new,)):
                    there = None
                if there is None and extra:
                    self._change_there(live, site.node, "PATCH", f"/v1/sites/{site.name}", {"add_domains": [new]})
                hit("services.rename-named")
                if there is None:
                    self._change_there(live, site.node, "POST", f"/v1/sites/{site.name}/rename", {"name": name})
            except AlveoleError as error:
                if not self.loop.stopping:
                    self._not_renamed(live, site, new if extra else "", error)
                return
            hit("services.renamed-there")
            site = msgspec.structs.replace(site, name=name, version=site.version + 1)
            with self.store.write() as transaction:
                transaction.save_site(site, (*self._names(site), old))
        self._site_there(site.node, site.name)
        settled = self.loop.settle(site, live, version=site.version)
        if self.loop.stopping and settled.problems:
            return
        hit("services.renamed-here")
        if extra and not self._forgotten_there(live, site, (old,)):
            return
        result: dict[str, str | int | float | None] = {"version": site.version}
        names = self._names(site)
        self.journal.end(live, settled.problems, result, also=lambda transaction: transaction.save_site(site, names))

    def _not_renamed(self, live: Live, site: Site, new: str, error: AlveoleError) -> None:
        if new:
            with contextlib.suppress(AlveoleError):
                self._change_there(live, site.node, "PATCH", f"/v1/sites/{site.name}", {"remove_domains": [new]})
        self._names_as_before(live, site, error)
