#!/usr/bin/env python3
from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from alveole.actuators.edge_logs import EdgeLogs, make_log_directory, make_stream
from alveole.agent.figuring import Figures, Served, SiteFigures
from alveole.config import Settings, parse
from alveole.figures.archive import COLUMNS, MACHINE, ROUNDS, STEP, Archives
from alveole.figures.gather import Gatherer, Standing
from alveole.figures.machine import Machine
from alveole.host.cgroups import Cgroups
from alveole.model.site import Limits
from machine import BenchError
from report import Row, Session, main, median

#: Requests of each site between two looks: a busy afternoon, 100 a second over 1,000 sites.
_REQUESTS = 1


def figure(session: Session) -> list[Row]:
    """What gathering and keeping the figures of 1,000 sites costs: processor time and disk.

    Each site has a real cgroup of its own and lines in the proxy's stream; everything between them and the files of
    rrdtool is the program's own: reading the cgroups, tallying the lines, what the agent answers, encoded and decoded,
    rates and percentiles, the rounds, and rrdtool in its own process. Processor time is that of this process and of its
    children. The peer writes each row at once by one rrdtool a round, as programs that poll do.
    """
    if os.geteuid() != 0:
        raise BenchError("needs root, for cgroups")
    count = session.most
    minutes = session.runs(5, 1)
    with _place(count) as (settings, cgroups, names):
        ours = _measure(settings, cgroups, names, minutes, at_once=False)
        peer = _measure(settings, cgroups, names, 1, at_once=True)
        disk = sum(file.stat().st_blocks * 512 for file in (settings.state / "kept").iterdir())
    share = median(ours["all"]) / 60
    other = median(peer["all"]) / 60
    parts = ", ".join(f"{name} {100 * median(ours[name]) / 60:.2f} %" for name in ours if name != "all")
    return [
        Row(
            f"figures of {count:,} sites every {STEP} s, of one core",
            f"{100 * share:.2f} %",
            f"{100 * other:.2f} % (each row written at once)",
            share / other,
            "≤ 5 %",
            share <= 0.05,
            minutes,
            f"of which {parts}",
            {"seconds a minute": ours["all"], "at once": peer["all"]},
        ),
        Row(
            f"archives of {count:,} sites on disk, day to year",
            f"{disk / 1e9:.2f} GB",
            bar="≤ 2 GB",
            met=disk <= 2e9,
            note=f"{disk / count / 1e6:.2f} MB a site, whatever is written into it",
        ),
    ]


def _measure(
    settings: Settings, cgroups: Cgroups, names: list[str], minutes: int, *, at_once: bool
) -> dict[str, list[float]]:
    """Processor seconds of each minute of gathering, by part. The clock of the archives runs as fast as it can."""
    archives = Archives(settings.state / ("peer" if at_once else "kept"))
    lines = EdgeLogs(settings, lambda: None)
    times = iter(float(STEP * number) for number in range(10_000))
    gatherer = Gatherer(clock=lambda: next(times))
    machine = Machine(settings.state, "bench")
    standing = {name: Standing(1.0, 1.0, (1, 1)) for name in names}
    at = float(int(time.time()) // 60 * 60)
    spent: dict[str, float] = {}

    def part(name: str, work: Callable[[], None]) -> None:
        before = _spent()
        work()
        spent[name] = spent.get(name, 0.0) + _spent() - before

    found: dict[str, list[float]] = {}
    state: dict[str, object] = {}
    # The first minute makes the files.
    for minute in range(minutes + 1):
        spent.clear()
        for number in range(ROUNDS):
            _answer(settings, names)
            part("edge", lambda: _collect(lines))

            def look() -> None:
                stats, served = cgroups.all_stats(names), lines.served()
                sites = {}
                for name, each in stats.items():
                    read, written = cgroups.io(name)
                    mine = served.get(name, Served())
                    sites[name] = SiteFigures(
                        True, each.memory_bytes, each.cpu_seconds, each.pids, 1 << 20, read, written, mine
                    )
                state["sent"] = msgspec.json.encode(Figures(lines.since, sites))

            part("cgroups", look)

            def keep(number: int = number, minute: int = minute) -> None:
                figures = msgspec.json.decode(state["sent"], type=Figures)
                rows = gatherer.rows(figures, standing)
                edge = rows.pop("edge", [None] * len(COLUMNS))
                rows[MACHINE] = machine.row(edge, {"sites": len(names)})
                now = at + 60 * minute + STEP * number
                problems = archives.write(rows, now) if at_once else archives.keep(rows, now)
                if problems:
                    raise BenchError(problems[0])

            part("rates and rrdtool", keep)
        if minute:
            for name, seconds in (*spent.items(), ("all", sum(spent.values()))):
                found.setdefault(name, []).append(seconds)
    return found


def _spent() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _collect(lines: EdgeLogs) -> None:
    lines.collect()


def _answer(settings: Settings, names: list[str]) -> None:
    """What nginx would have written since the last look."""
    chance = random.Random(1)  # noqa: S311  the same load in each run, no secret
    text = "".join(
        f'200 {name} 0.{chance.randrange(1, 400):03d} 400 5000 192.0.2.1 {{"time":"2026-01-01T00:00:00+00:00"}}\n'
        for name in names
        for _ in range(_REQUESTS)
    )
    with (settings.logs / "edge" / "requests.log").open("a") as stream:
        stream.write(text)


@contextlib.contextmanager
def _place(count: int) -> Iterator[tuple[Settings, Cgroups, list[str]]]:
    """A cgroup for each site, the proxy's stream, and a directory of its own; all gone at the end."""
    top = Path(tempfile.mkdtemp(prefix="alveole-bench-", dir="/var/tmp"))
    settings = parse(
        {
            "paths": {"state": str(top / "s"), "run": str(top / "r")},
            "cgroup": {"parent": f"alveole-bench-{os.getpid()}"},
            "users": {"control": "root", "edge": "root"},
        }
    )
    cgroups = Cgroups(settings)
    # The digits that the ids of sites have.
    names = [f"s{number:012d}".translate(str.maketrans("0189", "abcd")) for number in range(count)]
    try:
        settings.state.mkdir()
        make_stream(settings)
        for name in names:
            cgroups.create(name, Limits(1000, 64 << 20, 64))
            make_log_directory(settings.logs / "edge" / name, settings)
        yield settings, cgroups, names
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                cgroups.remove(name)
        cgroups.remove_parent()
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main("figures", figure)
