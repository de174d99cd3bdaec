"""What the verbs about sites need of those that know other machines: see :mod:`alveole.services.forwarding`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from msgspec import UNSET

from alveole import requests as ask
from alveole.errors import Problem, Refused
from alveole.model.change import Change
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.looking import LookVerbs, Told


class ElsewhereVerbs(LookVerbs):
    @abstractmethod
    def _there(
        self,
        caller: Actor,
        right: Right,
        verb: str,
        site: str,
        method: str,
        path: str,
        body: Any,
        key: str | None,
        version: int | None = None,
    ) -> Change | None:
        """The same verb where the site lives; ``None`` for one of this machine."""

    @abstractmethod
    def _answered_there(
        self, caller: Actor, right: Right, site: str, path: str, body: Any, kind: type[Told]
    ) -> Told | None:
        """What the machine where a site lives answers to a question with a body; ``None`` for one of this machine."""

    @abstractmethod
    def _send_to_node(self, site: Site, method: str, path: str, body: Any = None) -> Any:
        """One request about a site to the machine that it lives on, which answers at once."""

    @abstractmethod
    def _rename_there(
        self, caller: Actor, site: str, request: ask.RenameSite, key: str | None, version: int | None
    ) -> Change | None:
        """Another name for a site of another machine; ``None`` for one of this machine."""

    @abstractmethod
    def _create_there(self, caller: Actor, request: ask.CreateSite, key: str | None) -> Change:
        """Make the site on the node that the request names."""

    def _names_stay(self, site: str, request: ask.SetSite) -> None:
        found = self.store.site(site)
        if found is None or not found.site.node:
            return
        changed = [each for each in ("domains", "add_domains", "remove_domains", "path") if getattr(request, each)]
        problems = [
            Problem(
                each, "names of a site on another machine are not changed", "bring it here first: alveole site move"
            )
            for each in changed
            if getattr(request, each) is not UNSET
        ]
        problems += [
            Problem(each, f"a site on another machine has its {what} there", f"ask {found.site.node} for it")
            for each, what in (("published", "ports"), ("shared", "directories"))
            if getattr(request, each) is not UNSET
        ]
        if problems:
            raise Refused(problems=problems)


def check_no_copies(site: Site) -> None:
    """Raise ``Refused`` for a site of which another machine keeps a copy: there it has the name that it has now."""
    kept = sorted(name for name in site.kept_at if name)
    if kept:
        raise Refused(
            f"a copy of {site.name} is kept on {kept[0]} under this name",
            field="site",
            hint=f"give it up first: alveole site confirm {site.name}",
        )
