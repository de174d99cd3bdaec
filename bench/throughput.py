#!/usr/bin/env python3
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import Instance
from load import installed, wrk
from machine import BenchError, cpu_seconds, fetch, pin, unpin
from peers import HandNginx
from report import Row, Session, interleave, main, median, name

PROXY_CORE, OTHER_CORE = 0, 1


def figure(session: Session) -> list[Row]:
    """Requests a second through the edge, spread over 1,000 sites, beside a hand-written nginx.

    The same sites stand behind each: only the proxy differs. Each has one worker on one core and
    writes one access log a site (Alvéole's agent hands out its lines, on the same core); the load and
    the sites share the other core. A thousand servers that wake in turns are more work than a proxy, so
    with them that other core is what is full. Where the bars are, one server therefore answers on the
    sockets of all sites: what is full then is the proxy.
    """
    installed()
    alveole = session.many(session.most)
    names = [name(number) for number in range(session.most)]
    hosts = [alveole.host(each) for each in names]
    sockets = _sockets(alveole.run_dir / "edge" / "routes", hosts)
    agent = next(iter(alveole.role_pids("agent")))
    upstreams = [(host, f"unix:{sockets[host]}:") for host in hosts]
    content = _content(alveole.state_dir)
    others = alveole.site_pids() | alveole.serve_pids() | alveole.log_pids()
    try:
        pin(others, OTHER_CORE)
        # What hands out the proxy's log lines is a part of the edge: its peers write theirs themselves.
        pin(alveole.edge_workers() | alveole.role_pids("agent"), PROXY_CORE)
        each = _measure(session, alveole, upstreams, agent, content)
        with _one_server(agent, list(sockets.values()), content):
            one = _measure(session, alveole, upstreams, agent, content)
    finally:
        unpin(others | alveole.edge_workers() | alveole.role_pids("agent"))
    sites = f"{session.most:,} sites"
    return [
        *_rows(f"throughput over {sites}, one server behind all", one, ("≥ 1.4", 1.4), ("seek ≥ 0.9", 0.9)),
        *_rows(f"throughput over {sites}, each a server (their core is full)", each, ("—", None), ("—", None)),
    ]


@dataclass
class Measured:
    """Requests a second of each run, and seconds of the proxy's own processor a request, by proxy."""

    rates: dict[str, list[float]]
    costs: dict[str, list[float]]
    note: str


def _measure(
    session: Session, alveole: Instance, upstreams: Sequence[tuple[str, str]], agent: int, content: Path
) -> Measured:
    """The edge and its peers, which are started for it: none has a connection to what answered before."""
    with (
        HandNginx(upstreams, namespace=agent) as plain,
        HandNginx(upstreams, keepalive=True, namespace=agent) as kept,
        HandNginx(static=content) as direct,
    ):
        proxies = {
            "edge": (alveole.http, alveole.edge_workers()),
            "plain": (plain.port, plain.workers()),
            "keepalive": (kept.port, kept.workers()),
            "direct": (direct.port, direct.workers()),
        }
        for _, workers in proxies.values():
            pin(workers, PROXY_CORE)
        return _taken_in_turns(session, proxies, [host for host, _ in upstreams])


def _taken_in_turns(session: Session, proxies: Mapping[str, tuple[int, set[int]]], hosts: Sequence[str]) -> Measured:
    seconds, rounds = session.runs(3, 2), session.runs(9, 2)
    costs: dict[str, list[float]] = {label: [] for label in proxies}
    for label, (port, _) in proxies.items():
        for host in (hosts[0], hosts[-1]):
            status = fetch(("127.0.0.1", port), host)[0]
            if status != 200:
                raise BenchError(f"{label} gives {status} for {host}")
        wrk(port, hosts, 1, core=OTHER_CORE)

    def load(label: str, _number: int) -> float:
        port, workers = proxies[label]
        before = cpu_seconds(workers)
        seen = wrk(port, hosts, seconds, core=OTHER_CORE)
        if seen.wrong:
            raise BenchError(f"{label}: {seen.wrong} wrong answers under load")
        costs[label].append((cpu_seconds(workers) - before) / (seen.requests_per_second * seconds))
        # Connections that idle out meanwhile are not the next one's business.
        time.sleep(0.3)
        return seen.requests_per_second

    rates = interleave(rounds, {label: partial(load, label) for label in proxies})
    middle = {label: median(values) for label, values in rates.items()}
    own = {label: median(values) for label, values in costs.items()}
    note = (
        f"{seconds} s a run, wrk with 32 connections; direct {middle['direct']:,.0f}; the proxy's own CPU a request: "
        f"edge {own['edge'] * 1e6:.0f} µs ({own['edge'] * middle['edge']:.0%} of its core), plain "
        f"{own['plain'] * 1e6:.0f} µs ({own['plain'] * middle['plain']:.0%}; {own['plain'] / own['edge']:.2f}), "
        f"keep-alive {own['keepalive'] * 1e6:.0f} µs ({own['keepalive'] * middle['keepalive']:.0%}; "
        f"{own['keepalive'] / own['edge']:.2f})"
    )
    return Measured(rates, costs, note)


def _rows(label: str, seen: Measured, plain: tuple[str, float | None], kept: tuple[str, float | None]) -> list[Row]:
    middle = {each: median(values) for each, values in seen.rates.items()}
    rows = []
    for peer, words, (bar, least) in (
        ("plain", "blocks, plain proxy_pass", plain),
        ("keepalive", "blocks, keep-alive", kept),
    ):
        ratio = middle["edge"] / middle[peer]
        rows.append(
            Row(
                label if peer == "plain" else "the same against upstream keep-alive",
                f"{middle['edge']:,.0f} requests/s",
                f"{middle[peer]:,.0f} requests/s ({words})",
                ratio,
                bar,
                None if least is None else ratio >= least,
                len(seen.rates["edge"]),
                seen.note if peer == "plain" else "as above",
                seen.rates if peer == "plain" else {},
            )
        )
    return rows


@contextlib.contextmanager
def _one_server(agent: int, sockets: Sequence[str], content: Path) -> Iterator[None]:
    """One server with one worker answers on the sockets of all sites for the block; theirs stand aside."""
    seen = Path(f"/proc/{agent}/root")
    aside = [(seen / socket.lstrip("/"), seen / f"{socket.lstrip('/')}.aside") for socket in sockets]
    with contextlib.ExitStack() as undo:
        for socket, place in aside:
            socket.rename(place)
            undo.callback(place.rename, socket)
        server = undo.enter_context(HandNginx(static=content, sockets=sockets, namespace=agent))
        pin(server.workers(), OTHER_CORE)
        # The edge's idle connections to the sites themselves are closed after four seconds.
        time.sleep(5)
        yield


def _sockets(routes: Path, hosts: list[str]) -> dict[str, str]:
    """Where the edge's own links lead: the same sockets are given to the peers."""
    found = {}
    for host in hosts:
        target = str((routes / host).readlink()).split(" ")[0]
        if not target.startswith("unix:/"):
            raise BenchError(f"{host} leads to {target}, which is no Unix socket")
        found[host] = target.removeprefix("unix:")
    return found


def _content(state: Path) -> Path:
    """The content of one site, for the server without a proxy."""
    for current in state.glob("sites/*/content/current"):
        return current.resolve()
    raise BenchError("no site has content")


if __name__ == "__main__":
    main("throughput", figure)
