"""Coming in: passwords, sessions, invitations, tokens. Who has come in is an :class:`~alveole.people.model.Actor`."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole import requests as ask
from alveole import views
from alveole.errors import AlveoleError, Denied, InvalidInput, NotFound, Problem, Refused
from alveole.model.names import check_site_name
from alveole.people import passwords
from alveole.people import views as people_views
from alveole.people.attempts import network_of
from alveole.people.failures import Failures, Told
from alveole.people.model import Actor, Held, Person, Role, Session, Source
from alveole.people.names import check_person_name
from alveole.people.rights import Right, beyond, least_role, may
from alveole.services.core import Core
from alveole.store import Transaction, new_id, tables

#: The starts of secrets, so that one that leaked is recognised by scanners; they are no secrets themselves.
TOKEN, SESSION, INVITATION = "alv_", "als_", "ali_"
#: What is seen of a session is written at most so often: a commit for every request would cost a disk write each.
_SEEN_SECONDS = 60.0
_KNOWN_SECONDS = 90 * 86_400.0


class NotSignedIn(Denied):
    """The same words for a wrong name, a wrong password and a disabled account (threat 25)."""

    http_status = 401

    def __init__(self) -> None:
        super().__init__("the name or the password is wrong", field="password")


class Place(msgspec.Struct, frozen=True):
    """From where somebody comes in."""

    address: str = ""
    agent: str = ""


class Entered(msgspec.Struct, frozen=True):
    """A session that was opened. ``secret`` is the cookie's value; it is shown nowhere else."""

    secret: str
    session: Session
    person: Person
    needs: str

    @property
    def csrf(self) -> str:
        return passwords.csrf_of(self.secret)


class DoorVerbs(Core):
    failures: Failures

    def _tell_failures(self, told: Told) -> None:
        live = self.journal.begin("sign-in-failed", "sign-in", reason=told.text[:500])
        result: dict[str, str | int | float | None] = {
            "failures": told.failures,
            "accounts": told.accounts,
            "addresses": told.addresses,
        }
        self.journal.end(live, (Problem("password", "the name or the password is wrong"),), result)

    # --- signing in ---------------------------------------------------------------------------
    def sign_in(self, request: ask.SignIn, place: Place) -> Entered:
        """Open a session. Raises :class:`NotSignedIn` (401), and ``TooMany`` (429) when this try must wait."""
        person, method = self.prove(request.name, request.password, place)
        return self._enter(person, place, method)

    def prove(self, name: str, password: str, place: Place) -> tuple[Person, str]:
        """Whose name and password these are, and who said so (``password``, ``ldap``); for doors without sessions.

        The same limits and errors as :meth:`sign_in`. The second factor is still to be asked: :meth:`needs`.
        """
        name = name.strip().lower()
        person = self.people.person(name) if not check_person_name(name) else None
        account = person.id if person is not None else name[:64]
        self.attempts.check(account, place.address, person is not None and self._is_known(person.id, place.address))
        found, method = self._proven(name, person, password)
        if found is None or not found.active:
            self.attempts.failed(account, place.address)
            self.failures.note(person.name if person is not None else "", place.address)
            raise NotSignedIn
        self.attempts.came_in(account, place.address)
        return found, method

    def _proven(self, name: str, person: Person | None, password: str) -> tuple[Person | None, str]:
        """Who it is when the password is theirs, and who said so. An empty one is nobody's (threat 26)."""
        local = person is not None and person.source is Source.LOCAL
        stored = self.people.password(person.id) if person is not None and local and password else None
        if not passwords.verified(stored, password) or person is None or stored is None:
            return None, ""
        if passwords.stale(stored):
            again = passwords.hashed(password)
            with contextlib.suppress(AlveoleError), self.store.write() as transaction:
                self.people.set_password(transaction, person.id, again)
        return person, "password"

    def _still_there(self, person: Person) -> bool:
        """Whether where they come from still lets them in; asked again now and then."""
        return True

    def _is_known(self, person: str, address: str) -> bool:
        table = tables.known_places
        query = sa.select(table.c.seen_at).where(table.c.person_id == person, table.c.network == network_of(address))
        with self.store.read() as connection:
            seen = connection.execute(query).scalar()
        return seen is not None and time.time() - seen < _KNOWN_SECONDS

    def _enter(self, person: Person, place: Place, method: str) -> Entered:
        """Open a session, always a fresh one (threat 22)."""
        secret = passwords.secret(SESSION)
        now = time.time()
        needs = self.needs(person)
        session = Session(
            id=new_id("w"),
            person=person.id,
            created_at=now,
            seen_at=now,
            expires_at=now + self.settings.accounts.session_seconds,
            address=place.address[:64],
            agent=_printable(place.agent)[:200],
            method=method,
            entering=bool(needs),
        )
        with self.store.write() as transaction:
            self._drop_old_sessions(transaction, now)
            row = msgspec.structs.asdict(session)
            row["person_id"] = row.pop("person")
            transaction.connection.execute(sa.insert(tables.sessions).values(**row, hash=passwords.digest(secret)))
            self.people.put_person(transaction, msgspec.structs.replace(person, seen_at=now))
            if not needs:
                self._remember_place(transaction, person.id, place.address, now)
        self._note(self.people.actor(person, f"session:{session.id}"), "sign-in", f"{method} from {place.address}")
        return Entered(secret, session, person, needs)

    def needs(self, person: Person) -> str:
        """What is still to be given after the password: ``second-factor``, ``enrol``, or nothing."""
        return ""

    @staticmethod
    def _remember_place(transaction: Transaction, person: str, address: str, now: float) -> None:
        table = tables.known_places
        network = network_of(address)
        transaction.connection.execute(sa.delete(table).where(table.c.person_id == person, table.c.network == network))
        transaction.connection.execute(sa.insert(table).values(person_id=person, network=network, seen_at=now))

    def _drop_old_sessions(self, transaction: Transaction, now: float) -> None:
        table = tables.sessions
        idle = now - self.settings.accounts.idle_seconds
        transaction.connection.execute(sa.delete(table).where(sa.or_(table.c.expires_at < now, table.c.seen_at < idle)))

    # --- who asks -----------------------------------------------------------------------------
    def resume(self, secret: str) -> Actor | None:
        """Who a session's cookie is; ``None`` when it is not known, ended, or the person was disabled."""
        if not secret.startswith(SESSION):
            return None
        return self._resumed(tables.sessions.c.hash == passwords.digest(secret))

    def _resumed(self, which: sa.ColumnElement[bool]) -> Actor | None:
        with self.store.read() as connection:
            row = connection.execute(sa.select(tables.sessions).where(which)).one_or_none()
        now = time.time()
        if row is None:
            return None
        if self._session_is_over(row, now):
            # Gone for good: a clock that was ahead and is put back must not bring it to life again.
            with contextlib.suppress(AlveoleError):
                self._end_sessions(tables.sessions.c.id == row.id)
            return None
        person = self.people.persons.get(row.person_id)
        if person is None or not person.active or not self._still_there(person):
            return None
        person = self.people.persons[person.id]
        if now - row.seen_at > _SEEN_SECONDS:
            with contextlib.suppress(AlveoleError), self.store.write() as transaction:
                seen = sa.update(tables.sessions).where(tables.sessions.c.id == row.id).values(seen_at=now)
                transaction.connection.execute(seen)
        return self.people.actor(person, f"session:{row.id}", entering=bool(row.entering))

    def _session_is_over(self, row: Any, now: float) -> bool:
        """Ended, idle for too long, or from a time that has not come: by a clock that was far ahead, it would last."""
        idle = self.settings.accounts.idle_seconds
        return bool(row.expires_at < now or row.seen_at < now - idle or max(row.created_at, row.seen_at) > now + idle)

    def authenticate(self, token: str) -> Actor | None:
        """Who a bearer token is. The lookup is by the hash of 256 random bits: its time tells nothing."""
        table = tables.tokens
        query = sa.select(table).where(table.c.hash == passwords.digest(token))
        with self.store.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or (row.expires_at is not None and row.expires_at < time.time()):
            return None
        limits: dict[str, Any] = {
            "scope": frozenset(row.scope.split()) or None,
            "sites": frozenset(row.sites.split()) or None,
        }
        if not row.person_id:
            actor = Actor(row.name, Role(row.role), f"token:{row.id}", **limits)
        else:
            person = self.people.persons.get(row.person_id)
            if person is None or not person.active or not self._still_there(person):
                return None
            person = self.people.persons[person.id]
            actor = self.people.actor(person, f"token:{row.id}", **limits)
        self._note_use(row.id, row.last_used_at)
        return actor

    def _note_use(self, id: str, before: float | None) -> None:
        # Once an hour is enough for people; a commit for every request is not.
        if before is not None and time.time() - before < 3600:
            return
        with contextlib.suppress(AlveoleError), self.store.write() as transaction:
            table = tables.tokens
            transaction.connection.execute(sa.update(table).where(table.c.id == id).values(last_used_at=time.time()))

    # --- sessions -----------------------------------------------------------------------------
    def sign_out(self, caller: Actor) -> None:
        self._allow(caller, Right.SELF_ENTER)
        self._end_sessions(tables.sessions.c.id == caller.via.removeprefix("session:"))

    def list_sessions(self, caller: Actor, account: str | None = None) -> tuple[people_views.SessionView, ...]:
        """One's own, or (administrators) those of ``account``; newest first."""
        person = self._account(caller, account, Right.ACCOUNT_LOOK)
        table = tables.sessions
        query = sa.select(table).where(table.c.person_id == person.id).order_by(table.c.created_at.desc())
        now = time.time()
        with self.store.read() as connection:
            rows = connection.execute(query.where(table.c.expires_at > now)).all()
        fields = [field.name for field in msgspec.structs.fields(people_views.SessionView)]
        return tuple(
            people_views.SessionView(
                **{name: getattr(row, name) for name in fields if name not in ("person", "current")},
                person=person.name,
                current=caller.via == f"session:{row.id}",
            )
            for row in rows
            if row.seen_at > now - self.settings.accounts.idle_seconds
        )

    def end_session(self, caller: Actor, session: str, account: str | None = None) -> None:
        """``session`` is an id or ``all``."""
        person = self._account(caller, account, Right.ACCOUNT_KEYS)
        where = tables.sessions.c.person_id == person.id
        if session != "all":
            where = sa.and_(where, tables.sessions.c.id == session)
        if not self._end_sessions(where) and session != "all":
            raise NotFound(f"there is no session {session!r}", field="session", hint="see: alveole account sessions")
        self._note(caller, "end-session", f"{session} of {person.name}")

    def _end_sessions(self, where: sa.ColumnElement[bool]) -> int:
        with self.store.write() as transaction:
            return transaction.connection.execute(sa.delete(tables.sessions).where(where)).rowcount

    def _account(self, caller: Actor, account: str | None, right: Right) -> Person:
        """The account of this name or id, else the caller's own. ``NotFound`` for one they may not even look at."""
        found = self.people.person(account or caller.person)
        if found is None and account is None:
            raise Refused(f"{caller.name} has no account here", field="account", hint="name one")
        if found is None or not (caller.entering or may(caller, Right.ACCOUNT_LOOK, Held(found.id))):
            raise NotFound(f"there is no account {account!r}", field="account", hint="see: alveole account list")
        self._allow(caller, right, Held(found.id))
        return found

    def _person(self, account: str) -> Person:
        found = self.people.person(account)
        if found is None:
            raise NotFound(f"there is no account {account!r}", field="account", hint="see: alveole account list")
        return found

    # --- invitations --------------------------------------------------------------------------
    def first_token(self, caller: Actor) -> people_views.InvitationView:
        """A token that makes one administrator. Only for root on the machine (threat 32); an earlier one ends."""
        self._allow(caller, Right.FIRST_TOKEN)
        made = self._invite(None)
        self._note(caller, "first-token", "")
        return made

    def _invite(self, person: Person | None) -> people_views.InvitationView:
        secret = passwords.secret(INVITATION)
        now = time.time()
        expires = now + self.settings.accounts.invitation_seconds
        whose = person.id if person is not None else ""
        table = tables.invitations
        with self.store.write() as transaction:
            old = sa.or_(table.c.person_id == whose, table.c.expires_at < now)
            transaction.connection.execute(sa.delete(table).where(old))
            row = {"hash": passwords.digest(secret), "person_id": whose, "created_at": now, "expires_at": expires}
            transaction.connection.execute(sa.insert(table).values(**row))
        return people_views.InvitationView(token=secret, expires_at=expires, person=person.name if person else "")

    def use_invitation(self, request: ask.UseInvitation, place: Place) -> Entered:
        """Choose a password, and be signed in. ``Denied`` (403) for a token that is not known, used or too old."""
        self.attempts.check("", place.address, False)
        table = tables.invitations
        mine = table.c.hash == passwords.digest(request.token.strip())
        with self.store.read() as connection:
            row = connection.execute(sa.select(table).where(mine, table.c.expires_at > time.time())).one_or_none()
        person = self.people.persons.get(row.person_id) if row is not None and row.person_id else None
        if row is None or (row.person_id and (person is None or not person.active)):
            self.attempts.failed("", place.address)
            raise Denied("this token is not known, was used, or is too old", field="token", hint="ask for a fresh one")
        name = (request.name or "").strip().lower() if person is None else person.name
        problems = [*passwords.check_password(request.password, name)]
        if person is None:
            problems += check_person_name(name)
            if self.people.person(name) is not None:
                problems.append(Problem("name", f"there is an account {name!r} already", "choose another name"))
        if problems:
            raise InvalidInput(problems=problems)
        hash = passwords.hashed(request.password)
        if person is None:
            person = Person(id=new_id("p"), name=name, role=Role.ADMIN, created_at=time.time())
        with self.store.write() as transaction:
            if transaction.connection.execute(sa.delete(table).where(mine)).rowcount != 1:
                raise Denied("this token was used meanwhile", field="token")
            self.people.put_person(transaction, person)
            self.people.set_password(transaction, person.id, hash)
            self._shut_out(transaction, person.id)
        self._note(self.people.actor(person, "invitation"), "set-password", f"{person.name} from {place.address}")
        return self._enter(person, place, "first-token")

    @staticmethod
    def _shut_out(transaction: Transaction, person: str, but: str = "") -> None:
        """End every session of a person, except the one of the id ``but``."""
        table = tables.sessions
        transaction.connection.execute(sa.delete(table).where(table.c.person_id == person, table.c.id != but))

    # --- tokens -------------------------------------------------------------------------------
    def create_token(self, caller: Actor, request: ask.CreateToken) -> views.TokenView:
        """The secret is in the answer, this once: only its hash is kept.

        With a role it is a token of no person, which is an administrator's to make. So is one that is asked for with a
        token: those of a person are made where the person came in.
        """
        own = self.people.persons.get(caller.person)
        if request.role is not None or own is None or caller.via.startswith("token:"):
            self._allow(caller, Right.TOKEN_CHANGE)
            own = None
        else:
            self._allow(caller, Right.ACCOUNT_KEYS, Held(own.id))
        problems = list(check_site_name(request.name))
        if request.expires_in_seconds is not None and request.expires_in_seconds <= 0:
            problems.append(Problem("expires_in_seconds", "is not above zero"))
        for word in request.scope:
            if word not in set(Right):
                problems.append(Problem("scope", f"{word!r} is not an action", f"actions: {', '.join(sorted(Right))}"))
        scope = [Right(each) for each in dict.fromkeys(request.scope) if each in set(Right)]
        role = own.role if own is not None else request.role or least_role(scope)
        if own is None and (missing := beyond(role, scope)):
            hint = f"give it the role {least_role(scope)}"
            problems.append(Problem("scope", f"{role} may not do {', '.join(missing)}", hint))
        sites = []
        for name in request.sites:
            found = self.store.site(name)
            app = self.apps.app(name)
            if found is not None and self._sees(caller, found.site):
                sites.append(found.site.id)
            elif app is not None and may(caller, Right.APP_LOOK, self.people.held_app(app)):
                sites.append(app.id)
            else:
                hint = "see: alveole site list, alveole app list"
                problems.append(Problem("sites", f"there is no site or application {name!r}", hint))
        if problems:
            raise InvalidInput(problems=problems)
        secret = passwords.secret(TOKEN)
        now = time.time()
        expires = None if request.expires_in_seconds is None else now + request.expires_in_seconds
        row = {
            "id": new_id("t"),
            "person_id": own.id if own is not None else "",
            "name": request.name,
            "role": str(role),
            "scope": " ".join(sorted(set(request.scope))),
            "sites": " ".join(sorted(set(sites))),
            "created_at": now,
            "expires_at": expires,
            "last_used_at": None,
        }
        table = tables.tokens
        with self.store.write() as transaction:
            taken = sa.select(table.c.id).where(table.c.name == request.name, table.c.person_id == row["person_id"])
            if transaction.connection.execute(taken).scalar() is not None:
                raise Refused(f"there is a token {request.name!r} already", field="name", hint="choose another name")
            transaction.connection.execute(sa.insert(table).values(**row, hash=passwords.digest(secret)))
        self._note(caller, "create-token", request.name)
        return self._token_view(row, secret)

    def list_tokens(self, caller: Actor, account: str | None = None) -> tuple[views.TokenView, ...]:
        """One's own; those of an ``account``, or everybody's and nobody's, for who may change them."""
        table = tables.tokens
        columns = [column for column in table.c if column is not table.c.hash]
        query = sa.select(*columns).order_by(table.c.name)
        if account is not None or caller.person:
            query = query.where(table.c.person_id == self._account(caller, account, Right.ACCOUNT_LOOK).id)
        else:
            self._allow(caller, Right.TOKEN_CHANGE)
        with self.store.read() as connection:
            rows = connection.execute(query).all()
        return tuple(self._token_view(row._asdict()) for row in rows)

    def delete_token(self, caller: Actor, token: str) -> None:
        """By its id, or by the name of one's own (of one of no person, for who may change those)."""
        table = tables.tokens
        which = sa.or_(table.c.id == token, sa.and_(table.c.name == token, table.c.person_id == caller.person))
        with self.store.read() as connection:
            found = connection.execute(sa.select(table.c.id, table.c.person_id).where(which)).first()
        whose = Held(found.person_id) if found is not None else None
        seen = whose is not None and may(caller, Right.ACCOUNT_LOOK, whose)
        if found is None or not (caller.entering or seen):
            self._allow(caller, Right.SELF_LOOK)
            raise NotFound(f"there is no token {token!r}", field="token", hint="see: alveole token list")
        if found.person_id:
            self._allow(caller, Right.ACCOUNT_KEYS, whose)
        else:
            self._allow(caller, Right.TOKEN_CHANGE)
        with self.store.write() as transaction:
            transaction.connection.execute(sa.delete(table).where(table.c.id == found.id))
        self._note(caller, "delete-token", token)

    def _token_view(self, row: dict[str, Any], secret: str | None = None) -> views.TokenView:
        sites = []
        for id in row["sites"].split():
            app = self.apps.app(id)
            sites.append(self.store.sites[id].site.name if id in self.store.sites else app.name if app else id)
        return views.TokenView(
            id=row["id"],
            name=row["name"],
            role=row["role"],
            person=self.people.shown(row["person_id"]),
            scope=tuple(row["scope"].split()),
            sites=tuple(sites),
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            last_used_at=row["last_used_at"],
            secret=secret,
        )


def _printable(text: str) -> str:
    """What a browser says of itself is a stranger's text (threat 31)."""
    return "".join(char for char in text if char.isprintable())
