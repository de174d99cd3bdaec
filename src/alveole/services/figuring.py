"""Figures: gathered every ten seconds, kept in round-robin archives, given as tables."""

from __future__ import annotations

import time

from alveole import views
from alveole.agent.figuring import Figures, TakeFigures
from alveole.errors import InvalidInput
from alveole.figures.archive import SPANS, STEP, Archives
from alveole.figures.gather import Gatherer, Standing
from alveole.figures.machine import Machine
from alveole.model.resource import PromiseState
from alveole.model.site import Wanted
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.core import Core

#: The archive of the machine itself.
MACHINE = "machine"


class FigureVerbs(Core):
    archives: Archives
    _machine: Machine
    _gatherer: Gatherer
    _figures: Figures | None

    def show_figures(
        self, caller: Actor, site: str | None, span: str = "day", *, peaks: bool = False
    ) -> views.FigureView:
        """The figures of a site, or of the machine (``None``), over an hour, day, week, month or year.

        ``peaks`` gives the highest value of each row's time instead of the average, ten minutes a row at least.
        """
        if span not in SPANS:
            raise InvalidInput(f"{span!r} is no span of time", field="span", hint=", ".join(SPANS))
        if site is None:
            self._allow(caller, Right.PLATFORM_LOOK)
            name = key = MACHINE
        else:
            found = self._stored(caller, Right.SITE_LOOK, site).site
            name, key = found.name, found.id
        table = self.archives.read(key, SPANS[span], time.time(), peaks=peaks)
        return views.FigureView(
            name=name, span=span, start=table.start, step=table.step, columns=table.columns, rows=table.rows
        )

    def _keep_figures(self) -> None:
        self.ticker.add("figures", STEP, self._gather_figures, first=STEP)

    def _gather_figures(self) -> None:
        """Ask the agent once, and write a row for each site and for the machine."""
        self._figures = figures = self.agent.call(TakeFigures())
        standing = {}
        for stored in list(self.store.sites.values()):
            look = self.loop.looks.get(stored.site.id)
            promises = look.promises if look is not None else ()
            kept = sum(each.state is PromiseState.KEPT for each in promises)
            up = stored.site.wanted is Wanted.STOPPED or (bool(promises) and kept == len(promises))
            standing[stored.site.id] = Standing(float(up), kept / len(promises) if promises else 1.0)
        rows = self._gatherer.rows(figures, standing)
        if (edge := rows.pop("edge", None)) is not None:
            rows[MACHINE] = self._machine.row(edge)
        problems = self.archives.write(rows, time.time())
        self.archives.remove(self.archives.names() - rows.keys() - {MACHINE})
        if problems:
            raise InvalidInput(f"{len(problems)} rows of figures were not taken: {problems[0][:200]}")
