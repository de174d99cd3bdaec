"""The values about people. Ids begin with ``p`` (a person), ``g`` (a team), ``t`` (a token)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum

import msgspec


class Role(StrEnum):
    """What somebody may do at most. What is shared with a person never reaches beyond their role."""

    ADMIN = "administrator"
    """Everything."""
    OPERATOR = "operator"
    """All sites and bases; no accounts, no settings."""
    OWNER = "owner"
    """Their own sites, those of their teams, and those shared with them."""
    READER = "reader"
    """Looks at every site; changes nothing and sees no secret."""


class Near(IntEnum):
    """How near an object is to somebody; each step has the rights of those before it."""

    FOREIGN = 0
    LOOK = 1
    """Shared to be looked at."""
    CHANGE = 2
    """Shared to be worked on."""
    OWN = 3
    """Theirs, or their team's."""
    NEVER = 4
    """Nearer than anything is: denied."""


class Actor(msgspec.Struct, frozen=True):
    """Who asks. Made by a door once it knows; everything behind it only reads it.

    ``via`` is the door, for the journal: ``socket``, ``token:<id>``, ``session:<id>``, ``reconciler``.
    """

    name: str
    role: Role
    via: str = ""
    person: str = ""
    """Id of the person; empty for root, for control itself and for a token of no person."""
    teams: tuple[str, ...] = ()
    """Ids of the teams they belong to."""
    entering: bool = False
    """Signed in, but the second factor is still to be given: may do nothing else."""
    scope: frozenset[str] | None = None
    """Of a token that may only do some actions; ``None``: all that the role may."""
    sites: frozenset[str] | None = None
    """Of a token that is for some sites only: their ids."""

    @property
    def key(self) -> str:
        """What tells this actor from every other for ever; names may be given anew."""
        return self.person or (self.via if self.via.startswith("token:") else self.name)

    def is_one_of(self, whom: str) -> bool:
        """Whether ``whom`` (the id of a person or a team) is this actor or a team of theirs."""
        return bool(whom) and (whom == self.person or whom in self.teams)


class Held(msgspec.Struct, frozen=True):
    """An object with an owner, as :func:`alveole.people.rights.may` needs it."""

    owner: str = ""
    """Id of a person or team; anything else (``root``) belongs to nobody."""
    shares: Mapping[str, Near] = {}
    """By id of a person or team."""
    site: str = ""
    """Id of the site that it is, or belongs to."""


NOBODYS = Held()


class Source(StrEnum):
    """Where an account comes from, and so who may say its password."""

    LOCAL = "local"
    LDAP = "ldap"
    OIDC = "oidc"


class Person(msgspec.Struct, frozen=True):
    id: str
    name: str
    """What they sign in with; unique."""
    role: Role
    title: str = ""
    """How people call them."""
    email: str = ""
    source: Source = Source.LOCAL
    external: str = ""
    """What names them where they come from: the entry's DN, or issuer and subject."""
    active: bool = True
    created_at: float = 0.0
    seen_at: float | None = None
    language: str = ""
    """Of the pages, as they chose it; empty: as their browser says."""


class Team(msgspec.Struct, frozen=True):
    id: str
    name: str
    title: str = ""
    created_at: float = 0.0
    members: frozenset[str] = frozenset()
    """Ids of persons."""


class Quota(msgspec.Struct, frozen=True):
    """What a person or team may have at most; ``None``: no limit. Sizes in bytes, as their sites' plans promise."""

    sites: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None


class Session(msgspec.Struct, frozen=True):
    """A browser that is signed in. Times are seconds since the epoch."""

    id: str
    person: str
    created_at: float
    seen_at: float
    expires_at: float
    address: str
    agent: str
    """What the browser calls itself."""
    method: str
    """``password``, ``ldap``, ``oidc``, ``first-token``."""
    entering: bool
    """The second factor is still to be given."""
