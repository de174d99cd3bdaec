"""A past day beside the live site: a backup, given back into a copy that people look at for a while.

The copy is a scratch site as a proof's: a lease of its own, no row, small limits, no way out, nothing of the machine's
that the site is lent. Beyond that it has one name, whose route the edge opens to nobody without asking here, for every
request: whoever comes must hold a pass of this process's memory, got through the pages by a link that works once, and
their session there must still live and may look at the site. So a sign-out, a share that is taken back and the end of
the day are all in force at the next request, and while nobody answers here nobody is let in.

The row is written first and goes last. A change that was cut begins again from nothing, or ends what it was ending.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.loop.compile import site_domain
from alveole.model.change import Change
from alveole.model.resource import Action, Kind, Observed, RouteSpec, Step, stamp
from alveole.model.site import Backup, Site
from alveole.people import passwords
from alveole.people.model import Actor
from alveole.people.rights import Right, may
from alveole.requests.backups import OpenBackup
from alveole.scenarios.model import seconds as seconds_of
from alveole.services.backups import Manifest
from alveole.services.browsing import BrowseVerbs
from alveole.store import Transaction, new_id, pastdays, tables
from alveole.store.pastdays import PastDay, PastState
from alveole.views.backups import PastDayView

#: Who closes what its time is over for.
ITSELF = "past-days"
LEAST_SECONDS, MOST_SECONDS = 60.0, 86_400.0
#: Where the edge takes a ticket, below the name of the past day.
ENTER = "/.alveole/enter"
_TICK_SECONDS = 10.0
#: A browser follows the link at once.
_TICKET_SECONDS = 60.0
#: Tickets and passes that are remembered: a person clicks, and has few browsers.
_MOST_PASSES = 10_000
_WHY = "a past day that somebody looks at"
_VERBS = frozenset({"open-backup", "close-backup"})


class _Pass(NamedTuple):
    """Lets the browser in that holds the secret of it, as long as ``session`` lives."""

    day: str
    session: str
    until: float


class PastVerbs(BrowseVerbs):
    _days: dict[str, PastDay]
    """As in the table."""
    _tickets: dict[str, _Pass]
    """By the digest of a secret that works once."""
    _passes: dict[str, _Pass]

    def _load_days(self) -> None:
        self._tickets, self._passes = {}, {}
        with self.store.read() as connection:
            self._days = pastdays.every(connection)
        self.loop.clones.update(self._days)
        self.naming.besides = self._past_names

    def _keep_days(self) -> None:
        self.ticker.add("past-days", _TICK_SECONDS, self._days_tick, first=_TICK_SECONDS)

    def _past_names(self) -> dict[str, str]:
        """For the DNS: the name of each, and whose it is."""
        return {site_domain(day.name, self.settings): day.id for day in list(self._days.values())}

    def _put_day(self, transaction: Transaction, day: PastDay) -> None:
        pastdays.put(transaction.connection, day)

        def effect() -> None:
            self._days[day.id] = day
            self.loop.clones.add(day.id)

        transaction.effects.append(effect)

    # --- verbs --------------------------------------------------------------------------------
    def open_backup_beside(self, caller: Actor, backup: str, request: OpenBackup, *, key: str | None = None) -> Change:
        """Show a backup as a site, at a name of its own, for a while. The id of the past day is in the ``result``."""
        # Before anything is said of the request: whose backup it is.
        self._backup(caller, Right.BACKUP_OPEN, backup)
        length = _length(request.length)
        if not self.settings.panel_domain:
            raise Refused("there are no pages here at which its visitors could sign in", hint="see panel.name")

        def build(transaction: Transaction) -> Live:
            found = self._backup(caller, Right.BACKUP_OPEN, backup)
            self._check_days(pastdays.every(transaction.connection).values(), found)
            id, now = new_id("s"), time.time()
            day = PastDay(
                id=id,
                number=transaction.lease(id, self.addressing.capacity()),
                name=self._past_name(),
                backup_id=found.id,
                backup_at=found.created_at,
                site_id=found.site_id,
                site_name=found.site_name,
                owner=found.owner,
                seconds=length,
                opened_by=caller.name,
                opened_at=now,
                closes_at=now + length,
            )
            self._put_day(transaction, day)
            return self._begin_day("open-backup", caller, day, f"{found.id} of {found.site_name}", transaction)

        digest = self._digest("open-backup", backup, request.digest())
        return self._accept(caller, digest, key, build, self._need_room)

    def _check_days(self, there: Iterable[PastDay], backup: Backup) -> None:
        """Nobody takes all the room that there is for all; raises ``Refused``."""
        owners = [day.owner for day in there]
        limits = self.settings.backups
        close = "close one first: alveole backup opened"
        # What is root's or nobody's is the platform's own.
        personal = self.people.whom(backup.owner) is not None
        if personal and owners.count(backup.owner) >= limits.past_each:
            told = f"{limits.past_each} past days of one owner's sites are open at a time, and so many are"
            raise Refused(told, field="backup", hint=f"{close}; or set backups.past_each")
        if len(owners) >= limits.past_most:
            told = f"{limits.past_most} past days are open at a time, and so many are"
            raise Refused(told, field="backup", hint=f"{close}; or set backups.past_most")

    def _past_name(self) -> str:
        while True:
            name = f"past-{secrets.token_hex(4)}"
            domain = site_domain(name, self.settings)
            if self.store.site(name) is None and self.store.owner_of(domain) is None:
                return name

    def _begin_day(
        self, verb: str, actor: Actor | str, day: PastDay, reason: str, transaction: Transaction | None = None
    ) -> Live:
        stored = self.store.sites.get(day.site_id)
        return self.journal.begin(
            verb,
            actor,
            site=stored.site if stored is not None else None,
            reason=reason,
            work=Work(stored=True, backup=day.backup_id, note=day.id),
            result={"backup": day.backup_id, "past": day.id, "address": self._past_address(day)},
            transaction=transaction,
        )

    def _past_address(self, day: PastDay) -> str:
        port = "" if self.settings.edge.https_port == 443 else f":{self.settings.edge.https_port}"
        return f"https://{site_domain(day.name, self.settings)}{port}/"

    def list_past_days(self, caller: Actor, site: str | None = None) -> tuple[PastDayView, ...]:
        """Those of sites that the caller may look at, the newest first; of one site, also of a destroyed one."""
        self._allow(caller, Right.SITE_LIST)
        found = [day for day in list(self._days.values()) if self._may_see(caller, day)]
        if site is not None:
            found = [day for day in found if site in (day.site_id, day.site_name)]
        return tuple(self._past_view(day) for day in sorted(found, key=lambda day: day.opened_at, reverse=True))

    def show_past_day(self, caller: Actor, past: str) -> PastDayView:
        return self._past_view(self._past_day(caller, Right.SITE_LOOK, past))

    def _may_see(self, caller: Actor, day: PastDay) -> bool:
        return may(caller, Right.SITE_LOOK, self.people.held_by_id(day.site_id, day.owner))

    def _past_view(self, day: PastDay) -> PastDayView:
        stored = self.store.sites.get(day.site_id)
        return PastDayView(
            id=day.id,
            name=day.name,
            address=self._past_address(day),
            backup=day.backup_id,
            backup_at=day.backup_at,
            site=stored.site.name if stored is not None else day.site_name,
            site_id=day.site_id,
            state=day.state,
            opened_by=day.opened_by,
            opened_at=day.opened_at,
            closes_at=day.closes_at,
        )

    def _past_day(self, caller: Actor, right: Right, past: str) -> PastDay:
        """By id or name. ``NotFound`` for one of a site that the caller may not even look at; ``Denied``."""
        day = next((each for each in list(self._days.values()) if past in (each.id, each.name)), None)
        if day is None or not (caller.entering or self._may_see(caller, day)):
            raise NotFound(f"there is no past day {past[:80]!r}", field="past", hint="see: alveole backup opened")
        self._allow(caller, right, self.people.held_by_id(day.site_id, day.owner))
        return day

    def close_past_day(self, caller: Actor, past: str, *, key: str | None = None) -> Change:
        """End it now, with all that was written in it."""

        def build(transaction: Transaction) -> Live:
            day = self._past_day(caller, Right.BACKUP_OPEN, past)
            if day.state is PastState.OPENING:
                raise Refused("it is still being opened", field="past", hint="wait for that to end")
            self._put_day(transaction, msgspec.structs.replace(day, state=PastState.CLOSING))
            return self._begin_day("close-backup", caller, day, f"{day.backup_id} of {day.site_name}", transaction)

        return self._accept(caller, self._digest("close-backup", past), key, build)

    # --- coming in ----------------------------------------------------------------------------
    def enter_past_day(self, caller: Actor, past: str) -> str:
        """The address, good for one visit within a minute, that gives the caller's browser its pass."""
        day = self._past_day(caller, Right.SITE_LOOK, past)
        if not caller.via.startswith("session:"):
            raise Refused("only who is signed in at the pages is let in", field="past", hint="open the address there")
        if day.state is not PastState.OPEN:
            raise Refused(f"it is {day.state}", field="past", hint="wait a moment, or open the backup again")
        secret = passwords.secret("")
        until = time.time() + _TICKET_SECONDS
        _remember(self._tickets, secret, _Pass(day.id, caller.via.removeprefix("session:"), until))
        return f"{self._past_address(day).rstrip('/')}{ENTER}?{urlencode({'ticket': secret})}"

    def admit_to_past_day(self, word: str, day: str, secret: str) -> str:
        """What the edge is told of a visitor of the past day ``day``; empty: not let in.

        ``ticket``: a fresh pass, and for how many seconds it is kept; ``pass``: ``yes``.
        """
        now, digest = time.time(), passwords.digest(secret)
        held = self._tickets.pop(digest, None) if word == "ticket" else self._passes.get(digest)
        found = self._days.get(day)
        if held is None or found is None or held.day != day or held.until < now or found.state is not PastState.OPEN:
            return ""
        actor = self._resumed(tables.sessions.c.id == held.session)
        if actor is None or actor.entering or not self._may_see(actor, found):
            return ""
        if word != "ticket":
            return "yes"
        fresh = passwords.secret("")
        _remember(self._passes, fresh, _Pass(day, held.session, found.closes_at))
        return f"{fresh} {max(1, int(found.closes_at - now))}"

    # --- flows --------------------------------------------------------------------------------
    def _flow_open_backup(self, live: Live) -> None:
        day, backup = self._days.get(live.work.note), self._at_hand(live, live.work.backup or "")
        if day is None:
            raise Refused("it was closed meanwhile", field="past")
        if day.state is PastState.OPEN:
            # Control ended before it could say so.
            self.journal.end(live)
            return
        opened = False
        try:
            if backup is None:
                raise Refused("the backup is gone", field="backup")
            with self.loop.lock(f"past:{day.id}"):
                # What a death has left of an earlier try.
                self._take_down(day)
                hit("services.past-begun")
                self._show_day(live, day, backup)
            day = msgspec.structs.replace(day, state=PastState.OPEN, closes_at=time.time() + day.seconds)
            with self.store.write() as transaction:
                self._put_day(transaction, day)
            opened = True
        finally:
            if not opened and not self.loop.stopping:
                self._give_day_up(day)
        hit("services.past-opened")
        live.say(f"{self._past_address(day)} shows {day.site_name} of that day", resource="backup.opened")
        self.journal.end(live)

    def _show_day(self, live: Live, day: PastDay, backup: Backup) -> None:
        manifest, blank = self._read_backup(live, backup)
        blank = msgspec.structs.replace(blank, id=day.id, number=day.number, name=day.name)
        copy = self._under_its_name(live, manifest, self._from_manifest(live, manifest, blank, False))
        copy, names = self._start_scratch(live, backup, copy, "services.past-restored")
        hit("services.past-runs")
        stored = self.store.sites.get(day.site_id)
        access = stored.site.access if stored is not None else manifest.access
        for item in sorted(names, key=lambda each: each.id.kind is Kind.ROUTE):
            spec = item.spec
            if isinstance(spec, RouteSpec):
                spec = msgspec.structs.replace(spec, past=True, https_only=True, access=access)
            self._make(Step(item.id, Action.CREATE, stamp(spec), spec, _WHY))
        self.naming.news()

    def _under_its_name(self, live: Live, manifest: Manifest, copy: Site) -> Site:
        """What its modules wrote with the site's address in it, with its own."""
        try:
            return self._renamed(live, copy, manifest)
        except InvalidInput as error:
            live.say(f"its files still name {manifest.name}: {error}", level="warning")
            return copy

    def _give_day_up(self, day: PastDay) -> None:
        """Nothing half open: what is there goes now, or, while the agent is away, at a later tick."""
        try:
            self._end_day(day)
        except AlveoleError:
            with self.store.write() as transaction:
                self._put_day(transaction, msgspec.structs.replace(day, state=PastState.CLOSING))

    def _flow_close_backup(self, live: Live) -> None:
        day = self._days.get(live.work.note)
        if day is not None:
            self._end_day(day)
        self.journal.end(live)

    def _end_day(self, day: PastDay) -> None:
        with self.loop.lock(f"past:{day.id}"):
            self._take_down(day)
            hit("services.past-taken-down")
            with self.store.write() as transaction:
                pastdays.drop(transaction.connection, day.id)
                transaction.end_lease(day.id)
                transaction.effects.append(lambda: self._forget_day(day))
        self.naming.news()

    def _forget_day(self, day: PastDay) -> None:
        self._days.pop(day.id, None)
        self.loop.clones.discard(day.id)
        for held in (self._tickets, self._passes):
            for digest in [digest for digest, each in list(held.items()) if each.day == day.id]:
                held.pop(digest, None)

    def _take_down(self, day: PastDay) -> None:
        """All that is real of it: first that nobody comes, then what runs, then its files."""
        found = self.agent.call(protocol.Observe((day.id,))).found
        for kind in (Kind.ROUTE, Kind.WORKLOAD, Kind.CERTIFICATE):
            for item in (each for each in found if each.id.kind is kind):
                self._make(Step(item.id, Action.DELETE, item.digest, None, _WHY))
        self.agent.call(protocol.RemoveSite(day.id, day.number))

    # --- by the clock -------------------------------------------------------------------------
    def _days_tick(self) -> None:
        if not self._days:
            return
        now = time.time()
        # The days first: one that is opened or closed in between is busy, or is not looked at.
        days = list(self._days.values())
        busy = {live.work.note for live in self.journal.all_live() if live.change.verb in _VERBS}
        idle = [day for day in days if day.id not in busy]
        due = {day.id: "its time is over" for day in idle if day.state is PastState.OPEN and day.closes_at <= now}
        due |= {day.id: "it was left half-way" for day in idle if day.state is not PastState.OPEN}
        others = tuple(day.id for day in idle if day.id not in due)
        if others:
            found = self.agent.call(protocol.Observe(others))
            if not found.unknown:
                due |= {id: "it does not run any more" for id in others if not _runs(id, found.found)}
        for day in (day for day in idle if day.id in due):
            with self.store.write() as transaction:
                if self._days.get(day.id) is not day:
                    # Closed by somebody while the agent was asked.
                    continue
                self._put_day(transaction, msgspec.structs.replace(day, state=PastState.CLOSING))
                live = self._begin_day("close-backup", ITSELF, day, due[day.id], transaction)
            self._go(live)


def _length(wanted: str | float) -> float:
    try:
        found = seconds_of(wanted)
    except ValueError as error:
        raise InvalidInput(str(error), field="length") from error
    if not LEAST_SECONDS <= found <= MOST_SECONDS:
        raise InvalidInput("is outside 1 minute to 1 day", field="length", hint="write it like 1h")
    return found


def _remember(held: dict[str, _Pass], secret: str, fresh: _Pass) -> None:
    now = time.time()
    for digest in [digest for digest, each in list(held.items()) if each.until < now]:
        held.pop(digest, None)
    if len(held) >= _MOST_PASSES:
        held.pop(next(iter(held)), None)
    held[passwords.digest(secret)] = fresh


def _runs(id: str, found: tuple[Observed, ...]) -> bool:
    """Whether its instance and its route are there. A boot leaves neither."""
    kinds = {each.id.kind for each in found if each.id.scope == id and not (each.defects and not each.ready)}
    return {Kind.WORKLOAD, Kind.ROUTE} <= kinds
