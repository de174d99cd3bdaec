"""Figures: gathered every ten seconds, kept in round-robin archives, given as tables and as metrics."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import TypeVar

from alveole.agent.figuring import Figures, TakeFigures
from alveole.errors import AlveoleError, InvalidInput, NotFound, Temporary
from alveole.figures.archive import INTERFACE, MACHINE, SPANS, STEP, Archives, Table, columns_of, thinned
from alveole.figures.gather import Gatherer, Standing
from alveole.figures.machine import Carried, Machine
from alveole.incidents.book import Incident
from alveole.incidents.mirror import FleetWatch
from alveole.incidents.model import PLATFORM, Severity
from alveole.loop.compile import hosts
from alveole.model.resource import PromiseState
from alveole.model.site import Site, Wanted
from alveole.people.model import NOBODYS, Actor
from alveole.people.rights import Right, may
from alveole.policy.sleeping import is_asleep
from alveole.services.core import Core
from alveole.services.farfigures import FarFigures
from alveole.views import figures as shown

Told = TypeVar("Told")
_POINTS_MAX = 1500
#: For a total over a span, of many sites at once: rows as coarse as they are kept.
_TOTALS = {"hour": 600, "day": 600, "week": 3600, "month": 86_400, "year": 86_400}


class FigureVerbs(Core):
    archives: Archives
    watch: FleetWatch
    _machine: Machine
    _gatherer: Gatherer
    _figures: Figures | None
    _standing: Mapping[str, Standing]
    _latest: Mapping[str, list[float | None]]
    _links: Mapping[str, Carried]
    _figures_away: bool
    _gathering: threading.Lock
    far: FarFigures

    @abstractmethod
    def _asked_there(self, caller: Actor, right: Right, site: str, path: str, kind: type[Told]) -> Told | None:
        """A document about a site from where it lives; ``None`` for one of this machine."""

    # --- looking ------------------------------------------------------------------------------
    def show_figures(
        self, caller: Actor, site: str | None, span: str = "day", *, peaks: bool = False, points: int = 0
    ) -> shown.FigureView:
        """The figures of a site, or of the machine (``None``), over an hour, day, week, month or year.

        ``peaks`` gives the highest value of each row's time instead of the average, ten minutes a row at least.
        ``points``: so many rows at most, several made one; 0: as finely as they are kept.
        """
        _check(span, points)
        if site is None:
            self._allow(caller, Right.PLATFORM_LOOK)
            name = key = MACHINE
        else:
            path = f"/figures?span={span}&peaks={str(peaks).lower()}&points={points}"
            if (there := self._asked_there(caller, Right.SITE_LOOK, site, path, shown.FigureView)) is not None:
                return there
            found = self._stored(caller, Right.SITE_LOOK, site).site
            name, key = found.name, found.id
        table = self.archives.read(key, SPANS[span], time.time(), peaks=peaks)
        return _view(name, span, thinned(table, points, peaks=peaks) if points else table)

    def show_interface(
        self, caller: Actor, interface: str, span: str = "day", *, peaks: bool = False, points: int = 0
    ) -> shown.FigureView:
        """What an interface of the machine carried. Raises ``NotFound`` for one of which nothing is known."""
        _check(span, points)
        self._allow(caller, Right.PLATFORM_LOOK)
        if interface not in self.list_interfaces(caller).interfaces:
            raise NotFound(f"there are no figures of {interface[:40]!r}", field="interface")
        table = self.archives.read(INTERFACE + interface, SPANS[span], time.time(), peaks=peaks)
        return _view(interface, span, thinned(table, points, peaks=peaks) if points else table)

    def list_interfaces(self, caller: Actor) -> shown.InterfaceList:
        """Those of which there are figures."""
        self._allow(caller, Right.PLATFORM_LOOK)
        known = {name.removeprefix(INTERFACE) for name in self.archives.names() if name.startswith(INTERFACE)}
        return shown.InterfaceList(interfaces=tuple(sorted(known | set(self._links))))

    def list_traffic(self, caller: Actor, span: str = "day") -> tuple[shown.TrafficView, ...]:
        """What each site that ``caller`` may look at was asked and has sent over a span; most bytes first."""
        _check(span, 0)
        self._allow(caller, Right.SITE_LIST)
        sites = {stored.site.id: stored.site.name for stored in self._visible(caller)}
        step = _TOTALS[span]
        end = int(time.time()) // step * step
        tables = self.archives.several(list(sites), end - SPANS[span], end, step)
        found = [_traffic(sites[id], table) for id, table in tables.items()]
        return tuple(sorted(found, key=lambda each: (-each.in_bytes - each.out_bytes, each.site)))

    def wall(self, caller: Actor) -> shown.WallView:
        """What a screen on the wall shows: the machine and its sites now, those that are not well by name."""
        self._allow(caller, Right.METRICS_LOOK)
        machine = dict(zip(columns_of(MACHINE), self._latest.get(MACHINE, ()), strict=False))
        every = sorted((stored.site for stored in self.store.sites.values()), key=lambda site: site.name)
        # What this machine alone sees of one elsewhere, its names, says nothing of whether it runs.
        sites = [site for site in every if not site.node]
        standing = {site.id: self._standing.get(site.id) for site in sites}
        bad = [site.name for site in sites if (how := standing[site.id]) is not None and how.up == 0]
        well = {id for id, how in standing.items() if how is not None and how.up == 1}
        asleep = sum(1 for site in sites if site.id in well and is_asleep(site))
        span = "day"
        table = self.archives.read(MACHINE, SPANS[span], time.time())
        if not any(value is not None for row in table.rows for value in row):
            # A day has rows of a minute: the first minutes of a new machine are only among the fine ones.
            span = "hour"
            table = self.archives.read(MACHINE, SPANS[span], time.time())
        nodes = self._elsewhere_now(every)
        reached = [each for each in nodes if each.reached]
        return shown.WallView(
            at=time.time(),
            sites=len(every),
            running=len(well) - asleep + sum(each.running for each in reached),
            asleep=asleep + sum(each.asleep for each in reached),
            stopped=sum(1 for site in every if site.wanted is Wanted.STOPPED),
            broken=tuple(sorted((*bad, *(name for each in reached for name in each.broken)))),
            incidents=self._open_incidents(caller),
            agent=not self._figures_away,
            now=machine,
            day=_view(MACHINE, span, thinned(table, 240)),
            nodes=nodes,
        )

    def _open_incidents(self, caller: Actor) -> tuple[shown.WallIncident, ...]:
        """Of what ``caller`` may not look at there is but its line: a screen's token may look at figures alone."""
        found = [each for each in list(self.watch.open.values()) if each.severity is not Severity.INFO]
        found.sort(key=lambda each: (each.severity is not Severity.CRITICAL, -each.opened_at))
        return tuple(
            shown.WallIncident(site=each.site_name, title=each.whole_title, severity=str(each.severity))
            if self._may_read(caller, each)
            else shown.WallIncident(site="", title="", severity=str(each.severity))
            for each in found
        )

    def _may_read(self, caller: Actor, incident: Incident) -> bool:
        held = self.people.held_by_id(incident.site_id, incident.owner) if incident.site_id != PLATFORM else NOBODYS
        return may(caller, Right.INCIDENT_LOOK, held)

    def _elsewhere_now(self, sites: Collection[Site]) -> tuple[shown.FarStanding, ...]:
        """How the sites on other machines stand; of one that is away nothing is counted, and it is named."""
        by_node: dict[str, list[Site]] = {}
        for each in sites:
            if each.node:
                by_node.setdefault(each.node, []).append(each)
        cut = {id for id, how in self._standing.items() if how.up == 0}
        return tuple(self.far.standing(node, there, cut) for node, there in sorted(by_node.items()))

    def metrics(self, caller: Actor) -> str:
        """Everything that is counted, in OpenMetrics 1.0: of all sites, so only for who may look at all of them."""
        from alveole.figures import openmetrics

        self._allow(caller, Right.METRICS_LOOK)
        names = {stored.site.id: stored.site.name for stored in self.store.sites.values()}
        machine = dict(zip(columns_of(MACHINE), self._latest.get(MACHINE, ()), strict=False))
        figures = None if self._figures_away else self._figures
        asleep = {id for id, stored in self.store.sites.items() if is_asleep(stored.site)}
        capacity = self.addressing.capacity()
        return openmetrics.render(names, figures, self._standing, machine, self._links, capacity, asleep)

    # --- gathering ----------------------------------------------------------------------------
    def _keep_figures(self) -> None:
        self.ticker.add("figures", STEP, self._gather_figures, first=STEP)

    def close_figures(self) -> None:
        """Write what waits; for the end of control."""
        try:
            self.archives.flush()
        except AlveoleError:
            # It is a minute at most, and the next start says what is wrong with rrdtool.
            return

    def _gather_figures(self) -> None:
        """Ask the agent once, and keep a row for each site, for the machine and for each of its interfaces."""
        with self._gathering:
            try:
                figures = self.agent.call(TakeFigures())
            except Temporary:
                # Nothing is written: a gap, until it is back. Only the first look says so.
                if not self._figures_away:
                    self._figures_away = True
                    raise
                return
            self._figures, self._figures_away = figures, False
            by_number, links = self._machine.carried()
            stored = list(self.store.sites.values())
            failing = self.checks.failing_sites()
            standing = {each.site.id: self._how(each.site, failing, by_number.get(each.site.number)) for each in stored}
            rows = self._gatherer.rows(figures, standing)
            if (edge := rows.pop("edge", None)) is not None:
                rows[MACHINE] = self._machine.row(edge, self._counted(figures, [each.site for each in stored]))
            for name, row in self._machine.interfaces(links).items():
                rows[INTERFACE + name] = row
            self._standing, self._latest, self._links = standing, rows, links
            problems = self.archives.keep(rows, time.time())
            gone = {name for name in self.archives.names() - rows.keys() if not name.startswith((MACHINE, INTERFACE))}
            self.archives.remove(gone)
        if problems:
            raise InvalidInput(f"{len(problems)} rows of figures were not taken: {problems[0][:200]}")

    def _how(self, site: Site, failing: Collection[str], carried: tuple[int, int] | None) -> Standing:
        look = self.loop.looks.get(site.id)
        promises = look.promises if look is not None else ()
        if site.wanted is Wanted.STOPPED or not promises:
            return Standing(None, None, carried)
        kept = sum(each.state is PromiseState.KEPT for each in promises)
        up = kept == len(promises) and site.id not in failing
        return Standing(float(up), kept / len(promises), carried)

    def _counted(self, figures: Figures, sites: list[Site]) -> dict[str, float]:
        used = len(sites) + len(self.apps.apps)
        return {
            "addresses_used": used,
            "addresses_left": self.addressing.capacity() - used,
            "certificates": sum(len(hosts(site, self.settings)) for site in sites),
            "sites": len(sites),
            "running": sum(1 for each in figures.sites.values() if each.running),
        }


def _check(span: str, points: int) -> None:
    if span not in SPANS:
        raise InvalidInput(f"{span!r} is no span of time", field="span", hint=", ".join(SPANS))
    if not 0 <= points <= _POINTS_MAX:
        raise InvalidInput(f"{points} is outside 0..{_POINTS_MAX}", field="points")


def _view(name: str, span: str, table: Table) -> shown.FigureView:
    return shown.FigureView(
        name=name, span=span, start=table.start, step=table.step, columns=table.columns, rows=table.rows
    )


def _traffic(site: str, table: Table) -> shown.TrafficView:
    def total(*names: str) -> float:
        places = [table.columns.index(name) for name in names]
        return sum(row[place] or 0.0 for row in table.rows for place in places) * table.step

    return shown.TrafficView(
        site=site,
        requests=round(total("ok", "moved", "refused", "failed")),
        in_bytes=round(total("in4", "in6")),
        out_bytes=round(total("out4", "out6")),
        in6_bytes=round(total("in6")),
        out6_bytes=round(total("out6")),
        net_in_bytes=round(total("net_in")),
        net_out_bytes=round(total("net_out")),
    )
