"""The verbs that are about no one site: tokens, uploads, plans, bases, status, the journal."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator

import msgspec
import sqlalchemy as sa

from alveole import __version__, tables, views
from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NoRoom, NotFound, Problem, Refused, Temporary
from alveole.journal import Live, Work
from alveole.model.change import Change, Event
from alveole.model.names import check_site_name
from alveole.model.resource import PLATFORM
from alveole.model.site import BUILT_IN_PLANS, Limits, ResourcePlan
from alveole.plan import BY_HAND
from alveole.requests import Actor, Role
from alveole.services.checks import check_limits
from alveole.services.rollback import RollbackVerbs
from alveole.services.show import count_states, promise_views, state_of
from alveole.store import Transaction, new_id

_UPLOAD_SECONDS = 86_400.0
_BUILT_IN = frozenset(plan.name for plan in BUILT_IN_PLANS)
_TOKEN_PREFIX = "alv_"  # noqa: S105  the start of every token, no secret
_LIMIT_MAX = 1000


class PlatformVerbs(RollbackVerbs):
    # --- who asks -----------------------------------------------------------------------------
    def authenticate(self, token: str) -> Actor | None:
        # The lookup is by the hash of 256 random bits: its time tells nothing about any token.
        table = tables.tokens
        query = sa.select(table).where(table.c.hash == _hash(token))
        with self.store.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or (row.expires_at is not None and row.expires_at < time.time()):
            return None
        self._note_use(row.id, row.last_used_at)
        return Actor(row.name, Role(row.role), f"token:{row.id}")

    def _note_use(self, id: str, before: float | None) -> None:
        # Once an hour is enough for people; a commit for every request is not.
        if before is not None and time.time() - before < 3600:
            return
        with contextlib.suppress(AlveoleError), self.store.write() as transaction:
            table = tables.tokens
            transaction.connection.execute(sa.update(table).where(table.c.id == id).values(last_used_at=time.time()))

    def create_token(self, caller: Actor, request: ask.CreateToken) -> views.TokenView:
        self._allow(caller, "tokens")
        problems = list(check_site_name(request.name))
        if request.expires_in_seconds is not None and request.expires_in_seconds <= 0:
            problems.append(Problem("expires_in_seconds", "is not above zero"))
        if problems:
            raise InvalidInput(problems=problems)
        secret = _TOKEN_PREFIX + secrets.token_urlsafe(32)
        now = time.time()
        expires = None if request.expires_in_seconds is None else now + request.expires_in_seconds
        row = {
            "id": new_id("t"),
            "name": request.name,
            "role": str(request.role),
            "created_at": now,
            "expires_at": expires,
            "last_used_at": None,
        }
        with self.store.write() as transaction:
            taken = sa.select(tables.tokens.c.id).where(tables.tokens.c.name == request.name)
            if transaction.connection.execute(taken).scalar() is not None:
                raise Refused(f"there is a token {request.name!r} already", field="name", hint="choose another name")
            transaction.connection.execute(sa.insert(tables.tokens).values(**row, hash=_hash(secret)))
        self._note(caller, "create-token", request.name)
        return msgspec.convert({**row, "secret": secret}, views.TokenView)

    def list_tokens(self, caller: Actor) -> tuple[views.TokenView, ...]:
        self._allow(caller, "tokens")
        table = tables.tokens
        columns = (table.c.id, table.c.name, table.c.role, table.c.created_at, table.c.expires_at, table.c.last_used_at)
        with self.store.read() as connection:
            rows = connection.execute(sa.select(*columns).order_by(table.c.name)).all()
        return tuple(views.TokenView(**row._asdict()) for row in rows)

    def delete_token(self, caller: Actor, token: str) -> None:
        self._allow(caller, "tokens")
        table = tables.tokens
        with self.store.write() as transaction:
            gone = transaction.connection.execute(
                sa.delete(table).where(sa.or_(table.c.id == token, table.c.name == token))
            )
            if gone.rowcount == 0:
                raise NotFound(f"there is no token {token!r}", field="token", hint="see: alveole token list")
        self._note(caller, "delete-token", token)

    def _note(self, caller: Actor, verb: str, reason: str) -> None:
        """Journal what is done already."""
        self.journal.end(self.journal.begin(verb, caller.name, reason=reason))

    # --- uploads ------------------------------------------------------------------------------
    def new_upload(self, caller: Actor, expected_bytes: int | None = None) -> views.UploadView:
        self._allow(caller, "change-sites")
        with _disk():
            self._uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._drop_stale_uploads()
            self._check_room(expected_bytes or 0)
            id = secrets.token_hex(16)
            path = self._uploads / id
            path.touch(mode=0o600, exist_ok=False)
        return views.UploadView(id=id, path=str(path))

    def check_upload(self, caller: Actor, upload: str, written: int) -> None:
        self._allow(caller, "change-sites")
        ceiling = self.settings.content.bytes
        if written > ceiling:
            raise NoRoom(f"the upload is larger than {ceiling} bytes", field="upload", hint="send less")
        with _disk():
            self._check_room(0)

    def drop_upload(self, caller: Actor, upload: str) -> None:
        self._allow(caller, "change-sites")
        self._drop_upload(upload)

    def _check_room(self, expected: int) -> None:
        free = shutil.disk_usage(self._uploads).free
        if expected > self.settings.content.bytes:
            raise NoRoom(f"the upload is larger than {self.settings.content.bytes} bytes", field="upload")
        if free - expected < self.settings.content.reserve_bytes:
            raise NoRoom(
                "the state disk has no room for it", field="upload", hint="free some space, then send it again"
            )

    def _drop_stale_uploads(self) -> None:
        used = {live.work.upload for live in self.journal.all_live()}
        for file in self._uploads.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > _UPLOAD_SECONDS and file.name not in used:
                    file.unlink()

    # --- plans --------------------------------------------------------------------------------
    def _plan_view(self, plan: ResourcePlan) -> views.PlanView:
        return views.PlanView(
            name=plan.name,
            limits=plan.limits,
            description=plan.description,
            built_in=plan.name in _BUILT_IN,
            sites=sum(1 for stored in self.store.sites.values() if stored.site.plan == plan.name),
        )

    def list_plans(self, caller: Actor) -> tuple[views.PlanView, ...]:
        self._allow(caller, "look")
        plans = sorted(self.store.plans.values(), key=lambda plan: (plan.limits.memory_bytes, plan.name))
        return tuple(self._plan_view(plan) for plan in plans)

    def show_plan(self, caller: Actor, plan: str) -> views.PlanView:
        self._allow(caller, "look")
        return self._plan_view(self._plan(plan))

    def _plan(self, name: str) -> ResourcePlan:
        plan = self.store.plans.get(name)
        if plan is None:
            raise NotFound(f"there is no plan {name!r}", field="plan", hint="see: alveole plan list")
        return plan

    def create_plan(self, caller: Actor, request: ask.CreatePlan) -> views.PlanView:
        self._allow(caller, "change-platform")
        problems = [*check_site_name(request.name)]
        problems += check_limits(
            request.cpu_millis, request.memory_bytes, request.pids, request.io_bytes_per_second, request.disk_bytes
        )
        if len(request.description) > 500 or not request.description.isprintable():
            problems.append(Problem("description", "is longer than 500 characters or not printable"))
        if problems:
            raise InvalidInput(problems=problems)
        limits = Limits(
            request.cpu_millis,
            request.memory_bytes,
            request.pids,
            request.io_bytes_per_second,
            request.disk_bytes,
            request.internet,
        )
        plan = ResourcePlan(request.name, limits, request.description)
        with self.store.write() as transaction:
            if plan.name in self.store.plans:
                raise Refused(f"there is a plan {plan.name!r} already", field="name", hint="choose another name")
            transaction.insert_plan(plan)
        self._note(caller, "create-plan", plan.name)
        return self._plan_view(plan)

    def delete_plan(self, caller: Actor, plan: str) -> None:
        self._allow(caller, "change-platform")
        with self.store.write() as transaction:
            found = self._plan(plan)
            if found.name in _BUILT_IN:
                raise Refused(f"plan {plan} is built in", field="plan")
            users = [stored.site.name for stored in self.store.sites.values() if stored.site.plan == plan]
            if users:
                raise Refused(
                    f"{len(users)} sites have plan {plan}, {users[0]} among them",
                    field="plan",
                    hint="give them another plan first",
                )
            transaction.delete_plan(found.name)
        self._note(caller, "delete-plan", plan)

    # --- images -------------------------------------------------------------------------------
    def import_image(self, caller: Actor, request: ask.ImportImage, *, key: str | None = None) -> Change:
        self._allow(caller, "change-platform")

        def build(transaction: Transaction) -> Live:
            if problems := self._check_upload_there(request.upload):
                raise InvalidInput(problems=problems)
            work = Work(upload=request.upload)
            return self.journal.begin("import-image", caller.name, work=work, transaction=transaction)

        return self._accept(caller, request.digest(), key, build)

    # --- the platform -------------------------------------------------------------------------
    def status(self, caller: Actor) -> views.StatusView:
        self._allow(caller, "look")
        machine: protocol.MachineFacts | None = None
        with contextlib.suppress(AlveoleError):
            machine = self.agent.call(protocol.Facts())
        look = self.loop.looks.get(PLATFORM)
        known = self.loop.agent_answers
        states = {
            id: state_of(stored, self.loop.looks.get(id), self.journal.of_site(id), known)
            for id, stored in self.store.sites.items()
        }
        return views.StatusView(
            version=__version__,
            domain=self.settings.domain,
            started_at=self.started_at,
            agent=machine is not None,
            machine=machine,
            sites=count_states(states),
            capacity=self.addressing.capacity(),
            promises=promise_views(look.promises) if look else (),
            damaged=tuple(self.store.damaged.values()),
            changed_by_hand=self._changed_by_hand(),
        )

    def _changed_by_hand(self) -> dict[str, str]:
        found = {}
        for id, stored in self.store.sites.items():
            look = self.loop.looks.get(id)
            causes = [
                defect.cause
                for item in (look.found if look is not None else ())
                for defect in item.defects
                if defect.code == BY_HAND
            ]
            if causes:
                found[stored.site.name] = "; ".join(causes)
        return found

    def doctor(self, caller: Actor) -> views.DoctorView:
        self._allow(caller, "look")
        began = time.monotonic()
        try:
            links = list(self.agent.call(protocol.Doctor()))
        except AlveoleError as error:
            links = [protocol.Link("agent", False, "ask the agent", str(error), "start it: alveole serve")]
        took = (time.monotonic() - began) * 1000
        damaged = "; ".join(self.store.damaged.values())
        links.insert(
            0,
            protocol.Link(
                "database",
                not damaged,
                "read every row and compare its checksum",
                damaged or "sound",
                "restore the newest copy of the database" if damaged else "",
                took,
            ),
        )
        free = shutil.disk_usage(self.settings.database.parent).free
        reserve = self.settings.content.reserve_bytes
        cure = "" if free > reserve else "free some space; uploads and backups are refused"
        links.insert(1, protocol.Link("state disk", free > reserve, f"more than {reserve} bytes free", str(free), cure))
        return views.DoctorView(ok=all(link.ok for link in links), links=tuple(links))

    def authority(self, caller: Actor) -> str:
        self._allow(caller, "look")
        text: str = self.agent.call(protocol.GetAuthority())
        return text

    # --- the journal --------------------------------------------------------------------------
    def list_changes(self, caller: Actor, request: ask.ListChanges) -> tuple[Change, ...]:
        self._allow(caller, "look")
        if not 1 <= request.limit <= _LIMIT_MAX:
            raise InvalidInput(f"{request.limit} is outside 1..{_LIMIT_MAX}", field="limit")
        stored = self.store.site(request.site) if request.site is not None else None
        return self.journal.list(
            site=stored.site.id if stored is not None else request.site,
            state=request.state,
            before=request.before,
            limit=request.limit,
        )

    def show_change(self, caller: Actor, change: str) -> Change:
        self._allow(caller, "look")
        found = self.journal.get(change)
        if found is None:
            raise NotFound(f"there is no change {change!r}", field="change", hint="see: alveole journal")
        return found

    def wait(self, caller: Actor, change: str, seconds: float) -> Change:
        self.show_change(caller, change)
        found = self.journal.wait(change, seconds)
        if found is None:
            raise Temporary("the journal could not be read")
        return found

    def follow(self, caller: Actor, change: str, stop: Callable[[], bool] | None = None) -> Iterator[Event | Change]:
        self.show_change(caller, change)
        return self.journal.follow(change, stop)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """What the file system refuses, as errors of ours."""
    try:
        yield
    except OSError as error:
        raise NoRoom(f"the state disk refuses: {error.strerror}", field="upload") from error


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
