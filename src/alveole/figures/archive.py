"""Round-robin archives: one file of rrdtool's a site, and one of the machine.

A file has its whole size from the start (``FILE_BYTES``), whatever is written into it: what a thousand sites cost is
known beforehand. One ``rrdtool -`` a round takes all updates from its standard input, so nothing keeps running.
"""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from alveole.errors import NotFound, Temporary

#: Between two rounds, in seconds.
STEP = 10
#: A value holds until the next one comes, at most this long (seconds): longer, and it is unknown.
_HOLDS = 45
#: What is kept: the seconds a row stands for, how many rows there are, and whether peaks are kept beside averages.
_KEPT = ((10, 1080, False), (60, 1500, False), (600, 1020, True), (3600, 760, True), (86_400, 400, True))
#: A span that people ask for, in seconds.
SPANS = {"hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 31 * 86_400, "year": 366 * 86_400}
COLUMNS = (
    "cpu",
    "memory",
    "processes",
    "disk",
    "io_read",
    "io_write",
    "ok",
    "moved",
    "refused",
    "failed",
    "p50",
    "p95",
    "p99",
    "in4",
    "in6",
    "out4",
    "out6",
    "up",
    "kept",
)
"""Of a site and of the machine: processors; bytes; number; bytes; bytes a second (2); answers a second of 1xx and 2xx,
3xx, 4xx, 5xx; milliseconds (3); bytes a second over IPv4 and IPv6 (4); shares of 1 (2)."""
_ROWS = sum(rows * (2 if peaks else 1) for _, rows, peaks in _KEPT)
FILE_BYTES = _ROWS * len(COLUMNS) * 8
_RRDTOOL = "/usr/bin/rrdtool"
_NAME = re.compile(r"^[a-z0-9]{1,32}\Z")
_SECONDS = 30.0


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``rows`` from ``start`` on, one every ``step`` seconds; ``None`` is not known."""

    start: int
    step: int
    columns: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]


class Archives:
    """``directory`` holds the files; it is made when the first is. One round at a time; readers at any time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, rows: Mapping[str, Sequence[float | None]], at: float) -> list[str]:
        """One value of each column for each name, at ``at`` (seconds since the epoch); gives what went wrong.

        Files that are missing are made. Raises ``Temporary`` when rrdtool cannot be used.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        moment = int(at)
        commands = []
        for name, values in rows.items():
            if not self._file(name).exists():
                commands.append(self._create(name, moment))
            commands.append(f"update {name}.rrd {moment}:{':'.join(map(_number, values))}")
        # A round that was killed, or a clock that went back: the time is refused, and the next round is a later one.
        return [each for each in self._ask(commands) if each.startswith("ERROR")]

    def read(self, name: str, seconds: int, now: float, *, peaks: bool = False) -> Table:
        """The last ``seconds`` as finely as they are kept, at most some 1,500 rows; none before the first write."""
        step = next((step for step, rows, _ in _KEPT if step * (rows - 1) >= seconds), _KEPT[-1][0])
        if peaks:
            step = max(step, 600)
        end = int(now) // step * step
        if not self._file(name).exists():
            return Table(end - seconds, step, COLUMNS, ())
        kind = "MAX" if peaks else "AVERAGE"
        (said,) = self._ask([f"fetch {name}.rrd {kind} -r {step} -s {end - seconds} -e {end}"])
        if said.startswith("ERROR"):
            raise Temporary(f"the figures cannot be read: {said.removeprefix('ERROR: ')}")
        return _table(said, end - seconds, step)

    def remove(self, names: Iterable[str]) -> None:
        """Forget those; an absent one is fine."""
        for name in names:
            self._file(name).unlink(missing_ok=True)

    def names(self) -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return {file.stem for file in self._directory.glob("*.rrd")}
        return set()

    def _file(self, name: str) -> Path:
        if not _NAME.match(name):
            raise NotFound(f"there are no figures of {name[:40]!r}")
        return self._directory / f"{name}.rrd"

    @staticmethod
    def _create(name: str, moment: int) -> str:
        sources = [f"DS:{column}:GAUGE:{_HOLDS}:0:U" for column in COLUMNS]
        archives = []
        for step, rows, peaks in _KEPT:
            # Half of a row's time may be unknown.
            archives.append(f"RRA:AVERAGE:0.5:{step // STEP}:{rows}")
            if peaks:
                archives.append(f"RRA:MAX:0.5:{step // STEP}:{rows}")
        return " ".join([f"create {name}.rrd --start {moment - STEP} --step {STEP}", *sources, *archives])

    def _ask(self, commands: Sequence[str]) -> list[str]:
        """An answer to each: its text, or ``ERROR: …``. rrdtool reads one command a line and ends each answer with
        ``OK`` or ``ERROR`` (rrdtool(1), "remote control")."""
        try:
            done = subprocess.run(
                [_RRDTOOL, "-"],
                input="".join(f"{command}\n" for command in commands),
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                cwd=self._directory,
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"},
                check=False,
            )
        except FileNotFoundError:
            raise Temporary("rrdtool is not installed", hint="apt-get install rrdtool") from None
        except subprocess.TimeoutExpired:
            raise Temporary(f"rrdtool took more than {_SECONDS:.0f} s") from None
        answers: list[str] = []
        lines: list[str] = []
        for line in done.stdout.splitlines():
            if line.startswith("OK "):
                answers.append("\n".join(lines))
                lines = []
            elif line.startswith("ERROR"):
                answers.append(line)
                lines = []
            else:
                lines.append(line)
        if len(answers) != len(commands):
            raise Temporary(f"rrdtool gave {len(answers)} answers to {len(commands)} questions")
        return answers


def _number(value: float | None) -> str:
    return "U" if value is None or not math.isfinite(value) else f"{max(value, 0.0):.10g}"


def _table(said: str, start: int, step: int) -> Table:
    """Rows of ``fetch``: ``SECONDS: VALUE VALUE …`` under one line of names; each stands for the step before it."""
    rows = []
    first: int | None = None
    second: int | None = None
    for line in said.splitlines():
        at, colon, rest = line.partition(":")
        if not colon or not at.strip().isdigit():
            continue
        if first is None:
            first = int(at)
        elif second is None:
            second = int(at)
        rows.append(tuple(_value(word) for word in rest.split()))
    found = second - first if first is not None and second is not None else step
    return Table(first if first is not None else start, found, COLUMNS, tuple(rows))


def _value(word: str) -> float | None:
    value = float(word)
    return None if math.isnan(value) else value
