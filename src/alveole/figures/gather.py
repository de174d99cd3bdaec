"""From what is counted to what is kept: rates between two looks, and the times that most answers were under."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from alveole.agent.figuring import BUCKETS, Figures, Served, SiteFigures
from alveole.figures.archive import COLUMNS

_SHARES = (0.5, 0.95, 0.99)


class Standing(msgspec.Struct, frozen=True):
    """How a site is, as the promises say: ``up`` 1 when it is as wanted, ``kept`` the share of promises that are."""

    up: float
    kept: float


class Gatherer:
    """Compares each look with the one before; the first gives levels and no rates."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: float | None = None
        self._seen: Figures | None = None

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
            rows[site] = _row(found, was, served, passed, how)
        whole = _sum(each.served for each in (*figures.sites.values(), SiteFigures(served=figures.edge)))
        was_whole = Served()
        if before is not None and not again:
            was_whole = _sum(each.served for each in (*before.sites.values(), SiteFigures(served=before.edge)))
        count = max(len(standing), 1)
        how = Standing(
            sum(each.up for each in standing.values()) / count if standing else 1.0,
            sum(each.kept for each in standing.values()) / count if standing else 1.0,
        )
        edge = SiteFigures(served=whole)
        if before is not None:
            rows["edge"] = _row(edge, edge, was_whole, passed, how)
        return rows


def _row(found: SiteFigures, was: SiteFigures, served: Served, passed: float, how: Standing) -> list[float | None]:
    def rate(new: float, old: float) -> float | None:
        if passed <= 0:
            return None
        # Less than before: the instance is another one, and has counted from nothing.
        return (new - old if new >= old else new) / passed

    now = found.served
    codes = [rate(new, old) for new, old in zip(now.statuses, served.statuses, strict=True)]
    ok = None if codes[0] is None or codes[1] is None else codes[0] + codes[1]
    earlier = dict(served.times)
    times = {n: count - earlier.get(n, 0) for n, count in now.times}
    values: dict[str, float | None] = {
        "cpu": rate(found.cpu_seconds, was.cpu_seconds),
        "memory": found.memory_bytes,
        "processes": found.pids,
        "disk": found.disk_bytes,
        "io_read": rate(found.io_read_bytes, was.io_read_bytes),
        "io_write": rate(found.io_write_bytes, was.io_write_bytes),
        "ok": ok,
        "moved": codes[2],
        "refused": codes[3],
        "failed": codes[4],
        "in4": rate(now.in_bytes[0], served.in_bytes[0]),
        "in6": rate(now.in_bytes[1], served.in_bytes[1]),
        "out4": rate(now.out_bytes[0], served.out_bytes[0]),
        "out6": rate(now.out_bytes[1], served.out_bytes[1]),
        "up": how.up,
        "kept": how.kept,
    }
    for name, share in zip(("p50", "p95", "p99"), _SHARES, strict=True):
        values[name] = percentile(times, share)
    return [values[column] for column in COLUMNS]


def percentile(times: Mapping[int, int], share: float) -> float | None:
    """The time in milliseconds that so large a share of the answers was under; ``None`` without any.

    Exact to a tenth of a decade: a quarter more than it was, at most.
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


def _sum(all_served: Iterable[Served]) -> Served:
    statuses, inward, outward, times = [0] * 5, [0, 0], [0, 0], dict[int, int]()
    last = 0.0
    for served in all_served:
        statuses = [a + b for a, b in zip(statuses, served.statuses, strict=True)]
        inward = [a + b for a, b in zip(inward, served.in_bytes, strict=True)]
        outward = [a + b for a, b in zip(outward, served.out_bytes, strict=True)]
        for n, count in served.times:
            times[n] = times.get(n, 0) + count
        last = max(last, served.last_at)
    one, two, three, four, five = statuses
    return Served(
        (one, two, three, four, five), (inward[0], inward[1]), (outward[0], outward[1]), tuple(times.items()), last
    )
