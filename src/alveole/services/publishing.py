"""One comparison of what is wanted in a zone with what was written there, and what it leads to.

What Alvéole has not written it never changes: the conditions of each message say what must be so, and the server checks
them in the transaction of the change.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
import sqlalchemy as sa

from alveole.dns.rfc2136 import Condition, ConditionFailed, Record
from alveole.dns.zone import DnsSettings, WantedName, lines, own_servers
from alveole.errors import Problem
from alveole.journal import RECONCILER, REPAIR

if TYPE_CHECKING:
    from alveole.services.naming import Naming

#: The verb of the journal; it does not hold a site.
PUBLISH = "publish-names"
#: Everything is compared at least so often, whatever the serial number says.
_COMPARE_SECONDS = 3600.0
#: What a server says it has is told so far.
SAID_MOST = 300
#: Names in one message; a message has 65,535 bytes (RFC 1035 §4.2.2), and a name with its records about 200.
_MOST_AT_ONCE = 100
#: Sites that get an entry of their own in the journal in one pass; more share one.
_OWN_ENTRIES = 5
FAMILY = ("A", "AAAA", "CNAME")

Records = dict[str, tuple[str, ...]]
_Some = TypeVar("_Some")


class Row(msgspec.Struct, frozen=True):
    """A name as it was written. ``waiting``: about to be; what is ``meant`` may be in the zone already."""

    name: str
    site_id: str
    ttl: int
    state: Literal["waiting", "published", "theirs", "held"]
    written: Records
    meant: Records
    problem: str = ""
    at: float = 0.0


class Pass:
    """One comparison, and what it leads to."""

    def __init__(self, naming: Naming, dns: DnsSettings) -> None:
        self.naming = naming
        self.dns = dns
        self.zone = naming.updates(dns)
        self.done: dict[str, Row | None] = {}
        self.said: dict[str, dict[str, list[tuple[str, bool]]]] = {PUBLISH: {}, REPAIR: {}}
        """By verb and site, what happened: a sentence, and whether it is a problem."""

    def run(self) -> None:
        naming, rows = self.naming, self.naming.rows
        goal = naming.goal(self.dns)
        serial = self.zone.serial()
        moved = serial != naming.serial or time.monotonic() - naming.compared_at > _COMPARE_SECONDS
        # A site that was set aside because its row is damaged is not gone.
        aside = naming.store.damaged
        gone = [row for name, row in rows.items() if name not in goal and row.site_id not in aside]
        fresh = [want for name, want in goal.items() if differs(rows.get(name), want)]
        new = {want.name for want in fresh}
        try:
            if moved:
                there = [
                    row
                    for row in rows.values()
                    if row.state == "published" and row.name in goal and row.name not in new
                ]
                for row in self.lost(there):
                    self._repair(row, goal[row.name])
                # Who held a name may have let it go.
                fresh += [
                    goal[row.name]
                    for row in rows.values()
                    if row.state in ("held", "theirs") and row.name in goal and row.name not in new
                ]
            self._publish(fresh)
            if moved:
                # Between the two: BIND takes no name server of a zone without an address there.
                self._servers()
            self.remove(gone)
        finally:
            naming.keep(self.done)
            self.tell()
        naming.compared_at = time.monotonic() if moved else naming.compared_at
        # What was written has moved it: compared once more at the next pass, and then it is known.
        naming.serial = serial if not self.done else None

    def _servers(self) -> None:
        hosts = sorted(own_servers(self.dns, self.naming.settings))
        if hosts and self.zone.name_servers(self.dns.ttl, hosts):
            self._say(PUBLISH, "", f"the name servers of {self.zone.zone} are {', '.join(hosts)}")

    # --- publishing -----------------------------------------------------------------------------
    def _publish(self, fresh: Sequence[WantedName]) -> None:
        if not fresh:
            return
        before = self.naming.rows
        meant = {}
        for want in fresh:
            row = before.get(want.name)
            if row is None or row.state not in ("held", "theirs") or row.meant != want.records:
                written = row.written if row is not None else {}
                meant[want.name] = Row(want.name, want.site_id, want.ttl, "waiting", written, want.records)
        # First, so that a control that is killed now knows afterwards that what is there is its own.
        self.naming.keep(meant)
        for some in _portions(fresh):
            edits = [edit for want in some for edit in _edits(want, before.get(want.name))]
            when = [each for want in some for each in _conditions(want, before.get(want.name))]
            try:
                self.zone.change(edits, when)
            except ConditionFailed:
                for want in some:
                    self._publish_one(want, before.get(want.name))
            else:
                for want in some:
                    self._published(want)

    def _publish_one(self, want: WantedName, row: Row | None) -> None:
        written = row.written if row is not None else {}
        exact = _exactly(want.name, want.records)
        try:
            self.zone.change(_edits(want, row), _conditions(want, row))
        except ConditionFailed:
            # Written already before control ended; or ours, and changed by somebody since.
            before = row is not None and row.state == "waiting" and self.zone.holds(exact)
            if before or (written and self._force(want, row)):
                self._published(want)
            elif self.zone.holds(exact):
                self._set(want, "theirs", "the zone has it already, and not from here: it is left as it is")
            else:
                self._held(want, row)
        else:
            self._published(want)

    def _force(self, want: WantedName, row: Row | None) -> bool:
        """Write over what is ours by name and kind, whatever it says by now; beside records of others only."""
        try:
            self.zone.change(_edits(want, row), _conditions(want, row, exact=False))
        except ConditionFailed:
            return False
        return True

    def _published(self, want: WantedName, *, tell: bool = True) -> None:
        self.done[want.name] = Row(want.name, want.site_id, want.ttl, "published", want.records, {}, at=time.time())
        if tell:
            self._say(PUBLISH, want.site_id, f"{want.name}: {', '.join(lines(want.records))}")

    def _held(self, want: WantedName, row: Row | None) -> None:
        there = {kind: values for kind in (*FAMILY, "NS") if (values := self.zone.ask(want.name, kind).values)}
        text = ", ".join(lines(there))[:SAID_MOST] or "other records"
        problem = f"the zone has {text} there, and not from here: nothing was changed"
        known = row is not None and row.state == "held" and row.problem == problem
        self._set(want, "held", problem, row)
        if not known:
            self._say(PUBLISH, want.site_id, f"{want.name}: {problem}", bad=True)

    def _set(self, want: WantedName, state: Literal["theirs", "held"], problem: str, row: Row | None = None) -> None:
        old = self.naming.rows.get(want.name)
        fresh = Row(
            want.name,
            want.site_id,
            want.ttl,
            state,
            row.written if row is not None else {},
            want.records,
            problem,
            time.time(),
        )
        if old is None or msgspec.structs.replace(fresh, at=old.at) != old:
            self.done[want.name] = fresh

    # --- repairing ------------------------------------------------------------------------------
    def lost(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Those of ``rows`` that the zone does not say any more."""
        for some in _portions(rows):
            yield from self._lost_of(some)

    def _lost_of(self, rows: Sequence[Row]) -> Iterator[Row]:
        if self.zone.holds([each for row in rows for each in _exactly(row.name, row.written)]):
            return
        if len(rows) == 1:
            yield rows[0]
            return
        half = len(rows) // 2
        yield from self._lost_of(rows[:half])
        yield from self._lost_of(rows[half:])

    def _repair(self, row: Row, want: WantedName) -> None:
        causes = []
        for kind, values in row.written.items():
            if self.zone.holds([Condition(row.name, kind, values)]):
                continue
            there = () if self.zone.holds([Condition(row.name, kind)]) else self.zone.ask(row.name, kind).values
            causes.append(f"{kind} was changed to {', '.join(there)[:SAID_MOST]}" if there else f"{kind} was removed")
        if self._force(want, row):
            self._published(want, tell=False)
            self._say(REPAIR, want.site_id, f"{row.name}: {' and '.join(causes)}; it is published again")
        else:
            self._held(want, row)

    # --- removing -------------------------------------------------------------------------------
    def remove(self, rows: Sequence[Row]) -> None:
        """Take out what we have written and nobody has changed since."""
        for some in _portions([row for row in rows if row.written or row.state == "waiting"]):
            plain = [row for row in some if row.state == "published"]
            try:
                if plain:
                    self.zone.change(
                        [Record(row.name, kind, 0, ()) for row in plain for kind in row.written],
                        [each for row in plain for each in _exactly(row.name, row.written)],
                    )
                for row in plain:
                    self._removed(row)
                plain_names = {row.name for row in plain}
            except ConditionFailed:
                plain_names = set()
            for row in some:
                if row.name not in plain_names:
                    self._remove_one(row)
        for row in rows:
            self.done.setdefault(row.name, None)

    def _remove_one(self, row: Row) -> None:
        """Kind by kind: what was changed meanwhile is somebody's by now, and stays."""
        for kind in {*row.written, *row.meant} if row.state == "waiting" else row.written:
            for values in filter(None, (row.written.get(kind), row.meant.get(kind))):
                with contextlib.suppress(ConditionFailed):
                    self.zone.change([Record(row.name, kind, 0, ())], [Condition(row.name, kind, values)])
            if not self.zone.holds([Condition(row.name, kind)]):
                there = ", ".join(self.zone.ask(row.name, kind).values)[:SAID_MOST]
                self._say(PUBLISH, row.site_id, f"{row.name}: {kind} {there} was not written here, and stays")
        self._removed(row)

    def _removed(self, row: Row) -> None:
        self.done[row.name] = None
        self._say(PUBLISH, row.site_id, f"{row.name} is removed")

    # --- telling --------------------------------------------------------------------------------
    def _say(self, verb: str, site_id: str, text: str, *, bad: bool = False) -> None:
        self.said[verb].setdefault(site_id, []).append((text, bad))

    def tell(self) -> None:
        """Journal what happened: for each site, or, of many, in one entry."""
        for verb, by_site in self.said.items():
            groups = list(by_site.items())
            if len(groups) > _OWN_ENTRIES:
                groups = [("", [each for _site, some in groups for each in some])]
            for site_id, some in groups:
                stored = self.naming.store.sites.get(site_id)
                reason = "; ".join(text for text, _bad in some[:3]) + (
                    f"; {len(some) - 3} more" if len(some) > 3 else ""
                )
                live = self.naming.journal.begin(
                    verb, RECONCILER, site=stored.site if stored else None, reason=reason[:500]
                )
                for text, bad in some:
                    live.say(text, level="error" if bad else "info")
                self.naming.journal.end(live, [Problem("dns", text, "alveole dns show") for text, bad in some if bad])
            by_site.clear()


def differs(row: Row | None, want: WantedName) -> bool:
    if row is None or row.state == "waiting" or row.site_id != want.site_id:
        return True
    if row.state == "published":
        return row.written != want.records or row.ttl != want.ttl
    return row.meant != want.records


def _edits(want: WantedName, row: Row | None) -> list[Record]:
    written = row.written if row is not None else {}
    gone = [Record(want.name, kind, 0, ()) for kind in written if kind not in want.records]
    return [*gone, *(Record(want.name, kind, want.ttl, values) for kind, values in want.records.items())]


def _conditions(want: WantedName, row: Row | None, *, exact: bool = True) -> list[Condition]:
    """What must be so, or somebody else's record would be written over or beside an alias."""
    if want.ours:
        return []
    written = row.written if row is not None else {}
    if not written and "CNAME" in want.records:
        return [Condition(want.name)]
    found = []
    for kind in sorted({*FAMILY, *want.records}):
        if kind in written:
            found += [Condition(want.name, kind, written[kind])] if exact else []
        elif kind in want.records or kind == "CNAME" or "CNAME" in want.records:
            found.append(Condition(want.name, kind))
    return found


def _exactly(name: str, records: Records) -> list[Condition]:
    return [Condition(name, kind, values) for kind, values in records.items()]


def _portions(many: Sequence[_Some]) -> Iterator[Sequence[_Some]]:
    for start in range(0, len(many), _MOST_AT_ONCE):
        yield many[start : start + _MOST_AT_ONCE]


def row_of(row: sa.Row[tuple[object, ...]]) -> Row:
    values = {str(field): value for field, value in row._mapping.items()}
    for field in ("written", "meant"):
        values[field] = msgspec.json.decode(values[field], type=Records)
    return msgspec.convert(values, Row)


def values_of(row: Row) -> dict[str, object]:
    values = msgspec.structs.asdict(row)
    return {**values, **{field: msgspec.json.encode(values[field]).decode() for field in ("written", "meant")}}
