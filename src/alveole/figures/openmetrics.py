"""What is counted, as OpenMetrics 1.0: text that Prometheus and others gather.

https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md. Counters count from the start of
what counts them (the agent, an instance): who gathers sees a lower value and knows that it began again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from alveole.agent.figuring import BUCKETS, Figures, Served, SiteFigures
from alveole.figures.gather import Standing
from alveole.figures.machine import Carried

MEDIA_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_CODES = ("1xx", "2xx", "3xx", "4xx", "5xx")
#: Every fifth of the agent's steps: two to a decade, from 1 ms on.
_EVERY = 5
_Labels = tuple[tuple[str, str], ...]
_Sample = tuple[str, _Labels, float]


def render(
    names: Mapping[str, str],
    figures: Figures | None,
    standing: Mapping[str, Standing],
    machine: Mapping[str, float | None],
    links: Mapping[str, Carried],
    capacity: int,
    asleep: Collection[str] = (),
) -> str:
    """``names``: of the sites, by id. ``figures`` is ``None`` while the agent is away: then the sites have none."""
    text = _Text()
    text.family(
        "alveole_agent_up", "gauge", "Whether the agent answered the last look.", [("", (), figures is not None)]
    )
    _machine(text, machine, capacity)
    _links(text, links)
    known = {} if figures is None else {id: figures.sites.get(id, SiteFigures()) for id in names}
    labels = {id: (("site", names[id]),) for id in known}
    _standing(text, {id: standing[id] for id in known if id in standing}, labels)
    sleeps = [("", labels[id], float(id in asleep)) for id in known]
    text.family("alveole_site_asleep", "gauge", "Whether a site has no instance until somebody asks for it.", sleeps)
    _usage(text, {id: each for id, each in known.items() if each.running}, labels)
    served: dict[_Labels, Served] = {labels[id]: each.served for id, each in known.items()}
    if figures is not None:
        # What belongs to no site: no name has an empty label of ours.
        served[(("site", ""),)] = figures.edge
    _served(text, served)
    return text.done()


def _machine(text: _Text, machine: Mapping[str, float | None], capacity: int) -> None:
    for column, name, unit, help in (
        ("cpu", "cpu_cores", "", "Processors at work, in cores."),
        ("cpus", "cpus", "", "Processors there are."),
        ("load", "load1", "", "Processes that want a processor, mean of a minute."),
        ("memory", "memory_used_bytes", "bytes", "Memory in use."),
        ("memory_all", "memory_bytes", "bytes", "Memory there is."),
        ("disk", "disk_used_bytes", "bytes", "Used of the disk with the sites."),
        ("disk_all", "disk_bytes", "bytes", "What the disk with the sites holds."),
        ("processes", "processes", "", "Processes."),
        ("addresses_used", "addresses_used", "", "Addresses of sites in use."),
        ("certificates", "certificates", "", "Names that have a certificate."),
        ("sites", "sites", "", "Sites there are."),
        ("running", "sites_running", "", "Sites that have an instance."),
    ):
        value = machine.get(column)
        samples = [] if value is None else [("", (), value)]
        text.family(f"alveole_machine_{name}", "gauge", help, samples, unit)
    text.family("alveole_machine_addresses", "gauge", "Addresses of sites there are.", [("", (), capacity)])


def _links(text: _Text, links: Mapping[str, Carried]) -> None:
    carried, packets, lost = [], [], []
    for name, each in links.items():
        for way, count, many in (("in", each.in_bytes, each.in_packets), ("out", each.out_bytes, each.out_packets)):
            labels = (("interface", name), ("direction", way))
            carried.append(("_total", labels, count))
            packets.append(("_total", labels, many))
        lost.append(("_total", (("interface", name),), each.lost))
    text.family("alveole_interface_bytes", "counter", "What an interface of the machine carried.", carried, "bytes")
    text.family("alveole_interface_packets", "counter", "Packets of an interface of the machine.", packets)
    text.family("alveole_interface_lost_packets", "counter", "Packets with errors, or that found no room.", lost)


def _standing(text: _Text, standing: Mapping[str, Standing], labels: Mapping[str, _Labels]) -> None:
    up = [("", labels[id], how.up) for id, how in standing.items() if how.up is not None]
    kept = [("", labels[id], how.kept) for id, how in standing.items() if how.kept is not None]
    text.family("alveole_site_up", "gauge", "Whether a site that is to run is as it should be.", up)
    text.family("alveole_site_promises_ratio", "gauge", "Share of a site's promises that are kept.", kept, "ratio")
    carried = []
    for id, how in standing.items():
        if how.carried is not None:
            carried += [
                ("_total", (*labels[id], ("direction", way)), count)
                for way, count in zip(("in", "out"), how.carried, strict=True)
            ]
    text.family("alveole_site_interface_bytes", "counter", "What a site's own interface carried.", carried, "bytes")


def _usage(text: _Text, sites: Mapping[str, SiteFigures], labels: Mapping[str, _Labels]) -> None:
    def gauge(name: str, unit: str, help: str, values: Mapping[str, float]) -> None:
        text.family(
            f"alveole_site_{name}", "gauge", help, [("", labels[id], each) for id, each in values.items()], unit
        )

    cpu = [("_total", labels[id], each.cpu_seconds) for id, each in sites.items()]
    text.family("alveole_site_cpu_seconds", "counter", "Processor time of a site's instances.", cpu, "seconds")
    gauge("memory_bytes", "bytes", "Memory of a site.", {id: each.memory_bytes for id, each in sites.items()})
    gauge("disk_bytes", "bytes", "Disk of a site.", {id: each.disk_bytes for id, each in sites.items()})
    gauge("processes", "", "Processes of a site.", {id: each.pids for id, each in sites.items()})
    moved = []
    for id, each in sites.items():
        for way, count in (("read", each.io_read_bytes), ("write", each.io_write_bytes)):
            moved.append(("_total", (*labels[id], ("direction", way)), count))
    text.family("alveole_site_io_bytes", "counter", "Read from and written to disks by a site.", moved, "bytes")


def _served(text: _Text, all_served: Mapping[_Labels, Served]) -> None:
    requests: list[_Sample] = []
    carried: list[_Sample] = []
    times: list[_Sample] = []
    for labels, served in all_served.items():
        for code, count in zip(_CODES, served.statuses, strict=True):
            requests.append(("_total", (*labels, ("code", code)), count))
        for way, both in (("in", served.in_bytes), ("out", served.out_bytes)):
            for family, count in zip(("ipv4", "ipv6"), both, strict=True):
                carried.append(("_total", (*labels, ("direction", way), ("family", family)), count))
        times += _histogram(labels, dict(served.times))
    text.family("alveole_requests", "counter", "Requests that the proxy answered for a site.", requests)
    text.family("alveole_http_bytes", "counter", "Requests and answers at the proxy.", carried, "bytes")
    text.family("alveole_response_seconds", "histogram", "Time until an answer was sent.", times, "seconds")


def _histogram(labels: _Labels, times: Mapping[int, int]) -> Iterable[_Sample]:
    for step in range(0, BUCKETS - 1, _EVERY):
        count = sum(many for n, many in times.items() if n <= step)
        yield "_bucket", (*labels, ("le", _number(round(10 ** (step / 10) / 1000, 6)))), count
    yield "_bucket", (*labels, ("le", "+Inf")), sum(times.values())


class _Text:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, help: str, samples: Iterable[_Sample], unit: str = "") -> None:
        self._lines.append(f"# TYPE {name} {kind}")
        if unit:
            self._lines.append(f"# UNIT {name} {unit}")
        self._lines.append(f"# HELP {name} {_escaped(help)}")
        for suffix, labels, value in samples:
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            self._lines.append(
                f"{name}{suffix}{{{shown}}} {_number(value)}" if shown else f"{name}{suffix} {_number(value)}"
            )

    def done(self) -> str:
        return "\n".join((*self._lines, "# EOF", ""))


def _number(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else "NaN"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
