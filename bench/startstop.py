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
    until, done = "until the 200", "until it is done"
    api_run, engine_run = ("API", "docker start"), ("API", "Engine API")
    return [
        against("start a site", starts["api"], starts["docker"], api_run, 1 / 5, until),
        against("the same beside Docker's API", starts["api"], starts["engine"], engine_run, None, until),
        against("the same by the command", starts["cli"], starts["docker"], ("command", "docker start"), None, until),
        against("stop a site", stops["api"], stops["docker"], ("API", "docker stop"), 1 / 5, done),
        against("the same beside Docker's API", stops["api"], stops["engine"], engine_run, None, done),
        against("the same by the command", stops["cli"], stops["docker"], ("command", "docker stop"), None, done),
    ]


if __name__ == "__main__":
    main("startstop", figure)
