"""What visitors get, measured for the rules: the share of answers that failed, and how long half of them and the slow
ones took. Of a site whose database hangs few wait for the failure, so it is the half that tells.

Over the last five minutes, from the counts of the proxy that the figures bring along every ten seconds. A site that
hardly anybody asks has no share: one failure of three says little. While a site sleeps only those are answered that do
not wake it, with a 503 that is no failure; its window begins anew when it is awake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from alveole.agent.figuring import Figures, Served
from alveole.figures.gather import percentile
from alveole.incidents.model import About, Figure, Reading, ReadingSource
from alveole.incidents.readings import Found
from alveole.store import Store

_EVERY = 30.0
#: Looks that are kept: five minutes.
_LOOKS = 11
#: Answers within the window below which nothing is said of them.
LEAST = 20
_HALF, _SLOW = 0.5, 0.95

FIGURES = (
    Figure(
        name="site.failed-share",
        title="Answers that failed (5xx), of the last five minutes'",
        about=About.SITE,
        unit="%",
    ),
    Figure(
        name="site.answer-ms", title="95 of 100 answers of the last five minutes took less", about=About.SITE, unit="ms"
    ),
    Figure(
        name="site.answer-half-ms",
        title="Half of the answers of the last five minutes took less",
        about=About.SITE,
        unit="ms",
    ),
)


class Counted(Protocol):
    store: Store
    _figures: Figures | None
    _figures_away: bool


class Windows:
    """The last looks at each site; :meth:`take` one thread at a time."""

    def __init__(self) -> None:
        self._looks: dict[str, deque[Served]] = {}
        self._since = 0.0

    def take(self, figures: Figures, awake: Iterable[str]) -> Found:
        """Take a look; gives the readings of the figures for every site of ``awake``."""
        if figures.since != self._since:
            # An agent that was started anew counts from nothing.
            self._since = figures.since
            self._looks.clear()
        known = set(awake)
        for gone in self._looks.keys() - known:
            del self._looks[gone]
        failed: list[Reading] = []
        slow: list[Reading] = []
        half: list[Reading] = []
        for id in sorted(known):
            found = figures.sites.get(id)
            served = found.served if found is not None else Served()
            looks = self._looks.setdefault(id, deque(maxlen=_LOOKS))
            looks.append(served)
            codes = [new - old for new, old in zip(served.statuses, looks[0].statuses, strict=True)]
            count, errors = sum(codes), codes[4]
            if count < LEAST:
                failed.append(Reading(id, 0.0))
                slow.append(Reading(id, 0.0))
                half.append(Reading(id, 0.0))
                continue
            text = f"{errors} of {count} answers of the last minutes failed" if errors else ""
            failed.append(Reading(id, 100.0 * errors / count, "", text))
            times = _times(dict(served.times), dict(looks[0].times))
            if sum(times.values()) < LEAST:
                # The others are conversations that last, of which nobody waits for the end.
                slow.append(Reading(id, 0.0))
                half.append(Reading(id, 0.0))
                continue
            took, middle = percentile(times, _SLOW) or 0.0, percentile(times, _HALF) or 0.0
            slow.append(Reading(id, took, "", f"95 of 100 answers take up to {took:.0f} ms"))
            half.append(Reading(id, middle, "", f"half of the answers take {middle:.0f} ms and more"))
        return dict(zip((each.name for each in FIGURES), (failed, slow, half), strict=True))


def _times(new: Mapping[int, int], old: Mapping[int, int]) -> dict[int, int]:
    return {n: count - old.get(n, 0) for n, count in new.items()}


def source(of: Counted) -> ReadingSource:
    """For :attr:`IncidentVerbs.readings`. Nothing is known while the agent is away."""
    windows = Windows()

    def read() -> Found:
        figures = of._figures
        if figures is None or of._figures_away:
            return {}
        awake = [id for id, stored in of.store.sites.items() if not stored.site.asleep and not stored.site.node]
        return windows.take(figures, awake)

    return ReadingSource(FIGURES, read, _EVERY)
