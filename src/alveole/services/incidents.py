"""Incidents: what surrounds the watch (evidence, whom to tell), and the verbs about incidents and promises."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from alveole import views
from alveole.agent.figuring import Figures
from alveole.agent.protocol import Link
from alveole.errors import AlveoleError, InvalidInput, NotFound, Refused
from alveole.incidents import promises as ledger
from alveole.incidents.book import Book, Incident
from alveole.incidents.mirror import FleetWatch
from alveole.incidents.model import (
    PLATFORM,
    Before,
    Evidence,
    EvidenceLink,
    IncidentDetail,
    IncidentReport,
    IncidentState,
    IncidentView,
    PromiseLine,
    PromisesView,
    Said,
    Signal,
)
from alveole.incidents.news import Event, IncidentNews, before_lines, cure_of, why_lines
from alveole.incidents.promises import Ledger
from alveole.incidents.readings import Readings
from alveole.incidents.rules import condition
from alveole.incidents.watch import Talk, describe
from alveole.model.change import Change
from alveole.notices import Message, News
from alveole.people.model import NOBODYS, Actor, Held, Role
from alveole.people.rights import Right, may
from alveole.ports import AgentPort
from alveole.services import loglines, served
from alveole.services.audience import Audience, whither
from alveole.services.finding import FindVerbs
from alveole.services.measuring import LastEnded, running, sources
from alveole.services.notify import NotifyVerbs
from alveole.services.platform import PlatformVerbs
from alveole.services.telling import Channel
from alveole.store import Transaction

log = logging.getLogger("alveole.incidents")
#: Who asks ``why`` and ``doctor`` for an incident.
SYSTEM = Actor("watch", Role.ADMIN, "watch")
TEXT_MAX = 2000
LIST_MAX = 200
_DAY = 86_400.0
#: What is said of who is told, where nobody is.
_NOBODY = {
    "channel": "nobody of those who run this is told: "
    "alveole notify add NAME --for PERSON --mail ADDRESS --event incident",
    "mail": "nobody is told, as no mail server is set: alveole notify mail set FILE",
}
_BEFORE = 3
#: Nothing that these do can have broken a site; what somebody did inside of it can.
_HARMLESS = frozenset({"repair", "check", "backup", "export", "add-channel", "set-channel", "remove-channel"}) | {
    *("acknowledge-incident", "close-incident", "reopen-incident"),
    *("set-rule", "remove-rule", "add-silence", "remove-silence"),
}


class IncidentVerbs(FindVerbs, PlatformVerbs, NotifyVerbs):
    agent: AgentPort
    readings: Readings
    watch: FleetWatch
    _last_ended: LastEnded
    _rounds: ThreadPoolExecutor
    _round_under_way: bool
    _node_problems: dict[str, str]
    incidents_known: set[str]
    """The machines driven from here whose incidents are known as they are now."""
    _nights: dict[str, frozenset[str]]
    _figures: Figures | None
    _figures_away: bool

    @abstractmethod
    def regularly_saved(self) -> frozenset[str]:
        """Supplied by the class that joins the parts."""

    # --- the watch ----------------------------------------------------------------------------
    def _make_watch(self) -> None:
        """Sources that others register come between this and :meth:`_keep_watch`."""
        self.readings = Readings()
        self._last_ended = LastEnded(self.store)
        for source in sources(self, self._last_ended):
            self.readings.add(source)
        self.readings.add(served.source(self))
        self.readings.add(
            loglines.source(
                self.settings.logs, lambda: (id for id, _stored in running(self)), lambda: self.watch.rules.values()
            )
        )
        book = Book(self.store)
        self.watch = FleetWatch(self.store, book, self.readings, Ledger(self.store, self.last_change), _Around(self))
        self._round_under_way = False
        self._rounds = ThreadPoolExecutor(max_workers=1, thread_name_prefix="incidents")

    def _keep_watch(self) -> None:
        every = self.settings.incidents.every_seconds
        # Not before the first look at the sites.
        self.ticker.add("incidents", every, self._begin_round, first=every)
        keep = self.settings.incidents.keep_seconds
        self.ticker.add("old-incidents", _DAY, lambda: self.watch.prune(keep), first=600.0)

    def _begin_round(self) -> None:
        """A round may ask the agent and wait: it has a thread of its own, and one begins when the last has ended."""
        if self._round_under_way:
            return
        self._round_under_way = True
        self._rounds.submit(self._one_round)

    def _one_round(self) -> None:
        try:
            self.watch.round()
        except AlveoleError as error:
            log.warning("a round over the rules: %s", error)
        except Exception:
            log.exception("a round over the rules failed by a fault of ours")
        finally:
            self._round_under_way = False

    def _close_watch(self) -> None:
        self._rounds.shutdown(wait=True, cancel_futures=True)

    def _ended(self, transaction: Transaction, change: Change) -> None:
        """In the transaction that ends a change: whoever is told of it, and what the rules look at."""
        self.telling.ended(transaction, change)
        transaction.effects.append(lambda: self._saw_end(change))

    def _saw_end(self, change: Change) -> None:
        # A check that begins to fail is told at once, and not with the next round.
        if self._last_ended.saw(change) or change.verb == "check":
            self.ticker.poke("incidents")

    # --- what changed, and why ----------------------------------------------------------------
    def last_changes(self, site_id: str, most: int = _BEFORE) -> tuple[Before, ...]:
        """Of a site, or of the platform: the newest that may have broken something."""
        if site_id != PLATFORM:
            found = self.journal.list(site=site_id, limit=30)
        else:
            found = tuple(each for each in self.journal.list(limit=60) if each.site_id is None)
        changes = [each for each in found if each.verb not in _HARMLESS]
        return tuple(
            Before(
                change=each.id,
                verb=each.verb,
                actor=each.actor,
                state=str(each.state),
                at=each.started_at,
                reason=each.reason[:200],
            )
            for each in changes[:most]
        )

    def last_change(self, site_id: str) -> Before | None:
        return next(iter(self.last_changes(site_id, 1)), None)

    def evidence_of(self, site_id: str) -> Evidence:
        """What ``why`` says of a site, or ``doctor`` of the platform. Raises ``AlveoleError``."""
        before = self.last_changes(site_id)
        waiting: tuple[str, ...] = ()
        if site_id == PLATFORM:
            doctor = self.doctor(SYSTEM)
            links = doctor.links
            broken = next((each.name for each in links if not each.ok), "")
        else:
            why = self.why(SYSTEM, site_id)
            links, waiting, broken = why.links, why.waiting, why.broken
        made = tuple(
            EvidenceLink(
                name=each.name,
                ok=each.ok,
                asked=each.asked,
                came=each.came[:1000],
                cure=each.cure,
                machine=each.machine,
            )
            for each in links
        )
        return Evidence(at=time.time(), broken=broken, links=made, waiting=waiting[:20], before=before)

    def doctor(self, caller: Actor) -> views.DoctorView:
        found = super().doctor(caller)
        many, missing = self.hears_incidents()
        by = "one channel" if many == 1 else f"{many} channels"
        said = _NOBODY.get(missing, f"operators and administrators, by {by}")
        # Whether anybody wants to be told is theirs to say: it fails nothing.
        link = Link("incidents", True, "who is told", said)
        return msgspec.structs.replace(found, links=(*found.links, link))

    # --- looking ------------------------------------------------------------------------------
    def _held_incident(self, incident: Incident) -> Held:
        if incident.site_id == PLATFORM:
            return NOBODYS
        return self.people.held_by_id(incident.site_id, incident.owner)

    def _sees_incident(self, caller: Actor, incident: Incident, parts: Mapping[tuple[str, str, str], Signal]) -> bool:
        """Theirs, or a site of theirs is part of it."""
        if may(caller, Right.INCIDENT_LOOK, self._held_incident(incident)):
            return True
        sites = {site for _rule, site, _item in parts if site} if incident.site_id == PLATFORM else ()
        return any(may(caller, Right.INCIDENT_LOOK, self.people.held_by_id(site)) for site in sites)

    def _sees_all(self, caller: Actor) -> bool:
        return may(caller, Right.INCIDENT_LOOK, NOBODYS)

    def count_incidents(self, caller: Actor) -> int:
        """How many are open of those that ``caller`` may look at. Asks nothing."""
        found, parts = self.watch.open, self.watch.parts
        if self._sees_all(caller):
            return len(found)
        return sum(1 for each in list(found.values()) if self._sees_incident(caller, each, parts.get(each.id, {})))

    def count_incidents_by_site(self, caller: Actor) -> dict[str, int]:
        """The same of each site that has one, by the id of the site. Asks nothing."""
        found: dict[str, int] = {}
        for each in list(self.watch.open.values()):
            if each.site_id != PLATFORM and may(caller, Right.INCIDENT_LOOK, self._held_incident(each)):
                found[each.site_id] = found.get(each.site_id, 0) + 1
        return found

    def list_incidents(
        self,
        caller: Actor,
        *,
        state: str = "all",
        site: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> tuple[IncidentView, ...]:
        """Open ones first, then those that are closed, newest first. ``state``: ``open``, ``closed`` or ``all``.
        ``before``: the id of a closed one; only older ones."""
        self._allow(caller, Right.SITE_LIST)
        if state not in ("open", "closed", "all") or not 1 <= limit <= LIST_MAX:
            raise InvalidInput("is not open, closed or all, or the limit is outside 1 to 200", field="state")
        of_site = self._stored(caller, Right.SITE_LOOK, site, elsewhere=True).site.id if site is not None else None
        parts = dict(self.watch.parts)
        found: list[Incident] = []
        if state != "closed" and before is None:
            found = [
                each
                for each in sorted(self.watch.open.values(), key=lambda one: -one.opened_at)
                if self._sees_incident(caller, each, parts.get(each.id, {}))
                and (of_site is None or any(key[1] == of_site for key in parts.get(each.id, {})))
            ]
        if state != "open":
            of = None if self._sees_all(caller) else [each.site.id for each in self._visible(caller)]
            closed = self.watch.book.list(is_open=False, site=of_site, of=of, before=before, limit=limit)
            parts |= self.watch.book.signals([each.id for each in closed])
            found += closed
        return tuple(self._incident_view(caller, each, parts.get(each.id, {})) for each in found[: LIST_MAX + limit])

    def _incident(self, caller: Actor, id: str, right: Right = Right.INCIDENT_LOOK) -> Incident:
        found = self.watch.open.get(id) or self.watch.book.get(id)
        parts = self._parts(id) if found is not None else {}
        if found is None or not (caller.entering or self._sees_incident(caller, found, parts)):
            raise NotFound(f"there is no incident {id!r}", field="incident", hint="see: alveole incident list")
        if right is not Right.INCIDENT_LOOK:
            self._allow(caller, right, self._held_incident(found))
        return found

    def _parts(self, id: str) -> Mapping[tuple[str, str, str], Signal]:
        return self.watch.parts.get(id) or self.watch.book.signals([id])[id]

    def _incident_view(
        self, caller: Actor, incident: Incident, parts: Mapping[tuple[str, str, str], Signal]
    ) -> IncidentView:
        return IncidentView(**self._view_fields(caller, incident, parts))

    def _view_fields(
        self, caller: Actor, incident: Incident, parts: Mapping[tuple[str, str, str], Signal]
    ) -> dict[str, Any]:
        sites = {site: signal.site for (_rule, site, _item), signal in parts.items() if site}
        if not self._sees_all(caller):
            sites = {id: name for id, name in sites.items() if self._sees_site(caller, id)}
        state = IncidentState.OPEN
        if incident.closed_at is not None:
            state = IncidentState.CLOSED
        elif incident.acknowledged_at is not None:
            state = IncidentState.ACKNOWLEDGED
        stored = self.store.sites.get(incident.site_id)
        return {
            "id": incident.id,
            "title": incident.title,
            "severity": incident.severity,
            "state": state,
            "cause": incident.cause,
            "site": stored.site.name if stored is not None else incident.site_name,
            "sites": tuple(sorted(sites.values())) if incident.site_id == PLATFORM else (),
            "began_at": incident.began_at,
            "opened_at": incident.opened_at,
            "acknowledged_at": incident.acknowledged_at,
            "acknowledged_by": incident.acknowledged_by,
            "well_at": incident.well_at,
            "closed_at": incident.closed_at,
            "closed_by": incident.closed_by,
            "part_of": incident.part_of,
            "reopened": incident.reopened,
            "silent": incident.told_at is None and incident.closed_at is None,
            "escalated": incident.escalated_at is not None,
            "node": incident.node,
            "seen_at": self._heard(incident.node) if incident.node in self._node_problems else None,
        }

    @abstractmethod
    def _heard(self, node: str) -> float | None:
        """Supplied by the class that joins the parts: when a node said something last."""

    def _told_to(self, incident: Incident) -> tuple[str, ...]:
        every = self.telling.channels
        return tuple(whither(every[id]) for id in incident.told if id in every)

    def _sees_site(self, caller: Actor, site_id: str) -> bool:
        return may(caller, Right.INCIDENT_LOOK, self.people.held_by_id(site_id))

    def show_incident(self, caller: Actor, incident: str) -> IncidentDetail:
        """Of an incident of the platform whoever has but a site in it sees what is about that site."""
        found = self._incident(caller, incident)
        parts = self._parts(found.id)
        whole = may(caller, Right.INCIDENT_LOOK, self._held_incident(found))
        signals = [
            each
            for each in parts.values()
            if whole or each.site_id == PLATFORM or self._sees_site(caller, each.site_id)
        ]
        notes = self.watch.book.notes(found.id)
        if not whole:
            notes = tuple(
                each for each in notes if each.kind in ("opened", "well", "acknowledged", "closed", "reopened")
            )
        return IncidentDetail(
            **self._view_fields(caller, found, parts),
            signals=tuple(sorted(signals, key=lambda each: (each.cleared_at is not None, each.since))),
            notes=notes,
            evidence=self.watch.book.evidence(found.id) if whole else None,
            told_to=self._told_to(found) if self._sees_all(caller) else (),
        )

    def report_incident(self, caller: Actor, incident: str) -> IncidentReport:
        found = self.show_incident(caller, incident)
        began, opened = found.began_at, found.opened_at
        acknowledged = [each.at for each in found.notes if each.kind == "acknowledged"]
        ended = found.well_at if found.well_at is not None else None
        return IncidentReport(
            incident=found,
            to_acknowledge=acknowledged[0] - opened if acknowledged else None,
            to_repair=ended - began if ended is not None else None,
            lasted=found.closed_at - began if found.closed_at is not None else None,
            comments=tuple(each for each in found.notes if each.kind == "comment"),
            actions=tuple(each for each in found.notes if each.kind == "action"),
        )

    # --- acting -------------------------------------------------------------------------------
    def acknowledge_incident(self, caller: Actor, incident: str, request: Said) -> IncidentView:
        """Somebody looks after it: it is not escalated. Again: nothing."""
        found = self._incident(caller, incident, Right.INCIDENT_ACT)
        self._text(request, needed=False)
        if found.closed_at is not None:
            raise Refused("it is closed", field="incident", hint="reopen it, if it is not over")
        if found.acknowledged_at is None:
            now = time.time()
            after = msgspec.structs.replace(found, acknowledged_at=now, acknowledged_by=caller.name)
            self.watch.change(after, "acknowledged", caller.name, request.text, now)
            self._note_incident(caller, "acknowledge-incident", found)
        return self._shown(caller, incident)

    def comment_incident(self, caller: Actor, incident: str, request: Said, *, action: bool = False) -> IncidentView:
        """``action``: what was done so that it does not come again."""
        found = self._incident(caller, incident, Right.INCIDENT_ACT)
        self._text(request, needed=True)
        self.watch.change(found, "action" if action else "comment", caller.name, request.text, time.time())
        return self._shown(caller, incident)

    def close_incident(self, caller: Actor, incident: str, request: Said) -> IncidentView:
        """What is bad still is told anew only once it was well."""
        found = self._incident(caller, incident, Right.INCIDENT_ACT)
        self._text(request, needed=False)
        if found.closed_at is None:
            self.watch.end(found, caller.name, time.time(), request.text)
            self._note_incident(caller, "close-incident", found)
        return self._shown(caller, incident)

    def reopen_incident(self, caller: Actor, incident: str, request: Said) -> IncidentView:
        found = self._incident(caller, incident, Right.INCIDENT_ACT)
        self._text(request, needed=False)
        if found.closed_at is not None:
            if any(each.group == found.group for each in self.watch.open.values()):
                raise Refused("an incident of the same cause is open", field="incident", hint="comment on that one")
            self.watch.reopen(found, caller.name, time.time(), request.text)
            self._note_incident(caller, "reopen-incident", found)
        return self._shown(caller, incident)

    @staticmethod
    def _text(request: Said, *, needed: bool) -> None:
        if len(request.text) > TEXT_MAX or (needed and not request.text.strip()):
            raise InvalidInput(f"is empty or longer than {TEXT_MAX} characters", field="text")

    def _shown(self, caller: Actor, id: str) -> IncidentView:
        found = self._incident(caller, id)
        return self._incident_view(caller, found, self._parts(id))

    def _note_incident(self, caller: Actor, verb: str, incident: Incident) -> None:
        stored = self.store.sites.get(incident.site_id)
        self._note(caller, verb, f"{incident.id} {incident.title}", stored.site if stored is not None else None)

    # --- promises -----------------------------------------------------------------------------
    def site_promises(self, caller: Actor, site: str) -> PromisesView:
        """What is promised to a site, and how each promise stands."""
        if told := self._asked_there(caller, Right.SITE_LOOK, site, "/promises", PromisesView):
            return told
        found = self._stored(caller, Right.SITE_LOOK, site).site
        now = time.time()
        entries = self.watch.ledger.of(found.id)
        levels: dict[str, list[str]] = {}
        for name, rule in self.watch.rules.items():
            if rule.promise and rule.enabled:
                figure = self.readings.figures.get(rule.on)
                what = figure.title if figure is not None else rule.on
                levels.setdefault(rule.promise, []).append(f"{name}: {what}: broken when {condition(rule, figure)}")
        lines = []
        for promise in sorted({*levels, *entries}):
            entry = entries.get(promise)
            share = ledger.share(entry, now) if entry is not None else ledger.Share(0.0, 0.0)
            lines.append(
                PromiseLine(
                    promise=promise,
                    state=entry.state if entry is not None else ledger.UNKNOWN,
                    since=entry.since if entry is not None else None,
                    kept_share=round(share.kept / share.known, 6) if share.known else None,
                    known_seconds=round(share.known, 1),
                    levels=tuple(levels.get(promise, ())),
                    text=entry.text if entry is not None else "",
                    broken_by=entry.broken_by if entry is not None else None,
                    times_broken=entry.times if entry is not None else 0,
                )
            )
        return PromisesView(site=found.name, promises=tuple(lines))


class _Around:
    """What the watch needs of the services."""

    def __init__(self, services: IncidentVerbs) -> None:
        self._services = services

    def site_names(self) -> Mapping[str, str]:
        return {id: stored.site.name for id, stored in self._services.store.sites.items()}

    def evidence(self, site_id: str) -> Evidence:
        return self._services.evidence_of(site_id)

    def watched_there(self, site_id: str) -> bool:
        stored = self._services.store.sites.get(site_id)
        node = stored.site.node if stored is not None else ""
        return bool(node) and node in self._services.incidents_known

    def tell(
        self, transaction: Transaction, incident: Incident, event: Event, whom: Sequence[str], talk: Talk
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        services = self._services
        chosen = Audience(services, incident, talk).channels(whom)
        if event is not Event.CLOSED:
            chosen = [each for each in chosen if each.id not in (*incident.told, *incident.spared)]
        # The same event of the same incident has the same key, however often it is come to.
        letter = "o" if event in (Event.OPENED, Event.REOPENED) else str(event)[0]
        for channel in chosen:
            services.telling.put(
                transaction,
                channel,
                f"{incident.id}{letter}{incident.reopened}",
                self._message(incident, event, channel, talk),
            )
        shown = tuple(f"{services.people.shown(each.whom)}: {each.name}" for each in chosen)
        return tuple(each.id for each in chosen), shown

    def _message(self, incident: Incident, event: Event, channel: Channel, talk: Talk) -> Message:
        services = self._services
        whole = incident.site_id != PLATFORM or Audience(services, incident, talk).sees_platform(channel)
        signals = [
            each
            for each in talk.signals
            if whole or each.site_id == PLATFORM or Audience(services, incident, talk).may_hear(channel, each.site_id)
        ]
        sites = tuple(sorted({each.site for each in signals if each.site}))
        evidence = talk.evidence if whole else None
        bad = [each for each in signals if each.cleared_at is None or event is Event.CLOSED]
        shown = describe(bad if incident.site_id != PLATFORM else [each for each in bad if not each.site_id])
        if incident.site_id != PLATFORM:
            # Its site is named once, before the title.
            shown = tuple(line.removeprefix(f"{incident.site_name}: ") for line in shown)
        news = IncidentNews(
            id=incident.id,
            event=event,
            title=incident.whole_title,
            severity=incident.severity,
            began_at=incident.began_at,
            opened_at=incident.opened_at,
            closed_at=incident.closed_at or 0.0,
            broken=shown,
            sites=sites[:100] if incident.site_id == PLATFORM else (),
            before=before_lines(evidence),
            why=why_lines(evidence),
            cure=cure_of(evidence),
            closed_by=incident.closed_by,
            address=self._address(incident.id),
        )
        stored = services.store.sites.get(incident.site_id)
        return Message(
            id=incident.id,
            kind=str(News.INCIDENT),
            verb="incident",
            state=str(event),
            actor=incident.closed_by or "watch",
            site=stored.site.name if stored is not None else incident.site_name,
            site_id=incident.site_id,
            started_at=incident.began_at,
            ended_at=time.time(),
            problems=shown,
            incident=news,
        )

    def _address(self, id: str) -> str:
        pages = self._services.settings.pages
        return f"{pages}/incident/{id}" if pages else ""
