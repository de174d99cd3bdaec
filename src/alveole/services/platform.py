"""The verbs that are about no one site: uploads, plans, images, status, the journal."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator

import msgspec

from alveole import __version__, views
from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NoRoom, NotFound, Problem, Refused, Temporary
from alveole.figures.load import machine_load
from alveole.journal import Live, Work
from alveole.loop.plan import BY_HAND
from alveole.model.change import Change, Event
from alveole.model.names import check_site_name
from alveole.model.resource import PLATFORM
from alveole.model.site import BUILT_IN_PLANS, SLEEP_MOST_SECONDS, Limits, ResourcePlan
from alveole.people.model import NOBODYS, Actor, Held
from alveole.people.rights import Right, may
from alveole.requests.plans import CreatePlan, SetPlan
from alveole.services.draft import check_limits
from alveole.services.images import ImageVerbs
from alveole.services.rollback import RollbackVerbs
from alveole.services.show import count_states, promise_views
from alveole.store import Transaction
from alveole.text import span

_UPLOAD_SECONDS = 86_400.0
_BUILT_IN = frozenset(plan.name for plan in BUILT_IN_PLANS)
_LIMIT_MAX = 1000


class PlatformVerbs(RollbackVerbs, ImageVerbs):
    # --- uploads ------------------------------------------------------------------------------
    def new_upload(self, caller: Actor, expected_bytes: int | None = None) -> views.UploadView:
        self._allow(caller, Right.UPLOAD)
        with _disk():
            self._uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._drop_stale_uploads()
            self._check_room(expected_bytes or 0)
            id = secrets.token_hex(16)
            path = self._uploads / id
            path.touch(mode=0o600, exist_ok=False)
        return views.UploadView(id=id, path=str(path))

    def check_upload(self, caller: Actor, upload: str, written: int) -> None:
        self._allow(caller, Right.UPLOAD)
        ceiling = self.settings.content.bytes
        if written > ceiling:
            raise NoRoom(f"the upload is larger than {ceiling} bytes", field="upload", hint="send less")
        with _disk():
            self._check_room(0)

    def drop_upload(self, caller: Actor, upload: str) -> None:
        self._allow(caller, Right.UPLOAD)
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
    def _plan_view(self, caller: Actor, plan: ResourcePlan) -> views.PlanView:
        return views.PlanView(
            name=plan.name,
            limits=plan.limits,
            description=plan.description,
            sleep_after=plan.sleep_after,
            built_in=plan.name in _BUILT_IN,
            sites=sum(1 for stored in self._visible(caller) if stored.site.plan == plan.name),
        )

    def list_plans(self, caller: Actor) -> tuple[views.PlanView, ...]:
        self._allow(caller, Right.CATALOGUE_LOOK)
        plans = sorted(self.store.plans.values(), key=lambda plan: (plan.limits.memory_bytes, plan.name))
        return tuple(self._plan_view(caller, plan) for plan in plans)

    def show_plan(self, caller: Actor, plan: str) -> views.PlanView:
        self._allow(caller, Right.CATALOGUE_LOOK)
        return self._plan_view(caller, self._plan(plan))

    def _plan(self, name: str) -> ResourcePlan:
        plan = self.store.plans.get(name)
        if plan is None:
            raise NotFound(f"there is no plan {name!r}", field="plan", hint="see: alveole plan list")
        return plan

    def create_plan(self, caller: Actor, request: CreatePlan) -> views.PlanView:
        self._allow(caller, Right.PLAN_CHANGE)
        problems = [*check_site_name(request.name)]
        problems += check_limits(
            request.cpu_millis, request.memory_bytes, request.pids, request.io_bytes_per_second, request.disk_bytes
        )
        if len(request.description) > 500 or not request.description.isprintable():
            problems.append(Problem("description", "is longer than 500 characters or not printable"))
        problems += self._check_sleep(request.sleep_after)
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
        plan = ResourcePlan(request.name, limits, request.description, request.sleep_after)
        with self.store.write() as transaction:
            if plan.name in self.store.plans:
                raise Refused(f"there is a plan {plan.name!r} already", field="name", hint="choose another name")
            transaction.insert_plan(plan)
        self._note(caller, "create-plan", plan.name)
        return self._plan_view(caller, plan)

    def set_plan(self, caller: Actor, plan: str, request: SetPlan) -> views.PlanView:
        """When sites of this plan sleep, which changes nothing of what runs. Raises ``NotFound``, ``InvalidInput``."""
        self._allow(caller, Right.PLAN_CHANGE)
        if problems := self._check_sleep(request.sleep_after):
            raise InvalidInput(problems=problems)
        with self.store.write() as transaction:
            new = msgspec.structs.replace(self._plan(plan), sleep_after=request.sleep_after)
            transaction.put_plan(new)
        self._note(caller, "set-plan", f"{plan}: sleep after {span(request.sleep_after)}")
        return self._plan_view(caller, new)

    def _check_sleep(self, after: int) -> list[Problem]:
        least = self.settings.sleep.least_seconds
        if not after or least <= after <= SLEEP_MOST_SECONDS:
            return []
        return [Problem("sleep_after", f"{after} s is not within {least} s and a year", "or never")]

    def delete_plan(self, caller: Actor, plan: str) -> None:
        self._allow(caller, Right.PLAN_CHANGE)
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
        self._allow(caller, Right.IMAGE_IMPORT)

        def build(transaction: Transaction) -> Live:
            if problems := self._check_upload_there(request.upload):
                raise InvalidInput(problems=problems)
            work = Work(upload=request.upload)
            return self.journal.begin("import-image", caller, work=work, transaction=transaction)

        return self._accept(caller, request.digest(), key, build)

    # --- the platform -------------------------------------------------------------------------
    def status(self, caller: Actor) -> views.StatusView:
        self._allow(caller, Right.PLATFORM_LOOK)
        machine: protocol.MachineFacts | None = None
        with contextlib.suppress(AlveoleError):
            machine = self.agent.call(protocol.Facts())
        look = self.loop.looks.get(PLATFORM)
        states = {id: self._state(stored) for id, stored in self.store.sites.items()}
        return views.StatusView(
            version=__version__,
            domain=self.settings.domain,
            started_at=self.started_at,
            agent=machine is not None,
            machine=machine,
            load=machine_load(self.loads),
            sites=count_states(states),
            capacity=self.addressing.capacity(),
            promises=promise_views(look.promises) if look else (),
            damaged=tuple(self.store.damaged.values()),
            changed_by_hand=self._changed_by_hand(),
            reminders=self._backup_reminders(),
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
        self._allow(caller, Right.PLATFORM_LOOK)
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
        told = self._anchor_problem
        links.insert(
            1,
            protocol.Link(
                "journal", not told, "tell the agent its newest hash", told or "taken", "alveole journal verify"
            ),
        )
        links.extend(self.naming.doctor())
        links.append(self.certifier.link())
        free = shutil.disk_usage(self.settings.database.parent).free
        reserve = self.settings.content.reserve_bytes
        cure = "" if free > reserve else "free some space; uploads and backups are refused"
        links.insert(1, protocol.Link("state disk", free > reserve, f"more than {reserve} bytes free", str(free), cure))
        links += self._backup_links()
        return views.DoctorView(ok=all(link.ok for link in links), links=tuple(links))

    @abstractmethod
    def _backup_links(self) -> tuple[protocol.Link, ...]:
        """Supplied by the class that joins the parts: how the backups stand."""

    @abstractmethod
    def _backup_reminders(self) -> tuple[str, ...]:
        """Likewise: what people still have to do for them."""

    def authority(self, caller: Actor) -> str:
        self._allow(caller, Right.CATALOGUE_LOOK)
        text: str = self.agent.call(protocol.GetAuthority())
        return text

    # --- the journal --------------------------------------------------------------------------
    def list_changes(self, caller: Actor, request: ask.ListChanges) -> tuple[Change, ...]:
        self._allow(caller, Right.SITE_LIST)
        if not 1 <= request.limit <= _LIMIT_MAX:
            raise InvalidInput(f"{request.limit} is outside 1..{_LIMIT_MAX}", field="limit")
        stored = self.store.site(request.site) if request.site is not None else None
        if stored is not None and not self._sees(caller, stored.site):
            return ()
        of = None
        if not may(caller, Right.CHANGE_LOOK, NOBODYS):
            apps = [id for id, app in self.apps.apps.items() if may(caller, Right.APP_LOOK, self.people.held_app(app))]
            of = ([*(each.site.id for each in self._visible(caller)), *apps], caller.key)
        return self.journal.list(
            of=of,
            site=stored.site.id if stored is not None else request.site,
            state=request.state,
            before=request.before,
            limit=request.limit,
        )

    def show_change(self, caller: Actor, change: str) -> Change:
        found = self.journal.get(change)
        if found is None or not (caller.entering or may(caller, Right.CHANGE_LOOK, self._held_change(found))):
            raise NotFound(f"there is no change {change!r}", field="change", hint="see: alveole journal")
        self._allow(caller, Right.CHANGE_LOOK, self._held_change(found))
        return found

    def _held_change(self, change: Change) -> Held:
        """A change belongs to whom its site belongs to, and to who began it when there is none."""
        return self.people.held_by_id(change.site_id, change.actor_key)

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
