#!/usr/bin/env python3
from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

from common import Instance, archive, page, until_200
from machine import BenchError, available_bytes, pss, run
from modules import KEPT
from report import Row, Session, against, interleave, main, mb, median, ms

#: What PHP without a database has at the most.
_PHP = {f"php-{each}" for each in ["cli", "curl", "fpm", "gd", "intl", "mbstring", "sqlite3", "xml", "zip"]}
#: What the first visit may take, in seconds.
_BAR = 0.4
_BAR_BYTES = 50_000_000


def figure(session: Session) -> list[Row]:
    """The first visit of a site that sleeps, static and PHP, until its 200; and what sleeping sites hold in memory.

    Beside ``docker start`` of a container of the same page, and beside the same site's own ``site start`` until its
    first 200. The sleeping ones are made, started and put to sleep, all of them; memory is what the platform's
    processes have grown by since there was no site, and what the kernel has less.
    """
    docker = session.docker()
    rows = []
    with Instance() as alveole, alveole.api() as api, docker.api() as engine:
        _seed(alveole)
        api.wait(api.create("static", page("idle")))
        php = archive({"index.php": "<?php echo 'idle ' . date('Y');"})
        api.wait(api.create("php", php, modules=["php"]), 300)
        engine.call("POST", "/containers/create?name=idle", docker.create_body())

        def wake(name: str) -> float:
            api.wait(api.verb(name, "sleep"))
            began = time.perf_counter()
            return until_200(alveole.edge, alveole.host(name)) - began

        def start(name: str) -> float:
            api.wait(api.verb(name, "stop"))
            began = time.perf_counter()
            change = api.verb(name, "start")
            ended = until_200(alveole.edge, alveole.host(name))
            api.wait(change)
            return ended - began

        def peer(_number: int) -> float:
            began = time.perf_counter()
            docker.cli("start", "idle")
            ended = docker.until_200("idle")
            docker.cli("stop", "idle")
            return ended - began

        for name in ("static", "php"):
            each = {
                "visit": lambda _number, name=name: wake(name),
                "start": lambda _number, name=name: start(name),
                "docker": peer,
            }
            found = interleave(session.runs(15, 5), each)
            told = against(
                f"first visit of a sleeping site, {name}",
                found["visit"],
                found["docker"],
                ("visit", "docker start, static"),
                None,
                f"its own site start: {ms(median(found['start']))}",
            )
            told.bar, told.met = f"≤ {ms(_BAR)}", median(found["visit"]) <= _BAR
            rows.append(told)
        engine.call("DELETE", "/containers/idle?force=true")
    rows.append(_memory(session))
    return rows


def _seed(alveole: Instance) -> None:
    """Take a base of PHP that is there already, with what it lies over: made of links, and there are many bases."""
    bases = alveole.state_dir / "bases"
    bases.mkdir(exist_ok=True)
    for kept in KEPT.glob("debian-*"):
        record = json.loads((kept / "base.json").read_text())
        packages = set(record["base"]["packages"])
        if "php-fpm" in packages and not packages - _PHP:
            for key in filter(None, (kept.name, record.get("lower"))):
                if (KEPT / key).stat().st_dev == bases.stat().st_dev and not (bases / key).exists():
                    run("cp", "-al", KEPT / key, bases / key)


def _memory(session: Session) -> Row:
    count = session.runs(1000, 50)
    with Instance() as alveole:
        alveole.grow(["first"])
        with alveole.api() as api:
            api.destroy("first")
            time.sleep(3)
            before, before_kernel = pss(alveole.platform_pids()), available_bytes()
            names = [f"idle{number}" for number in range(count)]
            alveole.grow(names)

            def sleep(name: str) -> None:
                with contextlib.suppress(BenchError), alveole.api() as own:
                    own.wait(own.verb(name, "sleep"))

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(sleep, names))
            if alveole.site_pids():
                raise BenchError("not all of them sleep")
            time.sleep(5)
            after, after_kernel = pss(alveole.platform_pids()), available_bytes()
    grown, less = after - before, before_kernel - after_kernel
    return Row(
        f"memory of {count} sleeping sites",
        f"{mb(grown)} (PSS)",
        bar=f"≤ {mb(_BAR_BYTES)}",
        met=grown <= _BAR_BYTES * count / 1000,
        note=f"the kernel has {mb(less)} less, file caches of their making included",
    )


if __name__ == "__main__":
    main("sleep", figure)
