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

    @abstractmethod
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
        """Change a site of another machine, its domains too; ``None`` for one of this machine.

        ``proven``: the DNS has said whose a new domain is."""


def check_stays(site: Site, request: ask.SetSite) -> None:
    """Raise ``Refused`` for what only the machine that a site lives on could give it."""
    problems = [
        Problem(each, f"a site on another machine has its {what} there", f"ask {site.node} for it")
        for each, what in (("published", "ports"), ("shared", "directories"))
        if getattr(request, each) is not UNSET
    ]
    if request.path is not UNSET and request.path is not None:
        problems.append(Problem("path", "leads to sites of this machine only", "give the site a domain"))
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
