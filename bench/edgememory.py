#!/usr/bin/env python3
from __future__ import annotations

import shutil

from common import ROOT, Instance
from load import wrk
from machine import BenchError, pss
from peers import HandNginx
from report import Row, Session, main, mb


def figure(session: Session) -> list[Row]:
    """Memory of the edge with 10,000 routes, each asked for, beside nginx with 10,000 blocks.

    The routes are links like those of sites, each to a socket path of its own, made beside a running
    edge; 10,000 containers are not needed to fill its caches. ``alveole serve`` is stopped meanwhile
    (the edge goes on), so that nobody removes links that belong to no site.
    """
    count = session.runs(10_000, 1_000)
    with Instance(workers=1, keep_log=ROOT / "artefacts" / "bench-edge.log") as alveole:
        alveole.grow(["behind"])
        routes = alveole.run_dir / "edge" / "routes"
        words = str((routes / alveole.host("behind")).readlink()).split(" ")
        socket = words[0].removeprefix("unix:")
        before = pss(alveole.edge_pids())
        alveole.stop()
        doors = alveole.run_dir / "bench"
        doors.mkdir(mode=0o755)
        hosts = [f"r{number:05d}.localhost" for number in range(count)]
        for number, host in enumerate(hosts):
            door = doors / f"{number:05d}.sock"
            door.symlink_to(socket)
            text = " ".join([f"unix:{door}", *words[1:]])
            (routes / host).symlink_to(text)
        seen = wrk(alveole.http, hosts, session.runs(8, 3), connections=16)
        if seen.wrong or seen.requests_per_second * session.runs(8, 3) < count:
            raise BenchError(f"{seen.wrong} wrong answers, {seen.requests_per_second:.0f} requests a second")
        ours = pss(alveole.edge_pids())
        with HandNginx([(host, f"unix:{socket}:") for host in hosts]) as plain:
            wrk(plain.port, hosts, 1, connections=16)
            hand = pss({plain.master} | plain.workers())
        for host in hosts:
            (routes / host).unlink()
        shutil.rmtree(doors)
    return [
        Row(
            f"memory of the edge at {count:,} routes",
            mb(ours),
            f"{mb(hand)} (nginx, a block each)",
            ours / hand,
            "< 30 MB",
            ours < 30e6,
            1,
            f"PSS of master and one worker, every route asked for; {mb(before)} with one route",
            {"ours": [float(ours)], "before": [float(before)], "nginx": [float(hand)]},
        )
    ]


if __name__ == "__main__":
    main("edgememory", figure)
