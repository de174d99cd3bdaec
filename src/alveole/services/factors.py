"""The second factor: codes of an authenticator (TOTP), passkeys, recovery codes; and of whom it is required."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole import requests as ask
from alveole.errors import Denied, InvalidInput, NotFound, Refused
from alveole.people import passkeys, passwords
from alveole.people import views as people_views
from alveole.people.model import Actor, Held, Person, Role, Session
from alveole.people.names import check_text
from alveole.people.rights import Right
from alveole.services.doors import SESSION, Entered
from alveole.services.outside import OutsideVerbs
from alveole.store import Transaction, new_id, tables
from alveole.store.sealing import known

TOTP, PASSKEY, RECOVERY = "totp", "passkey", "recovery"
#: A secret that was shown but never confirmed with a code.
_FRESH_TOTP = "totp-new"
_RECOVERY_CODES = 10
_CHALLENGE_SECONDS = 300.0
_STEP = 30
_MOST = 20


class SecondFactorPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    roles: tuple[Role, ...] = ()
    """Who of these roles must have one."""


class WrongCode(Denied):
    http_status = 401

    def __init__(self) -> None:
        super().__init__("the code is wrong, or was used before", field="code")


class FactorVerbs(OutsideVerbs):
    _challenges: dict[str, tuple[float, bytes]]
    _challenges_lock: threading.Lock

    # --- what is needed -----------------------------------------------------------------------
    def needs(self, person: Person) -> str:
        if any(kind in (TOTP, PASSKEY) for kind in self._factor_kinds(person.id)):
            return "second-factor"
        policy = self._setting("second-factor", SecondFactorPolicy)
        return "enrol" if policy is not None and person.role in policy.roles else ""

    def _factor_kinds(self, person: str) -> tuple[str, ...]:
        return tuple(sorted({row.kind for row in self._factors(person)}))

    def _factors(self, person: str) -> list[Any]:
        table = tables.factors
        query = sa.select(table).where(table.c.person_id == person, table.c.kind != _FRESH_TOTP)
        with self.store.read() as connection:
            return list(connection.execute(query.order_by(table.c.created_at)).all())

    def second_factor_policy(self, caller: Actor) -> SecondFactorPolicy:
        self._allow(caller, Right.SETTINGS_CHANGE)
        return self._setting("second-factor", SecondFactorPolicy) or SecondFactorPolicy()

    def require_second_factor(self, caller: Actor, request: ask.RequireSecondFactor) -> SecondFactorPolicy:
        """It holds from the next sign-in; who has none then sets one up before anything else."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        policy = SecondFactorPolicy(tuple(dict.fromkeys(request.roles)))
        self._put_setting("second-factor", policy)
        self._note(caller, "require-second-factor", ", ".join(policy.roles) or "nobody")
        return policy

    # --- looking and removing -----------------------------------------------------------------
    def list_factors(self, caller: Actor, account: str | None = None) -> tuple[people_views.FactorView, ...]:
        person = self._account(caller, account, Right.ACCOUNT_LOOK)
        return tuple(_view(row) for row in self._factors(person.id))

    def remove_factor(self, caller: Actor, factor: str, account: str | None = None) -> None:
        """``factor`` is an id or ``all``; administrators help who lost theirs."""
        person = self._account(caller, account, Right.ACCOUNT_KEYS)
        where = tables.factors.c.person_id == person.id
        if factor != "all":
            where = sa.and_(where, tables.factors.c.id == factor)
        with self.store.write() as transaction:
            gone = transaction.connection.execute(sa.delete(tables.factors).where(where)).rowcount
            left = sa.select(tables.factors.c.id).where(
                tables.factors.c.person_id == person.id, tables.factors.c.kind.in_((TOTP, PASSKEY))
            )
            if transaction.connection.execute(left).first() is None:
                # Codes that recover nothing any more would open the door on their own.
                stale = sa.and_(tables.factors.c.person_id == person.id)
                transaction.connection.execute(sa.delete(tables.factors).where(stale))
        if not gone and factor != "all":
            raise NotFound(f"there is no second factor {factor!r}", field="factor")
        self._note(caller, "remove-factor", f"{factor} of {person.name}")

    # --- setting up ---------------------------------------------------------------------------
    def _enroller(self, caller: Actor) -> Person:
        """Who sets one up: a person who is in, or who must before they are. Never a password alone beside a factor."""
        person = self.people.persons.get(caller.person)
        if person is None:
            raise Refused(f"{caller.name} has no account here", field="account")
        if caller.entering and self.needs(person) == "enrol":
            self._allow(caller, Right.SELF_ENTER)
        else:
            self._allow(caller, Right.ACCOUNT_KEYS, Held(person.id))
        if len(self._factors(person.id)) >= _MOST + _RECOVERY_CODES:
            raise Refused(f"there are {_MOST} second factors already", field="factor", hint="remove one first")
        return person

    def new_totp(self, caller: Actor) -> people_views.TotpView:
        """A fresh secret for an authenticator; it counts once :meth:`confirm_totp` saw a code of it."""
        import pyotp

        person = self._enroller(caller)
        secret = pyotp.random_base32()
        table = tables.factors
        with self.store.write() as transaction:
            old = sa.and_(table.c.person_id == person.id, table.c.kind == _FRESH_TOTP)
            transaction.connection.execute(sa.delete(table).where(old))
            self._insert(transaction, person, _FRESH_TOTP, "", secret)
        uri = pyotp.TOTP(secret).provisioning_uri(name=person.name, issuer_name=f"Alvéole {self.settings.domain}")
        return people_views.TotpView(secret=secret, uri=uri)

    def confirm_totp(self, caller: Actor, request: ask.ConfirmTotp) -> tuple[people_views.FactorAdded, Entered | None]:
        person = self._enroller(caller)
        _check_name(request.name)
        table = tables.factors
        query = sa.select(table).where(table.c.person_id == person.id, table.c.kind == _FRESH_TOTP)
        with self.store.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or row.created_at < time.time() - _CHALLENGE_SECONDS * 2:
            raise Refused("there is no fresh secret", field="code", hint="ask for one again")
        self._limit(person)
        step = _step_of(row.secret, request.code, -1)
        if step is None:
            self._missed(person)
            raise InvalidInput("is not the code of this moment", field="code", hint="is the clock of the device right?")
        with self.store.write() as transaction:
            confirmed = sa.update(table).where(table.c.id == row.id)
            transaction.connection.execute(
                confirmed.values(kind=TOTP, name=request.name or "authenticator", counter=step)
            )
        self.attempts.came_in(f"{person.id} code", "")
        return self._added(caller, person, row.id)

    def new_passkey(self, caller: Actor, site: passkeys.Place) -> dict[str, Any]:
        """The options for ``navigator.credentials.create``."""
        person = self._enroller(caller)
        known = [row.handle for row in self._factors(person.id) if row.kind == PASSKEY]
        options, challenge = passkeys.creation(site, person.id, person.name, person.title or person.name, known)
        self._keep_challenge(f"create {caller.via}", challenge)
        return options

    def add_passkey(
        self, caller: Actor, request: ask.AddPasskey, site: passkeys.Place
    ) -> tuple[people_views.FactorAdded, Entered | None]:
        person = self._enroller(caller)
        _check_name(request.name)
        made = passkeys.created(site, self._take_challenge(f"create {caller.via}"), request.credential)
        with self.store.write() as transaction:
            try:
                id = self._insert(
                    transaction, person, PASSKEY, request.name or "passkey", made.public_key, made.handle, made.counter
                )
            except sa.exc.IntegrityError:
                raise Refused("this passkey is known already", field="credential") from None
        return self._added(caller, person, id)

    def new_recovery_codes(self, caller: Actor) -> tuple[str, ...]:
        """Ten fresh ones, shown this once; those before are worth nothing any more."""
        person = self.people.persons.get(caller.person)
        self._allow(caller, Right.ACCOUNT_KEYS, Held(caller.person))
        if person is None or not any(row.kind in (TOTP, PASSKEY) for row in self._factors(person.id)):
            raise Refused("there is no second factor to recover", field="factor", hint="set one up first")
        codes = self._make_codes(person)
        self._note(caller, "recovery-codes", person.name)
        return codes

    def _make_codes(self, person: Person) -> tuple[str, ...]:
        # 50 bits each, and attempts are limited.
        codes = tuple(f"{secrets.token_hex(3)}-{secrets.token_hex(3)}" for _ in range(_RECOVERY_CODES))
        table = tables.factors
        with self.store.write() as transaction:
            old = sa.and_(table.c.person_id == person.id, table.c.kind == RECOVERY)
            transaction.connection.execute(sa.delete(table).where(old))
            for code in codes:
                self._insert(transaction, person, RECOVERY, "", passwords.digest(code))
        return codes

    def _added(self, caller: Actor, person: Person, id: str) -> tuple[people_views.FactorAdded, Entered | None]:
        rows = self._factors(person.id)
        codes = () if any(row.kind == RECOVERY for row in rows) else self._make_codes(person)
        row = next(row for row in rows if row.id == id)
        self._note(caller, "add-factor", f"{row.kind} of {person.name}")
        entered = self._promote(caller, person) if caller.entering else None
        return people_views.FactorAdded(
            factor=_view(row), recovery_codes=codes, csrf=entered.csrf if entered else ""
        ), entered

    @staticmethod
    def _insert(
        transaction: Transaction,
        person: Person,
        kind: str,
        name: str,
        secret: str,
        handle: str | None = None,
        counter: int = 0,
    ) -> str:
        id = new_id("f")
        row: dict[str, Any] = {"id": id, "person_id": person.id, "kind": kind, "name": name, "secret": secret}
        row |= {"handle": handle, "counter": counter, "created_at": time.time(), "used_at": None}
        transaction.connection.execute(sa.insert(tables.factors).values(**row))
        return id

    # --- giving it ----------------------------------------------------------------------------
    def give_code(self, caller: Actor, code: str) -> Entered:
        """A code of an authenticator, or a recovery code; the session goes on under a fresh secret (threat 22)."""
        person = self._entering(caller)
        self.prove_code(person, code)
        return self._promote(caller, person)

    def prove_code(self, person: Person, code: str) -> None:
        """For doors without sessions. Raises :class:`WrongCode` (401), ``TooMany`` (429)."""
        self._limit(person)
        if not self._use_code(person, code.strip().lower().replace(" ", "")):
            self._missed(person)
            # Whoever comes so far knows the password.
            self.failures.note(f"{person.name}, second factor", "")
            raise WrongCode
        self.attempts.came_in(f"{person.id} code", "")

    def _use_code(self, person: Person, code: str) -> bool:
        for row in self._factors(person.id):
            table = tables.factors
            if row.kind == TOTP and (step := _step_of(row.secret, code, row.counter)) is not None:
                with self.store.write() as transaction:
                    # Once: in the same moment somebody may send it a second time.
                    query = sa.update(table).where(table.c.id == row.id, table.c.counter < step)
                    done = transaction.connection.execute(query.values(counter=step, used_at=time.time()))
                    return done.rowcount == 1
            if row.kind == RECOVERY and hmac.compare_digest(row.secret, passwords.digest(code)):
                with self.store.write() as transaction:
                    gone = transaction.connection.execute(sa.delete(table).where(table.c.id == row.id)).rowcount
                self._note(self.people.actor(person, "recovery"), "recovery-code", person.name)
                return gone == 1
        return False

    def passkey_options(self, caller: Actor, site: passkeys.Place) -> dict[str, Any]:
        """The options for ``navigator.credentials.get``."""
        person = self._entering(caller)
        known = [row.handle for row in self._factors(person.id) if row.kind == PASSKEY]
        if not known:
            raise Refused("there is no passkey", field="factor", hint="give a code")
        options, challenge = passkeys.request(site, known)
        self._keep_challenge(f"get {caller.via}", challenge)
        return options

    def give_passkey(self, caller: Actor, credential: dict[str, Any], site: passkeys.Place) -> Entered:
        person = self._entering(caller)
        self._limit(person)
        challenge = self._take_challenge(f"get {caller.via}")
        handle = passkeys.handle_of(credential)
        row = next((each for each in self._factors(person.id) if each.kind == PASSKEY and each.handle == handle), None)
        try:
            if row is None:
                raise WrongCode
            counter = passkeys.proven(site, challenge, credential, row.secret, row.counter)
        except (WrongCode, InvalidInput):
            self._missed(person)
            raise WrongCode from None
        with self.store.write() as transaction:
            used = sa.update(tables.factors).where(tables.factors.c.id == row.id)
            transaction.connection.execute(used.values(counter=counter, used_at=time.time()))
        return self._promote(caller, person)

    def _entering(self, caller: Actor) -> Person:
        self._allow(caller, Right.SELF_ENTER)
        person = self.people.persons.get(caller.person)
        if person is None or not caller.entering:
            raise Refused("no second factor is asked for", field="session")
        return person

    def _promote(self, caller: Actor, person: Person) -> Entered:
        """Let the session do everything, under a secret of its own: the one before it is worth nothing any more."""
        secret = passwords.secret(SESSION)
        table = tables.sessions
        now = time.time()
        with self.store.write() as transaction:
            query = sa.update(table).where(table.c.id == caller.via.removeprefix("session:"), table.c.entering)
            values = {"hash": passwords.digest(secret), "entering": False, "seen_at": now}
            if transaction.connection.execute(query.values(**values)).rowcount != 1:
                raise Refused("this session is over", field="session", hint="sign in again")
            read = sa.select(table).where(table.c.hash == values["hash"])
            row = transaction.connection.execute(read).one()
            self._remember_place(transaction, person.id, row.address, now)
        names = [field.name for field in msgspec.structs.fields(Session) if field.name != "person"]
        session = Session(person=person.id, **{name: getattr(row, name) for name in names})
        return Entered(secret, session, person, "")

    # --- limits and challenges ----------------------------------------------------------------
    def _limit(self, person: Person) -> None:
        self.attempts.check(f"{person.id} code", "", True)

    def _missed(self, person: Person) -> None:
        self.attempts.failed(f"{person.id} code", "")

    def _keep_challenge(self, key: str, challenge: bytes) -> None:
        now = time.monotonic()
        with self._challenges_lock:
            self._challenges = {k: v for k, v in self._challenges.items() if now - v[0] < _CHALLENGE_SECONDS}
            self._challenges[key] = (now, challenge)

    def _take_challenge(self, key: str) -> bytes:
        """Each is good once, and for five minutes."""
        with self._challenges_lock:
            at, challenge = self._challenges.pop(key, (0.0, b""))
        if not challenge or time.monotonic() - at > _CHALLENGE_SECONDS:
            raise Refused("it took too long, or nothing was asked", field="credential", hint="try again")
        return challenge


def _step_of(secret: str, code: str, after: int) -> int | None:
    """The step of time whose code this is, of the last, this and the next, when it is later than ``after``."""
    import pyotp

    if len(code) != 6 or not code.isascii() or not code.isdigit():
        return None
    if not known(secret):
        return None
    now = int(time.time()) // _STEP
    totp = pyotp.TOTP(secret)
    steps = [step for step in (now - 1, now, now + 1) if hmac.compare_digest(totp.generate_otp(step), code)]
    return next((step for step in steps if step > after), None)


def _check_name(name: str) -> None:
    if problems := check_text(name, "name", 64):
        raise InvalidInput(problems=problems)


def _view(row: Any) -> people_views.FactorView:
    return people_views.FactorView(
        id=row.id, kind=row.kind, name=row.name, created_at=row.created_at, used_at=row.used_at
    )
