#!/usr/bin/env python3
from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from load import installed, wrk
from machine import BenchError, cpu_seconds, fetch, pin, unpin
from peers import HandNginx
from report import Row, Session, interleave, main, median, name

PROXY_CORE, OTHER_CORE = 0, 1


def figure(session: Session) -> list[Row]:
    """Requests a second through the edge, spread over 1,000 sites, beside a hand-written nginx.

    The same sites stand behind each: only the proxy differs. Each has one worker on one core and
    writes one access log a site (Alvéole's agent hands out its lines, on the same core); the load and
    the sites share the other core.
    """
    installed()
    alveole = session.many(session.most)
    names = [name(number) for number in range(session.most)]
    hosts = [alveole.host(each) for each in names]
    sockets = _sockets(alveole.run_dir / "edge" / "routes", hosts)
    agent = next(iter(alveole.role_pids("agent")))
    upstreams = [(host, f"unix:{sockets[host]}:") for host in hosts]
    seconds, rounds = session.runs(3, 2), session.runs(9, 2)
    others = alveole.site_pids() | alveole.serve_pids() | alveole.log_pids()
    try:
        pin(others, OTHER_CORE)
        # What hands out the proxy's log lines is a part of the edge: its peers write theirs themselves.
        pin(alveole.edge_workers() | alveole.role_pids("agent"), PROXY_CORE)
        with (
            HandNginx(upstreams, namespace=agent) as plain,
            HandNginx(upstreams, keepalive=True, namespace=agent) as kept,
            HandNginx(upstreams, logs=False, namespace=agent) as bare,
            HandNginx(upstreams, keepalive=True, logs=False, namespace=agent) as kept_bare,
            HandNginx(static=_content(alveole.state_dir)) as direct,
        ):
            ports = {
                "edge": alveole.http,
                "plain": plain.port,
                "keepalive": kept.port,
                "plain, no log": bare.port,
                "keepalive, no log": kept_bare.port,
                "direct": direct.port,
            }
            for peer in (plain, kept, bare, kept_bare, direct):
                pin(peer.workers(), PROXY_CORE)
            for label, port in ports.items():
                for host in (hosts[0], hosts[-1]):
                    status = fetch(("127.0.0.1", port), host)[0]
                    if status != 200:
                        raise BenchError(f"{label} gives {status} for {host}")

            workers = {
                "edge": alveole.edge_workers(),
                "plain": plain.workers(),
                "keepalive": kept.workers(),
                "plain, no log": bare.workers(),
                "keepalive, no log": kept_bare.workers(),
                "direct": direct.workers(),
            }
            cost: dict[str, list[float]] = {label: [] for label in ports}

            def load(label: str, _number: int) -> float:
                before = cpu_seconds(workers[label])
                seen = wrk(ports[label], hosts, seconds, core=OTHER_CORE)
                if seen.wrong:
                    raise BenchError(f"{label}: {seen.wrong} wrong answers under load")
                cost[label].append((cpu_seconds(workers[label]) - before) / (seen.requests_per_second * seconds))
                # Connections that idle out meanwhile are not the next one's business.
                time.sleep(0.3)
                return seen.requests_per_second

            for port in ports.values():
                wrk(port, hosts, 1, core=OTHER_CORE)
            seen = interleave(rounds, {label: partial(load, label) for label in ports})
    finally:
        unpin(others | alveole.edge_workers())
    middle = {label: median(values) for label, values in seen.items()}
    each = {label: median(values) * 1e6 for label, values in cost.items()}
    against_plain = middle["edge"] / middle["plain"]
    against_kept = middle["edge"] / middle["keepalive"]
    note = (
        f"{seconds} s a run, wrk with 32 connections; share of direct: edge "
        f"{middle['edge'] / middle['direct']:.2f}, plain {middle['plain'] / middle['direct']:.2f}, keep-alive "
        f"{middle['keepalive'] / middle['direct']:.2f}; blocks without any access log: plain "
        f"{middle['plain, no log']:,.0f}, keep-alive {middle['keepalive, no log']:,.0f}; direct {middle['direct']:,.0f}"
        f"; the proxy's own CPU a request: edge {each['edge']:.0f} µs, plain {each['plain']:.0f} µs "
        f"({each['plain'] / each['edge']:.2f}), keep-alive {each['keepalive']:.0f} µs "
        f"({each['keepalive'] / each['edge']:.2f})"
    )
    ours = f"{middle['edge']:,.0f} requests/s"
    return [
        Row(
            f"throughput over {session.most:,} sites",
            ours,
            f"{middle['plain']:,.0f} requests/s (blocks, plain proxy_pass)",
            against_plain,
            "≥ 1.4",
            against_plain >= 1.4,
            rounds,
            note,
            seen,
        ),
        Row(
            "the same against upstream keep-alive",
            ours,
            f"{middle['keepalive']:,.0f} requests/s (blocks, keep-alive)",
            against_kept,
            "seek ≥ 0.9",
            against_kept >= 0.9,
            rounds,
            "as above",
        ),
    ]


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
