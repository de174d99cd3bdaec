"""Accounts, teams, who shares what with whom, and quotas."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec
from msgspec import UNSET

from alveole import requests as ask
from alveole.errors import InvalidInput, NotFound, Problem, Refused
from alveole.model.site import Site
from alveole.people import passwords
from alveole.people import views as people_views
from alveole.people.directory import EACH_PERSON, EACH_TEAM
from alveole.people.model import Actor, Held, Near, Person, Quota, Role, Source, Team
from alveole.people.names import check_person_name, check_text
from alveole.people.rights import Right, may
from alveole.requests import ShareLevel
from alveole.services.doors import Entered
from alveole.services.factors import FactorVerbs
from alveole.store import new_id

_NEAR = {ShareLevel.NONE: Near.FOREIGN, ShareLevel.LOOK: Near.LOOK, ShareLevel.CHANGE: Near.CHANGE}
_LEVELS = {near: level for level, near in _NEAR.items()}


class AccountVerbs(FactorVerbs):
    # --- accounts -----------------------------------------------------------------------------
    def list_accounts(self, caller: Actor) -> tuple[people_views.PersonView, ...]:
        self._allow(caller, Right.ACCOUNT_CHANGE)
        return tuple(self._person_view(each) for each in sorted(self.people.persons.values(), key=lambda one: one.name))

    def show_account(self, caller: Actor, account: str | None = None) -> people_views.PersonView:
        """One's own, or that of another for who may change it."""
        return self._person_view(self._account(caller, account, Right.ACCOUNT_LOOK))

    def _person_view(self, person: Person, token: str | None = None) -> people_views.PersonView:
        return people_views.PersonView(
            id=person.id,
            name=person.name,
            role=str(person.role),
            title=person.title,
            email=person.email,
            source=str(person.source),
            active=person.active,
            teams=tuple(sorted(self.people.teams[id].name for id in self.people.teams_of(person.id))),
            factors=self._factor_kinds(person.id),
            sites=self._count_of(person.id),
            created_at=person.created_at,
            seen_at=person.seen_at,
            token=token,
        )

    def signed_in(self, found: Entered) -> people_views.SignedIn:
        """The document for who has just come in."""
        session = people_views.SessionView(
            **{**msgspec.structs.asdict(found.session), "person": found.person.name}, current=True
        )
        return people_views.SignedIn(
            person=self._person_view(found.person), session=session, csrf=found.csrf, needs=found.needs
        )

    def who(self, caller: Actor, csrf: str = "") -> people_views.WhoView:
        self._allow(caller, Right.SELF_ENTER if caller.entering else Right.SELF_LOOK)
        person = self.people.persons.get(caller.person)
        return people_views.WhoView(
            name=caller.name,
            role=str(caller.role),
            via=caller.via,
            person=self._person_view(person) if person is not None else None,
            csrf=csrf,
            needs=self.needs(person) if person is not None and caller.entering else "",
        )

    def _count_of(self, owner: str) -> int:
        return sum(1 for stored in self.store.sites.values() if stored.site.owner == owner)

    def add_account(self, caller: Actor, request: ask.AddAccount) -> people_views.PersonView:
        self._allow(caller, Right.ACCOUNT_CHANGE)
        name = request.name.strip().lower()
        problems = [*check_person_name(name), *check_text(request.title, "title", 200)]
        problems += check_text(request.email, "email", 254)
        if request.password is not None:
            problems += passwords.check_password(request.password, name)
        if problems:
            raise InvalidInput(problems=problems)
        person = Person(
            id=new_id("p"),
            name=name,
            role=request.role,
            title=request.title,
            email=request.email,
            created_at=time.time(),
        )
        hash = passwords.hashed(request.password) if request.password is not None else None
        with self.store.write() as transaction:
            self.people.put_person(transaction, person)
            self.people.set_password(transaction, person.id, hash)
        self._note(caller, "add-account", f"{name} ({request.role})")
        return self._person_view(person, None if hash is not None else self._invite(person).token)

    def set_language(self, caller: Actor, code: str) -> None:
        """Of the pages, in every browser of the caller: ``en``, ``fr``, or empty for what the browser says."""
        self._allow(caller, Right.SELF_CHANGE)
        if code not in ("", "en", "fr"):
            raise InvalidInput(f"{code!r} is no language of the pages", field="language", hint="en or fr")
        with self.store.write() as transaction:
            old = self._person(caller.person)
            self.people.put_person(transaction, msgspec.structs.replace(old, language=code))

    def set_account(self, caller: Actor, account: str, request: ask.SetAccount) -> people_views.PersonView:
        """Role, title, mail, and whether they may come in; a session sees it at its next request."""
        self._allow(caller, Right.ACCOUNT_CHANGE)
        if request == ask.SetAccount():
            raise InvalidInput("nothing to change", hint="give at least one option")
        problems: list[Problem] = []
        for field, most in (("title", 200), ("email", 254)):
            value = getattr(request, field)
            if value is not UNSET:
                problems += check_text(value, field, most)
        if problems:
            raise InvalidInput(problems=problems)
        given = {name: value for name, value in msgspec.structs.asdict(request).items() if value is not UNSET}
        with self.store.write() as transaction:
            old = self._person(account)
            new = msgspec.structs.replace(old, **given)
            self._keep_one(old, new)
            self.people.put_person(transaction, new)
            if not new.active:
                self._shut_out(transaction, new.id)
        shown = ", ".join(f"{name}={given[name]}" for name in given if name in ("role", "active"))
        self._note(caller, "set-account", f"{new.name} {shown or ', '.join(given)}")
        return self._person_view(new)

    def _keep_one(self, old: Person, new: Person | None) -> None:
        """Refuse what would leave nobody to come in as administrator. Root on the machine always can."""
        stays = new is not None and new.active and new.role is Role.ADMIN
        if self.people.administrators() == (old,) and not stays:
            raise Refused(
                f"{old.name} is the only administrator", field="account", hint="make another one administrator first"
            )

    def set_password(self, caller: Actor, account: str | None, request: ask.SetPassword) -> None:
        """One's own (the old one is asked for) or that of another; every session of theirs ends but the caller's."""
        person = self._account(caller, account, Right.ACCOUNT_KEYS)
        if person.source is not Source.LOCAL:
            raise Refused(f"the password of {person.name} is kept elsewhere ({person.source})", field="account")
        if person.id == caller.person:
            key = f"{person.id} password"
            self.attempts.check(key, "", True)
            if not passwords.verified(self.people.password(person.id), request.old or ""):
                self.attempts.failed(key, "")
                raise InvalidInput("is not your password", field="old")
        if problems := passwords.check_password(request.password, person.name):
            raise InvalidInput(problems=problems)
        hash = passwords.hashed(request.password)
        with self.store.write() as transaction:
            self.people.set_password(transaction, person.id, hash)
            self._shut_out(transaction, person.id, but=caller.via.removeprefix("session:"))
        self._note(caller, "set-password", person.name)

    def invite(self, caller: Actor, account: str) -> people_views.InvitationView:
        """A token with which a person chooses a password, for who forgot theirs."""
        self._allow(caller, Right.ACCOUNT_CHANGE)
        person = self._person(account)
        if person.source is not Source.LOCAL:
            raise Refused(f"the password of {person.name} is kept elsewhere ({person.source})", field="account")
        made = self._invite(person)
        self._note(caller, "invite", person.name)
        return made

    def remove_account(self, caller: Actor, account: str) -> None:
        """Their sites stay, and belong to nobody until they are given to somebody."""
        self._allow(caller, Right.ACCOUNT_CHANGE)
        with self.store.write() as transaction:
            person = self._person(account)
            self._keep_one(person, None)
            self.people.delete_person(transaction, person.id)
        self._note(caller, "remove-account", person.name)

    # --- teams --------------------------------------------------------------------------------
    def list_teams(self, caller: Actor) -> tuple[people_views.TeamView, ...]:
        """Those the caller belongs to; all, for who may change them."""
        self._allow(caller, Right.SELF_LOOK)
        teams = sorted(self.people.teams.values(), key=lambda team: team.name)
        return tuple(self._team_view(each) for each in teams if may(caller, Right.TEAM_LOOK, Held(each.id)))

    def show_team(self, caller: Actor, team: str) -> people_views.TeamView:
        found = self.people.team(team)
        if found is None or not may(caller, Right.TEAM_LOOK, Held(found.id)):
            self._allow(caller, Right.SELF_LOOK)
            raise NotFound(f"there is no team {team!r}", field="team", hint="see: alveole team list")
        return self._team_view(found)

    def _team(self, team: str) -> Team:
        found = self.people.team(team)
        if found is None:
            raise NotFound(f"there is no team {team!r}", field="team", hint="see: alveole team list")
        return found

    def _team_view(self, team: Team) -> people_views.TeamView:
        return people_views.TeamView(
            id=team.id,
            name=team.name,
            title=team.title,
            members=tuple(sorted(self.people.persons[id].name for id in team.members if id in self.people.persons)),
            sites=self._count_of(team.id),
            created_at=team.created_at,
        )

    def add_team(self, caller: Actor, request: ask.AddTeam) -> people_views.TeamView:
        self._allow(caller, Right.ACCOUNT_CHANGE)
        name = request.name.strip().lower()
        problems = [*check_person_name(name), *check_text(request.title, "title", 200)]
        members = self._members(request.members, "members", problems)
        if problems:
            raise InvalidInput(problems=problems)
        team = Team(new_id("g"), name, request.title, time.time())
        with self.store.write() as transaction:
            self.people.put_team(transaction, team)
            for person in members:
                self.people.add_member(transaction, team.id, person.id)
        self._note(caller, "add-team", name)
        return self._team_view(self._team(team.id))

    def set_team(self, caller: Actor, team: str, request: ask.SetTeam) -> people_views.TeamView:
        self._allow(caller, Right.ACCOUNT_CHANGE)
        found = self._team(team)
        problems: list[Problem] = []
        title = found.title if request.title is UNSET else request.title
        problems += check_text(title, "title", 200)
        come = self._members(request.add, "add", problems)
        go = self._members(request.remove, "remove", problems)
        if problems:
            raise InvalidInput(problems=problems)
        with self.store.write() as transaction:
            self.people.put_team(transaction, msgspec.structs.replace(self._team(found.id), title=title))
            for person in come:
                self.people.add_member(transaction, found.id, person.id)
            for person in go:
                self.people.remove_member(transaction, found.id, person.id)
        words = [f"+{each.name}" for each in come] + [f"-{each.name}" for each in go]
        self._note(caller, "set-team", " ".join([found.name, *words]))
        return self._team_view(self._team(found.id))

    def _members(self, names: Iterable[str], field: str, problems: list[Problem]) -> list[Person]:
        found = []
        for name in names:
            person = self.people.person(name)
            if person is None:
                problems.append(Problem(field, f"there is no account {name!r}", "see: alveole account list"))
            else:
                found.append(person)
        return found

    def remove_team(self, caller: Actor, team: str) -> None:
        self._allow(caller, Right.ACCOUNT_CHANGE)
        with self.store.write() as transaction:
            found = self._team(team)
            if count := self._count_of(found.id):
                raise Refused(
                    f"{count} sites belong to team {found.name}", field="team", hint="give them to somebody first"
                )
            self.people.delete_team(transaction, found.id)
        self._note(caller, "remove-team", found.name)

    # --- sharing ------------------------------------------------------------------------------
    def sharing(self, caller: Actor, site: str) -> people_views.SharingView:
        return self._sharing_view(self._stored(caller, Right.SITE_SHARE, site).site)

    def _sharing_view(self, site: Site) -> people_views.SharingView:
        shares = self.people.shares.get(site.id, {})
        return people_views.SharingView(
            site=site.name,
            owner=self.people.shown(site.owner),
            shares=tuple(
                sorted(
                    (
                        people_views.ShareView(whom=self.people.shown(id), level=_LEVELS[near])
                        for id, near in shares.items()
                    ),
                    key=lambda share: share.whom,
                )
            ),
        )

    def share_site(self, caller: Actor, site: str, request: ask.ShareSite) -> people_views.SharingView:
        """At once, also for who is signed in. Never more than the role of who it is shared with."""
        found = self._stored(caller, Right.SITE_SHARE, site).site
        whom = self.people.whom(request.whom)
        if whom is None or (isinstance(whom, Person) and not whom.active):
            raise InvalidInput(
                f"there is no person or team {request.whom!r}", field="whom", hint="team:NAME for a team"
            )
        if whom.id == found.owner:
            raise Refused(f"site {found.name} belongs to {request.whom} already", field="whom")
        with self.store.write() as transaction:
            self.people.share(transaction, found.id, whom.id, _NEAR[request.level])
        self._note(caller, "share", f"{self.people.shown(whom.id)}: {request.level}", found)
        return self._sharing_view(found)

    def give_site(self, caller: Actor, site: str, request: ask.GiveSite) -> people_views.SharingView:
        """Let it belong to another person or team; the one it is given to counts it in their quota from then on."""
        self._stored(caller, Right.SITE_GIVE, site)
        owner = self._owner_for(caller, request.owner)
        with self.store.write() as transaction:
            old = self._free_to_change(caller, Right.SITE_GIVE, site, None)
            new = msgspec.structs.replace(old, owner=owner, version=old.version + 1)
            self._check_quota(owner, new)
            transaction.save_site(new)
            self.people.share(transaction, old.id, owner, Near.FOREIGN)
        shown = f"{self.people.shown(old.owner)} -> {self.people.shown(owner)}"
        self._note(caller, "give", shown, new)
        return self._sharing_view(new)

    # --- quotas -------------------------------------------------------------------------------
    def quota(self, caller: Actor, whom: str | None = None) -> people_views.QuotaView:
        """One's own; ``whom`` is a person, ``team:NAME``, ``each-person`` or ``each-team``."""
        if whom is None:
            return self._quota_view(self._account(caller, None, Right.ACCOUNT_LOOK).id)
        id = self._whose_quota(caller, whom)
        return self._quota_view(id)

    def list_quotas(self, caller: Actor) -> tuple[people_views.QuotaView, ...]:
        """Those that were set, and the two of everybody."""
        self._allow(caller, Right.ACCOUNT_CHANGE)
        own = sorted(self.people.quotas.keys() - {EACH_PERSON, EACH_TEAM}, key=self.people.shown)
        return tuple(self._quota_view(each) for each in (EACH_PERSON, EACH_TEAM, *own))

    def set_quota(self, caller: Actor, whom: str, request: ask.SetQuota) -> people_views.QuotaView:
        """What is over it stays; nothing is added until it fits again."""
        self._allow(caller, Right.ACCOUNT_CHANGE)
        id = self._whose_quota(caller, whom)
        given = {name: value for name, value in msgspec.structs.asdict(request).items() if value is not UNSET}
        problems = [
            Problem(name, f"{value} is outside 0..{1 << 60}")
            for name, value in given.items()
            if value is not None and not 0 <= value <= 1 << 60
        ]
        if not given:
            problems = [Problem("", "nothing to change", "give at least one option")]
        if problems:
            raise InvalidInput(problems=problems)
        with self.store.write() as transaction:
            quota = msgspec.structs.replace(self.people.quota(id), **given)
            self.people.put_quota(transaction, id, quota)
        self._note(caller, "set-quota", self.people.shown(id))
        return self._quota_view(id)

    def drop_quota(self, caller: Actor, whom: str) -> None:
        """Let that of everybody hold again."""
        self._allow(caller, Right.ACCOUNT_CHANGE)
        id = self._whose_quota(caller, whom)
        with self.store.write() as transaction:
            self.people.put_quota(transaction, id, None)
        self._note(caller, "drop-quota", self.people.shown(id))

    def _whose_quota(self, caller: Actor, whom: str) -> str:
        if whom in (EACH_PERSON, EACH_TEAM):
            self._allow(caller, Right.ACCOUNT_CHANGE)
            return whom
        found = self.people.whom(whom)
        if found is None or not may(caller, Right.QUOTA_LOOK, Held(found.id)):
            self._allow(caller, Right.SELF_LOOK)
            raise NotFound(f"there is no person or team {whom!r}", field="whom", hint="team:NAME for a team")
        return found.id

    def _quota_view(self, id: str) -> people_views.QuotaView:
        quota = self.people.quotas.get(id, Quota()) if id in (EACH_PERSON, EACH_TEAM) else self.people.quota(id)
        used = self._used(id)
        return people_views.QuotaView(
            whom=self.people.shown(id),
            **msgspec.structs.asdict(quota),
            used_sites=used.sites or 0,
            used_memory_bytes=used.memory_bytes or 0,
            used_disk_bytes=used.disk_bytes or 0,
            default=id not in self.people.quotas,
        )
