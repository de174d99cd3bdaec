"""What control asks of the agent to know what each site uses and serves."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from alveole.model.names import SiteId

#: Answer times are counted in steps of a tenth of a decade, from 1 ms to 100 s.
BUCKETS = 50


class Served(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the proxy has answered for one site since the agent started."""

    statuses: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Answers of 1xx, 2xx, 3xx, 4xx, 5xx."""
    in_bytes: tuple[int, int] = (0, 0)
    """Requests with their heads, over IPv4 and IPv6."""
    out_bytes: tuple[int, int] = (0, 0)
    times: tuple[tuple[int, int], ...] = ()
    """``(n, count)``: so many answers took less than ``10 ** (n / 10)`` milliseconds; see :data:`BUCKETS`.
    WebSockets (101) are not among them."""
    last_at: float = 0.0
    """When the last request was read from the log, in seconds since the epoch."""


def total(all_served: Iterable[Served]) -> Served:
    """Of several together."""
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


class SiteFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Sums over the instances of one site; ``cpu_seconds`` and ``io_…`` count from the start of each.

    ``running``: it has an instance; without one only ``served`` says anything.
    """

    running: bool = False
    memory_bytes: int = 0
    cpu_seconds: float = 0.0
    pids: int = 0
    disk_bytes: int = 0
    io_read_bytes: int = 0
    io_write_bytes: int = 0
    served: Served = Served()


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``since`` is when the agent began to count what was served: another one, and counts begin at zero."""

    since: float
    sites: dict[SiteId, SiteFigures]
    edge: Served = Served()
    """What belongs to no site: unknown names, malformed requests."""


class TakeFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="take-figures"):
    """→ :class:`Figures` of all sites."""
