"""PURE. Figures and readings, rules, incidents and silences; the documents and requests about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from alveole.requests import Body
from alveole.views import View

#: The subject of a reading that is about the machine and what all sites share.
PLATFORM = ""


class About(StrEnum):
    SITE = "site"
    PLATFORM = "platform"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


# --- what is measured -----------------------------------------------------------------------------
class Figure(View, frozen=True, kw_only=True):
    """Something that is measured of each site, or of the platform.

    ``words``: the values it may have; none: it is a number, in ``unit``. ``named``: there is a value of it for each of
    the ``items`` that a rule names.
    """

    name: str
    title: str
    about: About
    unit: str = ""
    words: tuple[str, ...] = ()
    named: bool = False


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One value of a figure. ``subject``: a site's id, or :data:`PLATFORM`. ``item``: of several that one subject has
    (a promise, a check). ``value`` ``None``: it is not known now, which opens nothing and closes nothing. What has no
    reading at all is well. ``since``: since when it is so, where the source knows."""

    subject: str
    value: float | str | None
    item: str = ""
    text: str = ""
    since: float = 0.0


class ReadingSource(msgspec.Struct, frozen=True):
    """Where readings come from. ``read`` gives the readings of each of ``figures``; a figure that it leaves out is not
    known. Called at most once in ``every`` seconds, from one thread; what was read last counts in between."""

    figures: tuple[Figure, ...]
    read: Callable[[], Mapping[str, Sequence[Reading]]]
    every: float = 0.0


# --- rules ----------------------------------------------------------------------------------------
class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """When an incident is opened, who is told, and when it is over. The words are those of its text."""

    on: str
    """The figure."""
    title: str = ""
    above: float | None = None
    below: float | None = None
    words: tuple[str, ...] = msgspec.field(default=(), name="is")
    """Bad while the figure is one of these words."""
    items: tuple[str, ...] = ()
    """Only items that fit one of these patterns (``*`` for anything); ``!`` before one: not those."""
    sites: tuple[str, ...] = ()
    """Only sites whose name fits one of these patterns."""
    hold: str | float = msgspec.field(default="0s", name="for")
    """How long it must be bad until an incident is opened."""
    well: str | float = "2m"
    """How long it must be well until the incident closes by itself."""
    severity: Severity = Severity.WARNING
    cause: str = ""
    """What belongs together: the rules of one cause open one incident a site. Empty: the rule's own name."""
    covers: tuple[str, ...] = ()
    """Causes of sites that are part of this incident of the platform while it is open."""
    promise: str = ""
    """The promise to each site that is broken while this is bad."""
    tell: tuple[str, ...] = ()
    """``owner``, ``operators``, ``administrators``, a person, ``team:NAME``. Empty: the owner of a site (the operators
    where that is nobody), the operators for the platform."""
    escalate: str | float = ""
    """After how long without anybody acknowledging ``escalate_to`` is told too; empty: never."""
    escalate_to: tuple[str, ...] = ("operators",)
    enabled: bool = True


class RuleView(View, frozen=True, kw_only=True):
    name: str
    built_in: bool
    changed: bool
    """A built-in rule that somebody has given other values."""
    text: str
    """In the grammar of rules."""
    on: str
    title: str
    condition: str
    """Like ``above 90 %``."""
    severity: Severity
    cause: str
    promise: str
    enabled: bool
    open: int = 0
    """Incidents that it has a part in now."""


class RuleText(Body, frozen=True, kw_only=True):
    """``fresh``: refused when there is one of this name."""

    text: str
    fresh: bool = False


class RuleChanges(Body, frozen=True, kw_only=True):
    """Words of the grammar with their new values; ``null`` takes one away."""

    changes: dict[str, str | float | bool | list[str] | None]


class TryRule(Body, frozen=True, kw_only=True):
    """The name of a rule, or a text that is not kept."""

    name: str = ""
    text: str = ""


class Tried(View, frozen=True, kw_only=True):
    """One reading that a rule looks at, and what the rule makes of it."""

    site: str
    item: str
    value: float | str | None
    bad: bool
    text: str
    since: float | None


# --- incidents ------------------------------------------------------------------------------------
class IncidentState(StrEnum):
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


class Signal(View, frozen=True, kw_only=True):
    """One thing that is bad, as a part of an incident."""

    rule: str
    site: str
    """Its name; empty: the platform."""
    site_id: str
    item: str
    text: str
    since: float
    cleared_at: float | None = None
    times: int = 1
    """How often it came while the incident was open."""


class Note(View, frozen=True, kw_only=True):
    """One line of an incident's history."""

    at: float
    kind: str
    """``opened``, ``joined``, ``well``, ``told``, ``silent``, ``acknowledged``, ``comment``, ``action``, ``escalated``,
    ``closed``, ``reopened``."""
    who: str
    text: str
    site: str = ""


class EvidenceLink(View, frozen=True, kw_only=True):
    name: str
    ok: bool
    asked: str
    came: str
    cure: str = ""
    machine: str = ""
    """The node that it was tried on; empty: this machine."""


class Before(View, frozen=True, kw_only=True):
    """A change that ended, or went on, just before."""

    change: str
    verb: str
    actor: str
    state: str
    at: float
    reason: str = ""


class Evidence(View, frozen=True, kw_only=True):
    """What ``why`` (of a site) or ``doctor`` (of the platform) said when the incident was opened."""

    at: float = 0.0
    broken: str = ""
    links: tuple[EvidenceLink, ...] = ()
    waiting: tuple[str, ...] = ()
    before: tuple[Before, ...] = ()
    """The last changes, newest first."""
    problem: str = ""
    """Why it could not be asked."""


class IncidentView(View, frozen=True, kw_only=True):
    id: str
    title: str
    severity: Severity
    state: IncidentState
    cause: str
    site: str
    """Empty: the platform."""
    sites: tuple[str, ...] = ()
    """Of an incident of the platform the sites that are part of it."""
    began_at: float
    """Since when it is broken."""
    opened_at: float
    acknowledged_at: float | None = None
    acknowledged_by: str = ""
    well_at: float | None = None
    """Since when nothing of it is bad any more."""
    closed_at: float | None = None
    closed_by: str = ""
    part_of: str = ""
    """The incident that this one turned out to be a part of."""
    reopened: int = 0
    silent: bool = False
    """Nobody was told of it so far."""
    escalated: bool = False
    node: str = ""
    """The server whose incident it is; empty: this machine's."""
    seen_at: float | None = None
    """When that server was heard last, while it is away."""


class IncidentDetail(IncidentView, frozen=True, kw_only=True):
    signals: tuple[Signal, ...]
    notes: tuple[Note, ...]
    evidence: Evidence | None
    told_to: tuple[str, ...] = ()
    """Where it was told, as digests; only for who sees all of the platform. Whoever tells of it too spares these."""


class IncidentReport(View, frozen=True, kw_only=True):
    """What is to be learnt from an incident. Times in seconds; ``None``: not yet, or never."""

    incident: IncidentDetail
    to_acknowledge: float | None
    """From opening to the first acknowledgement."""
    to_repair: float | None
    """From when it broke until nothing was bad any more."""
    lasted: float | None
    """From when it broke until it was closed."""
    comments: tuple[Note, ...]
    actions: tuple[Note, ...]
    """What was done so that it does not come again."""


class Said(Body, frozen=True, kw_only=True):
    text: str = ""


# --- silences -------------------------------------------------------------------------------------
class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """``site`` (an id) and ``rule``: empty for all. Once from ``begins_at`` to ``ends_at``, or each week on ``days``
    (0: Monday) from ``minute`` of the day for ``seconds``, by the clock of the machine."""

    id: str
    site: str = ""
    rule: str = ""
    begins_at: float = 0.0
    ends_at: float = 0.0
    days: tuple[int, ...] = ()
    minute: int = 0
    seconds: float = 0.0
    who: str = ""
    why: str = ""
    created_at: float = 0.0


class SilenceView(View, frozen=True, kw_only=True):
    id: str
    site: str
    rule: str
    begins_at: float | None
    ends_at: float | None
    weekly: str
    """Like ``mon tue 22:00 for 2h``; empty: once."""
    active: bool
    who: str
    why: str
    created_at: float


class AddSilence(Body, frozen=True, kw_only=True):
    """``weekly``: like ``mon,tue 22:00``; empty: once, from ``begins_at`` (now) on. ``length``: like ``2h``."""

    why: str
    length: str | float
    rule: str = ""
    begins_at: float | None = None
    weekly: str = ""


# --- promises -------------------------------------------------------------------------------------
class PromiseLine(View, frozen=True, kw_only=True):
    """How one promise to a site stands."""

    promise: str
    state: str
    """``kept``, ``broken``, or ``unknown`` (not measured, or the site is stopped)."""
    since: float | None
    kept_share: float | None
    """Of what is known of the last 30 days, from 0 to 1."""
    known_seconds: float
    """How much of these 30 days is known."""
    levels: tuple[str, ...]
    """What is promised, in words, by rule."""
    text: str = ""
    """What is wrong."""
    broken_by: Before | None = None
    """The last change before it broke."""
    times_broken: int = 0


class PromisesView(View, frozen=True, kw_only=True):
    site: str
    promises: tuple[PromiseLine, ...]
