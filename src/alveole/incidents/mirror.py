"""Incidents of machines that are driven from here, beside this machine's own.

Each is kept here under the id that it has there, with its signals, its history and what ``why`` said, so that it can be
read while that machine is away. What becomes of it is decided there: the rounds here neither clear nor close it. This
machine tells its own channels of it, but for those that lead where that machine has told already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from alveole.failpoints import hit
from alveole.incidents.book import Incident
from alveole.incidents.model import PLATFORM, Evidence, IncidentDetail, Signal
from alveole.incidents.news import Event
from alveole.incidents.signals import Key
from alveole.incidents.watch import WATCH, Watch
from alveole.store import Transaction


class FleetWatch(Watch):
    def take(
        self,
        node: str,
        told: IncidentDetail,
        site_of: Callable[[str], str],
        spared: Collection[str],
        now: float,
        *,
        who: str = "",
        driven: Collection[str] = (),
    ) -> None:
        """Have an incident of ``node`` here as it is there now; safe to repeat.

        ``site_of``: the id here of a site there; empty: it is none of this machine. ``spared``: ids of the channels
        that need not be told. ``who``: acted on it from here. ``driven``: the names of all machines driven from
        here; what was over because its machine was none of them goes on under the name that this one has now.
        """
        with self.lock:
            old = self.open.get(told.id) or self.book.get(told.id)
            if old is None and (told.closed_at is not None or self._is_ours(told, site_of)):
                return
            if old is not None and old.node != node:
                if not old.node or old.closed_at is None or old.node in driven:
                    return
                old = msgspec.structs.replace(old, node=node)
            parts = _parts(told, site_of)
            after = self._as_there(old, node, told, site_of, tuple(spared), who)
            over, again = told.closed_at is not None, old is not None and old.closed_at is not None
            with self._store.write() as transaction:
                if old is None:
                    self.book.put(transaction, after)
                if told.evidence is not None:
                    self.book.put_evidence(transaction, told.id, _seen_there(told.evidence, node))
                self.book.put_signals(transaction, told.id, parts.items())
                for each in told.notes[after.copied :]:
                    by = node if each.who == WATCH else f"{each.who} ({node})"
                    self.book.note(transaction, told.id, each.kind, by, each.text, each.at)
                after = msgspec.structs.replace(after, copied=len(told.notes))
                if not over:
                    after = self._tell_of(transaction, after, told, parts, now, fresh=old is None or again)
                elif after.told and not again and not told.part_of:
                    whom = [f"channel:{id}" for id in after.told]
                    after = self._told(transaction, after, Event.CLOSED, whom, parts, now)
                self.book.put(transaction, after)
                hit("incidents.mirrored")
            if over:
                self.open.pop(told.id, None)
                self.parts.pop(told.id, None)
            else:
                self.open[told.id], self.parts[told.id] = after, parts

    def _is_ours(self, told: IncidentDetail, site_of: Callable[[str], str]) -> bool:
        """Whether this machine has told of the same thing by a rule of its own."""
        site = site_of(told.site) if told.site else ""
        return bool(site) and any(
            each.site_id == site and each.cause == told.cause and not each.node and told.cause in self._both_look_at()
            for each in self.open.values()
        )

    def _tell_of(
        self,
        transaction: Transaction,
        incident: Incident,
        told: IncidentDetail,
        parts: Mapping[Key, Signal],
        now: float,
        *,
        fresh: bool,
    ) -> Incident:
        if (
            incident.told_at is None
            and incident.well_at is None
            and not told.silent
            # That a silence of here holds is noted once, and not each time that it is fetched.
            and (fresh or self.silence_of(incident, parts, now) is None)
        ):
            incident = self._tell_new(transaction, incident, parts, told.evidence, now)
        if told.escalated and incident.escalated_at is None and incident.told_at is not None:
            incident = self._told(
                transaction, incident, Event.ESCALATED, incident.escalate_to, parts, now, told.evidence
            )
            incident = msgspec.structs.replace(incident, escalated_at=now)
        return incident

    def _as_there(
        self,
        old: Incident | None,
        node: str,
        told: IncidentDetail,
        site_of: Callable[[str], str],
        spared: tuple[str, ...],
        who: str,
    ) -> Incident:
        site = site_of(told.site) if told.site else ""
        # A site of that machine which is none of this one is what its operators have to look after.
        title = f"{told.site}: {told.title}" if told.site and not site else told.title
        rule = next((self.rules[each.rule] for each in told.signals if each.rule in self.rules), None)
        stored = self._store.sites.get(site)
        if old is None:
            old = Incident(
                id=told.id,
                site_id=site,
                site_name=told.site if site else "",
                owner=stored.site.owner if stored is not None else "",
                cause=told.cause,
                title=title,
                severity=told.severity,
                opened_at=told.opened_at,
                began_at=told.began_at,
                # What is about a site there and none of this machine is of no owner here.
                tell=tuple(each for each in (rule.tell if rule is not None else ()) if site or each != "owner"),
                escalate_to=rule.escalate_to if rule is not None else ("operators",),
                node=node,
            )
        if old.closed_at is not None and told.closed_at is None:
            old = msgspec.structs.replace(old, told_at=None, told=(), escalated_at=None)
        by = old.acknowledged_by
        if told.acknowledged_at is None:
            by = ""
        elif told.acknowledged_at != old.acknowledged_at:
            by = who or f"{told.acknowledged_by} ({node})"
        closed_by = old.closed_by
        if told.closed_at is None or not told.closed_by:
            closed_by = ""
        elif told.closed_at != old.closed_at:
            closed_by = who or f"{told.closed_by} ({node})"
        return msgspec.structs.replace(
            old,
            title=title,
            severity=told.severity,
            acknowledged_at=told.acknowledged_at,
            acknowledged_by=by,
            well_at=told.well_at,
            closed_at=told.closed_at,
            closed_by=closed_by,
            part_of=told.part_of,
            reopened=told.reopened,
            quiet=told.silent,
            spared=spared,
        )


def _parts(told: IncidentDetail, site_of: Callable[[str], str]) -> dict[Key, Signal]:
    found: dict[Key, Signal] = {}
    for each in told.signals:
        site = site_of(each.site) if each.site else ""
        strange = bool(each.site) and not site
        item = f"{each.site} {each.item}".strip() if strange else each.item
        found[(each.rule, site or PLATFORM, item[:200])] = msgspec.structs.replace(
            each,
            site_id=site or PLATFORM,
            site=each.site if site else "",
            item=item,
            text=f"{each.site}: {each.text}" if strange else each.text,
        )
    return found


def _seen_there(evidence: Evidence, node: str) -> Evidence:
    links = tuple(
        each
        if each.machine
        else msgspec.structs.replace(each, machine=node, asked=each.asked.replace("this machine", node))
        for each in evidence.links
    )
    return msgspec.structs.replace(evidence, links=links)
