#!/usr/bin/env python3
from __future__ import annotations

import tempfile
import time
from pathlib import Path

from common import PAGE, page, until_200
from report import Row, Session, against, interleave, main, median, ms


def figure(session: Session) -> list[Row]:
    """From nothing to the first 200 of a new static site, base ready, beside ``docker run``.

    Ours begins before the content is uploaded and ends at the first 200 through the edge; database,
    journal, network and route are in it. Docker's begins before the request and ends at the first 200
    at the container's address: no content is copied and no proxy is told.
    """
    alveole, docker = session.small(), session.docker()
    content = page("new")
    settled: list[float] = []
    command_end: list[float] = []

    with alveole.api() as api, docker.api() as engine, tempfile.TemporaryDirectory(prefix="alb-") as where:
        (Path(where) / "index.html").write_text(PAGE.format("new"))

        def ours(number: int) -> float:
            began = time.perf_counter()
            change = api.create(f"a{number}", content)
            ended = until_200(alveole.edge, alveole.host(f"a{number}"))
            api.wait(change)
            settled.append(time.perf_counter() - began)
            api.destroy(f"a{number}")
            return ended - began

        def engine_run(number: int) -> float:
            began = time.perf_counter()
            engine.call("POST", f"/containers/create?name=a{number}", docker.create_body())
            engine.call("POST", f"/containers/a{number}/start")
            ended = docker.until_200(f"a{number}")
            engine.call("DELETE", f"/containers/a{number}?force=true")
            return ended - began

        def ours_cli(number: int) -> float:
            began = time.perf_counter()
            alveole.cli("site", "create", f"c{number}", "--from", where)
            command_end.append(time.perf_counter() - began)
            ended = until_200(alveole.edge, alveole.host(f"c{number}"))
            api.destroy(f"c{number}")
            return ended - began

        def docker_cli(number: int) -> float:
            began = time.perf_counter()
            docker.cli(*docker.run_argv(f"c{number}"))
            ended = docker.until_200(f"c{number}")
            docker.cli("rm", "-f", f"c{number}")
            return ended - began

        for warm in (900, 901):
            for each in (ours, engine_run, ours_cli, docker_cli):
                each(warm)
        settled.clear()
        seen = interleave(
            session.runs(15, 5), {"api": ours, "engine": engine_run, "cli": ours_cli, "docker run": docker_cli}
        )
    note = f"change journalled as done after {ms(median(settled))}"
    return [
        against(
            "new static site, until the first 200",
            seen["api"],
            seen["docker run"],
            ("API", "docker run"),
            1 / 5,
            note,
        ),
        against(
            "the same beside Docker's API",
            seen["api"],
            seen["engine"],
            ("API", "Engine API, create and start"),
            None,
            note,
        ),
        against(
            "the same by the command",
            seen["cli"],
            seen["docker run"],
            ("alveole site create", "docker run"),
            None,
            "the command waits until the change is done",
        ),
        Row(
            "new static site, in milliseconds",
            ms(median(seen["api"])),
            bar="< 120 ms here",
            met=median(seen["api"]) < 0.120,
            runs=len(seen["api"]),
            note=f"fastest {ms(min(seen['api']))}, slowest {ms(max(seen['api']))}",
            samples={"api": seen["api"], "settled": settled},
        ),
    ]


if __name__ == "__main__":
    main("create", figure)
