"""Rows, medians and what the figures share in one run."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from common import ROOT, Instance
from machine import BenchError
from peers import Docker

Figure = Callable[["Session"], "list[Row]"]


@dataclass
class Row:
    """One line of the table. ``met`` is ``None`` where there is no bar, only something to compare."""

    figure: str
    ours: str
    peer: str = "—"
    ratio: float | None = None
    """Ours over the peer's, in the unit of the figure."""
    bar: str = "—"
    met: bool | None = None
    runs: int = 1
    note: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)

    def cells(self) -> list[str]:
        ratio = "—" if self.ratio is None else (f"{self.ratio:.2f}" if self.ratio >= 0.1 else f"1/{1 / self.ratio:.1f}")
        met = {True: "yes", False: "**no**", None: "—"}[self.met]
        return [self.figure, self.ours, self.peer, ratio, self.bar, met]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def mb(size: float) -> str:
    """Decimal megabytes, as the bars are."""
    return f"{size / 1e6:.2f} MB" if size < 10e6 else f"{size / 1e6:.0f} MB"


def against(
    figure: str, ours: list[float], peer: list[float], names: tuple[str, str], bar: float | None, note: str = ""
) -> Row:
    """A row of seconds: the ratio of the medians is to be at most ``bar``, if there is one."""
    ratio = median(ours) / median(peer)
    return Row(
        figure,
        f"{ms(median(ours))} ({names[0]})",
        f"{ms(median(peer))} ({names[1]})",
        ratio,
        "—" if bar is None else f"≤ 1/{1 / bar:.0f}",
        None if bar is None else ratio <= bar,
        len(ours),
        note,
        {names[0]: ours, names[1]: peer},
    )


def interleave(runs: int, each: Mapping[str, Callable[[int], float]]) -> dict[str, list[float]]:
    """A B C, B C A…: call every one once a round, so that what the machine does meanwhile hits all alike.

    Each round begins with another one: what comes back by the clock, as the agent's look at all sites, would
    fall on the same one round after round.
    """
    found: dict[str, list[float]] = {name: [] for name in each}
    names = list(each)
    for number in range(runs):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(each[name](number))
    return found


class Session:
    """One run of the benchmarks: what several figures use is made once and removed at the end."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.stack = contextlib.ExitStack()
        self._docker: Docker | None = None
        self._small: Instance | None = None
        self._many: Instance | None = None
        self._sites = 0
        self._broken = ""

    def runs(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @property
    def most(self) -> int:
        """What "1,000 sites" is in this run."""
        return 100 if self.quick else 1000

    def docker(self) -> Docker:
        if self._docker is None:
            say("starting dockerd")
            self._docker = self.stack.enter_context(Docker())
        return self._docker

    def small(self) -> Instance:
        """An Alvéole with next to no sites."""
        if self._small is None:
            self._small = self.stack.enter_context(Instance(keep_log=ROOT / "artefacts" / "bench-small.log"))
            # The base is built here: every figure is "base ready".
            self._small.grow(["first"])
        return self._small

    def many(self, count: int) -> Instance:
        """An Alvéole whose sites ``m0000``, ``m0001``… are at least ``count``; one worker at the edge."""
        if self._broken:
            raise BenchError(f"the sites could not be made: {self._broken}")
        if self._many is None:
            self._many = self.stack.enter_context(Instance(workers=1, keep_log=ROOT / "artefacts" / "bench-many.log"))
        if self._sites < count:
            say(f"creating sites {self._sites} to {count}")
            began = time.perf_counter()
            try:
                self._many.grow([name(number) for number in range(self._sites, count)])
            except BenchError as error:
                self._broken = str(error)
                raise
            seconds = time.perf_counter() - began
            say(f"{count - self._sites} sites in {seconds:.1f} s, {(count - self._sites) / seconds:.1f} a second")
            self._sites = count
        return self._many


def name(number: int) -> str:
    return f"m{number:04d}"


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    lines = [["figure", "ours", "peer", "ratio", "bar", "met?"], ["---"] * 6, *(row.cells() for row in rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [f"- {row.figure}: {row.note} ({row.runs} run{'s' * (row.runs != 1)})" for row in rows]
    return text + "\n\n" + "\n".join(notes)


def machine() -> dict[str, Any]:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "cores": os.cpu_count(),
        "cpu": model.partition(":")[2].strip(),
        "kernel": os.uname().release,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average_before": os.getloadavg()[0],
        "commit": commit.stdout.strip(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def measure(figures: Sequence[tuple[str, Figure]], quick: bool, out: Path | None) -> int:
    """Measure, print the table and write ``out``; the exit status is 1 when a figure could not be measured."""
    if os.geteuid() != 0:
        print("the benchmarks start containers: run them as root", file=sys.stderr)
        return 2

    def stop(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, stop)
    facts = machine()
    rows: list[Row] = []
    failed: dict[str, str] = {}
    session = Session(quick)
    began = time.monotonic()
    interrupted = False
    with session.stack:
        for label, figure in figures:
            say(f"{label}: {(figure.__doc__ or '').splitlines()[0]}")
            try:
                found = figure(session)
                rows.extend(found)
                for row in found:
                    say("  | ".join(row.cells()) + f"  ({row.note})")
            except KeyboardInterrupt:
                say("interrupted: cleaning up")
                interrupted = True
                break
            except Exception as error:
                if not isinstance(error, BenchError | OSError):
                    traceback.print_exc()
                failed[label] = f"{type(error).__name__}: {error}"
                say(f"{label} could not be measured: {error}")
        # Told before the cleaning, which takes a while and may be interrupted.
        _tell(rows, failed, facts, quick, time.monotonic() - began, out)
        say("cleaning up")
    return 130 if interrupted else 1 if failed else 0


def _tell(
    rows: list[Row], failed: dict[str, str], facts: dict[str, Any], quick: bool, seconds: float, out: Path | None
) -> None:
    print(table(rows))
    print(
        f"\n{'Quick run: fewer sites and runs, no figure to quote. ' if quick else ''}"
        f"{facts['cores']} cores ({facts['cpu']}), kernel {facts['kernel']}, load average before "
        f"{facts['load_average_before']:.1f}, {facts['at']}, {seconds:.0f} s in all; "
        "medians, runs interleaved."
    )
    for label, why in failed.items():
        print(f"\nNot measured: {label}: {why}")
    sys.stdout.flush()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "machine": facts,
            "quick": quick,
            "seconds": seconds,
            "rows": [asdict(row) for row in rows],
            "failed": failed,
        }
        out.write_text(json.dumps(document, indent=2) + "\n")


def main(label: str, figure: Figure) -> None:
    """For a script run alone."""
    parser = argparse.ArgumentParser(description=figure.__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sites and runs")
    sys.exit(measure([(label, figure)], parser.parse_args().quick, None))
