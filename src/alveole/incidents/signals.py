"""PURE. From rules and readings to what is bad, since when, and whether for long enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from alveole.incidents import rules
from alveole.incidents.model import PLATFORM, Figure, Reading, Rule
from alveole.scenarios.model import seconds

#: Rule, subject, item.
Key = tuple[str, str, str]


class Compiled(msgspec.Struct, frozen=True):
    """A rule as the round needs it; lengths in seconds."""

    name: str
    rule: Rule
    bad: Callable[[float | str], bool]
    hold: float
    well: float
    escalate: float
    cause: str
    condition: str


def compiled(name: str, rule: Rule, figure: Figure | None) -> Compiled:
    return Compiled(
        name,
        rule,
        rules.test(rule),
        seconds(rule.hold),
        seconds(rule.well),
        seconds(rule.escalate) if rule.escalate != "" else 0.0,
        rule.cause or name,
        rules.condition(rule, figure),
    )


class Bad(msgspec.Struct, frozen=True):
    """Something that a rule calls bad. ``since``: since when, as far as is known."""

    rule: Compiled
    subject: str
    item: str
    text: str
    since: float

    @property
    def key(self) -> Key:
        return (self.rule.name, self.subject, self.item)


class Promised(msgspec.Struct):
    """Of one promise: the sites of which it is known, and those where it is broken, with what is wrong."""

    known: set[str]
    broken: dict[str, str]


class Seen(msgspec.Struct, frozen=True):
    firing: dict[Key, Bad]
    """Bad for as long as the rule asks for."""
    waiting: dict[Key, Bad]
    """Bad, and not yet for so long."""
    unknown: frozenset[Key]
    blind: frozenset[str]
    """Rules whose figure is not known."""
    promised: dict[str, Promised]

    def is_well(self, key: Key) -> bool:
        """Whether what was bad is so no more. *Unknown is not well.*"""
        rule, subject, _item = key
        seen = key in self.firing or key in self.waiting or key in self.unknown
        # Not known of the whole subject: not known of any item of it.
        return not (seen or rule in self.blind or (rule, subject, "") in self.unknown)


class Signals:
    """Remembers since when each thing has been bad: the one thing that a round needs of the one before."""

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}

    def look(
        self,
        wanted: Sequence[Compiled],
        readings: Mapping[str, Sequence[Reading]],
        names: Mapping[str, str],
        now: float,
    ) -> Seen:
        """``names``: of every site by its id. What is said of no site of these is passed over."""
        seen = Seen({}, {}, frozenset(), frozenset(each.name for each in wanted if each.rule.on not in readings), {})
        unknown: set[Key] = set()
        since: dict[Key, float] = {}
        for each in wanted:
            self._rule(each, readings.get(each.rule.on, ()), names, now, seen, unknown, since)
        # What cannot be seen now goes on from where it was.
        since.update(
            (key, at)
            for key, at in self._since.items()
            if key not in since and (key in unknown or key[0] in seen.blind or (key[0], key[1], "") in unknown)
        )
        self._since = since
        return msgspec.structs.replace(seen, unknown=frozenset(unknown))

    def _rule(
        self,
        each: Compiled,
        found: Sequence[Reading],
        names: Mapping[str, str],
        now: float,
        seen: Seen,
        unknown: set[Key],
        since: dict[Key, float],
    ) -> None:
        rule, is_bad = each.rule, each.bad
        kept = seen.promised.setdefault(rule.promise, Promised(set(), {})) if rule.promise else None
        for reading in found:
            subject, value = reading.subject, reading.value
            if subject != PLATFORM and subject not in names:
                continue
            if (rule.sites and not rules.fits(rule.sites, names.get(subject, ""))) or (
                rule.items and not rules.fits(rule.items, reading.item)
            ):
                continue
            if value is None:
                unknown.add((each.name, subject, reading.item))
                continue
            if kept is not None:
                kept.known.add(subject)
            if not is_bad(value):
                continue
            key = (each.name, subject, reading.item)
            began = min(self._since.get(key, now), reading.since or now)
            since[key] = began
            text = reading.text or f"{each.rule.on} is {_shown(value)}"
            bad = Bad(each, subject, reading.item, text[:500], began)
            (seen.firing if now - began >= each.hold else seen.waiting)[key] = bad
            if kept is not None and subject not in kept.broken:
                kept.broken[subject] = bad.text


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
