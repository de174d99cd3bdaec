"""Round-robin archives: one file of rrdtool's a site, one of the machine and one of each of its interfaces.

A file has its whole size from the start (``FILE_BYTES``), whatever is written into it: what a thousand sites cost is
known beforehand. Rounds wait in memory and are written together, a minute's in one update of each file: a file costs
what opening it costs, however many rows come. One ``rrdtool -`` takes them all from its standard input and ends, so
nothing keeps running. Whoever reads a file first has what waits for it written.
"""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
import threading
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
    "net_in",
    "net_out",
    "up",
    "kept",
)
"""Of a site and of the machine: processors; bytes; number; bytes; bytes a second (2); answers a second of 1xx and 2xx,
3xx, 4xx, 5xx; milliseconds (3); bytes a second of requests and answers over IPv4 and IPv6 (4), and of all that its own
interface carried (2; of the machine: of all its interfaces); shares of 1 (2)."""
MACHINE = "machine"
MACHINE_COLUMNS = (
    *COLUMNS,
    "load",
    "cpus",
    "memory_all",
    "disk_all",
    "addresses_left",
    "addresses_used",
    "certificates",
    "sites",
    "running",
)
"""Of the machine besides: processes that want a processor (mean of a minute); processors; bytes (2); numbers (5)."""
INTERFACE_COLUMNS = ("in", "out", "in_packets", "out_packets", "lost")
"""Of an interface: bytes a second (2); packets a second (3), the last of those with errors or without room."""
INTERFACE = "if-"
"""Before the name of an interface in that of its archive."""
_ROWS = sum(rows * (2 if peaks else 1) for _, rows, peaks in _KEPT)
FILE_BYTES = _ROWS * len(COLUMNS) * 8
_RRDTOOL = "/usr/bin/rrdtool"
_NAME = re.compile(r"^(?:[a-z0-9]{1,32}|if-[A-Za-z0-9_][A-Za-z0-9_.-]{0,14})\Z")
_SECONDS = 60.0
#: Rounds are written when there are so many: what is lost when control is killed is a minute.
ROUNDS = 6


def columns_of(name: str) -> tuple[str, ...]:
    """What the archive of this name has."""
    if name == MACHINE:
        return MACHINE_COLUMNS
    return INTERFACE_COLUMNS if name.startswith(INTERFACE) else COLUMNS


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``rows`` from ``start`` on, one every ``step`` seconds; ``None`` is not known."""

    start: int
    step: int
    columns: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]


class Archives:
    """``directory`` holds the files; it is made when the first is. Safe from several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._waiting: dict[str, list[str]] = {}
        self._rounds = 0

    def keep(self, rows: Mapping[str, Sequence[float | None]], at: float) -> list[str]:
        """One value of each column for each name, at ``at`` (seconds since the epoch), to be written with others.

        Gives what went wrong with those that were written now. Raises ``Temporary`` when rrdtool cannot be used, then
        they are lost; ``NotFound`` for a name that is none.
        """
        moment = int(at)
        for name in rows:
            self._file(name)
        with self._lock:
            for name, values in rows.items():
                self._waiting.setdefault(name, []).append(f"{moment}:{':'.join(map(_number, values))}")
            self._rounds += 1
            full = self._rounds >= ROUNDS
        return self.flush() if full else []

    def flush(self, *names: str) -> list[str]:
        """Write what waits, of all or of ``names``; gives what went wrong. Files that are missing are made."""
        with self._lock:
            taken = {name: self._waiting.pop(name) for name in names or tuple(self._waiting) if name in self._waiting}
            if not names:
                self._rounds = 0
            if not taken:
                return []
            self._directory.mkdir(mode=0o700, exist_ok=True)
            commands = []
            for name, updates in taken.items():
                if not self._file(name).exists():
                    commands.append(self._create(name, int(updates[0].partition(":")[0])))
                commands.append(f"update {name}.rrd {' '.join(updates)}")
            # A round that was killed, or a clock that went back: the time is refused, the next round is a later one.
            return [each for each in self._ask(commands) if each.startswith("ERROR")]

    def write(self, rows: Mapping[str, Sequence[float | None]], at: float) -> list[str]:
        """:meth:`keep` and :meth:`flush`."""
        return [*self.keep(rows, at), *self.flush()]

    def read(self, name: str, seconds: int, now: float, *, peaks: bool = False) -> Table:
        """The last ``seconds`` as finely as they are kept, at most some 1,500 rows; none before the first write."""
        step = next((step for step, rows, _ in _KEPT if step * (rows - 1) >= seconds), _KEPT[-1][0])
        if peaks:
            step = max(step, 600)
        end = int(now) // step * step
        return self.between(name, end - seconds, end, step, peaks=peaks)

    def between(self, name: str, start: int, end: int, step: int, *, peaks: bool = False) -> Table:
        """Rows of ``step`` seconds, one of those that are kept, that end after ``start`` and not after ``end``."""
        return self.several([name], start, end, step, peaks=peaks)[name]

    def several(
        self, names: Sequence[str], start: int, end: int, step: int, *, peaks: bool = False
    ) -> dict[str, Table]:
        """The same of many, by one rrdtool."""
        for name in names:
            self._file(name)
        self.flush(*names) if names else None
        there = [name for name in names if self._file(name).exists()]
        kind = "MAX" if peaks else "AVERAGE"
        answers = self._ask([f"fetch {name}.rrd {kind} -r {step} -s {start} -e {end}" for name in there])
        found = {name: Table(start, step, columns_of(name), ()) for name in names}
        for name, said in zip(there, answers, strict=True):
            if said.startswith("ERROR"):
                raise Temporary(f"the figures cannot be read: {said.removeprefix('ERROR: ')}")
            table = _table(said, columns_of(name), start, step)
            # rrdtool gives the row after the last one too, which is not whole yet.
            found[name] = msgspec.structs.replace(table, rows=table.rows[: max(0, (end - table.start) // step + 1)])
        return found

    def remove(self, names: Iterable[str]) -> None:
        """Forget those; an absent one is fine."""
        for name in names:
            self._file(name).unlink(missing_ok=True)
            with self._lock:
                self._waiting.pop(name, None)

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
        sources = [f"DS:{column}:GAUGE:{_HOLDS}:0:U" for column in columns_of(name)]
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
        if not commands:
            return []
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


def _table(said: str, columns: tuple[str, ...], start: int, step: int) -> Table:
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
    return Table(first if first is not None else start, found, columns, tuple(rows))


def _value(word: str) -> float | None:
    value = float(word)
    return None if math.isnan(value) else value


def thinned(table: Table, points: int, *, peaks: bool = False) -> Table:
    """At most ``points`` rows: each the mean of what is known of several, or with ``peaks`` the highest."""
    many = -(-len(table.rows) // points) if points > 0 else 1
    if many <= 1:
        return table
    rows = []
    for at in range(0, len(table.rows), many):
        columns = zip(*table.rows[at : at + many], strict=True)
        rows.append(tuple(_one([value for value in column if value is not None], peaks) for column in columns))
    # A row's time is that of its end.
    return Table(table.start + (many - 1) * table.step, table.step * many, table.columns, tuple(rows))


def _one(values: Sequence[float], peaks: bool) -> float | None:
    if not values:
        return None
    return max(values) if peaks else sum(values) / len(values)
