"""What is measured: figures by name, from sources that are registered by one call of :meth:`Readings.add` each.

::

    errors = Figure(name="site.log-errors", title="Errors in the logs", about=About.SITE, unit="lines")
    services.readings.add(by_site(errors, count_them, every=60))
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from alveole.errors import AlveoleError
from alveole.incidents.model import Figure, Reading, ReadingSource

log = logging.getLogger("alveole.readings")
Found = Mapping[str, Sequence[Reading]]


class Readings:
    """Sources are added before the first round; what is read is read by one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sources: list[ReadingSource] = []
        self._kept: dict[int, tuple[float, Found]] = {}
        self.figures: dict[str, Figure] = {}

    def add(self, source: ReadingSource) -> None:
        """Register a source. A figure that another one gives is taken over."""
        for figure in source.figures:
            self.figures[figure.name] = figure
        self._sources.append(source)

    def read(self, wanted: Iterable[str] | None = None, *, fresh: bool = False) -> dict[str, Sequence[Reading]]:
        """The readings by figure. What is not in it is not known: its source failed, and was logged. ``wanted``: only
        sources of these figures are asked."""
        names = set(self.figures if wanted is None else wanted)
        found: dict[str, Sequence[Reading]] = {}
        for place, source in enumerate(self._sources):
            if not any(figure.name in names for figure in source.figures):
                continue
            kept = self._kept.get(place)
            now = self._clock()
            if fresh or kept is None or now - kept[0] >= source.every:
                try:
                    kept = (now, source.read())
                except AlveoleError as error:
                    log.info("%s could not be read: %s", source.figures[0].name, error)
                    kept = (now, {})
                except Exception:
                    log.exception("%s could not be read by a fault of ours", source.figures[0].name)
                    kept = (now, {})
                self._kept[place] = kept
            found.update(kept[1])
        return found

    def forget(self) -> None:
        """Read everything anew the next time."""
        self._kept.clear()


def by_site(figure: Figure, values: Callable[[], Mapping[str, float]], every: float = 0.0) -> ReadingSource:
    """A source of one number a site, by the site's id."""

    def read() -> Found:
        return {figure.name: [Reading(site, value) for site, value in values().items()]}

    return ReadingSource((figure,), read, every)
