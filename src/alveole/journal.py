"""Who did what to which site, why, each step, and how it ended.

Every commit waits for the disk, so a change costs few: one when it is accepted (together with what it
stores), one when it is known what will be done, one at its end. Between them events live in memory,
where followers see them at once; a power cut loses only the telling, never what was acknowledged.
When the disk is full the entries wait in memory and are written with the next one that fits. Each write adds a link
to the chain over all rows (:mod:`alveole.ledger`), in the same transaction.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole import ledger
from alveole.agent.protocol import ArchiveFormat
from alveole.errors import AlveoleError, Problem
from alveole.model.app import App, Delivery
from alveole.model.change import Change, ChangeState, Event
from alveole.model.moving import Forward, Installing, Moving
from alveole.model.site import Base, Site
from alveole.people.model import Actor
from alveole.requests import AddSource, CarriedVersion, CreateSite
from alveole.store import Store, Transaction, new_id
from alveole.store.tables import changes, events

REPAIR = "repair"
RECONCILER = "reconciler"
#: What goes on at a site without holding it.
BESIDE = frozenset(
    {
        REPAIR,
        "exec",
        "ssh",
        "console",
        "operation",
        "backup",
        "check",
        "export",
        "publish-names",
        "issue-certificate",
        "renew-certificate",
        "certificate-warning",
        "prove-backup",
        "open-backup",
        "close-backup",
        "sleep",
        "wake",
    }
)
#: Level of an event that is shown while it is new and never stored: ``seconds`` carries the share.
PROGRESS = "progress"
_ENDED = frozenset({ChangeState.DONE, ChangeState.FAILED})
_UNWRITTEN_MAX = 1000


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the carrying out of a change needs, so that it can go on after control was killed.

    ``stored``: what was asked is in the database; before that a change that was cut leaves nothing.
    ``release``: before it is stored, the kept release asked for; after, the one that came with it.
    ``undo``: the site as it was, to go back to when the new instance does not become ready.
    """

    stored: bool = False
    undo: Site | None = None
    upload: str | None = None
    format: ArchiveFormat | None = None
    note: str = ""
    backup: str | None = None
    member: str = ""
    """What of the backup is put back into the content."""
    base: str | None = None
    image: tuple[str, str, str] | None = None
    """Registry, repository and tag of what is fetched."""
    wanted: CreateSite | None = None
    """The site to be made of the image, once that is here."""
    release: str | None = None
    take_back: tuple[str, ...] = ()
    """Configuration files whose hand-made text is to go."""
    source: AddSource | None = None
    build_network: bool | None = None
    waits: bool = False
    """The release is kept and not made live."""
    bases: tuple[str, ...] = ()
    """Keys of the bases that it is about."""
    renewed: dict[str, Base] = {}
    """Which base came out of each that was renewed so far, by the key of the old one."""
    back: dict[str, Base] = {}
    """Which base each site goes back to, by the id of the site."""
    signature: str = ""
    """What was sent with an archive."""
    key: str = ""
    """The platform that a passport is sealed to; empty: this one."""
    names: bool = False
    """Who asked may say whose a domain is: those of a backup, or of a passport, come with it."""
    moving: Moving | None = None
    """Where a site goes, and how far that has come."""
    installing: Installing | None = None
    forward: Forward | None = None
    """What is asked of the machine that the site lives on."""
    far: tuple[Forward, ...] = ()
    """What is asked of other machines for the environments of an application that live there."""
    carried: CarriedVersion | None = None
    """What an uploaded version must turn out to be that another machine has packed."""
    delivery: Delivery | None = None
    """Which version goes to which environment, and how far that has come."""


class Live:
    """A change that is going on. Safe from several threads."""

    def __init__(self, journal: Journal, change: Change, work: Work, stored: bool) -> None:
        self.journal = journal
        self.change = change
        self.work = work
        self.stored = stored
        self.row = 0
        """Number of its row, once it is stored."""
        self.events: list[Event] = []
        self.unwritten: list[Event] = []
        self.progress: tuple[str, float | None] = ("", None)
        self.ticks = 0

    def say(self, text: str, *, level: str = "info", resource: str = "", seconds: float | None = None) -> None:
        """Tell something that is kept."""
        event = Event(time.time(), text, level, resource, seconds)
        with self.journal.news:
            self.events.append(event)
            self.unwritten.append(event)
            self.ticks += 1
            self.journal.news.notify_all()

    def show(self, text: str, share: float | None = None) -> None:
        """Tell of progress: only followers of this moment see it."""
        with self.journal.news:
            self.progress = (text, share)
            self.ticks += 1
            self.journal.news.notify_all()

    @property
    def id(self) -> str:
        return self.change.id

    def view(self) -> Change:
        with self.journal.news:
            return msgspec.structs.replace(self.change, events=tuple(self.events), progress=self.progress[1])


class Journal:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.news = threading.Condition(threading.RLock())
        self._live: dict[str, Live] = {}
        self._by_site: dict[str, Live] = {}
        self._late: deque[Live] = deque(maxlen=_UNWRITTEN_MAX)
        self.tell: Callable[[Transaction, Change], None] = lambda _transaction, _change: None
        """Called in the transaction that ends a change."""

    # --- writing ------------------------------------------------------------------------------
    def begin(
        self,
        verb: str,
        actor: Actor | str,
        *,
        site: Site | App | None = None,
        reason: str = "",
        work: Work | None = None,
        result: dict[str, str | int | float | None] | None = None,
        transaction: Transaction | None = None,
    ) -> Live:
        """Open a change. With ``transaction`` it is stored there and becomes visible after the commit;
        without, it is stored only when it ends (repairs: nobody was promised anything). ``actor`` is a word only
        for what Alvéole does by itself."""
        by = actor if isinstance(actor, Actor) else None
        change = Change(
            id=new_id("c"),
            verb=verb,
            actor=by.name if by else str(actor),
            state=ChangeState.RUNNING,
            site_id=site.id if site else None,
            site_name=site.name if site else None,
            reason=reason,
            started_at=time.time(),
            result=result or {},
            via=by.via if by else "",
            actor_key=by.key if by else "",
        )
        live = Live(self, change, work or Work(), transaction is not None)
        if transaction is None:
            self._enter(live)
        else:
            live.row = self._insert(transaction, live, live.change)
            row = _row(live, live.change)
            ledger.append(transaction.connection, live.id, ledger.BEGUN, ledger.begun(row, live.row))
            # First: whoever sees the site that is stored here also sees that a change is at work on it.
            transaction.effects.insert(0, lambda: self._enter(live))
        return live

    def _enter(self, live: Live) -> None:
        with self.news:
            self._live[live.id] = live
            if live.change.site_id is not None and live.change.verb not in BESIDE:
                self._by_site[live.change.site_id] = live
            self.news.notify_all()

    def save(self, live: Live, transaction: Transaction, work: Work | None = None) -> None:
        """Write the events so far (and the ``work``) with ``transaction``."""
        if work is not None:
            live.work = work
        with self.news:
            fresh, live.unwritten = live.unwritten, []
        if live.stored:
            transaction.connection.execute(
                sa.update(changes).where(changes.c.id == live.id).values(work=_json(live.work))
            )
        self._insert_events(transaction, live.id, fresh)
        if fresh:
            ledger.append(transaction.connection, live.id, ledger.TOLD, ledger.told(fresh), events=len(fresh))

    def end(
        self,
        live: Live,
        problems: Sequence[Problem] = (),
        result: dict[str, str | int | float | None] | None = None,
        *,
        also: Callable[[Transaction], None] | None = None,
    ) -> Change:
        """Close a change: done, or failed when there are ``problems``.

        ``also`` adds writes to the same commit; its errors are raised. A disk that is full is not.
        """
        change = msgspec.structs.replace(
            live.change,
            state=ChangeState.FAILED if problems else ChangeState.DONE,
            ended_at=time.time(),
            problems=tuple(problems),
            result={**live.change.result, **(result or {})},
        )
        late = False
        try:
            with self.store.write() as transaction:
                if also is not None:
                    also(transaction)
                self._flush_late(transaction)
                self._write_end(transaction, live, change)
        except AlveoleError:
            if also is not None:
                raise
            late = True
        with self.news:
            # Only now: who sees a change as ended must find what it did.
            live.change = change
            if late:
                self._late.append(live)
            live.ticks += 1
            self._live.pop(live.id, None)
            if change.site_id is not None and self._by_site.get(change.site_id) is live:
                del self._by_site[change.site_id]
            self.news.notify_all()
        return change

    def _flush_late(self, transaction: Transaction) -> None:
        while self._late:
            live = self._late.popleft()
            self._write_end(transaction, live, live.change)

    def _write_end(self, transaction: Transaction, live: Live, change: Change) -> None:
        row = _row(live, change)
        if live.stored:
            transaction.connection.execute(sa.update(changes).where(changes.c.id == live.id).values(**row))
        else:
            live.row = self._insert(transaction, live, change)
        with self.news:
            fresh, live.unwritten = live.unwritten, []
        self._insert_events(transaction, live.id, fresh)
        digest = ledger.ended(row, live.row, fresh)
        ledger.append(transaction.connection, live.id, ledger.ENDED, digest, events=len(fresh))
        self.tell(transaction, change)

    @staticmethod
    def _insert(transaction: Transaction, live: Live, change: Change) -> int:
        made = transaction.connection.execute(sa.insert(changes).values(**_row(live, change)))
        return int(made.lastrowid)

    @staticmethod
    def _insert_events(transaction: Transaction, change_id: str, fresh: list[Event]) -> None:
        if fresh:
            rows = [{"change_id": change_id, **msgspec.structs.asdict(event)} for event in fresh]
            transaction.connection.execute(sa.insert(events), rows)

    # --- reading ------------------------------------------------------------------------------
    def of_site(self, site_id: str) -> Live | None:
        """The change that is going on for a site, if one is. Repairs, saves and sessions do not count."""
        return self._by_site.get(site_id)

    def all_of_site(self, site_id: str) -> Sequence[Live]:
        """Everything that is going on for a site, saves and sessions too."""
        with self.news:
            return [live for live in self._live.values() if live.change.site_id == site_id]

    def all_live(self) -> Sequence[Live]:
        with self.news:
            return list(self._live.values())

    def live(self, id: str) -> Live | None:
        return self._live.get(id)

    def get(self, id: str) -> Change | None:
        """With its events."""
        live = self._live.get(id)
        if live is not None:
            return live.view()
        with self.store.read() as connection:
            row = connection.execute(sa.select(changes).where(changes.c.id == id)).one_or_none()
            if row is None:
                return None
            told = connection.execute(sa.select(events).where(events.c.change_id == id).order_by(events.c.seq))
            found = tuple(Event(each.at, each.text, each.level, each.resource, each.seconds) for each in told)
        return msgspec.structs.replace(change_of(row), events=found)

    def list(
        self,
        *,
        site: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 50,
        of: tuple[Collection[str], str] | None = None,
    ) -> tuple[Change, ...]:
        """Newest first, without events; ``site`` is an id or a name. ``of``: only those of these sites (ids), and
        those of no site that the actor of this key began."""
        query = sa.select(changes).order_by(changes.c.seq.desc()).limit(limit)
        if site is not None:
            query = query.where(sa.or_(changes.c.site_id == site, changes.c.site_name == site))
        if of is not None:
            # One value for all ids: SQLite takes no more than 32,766.
            each = sa.func.json_each(_json(sorted(of[0]))).table_valued("value")
            own = sa.and_(changes.c.site_id.is_(None), changes.c.actor_key == of[1])
            query = query.where(sa.or_(changes.c.site_id.in_(sa.select(each.c.value)), own))
        if state is not None:
            query = query.where(changes.c.state == state)
        if before is not None:
            query = query.where(
                changes.c.seq < sa.select(changes.c.seq).where(changes.c.id == before).scalar_subquery()
            )
        with self.store.read() as connection:
            return tuple(change_of(row) for row in connection.execute(query))

    def since(self, site_id: str, verb: str, at: float) -> tuple[Change, ...]:
        """Those of this verb that were begun for a site after ``at`` (epoch), newest first, without events."""
        query = sa.select(changes).where(
            changes.c.site_id == site_id, changes.c.verb == verb, changes.c.started_at > at
        )
        with self.store.read() as connection:
            return tuple(change_of(row) for row in connection.execute(query.order_by(changes.c.seq.desc())))

    def resume(self) -> Sequence[Live]:
        """The changes that were going on when control ended, oldest first; they are live again."""
        query = sa.select(changes).where(changes.c.state == ChangeState.RUNNING).order_by(changes.c.seq)
        found = []
        with self.store.read() as connection:
            for row in connection.execute(query).all():
                live = Live(self, change_of(row), msgspec.json.decode(row.work, type=Work), stored=True)
                live.row = row.seq
                told = connection.execute(sa.select(events).where(events.c.change_id == row.id).order_by(events.c.seq))
                live.events = [Event(each.at, each.text, each.level, each.resource, each.seconds) for each in told]
                found.append(live)
        for live in found:
            self._enter(live)
        return found

    def wait(self, id: str, seconds: float) -> Change | None:
        """Block until it ended, at most ``seconds``."""
        deadline = time.monotonic() + seconds
        with self.news:
            while id in self._live:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self.news.wait(left)
        return self.get(id)

    def follow(self, id: str, stop: Callable[[], bool] | None = None) -> Iterator[Event | Change]:
        """Each event, then the ended change; passing progress as events of the level ``progress``.

        ``stop`` is asked at least twice a second; true ends the iteration early.
        """
        live = self._live.get(id)
        if live is not None:
            told, seen, progress = 0, -1, ("", None)
            while True:
                with self.news:
                    if live.ticks == seen and live.change.state not in _ENDED:
                        self.news.wait(0.5)
                    seen = live.ticks
                    fresh = live.events[told:]
                    ended = live.change.state in _ENDED and id not in self._live
                    now: Any = live.progress
                yield from fresh
                told += len(fresh)
                if now != progress:
                    progress = now
                    yield Event(time.time(), now[0], PROGRESS, "", now[1])
                if ended:
                    yield msgspec.structs.replace(live.change, events=tuple(live.events))
                    return
                if stop is not None and stop():
                    return
        change = self.get(id)
        if change is not None:
            yield from change.events
            yield change


def _row(live: Live, change: Change) -> dict[str, Any]:
    return {
        "id": change.id,
        "verb": change.verb,
        "actor": change.actor,
        "state": str(change.state),
        "site_id": change.site_id,
        "site_name": change.site_name,
        "reason": change.reason,
        "started_at": change.started_at,
        "ended_at": change.ended_at,
        "problems": _json(change.problems),
        "result": _json(change.result),
        "via": change.via,
        "actor_key": change.actor_key,
        # What is only needed to go on is dropped at the end: it may hold a site's environment.
        "work": "{}" if change.state in _ENDED else _json(live.work),
    }


def change_of(row: Any) -> Change:
    """A row of the table ``changes``; its events are read apart."""
    return Change(
        id=row.id,
        verb=row.verb,
        actor=row.actor,
        state=ChangeState(row.state),
        site_id=row.site_id,
        site_name=row.site_name,
        reason=row.reason,
        started_at=row.started_at,
        ended_at=row.ended_at,
        problems=msgspec.json.decode(row.problems, type=tuple[Problem, ...]),
        result=msgspec.json.decode(row.result, type=dict[str, str | int | float | None]),
        via=row.via,
        actor_key=row.actor_key,
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
