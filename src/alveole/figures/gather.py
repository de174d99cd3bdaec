"""From what is counted to what is kept: rates between two looks, and the times that most answers were under."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from alveole.agent.figuring import BUCKETS, Figures, Served, SiteFigures, total
from alveole.figures.archive import COLUMNS

_SHARES = (0.5, 0.95, 0.99)


class Standing(msgspec.Struct, frozen=True):
    """How a site is, as the promises say: ``up`` 1 when it is as wanted, ``kept`` the share of promises that are.

    ``None`` for one that is not asked to run: what is stopped is neither up nor down. ``carried``: bytes that its
    interfaces carried to it and from it since they are there; ``None`` without any.
    """

    up: float | None
    kept: float | None
    carried: tuple[int, int] | None = None


class Gatherer:
    """Compares each look with the one before; the first gives levels and no rates."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: float | None = None
        self._seen: Figures | None = None
        self._carried: dict[str, tuple[int, int] | None] = {}

    def rows(self, figures: Figures, standing: Mapping[str, Standing]) -> dict[str, list[float | None]]:
        """One row (see :data:`COLUMNS`) of each site in ``standing``, and of ``edge``: all that the proxy answered."""
        now = self._clock()
        passed = now - self._at if self._at is not None else 0.0
        before = self._seen
        self._at, self._seen = now, figures
        # An agent that was started anew has counted from nothing.
        again = before is not None and before.since != figures.since
        rows = {}
        for site, how in standing.items():
            found = figures.sites.get(site, SiteFigures())
            was = before.sites.get(site, SiteFigures()) if before is not None else found
            served = Served() if again else was.served
            rows[site] = _row(found, was, served, passed, how, self._carried.get(site))
        self._carried = {site: how.carried for site, how in standing.items()}
        whole = total(each.served for each in (*figures.sites.values(), SiteFigures(served=figures.edge)))
        was_whole = Served()
        if before is not None and not again:
            was_whole = total(each.served for each in (*before.sites.values(), SiteFigures(served=before.edge)))
        how = Standing(_mean([each.up for each in standing.values()]), _mean([each.kept for each in standing.values()]))
        edge = SiteFigures(served=whole)
        if before is not None:
            rows["edge"] = _row(edge, edge, was_whole, passed, how, None)
        return rows


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def rate(new: float, old: float, passed: float) -> float | None:
    """A second, of what is counted; ``None`` when no time has passed.

    Less than before: another one counts, and has begun from nothing.
    """
    if passed <= 0:
        return None
    return (new - old if new >= old else new) / passed


def _row(
    found: SiteFigures,
    was: SiteFigures,
    served: Served,
    passed: float,
    how: Standing,
    carried: tuple[int, int] | None,
) -> list[float | None]:
    now = found.served
    codes = [rate(new, old, passed) for new, old in zip(now.statuses, served.statuses, strict=True)]
    ok = None if codes[0] is None or codes[1] is None else codes[0] + codes[1]
    earlier = dict(served.times)
    times = {n: count - earlier.get(n, 0) for n, count in now.times}
    values: dict[str, float | None] = {
        "ok": ok,
        "moved": codes[2],
        "refused": codes[3],
        "failed": codes[4],
        "in4": rate(now.in_bytes[0], served.in_bytes[0], passed),
        "in6": rate(now.in_bytes[1], served.in_bytes[1], passed),
        "out4": rate(now.out_bytes[0], served.out_bytes[0], passed),
        "out6": rate(now.out_bytes[1], served.out_bytes[1], passed),
        "up": how.up,
        "kept": how.kept,
    }
    # What does not run uses nothing that anybody could look at: a gap, and no zero.
    if found.running:
        values |= {"memory": found.memory_bytes, "processes": found.pids, "disk": found.disk_bytes}
        if was.running:
            values |= {
                "cpu": rate(found.cpu_seconds, was.cpu_seconds, passed),
                "io_read": rate(found.io_read_bytes, was.io_read_bytes, passed),
                "io_write": rate(found.io_write_bytes, was.io_write_bytes, passed),
            }
    if how.carried is not None and carried is not None:
        values["net_in"] = rate(how.carried[0], carried[0], passed)
        values["net_out"] = rate(how.carried[1], carried[1], passed)
    for name, share in zip(("p50", "p95", "p99"), _SHARES, strict=True):
        values[name] = percentile(times, share)
    return [values.get(column) for column in COLUMNS]


def percentile(times: Mapping[int, int], share: float) -> float | None:
    """The time in milliseconds that so large a share of the answers was under; ``None`` without any.

    Exact to a tenth of a decade: a quarter more than it was (10 ** 0.1), at most.
    """
    counts = {n: count for n, count in times.items() if count > 0}
    total = sum(counts.values())
    if not total:
        return None
    left = share * total
    for n in range(BUCKETS):
        left -= counts.get(n, 0)
        if left <= 1e-9:
            return float(10 ** (n / 10))
    return float(10 ** ((BUCKETS - 1) / 10))
