"""Fault: the disk is full while lines are packed, taken in, or figures written: nothing is lost that was there, nobody
else suffers, and all goes on when there is room. On a small tmpfs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alveole.actuators import log_keeper
from alveole.actuators.host_logs import HostLogs
from alveole.actuators.log_keeper import LogKeeper
from alveole.config import Settings, parse
from alveole.errors import Temporary
from alveole.figures.archive import COLUMNS, FILE_BYTES, Archives
from alveole.logbook import places
from alveole.logbook.model import Source, Wanted
from alveole.logbook.search import search
from alveole.logbook.writer import Writer

pytestmark = pytest.mark.root
SITES = ("saaaaaaaaaaab", "saaaaaaaaaaac")
NOON = 1_700_000_000 // 86_400 * 86_400
MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    place = tmp_path / "s"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        # Lazily: a test that fails may have files of it open.
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def settings(small: Path) -> Settings:
    found = parse({"paths": {"state": str(small), "run": "/tmp/r"}, "users": {"control": "root"}})
    for each in ("host", "in", *SITES):
        (found.logs / each).mkdir(parents=True)
    return found


def fill(place: Path) -> Path:
    """Not a byte is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for block in (MIB // 4, 4096, 64):
            with contextlib.suppress(OSError):
                while file.write(b"x" * block):
                    pass
    return ballast


def printed(settings: Settings, site: str, count: int = 2000) -> None:
    """A file that s6-log has closed, of lines that do not pack well."""
    at = datetime.fromtimestamp(NOON, UTC).strftime("%Y-%m-%d %H:%M:%S.%f000")
    lines = b"".join(f"{at}  line {number} {os.urandom(100).hex()}\n".encode() for number in range(count))
    (settings.logs / site / f"@{(1 << 62) + NOON:016x}00000000.s").write_bytes(lines)


def count_of(settings: Settings, site: str) -> int:
    return len(search(places.of_site(settings.logs, site, (Source.OUT,)), Wanted(last=10_000)).lines)


def test_lines_stay_until_they_can_be_packed(settings: Settings, small: Path) -> None:
    for site in SITES:
        printed(settings, site)
    keeper = LogKeeper(settings, lambda _site: None)
    ballast = fill(small)
    with pytest.raises(OSError, match="No space"):
        keeper.keep()
    assert [count_of(settings, site) for site in SITES] == [2000, 2000]
    assert not list(settings.logs.rglob("*.part")) and not list(settings.logs.rglob("*.zst"))
    ballast.unlink()
    assert keeper.keep() == 2
    assert [count_of(settings, site) for site in SITES] == [2000, 2000]
    assert not list(settings.logs.glob("s*/@*"))


def test_what_is_too_old_goes_although_nothing_can_be_packed(
    settings: Settings, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only thing that makes room by itself must not wait for what needs some."""
    first, second = SITES
    printed(settings, first)
    keeper = LogKeeper(settings, lambda _site: None)
    assert keeper.keep() == 1
    printed(settings, second)
    fill(small)
    monkeypatch.setattr(log_keeper, "_LOOK_SECONDS", 0.05)
    stopped = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stopped,))
    thread.start()
    try:
        # Lines of 2023 are older than what is kept; into the room that they leave the others are packed.
        archive = settings.logs / places.ARCHIVE
        end = time.monotonic() + 60
        while places.archives(archive / first) or not places.archives(archive / second):
            assert time.monotonic() < end, "nothing made room"
            time.sleep(0.05)
    finally:
        stopped.set()
        thread.join(30)
    assert [count_of(settings, site) for site in SITES] == [0, 2000]


def test_one_file_that_cannot_be_read_holds_up_itself_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for site in SITES:
        printed(settings, site)
    keeper = LogKeeper(settings, lambda _site: None)
    write = keeper._write

    def broken(place: places.Place, *rest: object) -> None:
        if place.site == SITES[0]:
            raise OSError(5, "Input/output error")
        write(place, *rest)

    monkeypatch.setattr(keeper, "_write", broken)
    assert keeper.keep() == 1
    assert [count_of(settings, site) for site in SITES] == [2000, 2000]


def test_what_is_taken_in_and_the_machines_lines_wait_or_are_counted(
    settings: Settings, small: Path, tmp_path: Path
) -> None:
    taken = Writer(settings.logs / "in")
    taken.write("info", "h/p", "before")
    log = tmp_path / "syslog"
    log.write_text("")
    host = HostLogs(settings, tmp_path, journal=False)
    host.gather()
    ballast = fill(small)
    for _ in range(200):
        taken.write("info", "h/p", "x" * 4000)
    assert taken.lost >= 190
    log.write_text("Nov 21 06:00:00 h p: while it was full\n" * 200)
    host.gather()
    ballast.unlink()
    taken.write("info", "h/p", "after")
    log.write_text(log.read_text() + "Nov 21 06:00:01 h p: after\n")
    host.gather()
    for each in ("in", "host"):
        text = (settings.logs / each / "current").read_text()
        assert text.endswith("after\n"), each
    taken.close()


def test_figures_go_on_and_new_ones_begin_when_there_is_room(small: Path) -> None:
    archives = Archives(small / "figures")
    row: list[float | None] = [1.0] * len(COLUMNS)
    assert archives.write({"sa": row}, NOON) == []
    ballast = fill(small)
    for number in range(1, 4):
        with contextlib.suppress(Temporary):
            told = archives.write({"sa": row, "sb": row}, NOON + 10 * number)
            assert told, "that there is no room is told"
    known = [each[0] for each in archives.read("sa", 3600, NOON + 30).rows if each[0] is not None]
    assert known == [1.0] * 4, "what has its file goes on"
    ballast.unlink()
    assert archives.write({"sa": row, "sb": row}, NOON + 40) == []
    assert archives.write({"sa": row, "sb": row}, NOON + 50) == []
    assert (small / "figures" / "sb.rrd").stat().st_size >= FILE_BYTES
    assert any(each[0] == 1.0 for each in archives.read("sb", 3600, NOON + 50).rows)
