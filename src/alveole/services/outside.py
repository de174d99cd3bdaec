"""People who come from elsewhere: an LDAP directory, an OIDC provider. Here they get a role and teams."""

from __future__ import annotations

import contextlib
import hmac
import threading
import time
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from alveole import requests as ask
from alveole.errors import Denied, InvalidInput, NotFound, Problem, Refused, Temporary
from alveole.masking import HIDDEN
from alveole.people import ldap, passwords
from alveole.people import views as people_views
from alveole.people.ldap import LdapSettings
from alveole.people.mapping import DirectoryPerson, Mapping
from alveole.people.model import Actor, Person, Source, Team
from alveole.people.oidc import Begun, OidcSettings, Provider
from alveole.people.rights import Right
from alveole.services.doors import DoorVerbs, Entered, Place
from alveole.store import Transaction, new_id, sealing, tables

Stored = TypeVar("Stored", bound=msgspec.Struct)


#: How long somebody may take at the provider, and how many may be there at once.
_BEGUN_SECONDS = 600.0
_BEGUN_MOST = 1000
#: How long somebody's place in the directory is taken for granted.
_CONFIRMED_SECONDS = 3600.0


class OutsideVerbs(DoorVerbs):
    _provider: Provider | None
    _begun: dict[str, Begun]
    _begun_lock: threading.Lock
    _confirmed: dict[str, tuple[float, bool]]

    # --- LDAP ---------------------------------------------------------------------------------
    def _proven(self, name: str, person: Person | None, password: str) -> tuple[Person | None, str]:
        local = person is not None and person.source is Source.LOCAL
        settings = None if local else self._setting("ldap", LdapSettings)
        if settings is None or (person is not None and person.source is not Source.LDAP):
            return super()._proven(name, person, password)
        found = ldap.sign_in(settings, name, password)
        if found is None:
            # As long as one that is right at the directory and wrong here.
            passwords.verified(None, password)
            return None, ""
        known = self._provision(Source.LDAP, found, settings.mapping)
        if known is not None:
            self._confirmed[known.id] = (time.monotonic(), True)
        return known, "ldap"

    def _provision(self, source: Source, found: DirectoryPerson, mapping: Mapping) -> Person | None:
        """The person of ``found``, made or brought up to date; ``None`` when no group of theirs lets them in,
        or the name is somebody else's here."""
        role = mapping.role(found.groups)
        persons = [each for each in self.people.persons.values() if each.source is source]
        known = next((each for each in persons if each.external == found.external), None)
        taken = self.people.person(found.name)
        if known is None and taken is not None:
            if taken.source is not source:
                return None
            # Moved within the directory: the name is unique there.
            known = taken if source is Source.LDAP else None
            if known is None:
                return None
        if role is None:
            if known is not None and known.active:
                self._shut(known)
            return None
        person = known or Person(new_id("p"), found.name, role, source=source, created_at=time.time())
        new = msgspec.structs.replace(
            person, role=role, title=found.title[:200], email=found.email[:254], external=found.external[:1000]
        )
        teams = mapping.team_names(found.groups)
        have = {self.people.teams[id].name for id in self.people.members_from(person.id, source)}
        if new != known or have != set(teams):
            with self.store.write() as transaction:
                self.people.put_person(transaction, new)
                self._put_teams(transaction, new.id, source, teams)
            self._note(self.people.actor(new, str(source)), "provision", f"{new.name} ({role}) from {source}")
        return new

    def _still_there(self, person: Person) -> bool:
        """Somebody who has left the directory is out within the hour, with sessions and tokens.

        Only with an account of ours that searches; and while the directory is down, what was so stays so.
        """
        if person.source is not Source.LDAP:
            return True
        now = time.monotonic()
        with self._begun_lock:
            at, good = self._confirmed.get(person.id, (float("-inf"), True))
            if now - at < _CONFIRMED_SECONDS:
                return good
            # First, so that a directory that is slow holds up one request and not all.
            self._confirmed[person.id] = (now, good)
        settings = self._setting("ldap", LdapSettings)
        if settings is None:
            good = False
        elif settings.bind_dn:
            with contextlib.suppress(Temporary):
                found = ldap.look_up(settings, person.name)
                good = found is not None and self._provision(Source.LDAP, found, settings.mapping) is not None
        self._confirmed[person.id] = (now, good)
        return good

    def _put_teams(self, transaction: Transaction, person: str, source: Source, names: tuple[str, ...]) -> None:
        wanted = set()
        for name in names:
            team = self.people.team(name)
            if team is None:
                team = Team(new_id("g"), name, "", time.time())
                self.people.put_team(transaction, team)
            wanted.add(team.id)
        for id in self.people.members_from(person, source) - wanted:
            self.people.remove_member(transaction, id, person, source)
        for id in wanted:
            self.people.add_member(transaction, id, person, source)

    def _shut(self, person: Person) -> None:
        """Out of every group that lets them in: what they were signed in with ends."""
        with self.store.write() as transaction:
            self._shut_out(transaction, person.id)

    # --- settings -----------------------------------------------------------------------------
    def _setting(self, key: str, kind: type[Stored]) -> Stored | None:
        with self.store.read() as connection:
            text = connection.execute(sa.select(tables.settings.c.value).where(tables.settings.c.key == key)).scalar()
        return msgspec.json.decode(text, type=kind) if (text := sealing.known(text)) else None

    def _put_setting(self, key: str, value: msgspec.Struct | None) -> None:
        table = tables.settings
        with self.store.write() as transaction:
            transaction.connection.execute(sa.delete(table).where(table.c.key == key))
            if value is not None:
                text = msgspec.json.encode(value).decode()
                kept = sealing.Plain(text) if key in sealing.OPEN else text
                transaction.connection.execute(sa.insert(table).values(key=key, value=kept))

    def show_ldap(self, caller: Actor) -> LdapSettings:
        """The password of ``bind_dn`` is hidden. ``NotFound`` when there is none."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        found = self._setting("ldap", LdapSettings)
        if found is None:
            raise NotFound("no LDAP directory is set up", field="ldap", hint="alveole ldap set FILE")
        return msgspec.structs.replace(found, bind_password=HIDDEN if found.bind_password else "")

    def set_ldap(self, caller: Actor, settings: dict[str, Any]) -> LdapSettings:
        """``***`` for the password keeps the one that is there. Local accounts go on beside it."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        self._put_setting("ldap", self._ldap_of(settings))
        self._confirmed.clear()
        self._note(caller, "set-ldap", "")
        return self.show_ldap(caller)

    def _ldap_of(self, raw: dict[str, Any]) -> LdapSettings:
        settings = converted(raw, LdapSettings)
        if settings.bind_password == HIDDEN:
            old = self._setting("ldap", LdapSettings)
            settings = msgspec.structs.replace(settings, bind_password=old.bind_password if old else "")
        if problems := settings.check():
            raise InvalidInput(problems=problems)
        return settings

    def drop_ldap(self, caller: Actor) -> None:
        self._allow(caller, Right.SETTINGS_CHANGE)
        self.show_ldap(caller)
        self._put_setting("ldap", None)
        self._confirmed.clear()
        self._note(caller, "drop-ldap", "")

    def try_ldap(self, caller: Actor, request: ask.TryLdap) -> people_views.TrialView:
        """Sign somebody in at every server, with the settings given or those that are stored; nothing is kept."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        settings = self._ldap_of(request.settings) if request.settings is not None else None
        settings = settings or self._setting("ldap", LdapSettings)
        if settings is None:
            raise Refused("no LDAP directory is set up", field="settings", hint="give the settings to try")
        if request.password == "":
            raise InvalidInput("is empty", field="password", hint="leave it out to try without one")
        links, found = ldap.attempt(settings, request.name.strip().lower(), request.password)
        return self._trial(links, found, settings.mapping)

    @staticmethod
    def _trial(links: tuple[Any, ...], found: DirectoryPerson | None, mapping: Mapping) -> people_views.TrialView:
        role = mapping.role(found.groups) if found else None
        return people_views.TrialView(
            ok=bool(links) and all(link.ok for link in links) and role is not None,
            links=links,
            name=found.name if found else "",
            title=found.title if found else "",
            email=found.email if found else "",
            groups=found.groups if found else (),
            role=str(role or ""),
            teams=mapping.team_names(found.groups) if found else (),
        )

    # --- OIDC ---------------------------------------------------------------------------------
    def show_oidc(self, caller: Actor) -> OidcSettings:
        """The client's secret is hidden. ``NotFound`` when there is none."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        found = self._setting("oidc", OidcSettings)
        if found is None:
            raise NotFound("no OIDC provider is set up", field="oidc", hint="alveole oidc set FILE")
        return msgspec.structs.replace(found, client_secret=HIDDEN if found.client_secret else "")

    def set_oidc(self, caller: Actor, raw: dict[str, Any]) -> OidcSettings:
        """``***`` for the secret keeps the one that is there."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        settings = converted(raw, OidcSettings)
        if settings.client_secret == HIDDEN:
            old = self._setting("oidc", OidcSettings)
            settings = msgspec.structs.replace(settings, client_secret=old.client_secret if old else "")
        if problems := settings.check():
            raise InvalidInput(problems=problems)
        self._put_setting("oidc", settings)
        self._note(caller, "set-oidc", settings.issuer)
        return self.show_oidc(caller)

    def drop_oidc(self, caller: Actor) -> None:
        self._allow(caller, Right.SETTINGS_CHANGE)
        self.show_oidc(caller)
        self._put_setting("oidc", None)
        self._note(caller, "drop-oidc", "")

    def try_oidc(self, caller: Actor, raw: dict[str, Any]) -> people_views.TrialView:
        """Ask the provider for what a sign-in needs of it; nothing is kept, and nobody is signed in."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        settings = converted(raw, OidcSettings)
        if problems := settings.check():
            raise InvalidInput(problems=problems)
        links = Provider(settings).trial()
        return people_views.TrialView(
            ok=all(link.ok for link in links), links=links, name="", title="", email="", groups=(), role="", teams=()
        )

    def offers_oidc(self) -> bool:
        """Whether people may come from an OIDC provider; told to everybody, as the sign-in page shows it."""
        return self._setting("oidc", OidcSettings) is not None

    def _the_provider(self) -> Provider:
        settings = self._setting("oidc", OidcSettings)
        if settings is None:
            raise NotFound("no OIDC provider is set up", field="oidc")
        if self._provider is None or self._provider.settings != settings:
            self._provider = Provider(settings)
        return self._provider

    def begin_oidc(self, place: Place) -> Begun:
        """Where the browser goes, and what its cookie must hold when it comes back."""
        self.attempts.check("", place.address, False)
        begun = self._the_provider().begin()
        now = time.monotonic()
        with self._begun_lock:
            fresh = [(state, each) for state, each in self._begun.items() if now - each.at < _BEGUN_SECONDS]
            # The oldest go first: whoever begins a storm of them loses their own.
            self._begun = {**dict(fresh[-_BEGUN_MOST:]), begun.state: begun}
        return begun

    def end_oidc(self, state: str, binder: str, code: str, place: Place) -> Entered:
        """Who comes back from the provider. Raises ``Denied``, :class:`NotSignedIn`, ``Temporary``."""
        self.attempts.check("", place.address, False)
        with self._begun_lock:
            begun = self._begun.pop(state, None)
        good = begun is not None and hmac.compare_digest(begun.binder.encode(), binder.encode())
        if begun is None or not good or time.monotonic() - begun.at > _BEGUN_SECONDS or not code:
            self.attempts.failed("", place.address)
            raise Denied("this sign-in was not begun here, or took too long", field="state", hint="sign in again")
        provider = self._the_provider()
        found = provider.end(begun, code)
        person = self._provision(Source.OIDC, found, provider.settings.mapping)
        if person is None or not person.active:
            raise Denied(f"{found.name} may not come in here", hint="ask an administrator")
        return self._enter(person, place, "oidc")


def converted(raw: dict[str, Any], kind: type[Stored]) -> Stored:
    """``raw`` as ``kind``; raises ``InvalidInput`` that names every field at fault."""
    problems = []
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    for name, value in raw.items():
        if name not in known:
            problems.append(Problem(name, "is not a setting", f"settings: {', '.join(known)}"))
            continue
        try:
            msgspec.convert(value, known[name].type)
        except msgspec.ValidationError as error:
            problems.append(Problem(name, str(error)))
    if problems:
        raise InvalidInput(problems=problems)
    return msgspec.convert(raw, kind)
