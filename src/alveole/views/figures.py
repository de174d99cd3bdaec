"""Documents of figures: tables over time, traffic, the wall, quality by month, what a month's report says."""

from __future__ import annotations

from typing import Literal

from alveole.views import View


class FigureView(View, frozen=True, kw_only=True):
    """Figures of ``name`` over ``span``: a row every ``step`` seconds from ``start`` (epoch).

    What the columns mean is said at ``COLUMNS``, ``MACHINE_COLUMNS`` and ``INTERFACE_COLUMNS`` of
    :mod:`alveole.figures.archive`; ``None`` is not known.
    """

    name: str
    span: str
    start: int
    step: int
    columns: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]


class TrafficView(View, frozen=True, kw_only=True):
    """What the proxy brought to a site and sent for it over a span, and what the site's own interface carried.

    ``in6_bytes`` and ``out6_bytes`` are the part of ``in_bytes`` and ``out_bytes`` that went over IPv6.
    """

    site: str
    requests: int
    in_bytes: int
    out_bytes: int
    in6_bytes: int
    out6_bytes: int
    net_in_bytes: int
    net_out_bytes: int


class WallIncident(View, frozen=True, kw_only=True):
    """Something that is broken; ``site`` is empty for the platform, ``title`` too for who may not look at it."""

    site: str
    title: str
    severity: str


class FarStanding(View, frozen=True, kw_only=True):
    """How the sites stand that live on a server, as that said at ``seen_at``; ``None``: it said nothing so far."""

    node: str
    reached: bool
    seen_at: float | None
    sites: int
    running: int
    asleep: int
    broken: tuple[str, ...]


class WallView(View, frozen=True, kw_only=True):
    """The platform at a glance. ``now``: the newest row of the machine, by the names of its columns.

    ``day`` holds the last hour instead while nothing older is known.
    """

    at: float
    sites: int
    running: int
    """With an instance, and as they should be."""
    asleep: int
    """Well, and without one until somebody asks for them."""
    stopped: int
    broken: tuple[str, ...]
    """Sites that are not as wanted."""
    incidents: tuple[WallIncident, ...] = ()
    """What is open, the gravest and newest first; nothing that is only told for information."""
    agent: bool
    now: dict[str, float | None]
    day: FigureView
    nodes: tuple[FarStanding, ...] = ()
    """The servers on which sites of this machine live; what is on one that is not reached counts nowhere else."""


class QualityView(View, frozen=True, kw_only=True):
    """How good a site was in a month (UTC). ``None`` where nothing is known.

    ``availability``: the share of the looks, one every ten seconds while it was asked to run, at which it kept all its
    promises and none of the checks that watch it had failed last. ``answered``: the share of its requests that did not
    end with 5xx. Times are means over the rows of the month, weighted by their requests, in milliseconds. ``known``: of
    which share of the month so far there are figures.
    """

    site: str
    month: str
    known: float
    availability: float | None
    requests: int
    failed: int
    answered: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    promises_kept: float | None
    deploys: int
    deploys_failed: int
    rollbacks: int
    node: str = ""
    """The server that the site lives on, and whose figures these are; empty: this machine."""
    seen_at: float | None = None
    """When that server said so, while it is away."""


class ForecastView(View, frozen=True, kw_only=True):
    """When something runs out, with what the answer stands on.

    A straight line through one value a day (least squares) of ``days`` days from ``first_at`` to ``last_at``. ``slope``
    is in units a day, ``slope_low`` and ``slope_high`` its 95 % interval, ``fit`` how well it fits (R²).
    ``verdict``: ``runs-out``, ``steady`` (the interval holds zero), ``falls``, ``too-little`` (less than seven days)
    or ``no-limit``. ``end_at`` is when the line meets ``limit``, ``end_early`` and ``end_late`` by the ends of the
    interval; epoch seconds, ``None`` for never or beyond ten years.
    """

    what: Literal["disk", "memory", "addresses", "certificates"]
    unit: Literal["bytes", "count"]
    limit: float | None
    now: float | None
    days: int
    first_at: int | None = None
    last_at: int | None = None
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    fit: float | None = None
    verdict: Literal["runs-out", "steady", "falls", "too-little", "no-limit"] = "too-little"
    end_at: float | None = None
    end_early: float | None = None
    end_late: float | None = None


class MachineMonth(View, frozen=True, kw_only=True):
    """Means and the highest hour of the machine in a month; sums of what was asked and sent."""

    known: float
    cpu: float | None
    cpu_peak: float | None
    cpus: float | None
    memory: float | None
    memory_peak: float | None
    memory_all: float | None
    disk: float | None
    disk_all: float | None
    requests: int
    failed: int
    in_bytes: int
    out_bytes: int


class ReportView(View, frozen=True, kw_only=True):
    """A month of the platform. ``whole``: the month was over when it was made; such a report is kept."""

    month: str
    made_at: float
    whole: bool
    domain: str
    machine: MachineMonth
    sites: tuple[QualityView, ...]
    growth: tuple[ForecastView, ...]


class ReportList(View, frozen=True, kw_only=True):
    """Months of which a report is kept, newest first."""

    months: tuple[str, ...]


class InterfaceList(View, frozen=True, kw_only=True):
    """Interfaces of the machine of which there are figures, by name."""

    interfaces: tuple[str, ...]
