#!/usr/bin/env python3
from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec

from common import Instance, archive, page, until_200
from machine import CGROUPS, BenchError, command, cpu_seconds, interfaces, pss, read_bytes, run
from modules import KEPT
from report import Row, Session, against, interleave, main, mb, median, ms

#: What PHP without a database has at the most.
_PHP = {f"php-{each}" for each in ["cli", "curl", "fpm", "gd", "intl", "mbstring", "sqlite3", "xml", "zip"]}
#: What the first visit may take, in seconds.
_BAR = 0.4
_BAR_BYTES = 50_000_000
_IDLE_SECONDS = 60


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
            time.sleep(0.5)
            spent = _spent(alveole)
            began = time.perf_counter()
            took = until_200(alveole.edge, alveole.host(name)) - began
            work.append(_spent(alveole) - spent)
            return took

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
            work: list[float] = []
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
                f"its own site start: {ms(median(found['start']))}; processor time of a visit, of everybody: "
                f"{ms(min(work))} at the least, {ms(median(work))} in the middle; the fastest visit: "
                f"{ms(min(found['visit']))}",
            )
            told.bar, told.met = f"≤ {ms(_BAR)}", median(found["visit"]) <= _BAR
            rows.append(told)
        engine.call("DELETE", "/containers/idle?force=true")
    rows += _memory(session)
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


def _spent(alveole: Instance) -> float:
    """Processor time so far, in seconds, of the platform and of the sites."""
    site = CGROUPS / "cpuacct" / alveole.tag / "cpuacct.usage"
    unified = CGROUPS / alveole.tag / "cpu.stat"
    of_sites = int(site.read_text()) / 1e9 if site.exists() else int(unified.read_text().split()[1]) / 1e6
    return of_sites + cpu_seconds(alveole.platform_pids())


class Held(msgspec.Struct):
    """What there is at one moment: of the platform's processes, and of the kernel for whomever (bytes and counts)."""

    pss: int
    kernel: int
    things: dict[str, int]

    @classmethod
    def now(cls, alveole: Instance) -> Held:
        fields = {line.split(":")[0]: line.split()[1] for line in read_bytes("/proc/meminfo").decode().splitlines()}
        # What cannot be given back when somebody needs it; file caches and reclaimable slab can.
        kept = ("SUnreclaim", "Shmem", "KernelStack", "PageTables", "Percpu")
        agents = [pid for pid in alveole.role_pids("agent") if command(pid).endswith("--role agent")]
        things = {
            "processes": len(alveole.site_pids()) + len(alveole.log_pids()),
            "cgroups": sum(1 for top in CGROUPS.glob(f"**/{alveole.tag}/*") if top.is_dir()),
            "mounts": sum(read_bytes(f"/proc/{pid}/mountinfo").count(str(alveole.root).encode()) for pid in agents),
            "interfaces": sum(1 for each in interfaces(lambda name: name.startswith(alveole.prefix))),
        }
        return cls(pss(alveole.platform_pids()), sum(int(fields.get(each, 0)) for each in kept) * 1024, things)


def _memory(session: Session) -> list[Row]:
    count = session.runs(1000, 50)
    with Instance() as alveole:
        alveole.grow(["first"])
        with alveole.api() as api:
            api.destroy("first")
            time.sleep(3)
            before, idle_before = Held.now(alveole), _idle(alveole)
            names = [f"idle{number}" for number in range(count)]

            def make(name: str) -> None:
                with alveole.api() as own:
                    own.wait(own.create(name, page("many")), 300)
                    own.wait(own.verb(name, "sleep"))

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(make, names))
            if alveole.site_pids():
                raise BenchError("not all of them sleep")
            time.sleep(5)
            after, idle_after = Held.now(alveole), _idle(alveole)
    grown, kernel = after.pss - before.pss, after.kernel - before.kernel
    left = {each: number - before.things[each] for each, number in after.things.items()}
    bar = _BAR_BYTES * count / 1000
    return [
        Row(
            f"memory of {count} sleeping sites",
            f"{mb(grown)} (PSS)",
            bar=f"≤ {mb(bar)}",
            met=grown + max(kernel, 0) <= bar,
            note=f"the kernel holds {mb(kernel)} more that it cannot give back, for whomever; left of them: "
            + ", ".join(f"{number} {each}" for each, number in left.items()),
        ),
        Row(
            f"processor time of the platform, {count} sleeping sites",
            f"{idle_after * 100:.1f} % of a core",
            f"{idle_before * 100:.1f} % with none",
            note=f"over {_IDLE_SECONDS} s",
        ),
    ]


def _idle(alveole: Instance) -> float:
    """Processor time of the platform while nobody asks for anything, per second."""
    found = alveole.platform_pids()
    before = cpu_seconds(found)
    time.sleep(_IDLE_SECONDS)
    return (cpu_seconds(found) - before) / _IDLE_SECONDS


if __name__ == "__main__":
    main("sleep", figure)
