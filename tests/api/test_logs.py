"""The reader of s6-log directories, against the real s6-log wherever it can run."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alveole.errors import InvalidInput
from alveole.logs import Follower, moment, read
from alveole.text import clean

S6_LOG = shutil.which("s6-log")
needs_s6 = pytest.mark.skipif(S6_LOG is None, reason="s6-log is not installed")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real s6-log that rotates every 4 KiB (its minimum) into ``tmp_path/logs``."""
    assert S6_LOG is not None
    process = subprocess.Popen(
        [S6_LOG, "-b", "n100", "s4096", "T", str(tmp_path / "logs")],
        stdin=subprocess.PIPE,
        env={"TZ": "UTC", "PATH": "/usr/bin"},
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


def _say(writer: subprocess.Popen[bytes], text: str) -> None:
    assert writer.stdin is not None
    writer.stdin.write(text.encode() + b"\n")
    writer.stdin.flush()


def _directory(tmp_path: Path, lines: dict[str, list[tuple[str, str]]]) -> Path:
    for name, rows in lines.items():
        (tmp_path / name).write_text("".join(f"{at}  {text}\n" for at, text in rows))
    return tmp_path


def _archive(at: datetime) -> str:
    return f"@{(1 << 62) + 37 + int(at.timestamp()):016x}00000000.s"


@needs_s6
def test_reads_and_follows_across_rotations(tmp_path: Path, writer: subprocess.Popen[bytes]) -> None:
    sent = [f"line {number:05d} {'x' * (number % 90)}" for number in range(600)]
    logs = tmp_path / "logs"
    _say(writer, sent[0])
    until = time.monotonic() + 10
    while not list(read(logs)) and time.monotonic() < until:
        time.sleep(0.01)
    with Follower(logs) as follower:
        before = [line.text for line in read(logs, end=follower.start)]
        got: list[str] = []
        for number, text in enumerate(sent[1:], 1):
            _say(writer, text)
            if number % 150 == 0:
                time.sleep(0.05)
                got.extend(line.text for line in follower.poll())
        while len(got) < len(sent) - 1 and time.monotonic() < until:
            got.extend(line.text for line in follower.poll())
            time.sleep(0.01)
    assert before + got == sent
    assert len(list(logs.glob("@*"))) >= 3, "the test must have seen rotations"
    everything = list(read(logs))
    assert [line.text for line in everything] == sent
    assert all(line.at.endswith("Z") and len(line.at) == 30 for line in everything)
    written = datetime.fromisoformat(everything[-1].at[:26] + "+00:00").timestamp()
    assert abs(written - time.time()) < 60, "stamps are UTC"
    assert [line.text for line in read(logs, last=200)] == sent[-200:]
    assert [line.text for line in read(logs, last=10_000)] == sent
    assert list(read(logs, since=time.time() + 60)) == []


def test_since_until_and_last(tmp_path: Path) -> None:
    start = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)

    def at(minute: int) -> str:
        return (start + timedelta(minutes=minute)).strftime("%Y-%m-%d %H:%M:%S.000000000")

    logs = _directory(
        tmp_path,
        {
            _archive(start + timedelta(minutes=9)): [(at(m), f"m{m}") for m in range(10)],
            _archive(start + timedelta(minutes=19)): [(at(m), f"m{m}") for m in range(10, 20)],
            "current": [(at(m), f"m{m}") for m in range(20, 25)],
        },
    )
    minute = start.timestamp()

    def texts(**bounds: float | int) -> list[str]:
        return [line.text for line in read(logs, **bounds)]

    assert texts() == [f"m{m}" for m in range(25)]
    assert texts(since=minute + 18 * 60) == [f"m{m}" for m in range(18, 25)]
    assert texts(until=minute + 2 * 60) == ["m0", "m1"]
    assert texts(since=minute + 8 * 60, until=minute + 12 * 60) == ["m8", "m9", "m10", "m11"]
    assert texts(last=7) == [f"m{m}" for m in range(18, 25)]
    assert texts(last=3, until=minute + 12 * 60) == ["m9", "m10", "m11"]
    assert texts(last=100, since=minute + 23 * 60) == ["m23", "m24"]
    assert texts(last=0) == []


def test_last_equals_the_tail_of_everything(tmp_path: Path) -> None:
    rng = random.Random(7)  # noqa: S311  the same each time
    rows = [(f"2026-11-21 06:{n // 60:02d}:{n % 60:02d}.{n:09d}", "é" * rng.randrange(0, 900)) for n in range(1200)]
    logs = _directory(tmp_path, {"current": rows})
    everything = list(read(logs))
    assert [line.text for line in everything] == [text for _, text in rows]
    for count in (1, 2, 63, 500, 1199, 1200):
        assert list(read(logs, last=count)) == everything[-count:]


def test_an_absent_directory_has_no_lines(tmp_path: Path) -> None:
    assert list(read(tmp_path / "none")) == []
    with Follower(tmp_path / "none") as follower:
        assert follower.start is None
        assert follower.poll() == []


def test_a_follower_that_began_before_the_first_line_sees_it(tmp_path: Path) -> None:
    with Follower(tmp_path) as follower:
        (tmp_path / "current").write_bytes(b"2026-11-21 06:51:26.123456789  hello\nhalf")
        assert [line.text for line in follower.poll()] == ["hello"]
        with (tmp_path / "current").open("ab") as file:
            file.write(b" a line\n")
        assert [line.text for line in follower.poll()] == ["half a line"]


@pytest.mark.parametrize(
    ("hostile", "inert"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("\x90q payload\x9cafter", "after"),
        ("a\rb\x08c\x00d\x7f", "abcd"),
        ("tab\tstays", "tab\tstays"),
        ("\u202egnp.exe", "gnp.exe"),
        ("two\u2028lines", "twolines"),
        ("déjà 日本", "déjà 日本"),
        ("\x1b", ""),
        ("\x1bPunfinished", ""),
    ],
)
def test_hostile_text_is_inert(hostile: str, inert: str) -> None:
    """Threat 31: control characters of a log line never reach a terminal or a page."""
    assert clean(hostile) == inert


def test_hostile_lines_come_out_clean(tmp_path: Path) -> None:
    """Threat 31: the reader itself cleans, also what is not UTF-8."""
    (tmp_path / "current").write_bytes(b"2026-11-21 06:51:26.123456789  \x1b[2J\xff\xfeok\x1b]0;x\x07\n")
    (line,) = read(tmp_path)
    assert line.text == "\ufffd\ufffdok"


def test_moments() -> None:
    now = 1_795_244_400.0
    assert moment("10m", now=now) == now - 600
    assert moment("2h ago", now=now) == now - 7200
    assert moment("now", now=now) == now
    assert moment("1795244400", now=now) == now
    assert moment("2026-11-21T06:51:26Z") == datetime(2026, 11, 21, 6, 51, 26, tzinfo=UTC).timestamp()
    assert moment("2026-11-21 06:51") == datetime(2026, 11, 21, 6, 51).timestamp()
    assert 0 <= now - moment("today", now=now) < 86_400
    evening = datetime(2026, 11, 21, 18, 30).timestamp()
    assert moment("06:51", now=evening) == datetime(2026, 11, 21, 6, 51).timestamp()
    assert moment("23:10:05", now=evening) == datetime(2026, 11, 20, 23, 10, 5).timestamp(), "it is not that late yet"
    with pytest.raises(InvalidInput, match="is not a moment"):
        moment("soonish")
