#!/usr/bin/env python3
from __future__ import annotations

import time

from common import page, until_200
from report import Row, Session, against, interleave, main


def figure(session: Session) -> list[Row]:
    """Start (until the first 200) and stop (until it is said to be done) of an existing site.

    Beside Docker's Engine API and beside its command.
    """
    alveole, docker = session.small(), session.docker()
    runs = session.runs(15, 5)
    with alveole.api() as api, docker.api() as engine:
        api.wait(api.create("again", page("again")))
        engine.call("POST", "/containers/create?name=again", docker.create_body())
        engine.call("POST", "/containers/again/start")
        stops: dict[str, list[float]] = {"api": [], "engine": [], "cli": [], "docker": []}

        def ours(_number: int) -> float:
            began = time.perf_counter()
            api.wait(api.verb("again", "stop"))
            stops["api"].append(time.perf_counter() - began)
            began = time.perf_counter()
            change = api.verb("again", "start")
            ended = until_200(alveole.edge, alveole.host("again"))
            api.wait(change)
            return ended - began

        def engine_both(_number: int) -> float:
            began = time.perf_counter()
            engine.call("POST", "/containers/again/stop")
            stops["engine"].append(time.perf_counter() - began)
            began = time.perf_counter()
            engine.call("POST", "/containers/again/start")
            return docker.until_200("again") - began

        def ours_cli(_number: int) -> float:
            began = time.perf_counter()
            alveole.cli("site", "stop", "again")
            stops["cli"].append(time.perf_counter() - began)
            began = time.perf_counter()
            alveole.cli("site", "start", "again")
            return until_200(alveole.edge, alveole.host("again")) - began

        def docker_cli(_number: int) -> float:
            began = time.perf_counter()
            docker.cli("stop", "again")
            stops["docker"].append(time.perf_counter() - began)
            began = time.perf_counter()
            docker.cli("start", "again")
            return docker.until_200("again") - began

        both = {"api": ours, "engine": engine_both, "cli": ours_cli, "docker": docker_cli}
        for each in both.values():
            each(0)
        for warm in stops.values():
            warm.clear()
        starts = interleave(runs, both)
        api.destroy("again")
        engine.call("DELETE", "/containers/again?force=true")
    bar = "≤ 1/5"
    return [
        against("start a site", starts["api"], starts["docker"], ("API", "docker start"), 1 / 5, bar, "until the 200"),
        against("start, Docker's API", starts["api"], starts["engine"], ("API", "Engine API"), 1 / 5, bar, "as above"),
        against(
            "start, by command",
            starts["cli"],
            starts["docker"],
            ("alveole site start", "docker start"),
            1 / 5,
            bar,
            "as above",
        ),
        against("stop a site", stops["api"], stops["docker"], ("API", "docker stop"), 1 / 5, bar, "until it is done"),
        against("stop, Docker's API", stops["api"], stops["engine"], ("API", "Engine API"), 1 / 5, bar, "as above"),
        against(
            "stop, by command",
            stops["cli"],
            stops["docker"],
            ("alveole site stop", "docker stop"),
            1 / 5,
            bar,
            "as above",
        ),
    ]


if __name__ == "__main__":
    main("startstop", figure)
