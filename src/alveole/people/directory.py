"""Persons, teams, shares and quotas as they are stored. Kept decoded in memory, replaced after each commit,
so that a decision and a list of a thousand sites cost no query.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole.errors import Refused
from alveole.model.app import App
from alveole.model.site import Site
from alveole.people.model import NOBODYS, Actor, Held, Near, Person, Quota, Role, Source, Team
from alveole.store import Store, Transaction, tables

#: Whose quota it is when they have none of their own.
EACH_PERSON, EACH_TEAM = "each-person", "each-team"


class Directory:
    """Reads are of the last commit and safe from any thread. Writes go into a caller's transaction."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.apps: Callable[[str], App | None] = lambda _id: None
        """Finds an application, so that what is about one belongs to its owner."""
        self.load()

    def load(self) -> None:
        """Read everything anew. A few milliseconds for some thousand people."""
        with self.store.standing_still(), self.store.read() as connection:
            persons = {row.id: _person(row) for row in connection.execute(sa.select(tables.persons))}
            members: dict[str, set[str]] = {}
            teams_of: dict[str, list[str]] = {}
            for row in connection.execute(sa.select(tables.members.c.team_id, tables.members.c.person_id).distinct()):
                members.setdefault(row.team_id, set()).add(row.person_id)
                teams_of.setdefault(row.person_id, []).append(row.team_id)
            teams = {
                row.id: Team(row.id, row.name, row.title, row.created_at, frozenset(members.get(row.id, ())))
                for row in connection.execute(sa.select(tables.teams))
            }
            shares: dict[str, dict[str, Near]] = {}
            for row in connection.execute(sa.select(tables.shares)):
                shares.setdefault(row.site_id, {})[row.whom] = Near(row.near)
            quotas = {
                row.whom: Quota(row.sites, row.memory_bytes, row.disk_bytes)
                for row in connection.execute(sa.select(tables.quotas))
            }
        self.persons: Mapping[str, Person] = MappingProxyType(persons)
        self.teams: Mapping[str, Team] = MappingProxyType(teams)
        self.shares: Mapping[str, Mapping[str, Near]] = MappingProxyType(shares)
        self.quotas: Mapping[str, Quota] = MappingProxyType(quotas)
        self._names = {person.name: person.id for person in persons.values()}
        self._team_names = {team.name: team.id for team in teams.values()}
        self._teams_of = {id: tuple(sorted(found)) for id, found in teams_of.items()}

    # --- looking ------------------------------------------------------------------------------
    def person(self, name_or_id: str) -> Person | None:
        return self.persons.get(name_or_id) or self.persons.get(self._names.get(name_or_id, ""))

    def team(self, name_or_id: str) -> Team | None:
        return self.teams.get(name_or_id) or self.teams.get(self._team_names.get(name_or_id, ""))

    def teams_of(self, person: str) -> tuple[str, ...]:
        return self._teams_of.get(person, ())

    def whom(self, text: str) -> Person | Team | None:
        """``ana``, ``team:club``, or an id."""
        return (
            self.team(text.removeprefix("team:"))
            if text.startswith("team:")
            else self.person(text) or self.teams.get(text)
        )

    def shown(self, owner: str) -> str:
        """An owner for people: ``ana``, ``team:club``; what is nobody's id stays as it is."""
        if owner in self.persons:
            return self.persons[owner].name
        return f"team:{self.teams[owner].name}" if owner in self.teams else owner

    def held(self, site: Site) -> Held:
        return Held(site.owner, self.shares.get(site.id, {}), site.id)

    def held_app(self, app: App, site: str = "") -> Held:
        """An application, or the environment of it that is ``site``: whoever that is shared with works on it too."""
        return Held(app.owner, self.shares.get(site, {}), site or app.id)

    def held_by_id(self, site_id: str | None, owner: str = "") -> Held:
        """Of something that belongs to a site; ``owner`` counts when the site is gone."""
        stored = self.store.sites.get(site_id or "")
        if stored is not None:
            return self.held(stored.site)
        if (app := self.apps(site_id or "")) is not None:
            return self.held_app(app)
        return Held(owner, {}, site_id or "") if owner else NOBODYS

    def actor(self, person: Person, via: str, **more: Any) -> Actor:
        return Actor(person.name, person.role, via, person.id, self.teams_of(person.id), **more)

    def quota(self, whom: str) -> Quota:
        default = EACH_TEAM if whom in self.teams else EACH_PERSON
        return self.quotas.get(whom) or self.quotas.get(default) or Quota()

    def administrators(self) -> tuple[Person, ...]:
        return tuple(each for each in self.persons.values() if each.role is Role.ADMIN and each.active)

    # --- writing ------------------------------------------------------------------------------
    def put_person(self, transaction: Transaction, person: Person) -> None:
        row = {**msgspec.structs.asdict(person), "role": str(person.role), "source": str(person.source)}
        try:
            if person.id in self.persons:
                self._run(transaction, sa.update(tables.persons).where(tables.persons.c.id == person.id).values(**row))
            else:
                self._run(transaction, sa.insert(tables.persons).values(**row))
        except sa.exc.IntegrityError:
            raise Refused(f"the name {person.name!r} is taken", field="name", hint="choose another name") from None

    def set_password(self, transaction: Transaction, person: str, hash: str | None) -> None:
        query = sa.update(tables.persons).where(tables.persons.c.id == person).values(password=hash)
        self._run(transaction, query)

    def password(self, person: str) -> str | None:
        with self.store.read() as connection:
            query = sa.select(tables.persons.c.password).where(tables.persons.c.id == person)
            found: str | None = connection.execute(query).scalar()
            return found

    def delete_person(self, transaction: Transaction, person: str) -> None:
        """With everything that lets them in; their sites stay and belong to nobody."""
        for table, column in (
            (tables.members, tables.members.c.person_id),
            (tables.sessions, tables.sessions.c.person_id),
            (tables.tokens, tables.tokens.c.person_id),
            (tables.invitations, tables.invitations.c.person_id),
            (tables.factors, tables.factors.c.person_id),
            (tables.known_places, tables.known_places.c.person_id),
            (tables.shares, tables.shares.c.whom),
            (tables.quotas, tables.quotas.c.whom),
            (tables.channels, tables.channels.c.whom),
            (tables.persons, tables.persons.c.id),
        ):
            self._run(transaction, sa.delete(table).where(column == person))

    def put_team(self, transaction: Transaction, team: Team) -> None:
        row = {"name": team.name, "title": team.title, "created_at": team.created_at}
        try:
            if team.id in self.teams:
                self._run(transaction, sa.update(tables.teams).where(tables.teams.c.id == team.id).values(**row))
            else:
                self._run(transaction, sa.insert(tables.teams).values(id=team.id, **row))
        except sa.exc.IntegrityError:
            raise Refused(f"the name {team.name!r} is taken", field="name", hint="choose another name") from None

    def delete_team(self, transaction: Transaction, team: str) -> None:
        for table, column in (
            (tables.members, tables.members.c.team_id),
            (tables.shares, tables.shares.c.whom),
            (tables.quotas, tables.quotas.c.whom),
            (tables.channels, tables.channels.c.whom),
            (tables.teams, tables.teams.c.id),
        ):
            self._run(transaction, sa.delete(table).where(column == team))

    def add_member(self, transaction: Transaction, team: str, person: str, source: Source = Source.LOCAL) -> None:
        self.remove_member(transaction, team, person, source)
        row = {"team_id": team, "person_id": person, "source": str(source)}
        self._run(transaction, sa.insert(tables.members).values(**row))

    def remove_member(self, transaction: Transaction, team: str, person: str, source: Source | None = None) -> None:
        table = tables.members
        query = sa.delete(table).where(table.c.team_id == team, table.c.person_id == person)
        self._run(transaction, query if source is None else query.where(table.c.source == str(source)))

    def members_from(self, person: str, source: Source) -> frozenset[str]:
        """The teams that ``source`` says this person belongs to."""
        table = tables.members
        query = sa.select(table.c.team_id).where(table.c.person_id == person, table.c.source == str(source))
        with self.store.read() as connection:
            return frozenset(connection.execute(query).scalars())

    def share(self, transaction: Transaction, site: str, whom: str, near: Near) -> None:
        """``FOREIGN`` ends it."""
        table = tables.shares
        self._run(transaction, sa.delete(table).where(table.c.site_id == site, table.c.whom == whom))
        if near is not Near.FOREIGN:
            row = {"site_id": site, "whom": whom, "near": int(near), "created_at": time.time()}
            self._run(transaction, sa.insert(table).values(**row))

    def put_quota(self, transaction: Transaction, whom: str, quota: Quota | None) -> None:
        self._run(transaction, sa.delete(tables.quotas).where(tables.quotas.c.whom == whom))
        if quota is not None:
            self._run(transaction, sa.insert(tables.quotas).values(whom=whom, **msgspec.structs.asdict(quota)))

    def _run(self, transaction: Transaction, query: sa.Executable) -> None:
        transaction.connection.execute(query)
        if self.load not in transaction.effects:
            transaction.effects.append(self.load)


def _person(row: Any) -> Person:
    return Person(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        title=row.title,
        email=row.email,
        source=Source(row.source),
        external=row.external,
        active=bool(row.active),
        created_at=row.created_at,
        seen_at=row.seen_at,
        language=row.language,
    )
