#!/usr/bin/env python3
from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from common import ROOT, Instance, until_200
from machine import BenchError, fetch
from report import Row, Session, main, median, say


def _answering(alveole: Instance, names: list[str], seconds: float) -> list[float]:
    """When each of ``names`` gave its first 200, in seconds from now."""
    began = time.perf_counter()
    left = list(names)
    found: list[float] = []
    while left:
        if time.perf_counter() - began > seconds:
            raise BenchError(f"{len(left)} of {len(names)} sites do not answer after {seconds:.0f} s: {left[:3]}")
        still = []
        for name in left:
            status = 0
            with contextlib.suppress(OSError):
                status = fetch(alveole.edge, alveole.host(name), seconds=1.0)[0]
            if status == 200:
                found.append(time.perf_counter() - began)
            else:
                still.append(name)
        left = still
        time.sleep(0.1)
    return found


def figure(session: Session) -> list[Row]:
    """From a machine where nothing of Alvéole runs to every one of 200 sites answering, beside ``docker start``.

    Everything is cut off first, as by a power cut; then ``alveole serve`` is started and finds its
    sites in its database. Docker's containers exist too and are started four at a time, as ours are.
    """
    count, peers = session.runs(200, 20), session.runs(40, 8)
    names = [f"cold{number}" for number in range(count)]
    rates, firsts, all_answer = [], [], []
    with Instance(keep_log=ROOT / "artefacts" / "bench-cold.log") as alveole:
        alveole.grow(names)
        for _ in range(session.runs(2, 1)):
            alveole.cut()
            began = time.perf_counter()
            alveole.launch()
            seen = _answering(alveole, names, 120)
            seconds = time.perf_counter() - began
            all_answer.append(seconds)
            firsts.append(seen[0])
            rates.append(count / seconds)
            say(f"{count} sites from cold in {seconds:.1f} s")
            alveole.until_ready()
    docker = session.docker()
    created = [f"cold{number}" for number in range(peers)]
    with docker.api() as engine:
        for name in created:
            engine.call("POST", f"/containers/create?name={name}", docker.create_body())

    def start(name: str) -> None:
        with docker.api() as engine:
            engine.call("POST", f"/containers/{name}/start")
            until_200(docker.address(engine, name), name)

    try:
        began = time.perf_counter()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(start, created))
        docker_rate = peers / (time.perf_counter() - began)
    finally:
        for at in range(0, peers, 20):
            docker.cli("rm", "-f", *created[at : at + 20], check=False)
    rate = median(rates)
    return [
        Row(
            f"{count} sites from cold, until all answer",
            f"{rate:.1f} a second",
            f"{docker_rate:.1f} a second (docker start, {peers} containers)",
            rate / docker_rate,
            "≥ 10 a second",
            rate >= 10,
            len(rates),
            f"all answer {median(all_answer):.1f} s after `alveole serve` was started, the first after "
            f"{median(firsts):.1f} s; dockerd ran already",
            {"seconds": all_answer, "docker_rate": [docker_rate]},
        )
    ]


if __name__ == "__main__":
    main("cold", figure)
