"""The chain over the journal's rows: none can be changed, removed, put in, moved or cut off unnoticed.

Each write of the journal adds a *link* in the same transaction. A link holds a digest of what was written, and its
hash covers that digest and the hash of the link before it. The agent keeps hashes of the chain in a file that only root
may read (an *anchor*), so that a tail that was cut off and a chain that was made anew show as well.

What is hashed is SHA-256 of a JSON array in UTF-8, without spaces, characters beyond ASCII as they are, numbers with a
fraction as the shortest text that reads back as the same double (Python's ``json.dumps``)::

    hash    [hash before, seq, at, change, kind, events, digest]      before the first: 64 zeros
    begun   ["begun", seq of the row, id, verb, actor, via, actor_key, site_id, site_name, reason, started_at]
    told    ["told", [at, level, resource, text, seconds], …]         one array an event
    ended   ["ended", *the ten fields of begun, state, ended_at, problems, result, [at, level, …], …]
    pruned  ["pruned", note]                                           the note: a JSON object, see :class:`Pruned`

``problems`` and ``result`` are the texts of their columns. ``work`` is no part of it: what a change needs to go on is
dropped when it ends.
"""

# ruff: noqa: S608  statements are made of constants of this file alone; every value is a parameter

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole.agent.anchoring import Anchor
from alveole.model.change import Event
from alveole.views import View

BEGUN, TOLD, ENDED, PRUNED = "begun", "told", "ended", "pruned"
#: What stands in place of the hash before the first link.
ZEROS = "0" * 64
_FIELDS = ("id", "verb", "actor", "via", "actor_key", "site_id", "site_name", "reason", "started_at")
_END_FIELDS = ("state", "ended_at", "problems", "result")
_ROW = ", ".join(("seq", *_FIELDS, *_END_FIELDS))
_EVENT = "at, level, resource, text, seconds"


class Pruned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The note of a link that says what was removed: every link up to ``through``, whose hash was ``hash``."""

    through: int
    hash: str
    changes: int
    newest: float
    """When the last of the removed changes had ended."""


class Broken(View, frozen=True, kw_only=True):
    """The first place where the journal is not what was written."""

    link: int
    change: str
    row: str
    """``changes/<seq>``, ``events of <change>`` or ``links/<seq>``."""
    what: str
    """``changed``, ``removed``, ``inserted``, ``cut`` (its tail is missing) or ``rewritten`` (the whole chain)."""
    text: str


class JournalView(View, frozen=True, kw_only=True):
    """What comparing the journal with its chain and its anchors has found."""

    ok: bool
    links: int
    changes: int
    first_at: float | None
    """When the oldest link was written."""
    head: str
    """Hash of the last link."""
    anchored: int | None
    """The last link that the agent has an anchor of; ``None``: there is no anchor, or the agent did not answer."""
    anchor_problem: str = ""
    pruned: Pruned | None = None
    """What was removed last because it was older than ``journal.keep_seconds``."""
    broken: Broken | None = None


def digest_of(*values: Any) -> str:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def begun(row: Mapping[Any, Any], seq: int) -> str:
    return digest_of(BEGUN, seq, *_values(row, _FIELDS))


def told(events: Sequence[Event]) -> str:
    return digest_of(TOLD, *(_event(each) for each in events))


def ended(row: Mapping[Any, Any], seq: int, events: Sequence[Event]) -> str:
    return digest_of(ENDED, seq, *_values(row, _FIELDS), *_values(row, _END_FIELDS), *(_event(each) for each in events))


def _values(row: Mapping[Any, Any], names: Iterable[str]) -> list[Any]:
    # SQLite gives a whole number in a column of doubles back as one.
    return [float(row[name]) if name.endswith("_at") and row[name] is not None else row[name] for name in names]


def _event(event: Event) -> list[Any]:
    seconds = None if event.seconds is None else float(event.seconds)
    return [float(event.at), event.level, event.resource, event.text, seconds]


def head(connection: sa.Connection) -> tuple[int, str]:
    """Number and hash of the last link; ``(0, ZEROS)`` when there is none."""
    row = connection.exec_driver_sql("SELECT seq, hash FROM links ORDER BY seq DESC LIMIT 1").fetchone()
    return (0, ZEROS) if row is None else (row[0], row[1])


def append(
    connection: sa.Connection, change: str, kind: str, digest: str, *, events: int = 0, note: str = "", at: float = 0.0
) -> None:
    """Add a link, inside of the transaction that writes what it covers. ``events``: how many of the change's next."""
    seq, before = head(connection)
    at = at or time.time()
    link = digest_of(before, seq + 1, at, change, kind, events, digest)
    connection.exec_driver_sql(
        "INSERT INTO links (seq, at, change_id, kind, events, digest, hash, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (seq + 1, at, change, kind, events, digest, link, note),
    )


def chain_all(connection: sa.Connection) -> None:
    """Links for rows that were written before there was a chain, in their order. For the migration."""
    for row in connection.exec_driver_sql(f"SELECT {_ROW} FROM changes ORDER BY seq").mappings().all():
        events = _events(connection, row["id"])
        if row["ended_at"] is not None:
            append(connection, row["id"], ENDED, ended(row, row["seq"], events), events=len(events))
            continue
        append(connection, row["id"], BEGUN, begun(row, row["seq"]))
        if events:
            append(connection, row["id"], TOLD, told(events), events=len(events))


def _events(connection: sa.Connection, change: str) -> list[Event]:
    found = connection.exec_driver_sql(f"SELECT {_EVENT} FROM events WHERE change_id = ? ORDER BY seq", (change,))
    return [Event(row[0], row[3], row[1], row[2], row[4]) for row in found]


# --- comparing ----------------------------------------------------------------------------------
def verify(connection: sa.Connection, anchors: Sequence[Anchor], anchor_problem: str = "") -> JournalView:
    """Compare every row with its link and every link with the one before, and with the agent's ``anchors``."""
    walk = _Walk(connection, anchors)
    broken = walk.broken()
    return JournalView(
        ok=broken is None and not anchor_problem,
        links=walk.count,
        changes=connection.exec_driver_sql("SELECT count(*) FROM changes").scalar_one(),
        first_at=walk.first_at,
        head=walk.before,
        anchored=max((each.seq for each in anchors), default=None),
        anchor_problem=anchor_problem,
        pruned=walk.pruned,
        broken=broken,
    )


class _Walk:
    def __init__(self, connection: sa.Connection, anchors: Sequence[Anchor]) -> None:
        self.connection = connection
        self.anchors = {each.seq: each.hash for each in anchors}
        self.count = 0
        self.seq = 0
        self.before = ZEROS
        self.first_at: float | None = None
        self.pruned = self._last_pruning()
        self._told: dict[str, int] = {}

    def _last_pruning(self) -> Pruned | None:
        row = self.connection.exec_driver_sql(
            "SELECT note FROM links WHERE kind = 'pruned' ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        try:
            return None if row is None else msgspec.json.decode(row[0], type=Pruned)
        except msgspec.DecodeError:
            # Its digest does not fit either: the walk names it.
            return None

    def broken(self) -> Broken | None:
        if self.pruned is not None:
            self.seq, self.before = self.pruned.through, self.pruned.hash
            if self.anchors.get(self.seq, self.before) != self.before:
                return self._rewritten(self.seq)
        for link in self._links():
            if (found := self._link(link)) is not None:
                return found
        return self._cut() or self._unlinked()

    def _links(self) -> Iterator[Any]:
        query = "SELECT seq, at, change_id, kind, events, digest, hash, note FROM links ORDER BY seq"
        result = self.connection.execution_options(stream_results=True).exec_driver_sql(query)
        yield from result.yield_per(500)

    def _link(self, link: Any) -> Broken | None:
        here = f"links/{self.seq + 1}"
        if link.seq != self.seq + 1:
            text = f"after link {self.seq} comes {link.seq}"
            return Broken(link=self.seq + 1, change=link.change_id, row=here, what="removed", text=text)
        made = digest_of(self.before, link.seq, float(link.at), link.change_id, link.kind, link.events, link.digest)
        if made != link.hash:
            text = "it does not fit the link before it: links were changed, or stand in another order"
            return Broken(link=link.seq, change=link.change_id, row=here, what="changed", text=text)
        if self.anchors.get(link.seq, link.hash) != link.hash:
            return self._rewritten(link.seq)
        if (found := self._covered(link)) is not None:
            return found
        self.count += 1
        self.seq, self.before = link.seq, link.hash
        self.first_at = link.at if self.first_at is None else self.first_at
        return None

    def _rewritten(self, seq: int) -> Broken:
        good = max((each for each in self.anchors if each < seq), default=0)
        text = f"the agent's anchor of link {seq} says otherwise: the chain was made anew after link {good}"
        return Broken(link=seq, change="", row=f"links/{seq}", what="rewritten", text=text)

    def _covered(self, link: Any) -> Broken | None:
        """Whether what the link covers is as it was written."""
        change = link.change_id
        if link.kind == PRUNED:
            if digest_of(PRUNED, link.note) == link.digest:
                return None
            text = "what it says of removed rows was changed"
            return Broken(link=link.seq, change="", row=f"links/{link.seq}", what="changed", text=text)
        row = (
            self.connection.exec_driver_sql(f"SELECT {_ROW} FROM changes WHERE id = ?", (change,))
            .mappings()
            .one_or_none()
        )
        if row is None:
            text = f"the row of change {change} is gone"
            return Broken(link=link.seq, change=change, row=f"changes of {change}", what="removed", text=text)
        place = f"changes/{row['seq']}"
        if link.kind == BEGUN:
            if begun(row, row["seq"]) == link.digest:
                return None
            text = f"who, what, why or when of change {change} was changed"
            return Broken(link=link.seq, change=change, row=place, what="changed", text=text)
        first = self._told.get(change, 0)
        own = _events(self.connection, change)
        events = own[first : first + link.events]
        if len(events) < link.events:
            text = f"{link.events - len(events)} events of change {change} are gone"
            return Broken(link=link.seq, change=change, row=f"events of {change}", what="removed", text=text)
        self._told[change] = first + link.events
        good = told(events) if link.kind == TOLD else ended(row, row["seq"], events)
        if good != link.digest:
            text = f"the row of change {change} or its events {first + 1} to {first + link.events} were changed"
            return Broken(link=link.seq, change=change, row=place, what="changed", text=text)
        if link.kind == ENDED:
            del self._told[change]
            if len(own) > first + link.events:
                text = f"change {change} has {len(own) - first - link.events} events that were not written with it"
                return Broken(link=link.seq, change=change, row=f"events of {change}", what="inserted", text=text)
        return None

    def _cut(self) -> Broken | None:
        beyond = sorted(seq for seq in self.anchors if seq > self.seq)
        if not beyond:
            return None
        text = f"it ends with link {self.seq}, and the agent has an anchor of link {beyond[-1]}: the tail was cut off"
        return Broken(link=self.seq + 1, change="", row=f"links/{self.seq + 1}", what="cut", text=text)

    def _unlinked(self) -> Broken | None:
        for query, row, what in (
            ("SELECT id, seq FROM changes WHERE id NOT IN (SELECT change_id FROM links)", "changes/{}", "has no link"),
            (
                "SELECT id, seq FROM changes WHERE ended_at IS NOT NULL AND id NOT IN "
                "(SELECT change_id FROM links WHERE kind = 'ended')",
                "changes/{}",
                "ended without a link",
            ),
            (
                "SELECT change_id, seq FROM events WHERE change_id NOT IN (SELECT change_id FROM links)",
                "events/{}",
                "is of no change",
            ),
        ):
            found = self.connection.exec_driver_sql(f"{query} ORDER BY seq LIMIT 1").fetchone()
            if found is not None:
                place = row.format(found[1])
                text = f"{place} {what}: it was put in"
                return Broken(link=self.seq, change=found[0], row=place, what="inserted", text=text)
        for change, count in self._told.items():
            more = len(_events(self.connection, change)) - count
            if more:
                text = f"change {change} has {more} events that were not written with it"
                return Broken(link=self.seq, change=change, row=f"events of {change}", what="inserted", text=text)
        return None


# --- removing what is old -----------------------------------------------------------------------
_FIRST_KEPT = """
    SELECT min(links.seq) FROM links LEFT JOIN changes ON changes.id = links.change_id
    WHERE links.kind != 'pruned' AND (changes.ended_at IS NULL OR changes.ended_at >= ?)
"""
_FIRST_STRADDLING = """
    SELECT min(first) FROM (
        SELECT min(seq) AS first, max(seq) AS last FROM links WHERE kind != 'pruned' GROUP BY change_id
    ) WHERE first <= ? AND last > ?
"""


_OWN = "(SELECT change_id FROM links WHERE seq <= ? AND kind != 'pruned')"


def prunable(connection: sa.Connection, before: float) -> int:
    """The last link of those at the chain's beginning whose changes ended earlier than ``before``; 0: there is none."""
    last, _hash = head(connection)
    kept = connection.exec_driver_sql(_FIRST_KEPT, (before,)).scalar()
    through = (kept if kept is not None else last + 1) - 1
    # Of no change a part: one that went on for long may have begun among those that are removed.
    while (first := connection.exec_driver_sql(_FIRST_STRADDLING, (through, through)).scalar()) is not None:
        through = first - 1
    found = connection.exec_driver_sql(f"SELECT 1 FROM links WHERE change_id IN {_OWN} LIMIT 1", (through,))
    return through if found.fetchone() is not None else 0


def prune(connection: sa.Connection, before: float, change: str) -> Pruned | None:
    """Remove what is :func:`prunable`; a link of ``change`` says what it was. What is left can be verified: the link
    holds the hash that it goes on from.
    """
    through = prunable(connection, before)
    row = connection.exec_driver_sql("SELECT hash FROM links WHERE seq = ?", (through,)).fetchone()
    found = connection.exec_driver_sql(f"SELECT count(*), max(ended_at) FROM changes WHERE id IN {_OWN}", (through,))
    count, newest = found.one()
    if row is None or not count:
        return None
    pruned = Pruned(through, row[0], count, newest)
    note = msgspec.json.encode(pruned).decode()
    # First, while the last link is there that it goes on from.
    append(connection, change, PRUNED, digest_of(PRUNED, note), note=note)
    for table, column in (("events", "change_id"), ("changes", "id")):
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE {column} IN {_OWN}", (through,))
    connection.exec_driver_sql("DELETE FROM links WHERE seq <= ?", (through,))
    return pruned
