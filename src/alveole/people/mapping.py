"""From the groups that a directory names to roles and teams here; the same for LDAP and OIDC."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from alveole.errors import Problem
from alveole.people.model import Role
from alveole.people.names import PERSON_NAME, check_person_name
from alveole.people.rights import ROLES


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    roles: dict[str, Role] = {}
    """By group; of several the one with the most rights counts."""
    default_role: Role | None = None
    """Of who is in none of these groups; ``None``: they may not come in."""
    teams: dict[str, str] = {}
    """By group: the team its people belong to, made when it is absent."""

    def role(self, groups: Iterable[str]) -> Role | None:
        found = [self.roles[group] for group in groups if group in self.roles]
        return min(found, key=ROLES.index) if found else self.default_role

    def team_names(self, groups: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted({self.teams[group] for group in groups if group in self.teams}))

    def check(self) -> tuple[Problem, ...]:
        return tuple(problem for name in self.teams.values() for problem in check_person_name(name, "mapping.teams"))


class DirectoryPerson(msgspec.Struct, frozen=True):
    """A person as a directory knows them."""

    name: str
    external: str
    title: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()


def tidy_name(text: str) -> str:
    """``text`` as a name of ours when it is one but for capitals and an address's domain, else nothing."""
    name = text.strip().lower().partition("@")[0]
    return name if re.match(PERSON_NAME, name) and not check_person_name(name) else ""
