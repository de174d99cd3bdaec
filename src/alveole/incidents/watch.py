"""The round: look at the readings, open what must be told, group it, tell, escalate, close.

An incident, its history and what is to be told of it are stored in ONE transaction, so that after a death at any moment
each is there or none is; what empties the outbox is not of this module. What ``why`` says is asked before that
transaction and outside of the lock, for it may take seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from alveole.errors import AlveoleError, Temporary
from alveole.failpoints import hit
from alveole.incidents import rules as grammar
from alveole.incidents import silences as quiet
from alveole.incidents.book import Book, Incident
from alveole.incidents.model import PLATFORM, RANK, About, Evidence, Reading, Rule, Signal, Silence
from alveole.incidents.news import Event
from alveole.incidents.promises import Ledger
from alveole.incidents.readings import Readings
from alveole.incidents.signals import Bad, Compiled, Key, Seen, Signals, compiled
from alveole.store import Store, Transaction, new_id

log = logging.getLogger("alveole.incidents")
#: What comes again so soon after it was over is the same incident, and must be well twice as long each time.
AGAIN_SECONDS = 1800.0
_TWICE_MOST = 6
#: An incident of the platform takes over those of sites that were opened so shortly before.
_ABSORB_SECONDS = 600.0
#: ``why`` is asked for so many new incidents of one round, and for so long; the others say what is known without.
_ASKED_MOST, _ASKED_SECONDS = 8, 30.0
#: What a machine and the one that drives it both look at, of a site there: that one is waited for so long.
_BOTH = frozenset({"site.backup", "site.backup-hours", "site.proof"})
_FIRST_SECONDS = 900.0
WATCH = "watch"
_NOBODY = "nobody: no channel of theirs is for incidents (alveole notify add)"


class Talk(msgspec.Struct, frozen=True):
    """What of an incident is told: its signals and what ``why`` said."""

    signals: tuple[Signal, ...]
    evidence: Evidence | None = None


class Around(Protocol):
    """What the watch needs of the services."""

    def site_names(self) -> Mapping[str, str]:
        """Name of every site by its id."""

    def evidence(self, site_id: str) -> Evidence: ...

    def watched_there(self, site_id: str) -> bool:
        """Whether the machine that a site lives on says now what is bad of it."""

    def tell(
        self, transaction: Transaction, incident: Incident, event: Event, whom: Sequence[str], talk: Talk
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Put it into the outbox of all channels of ``whom`` (as in a rule, or ``channel:ID``). Gives the ids of these
        channels and their names for people."""


class Watch:
    """Safe from several threads; one round at a time. Changes are seen in memory once they are stored."""

    def __init__(self, store: Store, book: Book, readings: Readings, ledger: Ledger, around: Around) -> None:
        self._store = store
        self.book = book
        self.readings = readings
        self.ledger = ledger
        self._around = around
        self._signals = Signals()
        self.lock = threading.RLock()
        self._rounds = threading.Lock()
        self.open: dict[str, Incident] = {}
        self.parts: dict[str, dict[Key, Signal]] = {}
        """The signals of each open incident."""
        self._muted: set[Key] = set()
        """Bad still, and closed by a person."""
        self._recent: dict[tuple[str, str], Incident] = {}
        """Closed not long ago, by group."""
        self.rules: dict[str, Rule] = {}
        self.silences: dict[str, Silence] = {}
        self._compiled: list[Compiled] = []

    # --- what is stored -----------------------------------------------------------------------
    def load(self) -> None:
        """Once, when all sources are registered."""
        with self.lock:
            found = self.book.list(is_open=True, limit=100_000)
            self.open = {each.id: each for each in found}
            self.parts = self.book.signals(list(self.open))
            closed = self.book.list(is_open=False, closed_since=time.time() - 90 * 86_400, limit=2000)
            closed = [each for each in closed if not each.node]
            by_hand = [each for each in closed if each.closed_by]
            parts = self.book.signals([each.id for each in by_hand])
            self._muted = {key for each in parts.values() for key, signal in each.items() if signal.cleared_at is None}
            self._recent = {each.group: each for each in reversed(closed) if not each.closed_by and not each.part_of}
            self.load_rules()
            self.silences = self.book.silences()

    def load_rules(self) -> None:
        with self.lock:
            self.rules = {**grammar.BUILT_IN, **self.book.rules()}
            figures = self.readings.figures
            made = [compiled(name, rule, figures.get(rule.on)) for name, rule in self.rules.items() if rule.enabled]
            # Those of the platform first: the sites' signals join what these open.
            self._compiled = sorted(made, key=lambda each: not self._is_platform(each.rule))

    def _is_platform(self, rule: Rule) -> bool:
        figure = self.readings.figures.get(rule.on)
        return figure is not None and figure.about is About.PLATFORM

    def load_silences(self) -> None:
        self.silences = self.book.silences()

    # --- the round ----------------------------------------------------------------------------
    def round(self, now: float | None = None) -> None:
        """Look at everything once. Raises ``AlveoleError`` where the database refuses; the next round does it then."""
        with self._rounds:
            names = self._around.site_names()
            found = self.readings.read({each.rule.on for each in self._compiled})
            at = time.time() if now is None else now
            with self.lock:
                seen = self._signals.look(self._compiled, found, names, at)
                self._clear(seen, at)
                fresh = self._sort(seen, at)
            self.ledger.look(seen.promised, names, at)
            deadline = time.monotonic() + _ASKED_SECONDS
            for place, bad in enumerate(fresh.values()):
                asked = place < _ASKED_MOST and time.monotonic() < deadline
                self._open(bad, names, at, asked=asked)
            with self.lock:
                if (PLATFORM in (site for site, _cause in fresh)) and len(seen.firing) > 1:
                    # What waited for it joins it at once.
                    self._sort(seen, at)
                for incident in list(self.open.values()):
                    self._go_on(incident, at)
                self._forget(at)

    def read_now(self, figure: str) -> Sequence[Reading]:
        """All readings of one figure, for trying a rule. Raises ``Temporary`` while it is not known."""
        with self._rounds:
            found = self.readings.read({figure}).get(figure)
        if found is None:
            raise Temporary(f"{figure} is not known now", field="on")
        return found

    def _clear(self, seen: Seen, now: float) -> None:
        """Write down what is well again, and what came again while its incident was open."""
        for id, parts in self._own().items():
            turned: dict[Key, Signal] = {}
            for key, signal in parts.items():
                if signal.cleared_at is None and seen.is_well(key):
                    turned[key] = msgspec.structs.replace(signal, cleared_at=now)
                elif signal.cleared_at is not None and key in seen.firing:
                    turned[key] = msgspec.structs.replace(
                        signal, cleared_at=None, times=signal.times + 1, text=seen.firing[key].text
                    )
            if turned:
                self._keep(id, {**parts, **turned}, turned, now)
        # Whoever closed it by hand did so while it was bad: it is told when it comes anew.
        over = {key for key in self._muted if seen.is_well(key)}
        if over:
            with self._store.write() as transaction:
                self.book.clear_closed(transaction, over, now)
            self._muted -= over

    def _keep(self, id: str, parts: dict[Key, Signal], turned: Mapping[Key, Signal], now: float) -> None:
        incident = self.open[id]
        left = [each for each in parts.values() if each.cleared_at is None]
        well_at = None if left else max(each.cleared_at or now for each in parts.values())
        after = msgspec.structs.replace(incident, well_at=well_at)
        with self._store.write() as transaction:
            self.book.put_signals(transaction, id, turned.items())
            if after != incident:
                self.book.put(transaction, after)
                if well_at is not None:
                    self.book.note(transaction, id, "well", WATCH, "nothing of it is bad any more", now)
        self.open[id], self.parts[id] = after, parts

    def _sort(self, seen: Seen, now: float) -> dict[tuple[str, str], list[Bad]]:
        """What begins an incident of its own, by group; what belongs to an open one is put there."""
        known = {key for parts in self._own().values() for key in parts}
        by_group = {each.group: each.id for each in self.open.values()}
        told_there = {(each.site_id, each.cause) for each in self.open.values() if each.node and each.site_id}
        covers = self._covers(seen)
        fresh: dict[tuple[str, str], list[Bad]] = {}
        joins: dict[str, list[Bad]] = {}
        for key, bad in seen.firing.items():
            if key in known or key in self._muted:
                continue
            group = (bad.subject, bad.rule.cause)
            if bad.rule.rule.on in _BOTH and (group in told_there or self._is_first_there(bad, now)):
                continue
            cover = covers.get(bad.rule.cause) if bad.subject != PLATFORM else None
            if group in by_group:
                joins.setdefault(by_group[group], []).append(bad)
            elif cover:
                joins.setdefault(cover, []).append(bad)
            elif cover is None:
                fresh.setdefault(group, []).append(bad)
            # Else something of the platform is about to be told: it waits for that.
        for id, found in joins.items():
            self._join(id, found, now)
        return fresh

    def _own(self) -> dict[str, dict[Key, Signal]]:
        """The signals of the open incidents that are not another machine's."""
        return {id: parts for id, parts in self.parts.items() if not self.open[id].node}

    def _both_look_at(self) -> frozenset[str]:
        """The causes of such rules."""
        return frozenset(each.cause for each in self._compiled if each.rule.on in _BOTH)

    def _is_first_there(self, bad: Bad, now: float) -> bool:
        waits = now - bad.since < bad.rule.hold + _FIRST_SECONDS
        return waits and self._around.watched_there(bad.subject)

    def _covers(self, seen: Seen) -> dict[str, str]:
        """By cause the open incident of the platform that sites join; empty where one is about to be opened."""
        found: dict[str, str] = {}
        for (_rule, subject, _item), bad in (*seen.waiting.items(), *seen.firing.items()):
            if subject == PLATFORM:
                found.update(dict.fromkeys(bad.rule.rule.covers, ""))
        rules = {each.name: each.rule for each in self._compiled}
        for id, parts in self._own().items():
            for (rule, subject, _item), signal in parts.items():
                if subject == PLATFORM and signal.cleared_at is None and rule in rules:
                    found.update(dict.fromkeys(rules[rule].covers, id))
        return found

    def _join(self, id: str, found: Sequence[Bad], now: float) -> None:
        incident, names = self.open[id], self._around.site_names()
        added = {bad.key: _signal(bad, names) for bad in found}
        worst = max((bad.rule.rule.severity for bad in found), key=RANK.__getitem__)
        worst = max(worst, incident.severity, key=RANK.__getitem__)
        after = msgspec.structs.replace(
            incident, severity=worst, well_at=None, well=max(incident.well, *(bad.rule.well for bad in found))
        )
        parts = {**self.parts[id], **added}
        with self._store.write() as transaction:
            self.book.put_signals(transaction, id, added.items())
            sites = sorted({signal.site for signal in added.values() if signal.site})
            if incident.site_id == PLATFORM and sites:
                text = f"{len(sites)} more sites: {', '.join(sites[:20])}" if len(sites) > 1 else f"also {sites[0]}"
            else:
                text = "; ".join(bad.text for bad in found)
            self.book.note(transaction, id, "joined", WATCH, text, now, incident.site_id)
            if incident.site_id == PLATFORM and incident.told_at is not None:
                # The owners of these sites too: once each, as the channels that know of it are kept.
                after = self._told(transaction, after, Event.OPENED, ("owner",), parts, now)
            self.book.put(transaction, after)
        self.open[id], self.parts[id] = after, parts

    # --- opening ------------------------------------------------------------------------------
    def _open(self, found: Sequence[Bad], names: Mapping[str, str], now: float, *, asked: bool) -> None:
        first = max(found, key=lambda bad: RANK[bad.rule.rule.severity])
        site = first.subject
        evidence = Evidence(at=now, problem="many began at the same time: alveole why says it now")
        if asked:
            try:
                evidence = self._around.evidence(site)
            except AlveoleError as error:
                evidence = Evidence(at=now, problem=str(error)[:500])
            except Exception as error:
                # A fault in finding out why must not keep anybody from being told that.
                log.exception("why could not be asked by a fault of ours")
                evidence = Evidence(at=now, problem=f"why could not be asked: {type(error).__name__}")
        hit("incidents.asked")
        with self.lock:
            group = (site, first.rule.cause)
            if any(each.group == group for each in self.open.values()):
                return
            self._store_new(found, first, evidence, names, now)

    def _store_new(
        self, found: Sequence[Bad], first: Bad, evidence: Evidence, names: Mapping[str, str], now: float
    ) -> None:
        site, rule = first.subject, first.rule.rule
        group = (site, first.rule.cause)
        parts = {bad.key: _signal(bad, names) for bad in found}
        recent = self._recent.get(group)
        again = recent if recent is not None and now - (recent.closed_at or 0.0) < AGAIN_SECONDS else None
        stored = self._store.sites.get(site)
        incident = Incident(
            id=again.id if again is not None else new_id("i"),
            site_id=site,
            site_name=names.get(site, ""),
            owner=stored.site.owner if stored is not None else "",
            cause=first.rule.cause,
            title=rule.title or f"{rule.on} {first.rule.condition}",
            severity=rule.severity,
            opened_at=again.opened_at if again is not None else now,
            began_at=again.began_at if again is not None else min(bad.since for bad in found),
            tell=rule.tell,
            escalate=first.rule.escalate,
            escalate_to=rule.escalate_to,
            well=max(bad.rule.well for bad in found),
            reopened=again.reopened + 1 if again is not None else 0,
        )
        event = Event.REOPENED if again is not None else Event.OPENED
        absorbed = self._absorbed(first, now) if site == PLATFORM else []
        for each in absorbed:
            parts.update(self.parts[each.id])
        old = self.book.signals([incident.id])[incident.id] if again is not None else {}
        with self._store.write() as transaction:
            self.book.put(transaction, incident)
            self.book.put_evidence(transaction, incident.id, evidence)
            self.book.put_signals(transaction, incident.id, parts.items())
            text = "; ".join(bad.text for bad in found)
            self.book.note(transaction, incident.id, str(event), WATCH, text, now, site)
            for each in absorbed:
                part = msgspec.structs.replace(each, closed_at=now, part_of=incident.id)
                self.book.put(transaction, part)
                self.book.note(transaction, each.id, "closed", WATCH, f"it is part of {incident.id}", now)
                incident = msgspec.structs.replace(incident, told=(*incident.told, *each.told))
            incident = self._tell_new(transaction, incident, {**old, **parts}, evidence, now)
            self.book.put(transaction, incident)
            hit("incidents.stored")
        hit("incidents.opened")
        for each in absorbed:
            self.open.pop(each.id)
            self.parts.pop(each.id)
        self._recent.pop(group, None)
        self.open[incident.id], self.parts[incident.id] = incident, {**old, **parts}

    def _absorbed(self, first: Bad, now: float) -> list[Incident]:
        covers = first.rule.rule.covers
        return [
            each
            for each in self.open.values()
            if each.site_id != PLATFORM
            and not each.node
            and each.cause in covers
            and each.acknowledged_at is None
            and now - each.opened_at < _ABSORB_SECONDS
        ]

    # --- telling ------------------------------------------------------------------------------
    def _tell_new(
        self,
        transaction: Transaction,
        incident: Incident,
        parts: Mapping[Key, Signal],
        evidence: Evidence | None,
        now: float,
    ) -> Incident:
        """Tell of it unless it is silent; that is asked again in each round."""
        silence = self.silence_of(incident, parts, now)
        if silence is not None:
            text = f"nobody is told: {silence.who} says {silence.why!r}"
            self.book.note(transaction, incident.id, "silent", WATCH, text, now)
            return incident
        whom = incident.tell or (("operators",) if incident.site_id == PLATFORM else ("owner",))
        if incident.site_id == PLATFORM and any(site for _rule, site, _item in parts):
            whom = (*whom, "owner")
        event = Event.REOPENED if incident.reopened else Event.OPENED
        told = self._told(transaction, incident, event, whom, parts, now, evidence)
        return msgspec.structs.replace(told, told_at=now)

    def _told(
        self,
        transaction: Transaction,
        incident: Incident,
        event: Event,
        whom: Sequence[str],
        parts: Mapping[Key, Signal],
        now: float,
        evidence: Evidence | None = None,
    ) -> Incident:
        signals = tuple(parts.values())
        ids, names = self._around.tell(transaction, incident, event, whom, Talk(signals, evidence))
        if event is not Event.CLOSED and (names or event is not Event.OPENED or incident.told_at is None):
            nobody = f"nobody: {incident.node} has told them" if incident.spared else _NOBODY
            text = ", ".join(names) if names else nobody
            self.book.note(transaction, incident.id, "told", WATCH, text, now)
        return msgspec.structs.replace(incident, told=tuple(dict.fromkeys((*incident.told, *ids))))

    def silence_of(self, incident: Incident, parts: Mapping[Key, Signal], now: float) -> Silence | None:
        named = [rule for (rule, _site, _item), signal in parts.items() if signal.cleared_at is None]
        return quiet.silent(self.silences.values(), incident.site_id, dict.fromkeys(named), now)

    # --- going on -----------------------------------------------------------------------------
    def _go_on(self, incident: Incident, now: float) -> None:
        """Tell what was silent, escalate, let sites go their own way, close."""
        parts = self.parts[incident.id]
        if incident.told_at is None and incident.well_at is None and not incident.quiet:
            if self.silence_of(incident, parts, now) is not None:
                return
            evidence = self.book.evidence(incident.id)
            with self._store.write() as transaction:
                incident = self._tell_new(transaction, incident, parts, evidence, now)
                self.book.put(transaction, incident)
            self.open[incident.id] = incident
        if incident.node:
            # When it is over, and when nobody looks after it, is said there.
            return
        if self._escalates(incident, now):
            evidence = self.book.evidence(incident.id)
            with self._store.write() as transaction:
                text = f"nobody has acknowledged it in {incident.escalate / 60:g} min"
                self.book.note(transaction, incident.id, "escalated", WATCH, text, now)
                incident = self._told(
                    transaction, incident, Event.ESCALATED, incident.escalate_to, parts, now, evidence
                )
                incident = msgspec.structs.replace(incident, escalated_at=now)
                self.book.put(transaction, incident)
            self.open[incident.id] = incident
        well = incident.well * 2 ** min(incident.reopened, _TWICE_MOST)
        if incident.site_id == PLATFORM and incident.well_at is None:
            self._let_go(incident, parts, well, now)
        elif incident.well_at is not None and now - incident.well_at >= well:
            self.end(incident, "", now)

    @staticmethod
    def _escalates(incident: Incident, now: float) -> bool:
        return bool(
            incident.escalate
            and incident.acknowledged_at is None
            and incident.escalated_at is None
            and incident.well_at is None
            and incident.told_at is not None
            and now - incident.told_at >= incident.escalate
        )

    def _let_go(self, incident: Incident, parts: dict[Key, Signal], well: float, now: float) -> None:
        """The platform is well again for long enough, and some sites are not: they have a cause of their own."""
        own = [signal.cleared_at for (_rule, site, _item), signal in parts.items() if site == PLATFORM]
        if any(at is None for at in own) or not own or now - max(at for at in own if at is not None) < well:
            return
        left = {key: signal for key, signal in parts.items() if signal.cleared_at is None}
        turned = {key: msgspec.structs.replace(signal, cleared_at=now) for key, signal in left.items()}
        kept = {**parts, **turned}
        incident = msgspec.structs.replace(incident, well_at=now)
        with self._store.write() as transaction:
            self.book.put_signals(transaction, incident.id, turned.items())
            names = ", ".join(sorted({each.site for each in left.values()})[:20])
            text = f"the platform is well again; of {names} something else is wrong"
            self.book.note(transaction, incident.id, "well", WATCH, text, now)
            self.book.put(transaction, incident)
        self.open[incident.id], self.parts[incident.id] = incident, kept
        self.end(incident, "", now)

    def end(self, incident: Incident, who: str, now: float, why: str = "") -> Incident:
        """Close it, and tell those who were told that it began. ``who``: a person; empty: it is well by itself."""
        with self.lock:
            parts = self.parts[incident.id]
            after = msgspec.structs.replace(incident, closed_at=now, closed_by=who)
            with self._store.write() as transaction:
                text = why or ("it was well for as long as its rules ask for" if not who else "")
                self.book.note(transaction, incident.id, "closed", who or WATCH, text, now)
                if after.told:
                    whom = [f"channel:{id}" for id in after.told]
                    after = self._told(transaction, after, Event.CLOSED, whom, parts, now)
                self.book.put(transaction, after)
            hit("incidents.closed")
            self.open.pop(incident.id, None)
            self.parts.pop(incident.id, None)
            if after.node:
                return after
            if who:
                self._muted |= {key for key, signal in parts.items() if signal.cleared_at is None}
            else:
                self._recent[after.group] = after
            return after

    def reopen(self, incident: Incident, who: str, now: float, why: str = "") -> Incident:
        """A person says that it is not over."""
        with self.lock:
            parts = self.book.signals([incident.id])[incident.id]
            left = any(each.cleared_at is None for each in parts.values())
            after = msgspec.structs.replace(
                incident,
                closed_at=None,
                closed_by="",
                part_of="",
                reopened=incident.reopened + 1,
                well_at=None if left else now,
                told_at=None,
                told=(),
                escalated_at=None,
            )
            evidence = self.book.evidence(incident.id)
            with self._store.write() as transaction:
                self.book.note(transaction, incident.id, "reopened", who, why, now)
                after = self._tell_new(transaction, after, parts, evidence, now)
                self.book.put(transaction, after)
            self.open[after.id], self.parts[after.id] = after, parts
            self._muted -= set(parts)
            self._recent.pop(after.group, None)
            return after

    def change(self, incident: Incident, kind: str, who: str, text: str, now: float) -> None:
        """Store what a person did to an incident, with a line in its history."""
        with self.lock, self._store.write() as transaction:
            self.book.put(transaction, incident)
            self.book.note(transaction, incident.id, kind, who, text, now)
            if incident.id in self.open:
                transaction.effects.append(lambda: self.open.__setitem__(incident.id, incident))

    def _forget(self, now: float) -> None:
        self._recent = {
            group: each for group, each in self._recent.items() if now - (each.closed_at or 0.0) < AGAIN_SECONDS
        }
        over = [each.id for each in self.silences.values() if not each.days and each.ends_at < now - 30 * 86_400]
        if over:
            with self._store.write() as transaction:
                self.book.drop_silences(transaction, over)
                transaction.effects.append(self.load_silences)

    def prune(self, keep_seconds: float) -> None:
        """Remove incidents that were closed longer ago than that."""
        with self._store.write() as transaction:
            self.book.prune(transaction, time.time() - keep_seconds)


def _signal(bad: Bad, names: Mapping[str, str]) -> Signal:
    return Signal(
        rule=bad.rule.name,
        site=names.get(bad.subject, ""),
        site_id=bad.subject,
        item=bad.item,
        text=bad.text,
        since=bad.since,
    )


def describe(signals: Iterable[Signal]) -> tuple[str, ...]:
    """What is bad, one line each; what is well again last."""
    found = sorted(signals, key=lambda each: (each.cleared_at is not None, each.since))
    return tuple(f"{each.site + ': ' if each.site else ''}{each.text}" for each in found)[:50]
