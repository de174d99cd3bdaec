#!/usr/bin/env python3
from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from alveole.logbook import places
from alveole.logbook.lines import Form
from alveole.logbook.model import Source, Wanted
from alveole.logbook.search import search
from alveole.logbook.segments import pack
from machine import BenchError
from report import Row, Session, interleave, main, median, ms

SITE = "saaaaaaaaaaab"
_FILE_BYTES = 32 * 1024 * 1024
_NEEDLE = b"needle-7f3a"
_REMOTE = Path("/lib/systemd/systemd-journal-remote")


def _fill(top: Path, size: int) -> tuple[places.Place, Path, float]:
    """``size`` bytes of requests in packed files as the agent makes them, and the same in .gz as logrotate does."""
    (place,) = places.of_site(top, SITE, (Source.ACCESS,))
    place.archive.mkdir(parents=True)
    peer = top / "gz"
    peer.mkdir()
    rng = random.Random(1)  # noqa: S311  the same lines each time
    words = [f"/{rng.randrange(10**9):x}/page-{number}" for number in range(5000)]
    at, written, number = 1_795_000_000.0, 0, 0
    while written < size:
        lines, begin = [], at
        here = 0
        while here < _FILE_BYTES:
            stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
            line = (
                f'{{"time":"{stamp}","client":"203.0.113.{rng.randrange(256)}","scheme":"https","method":"GET",'
                f'"host":"blog.example.org","uri":"{rng.choice(words)}?v={rng.randrange(10**6)}","protocol":"HTTP/2.0",'
                f'"status":"200","bytes":"{rng.randrange(10**5)}","seconds":"0.0{rng.randrange(99)}",'
                f'"site_seconds":"0.01","referer":"","agent":"Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}}\n'
            ).encode()
            lines.append(line)
            here += len(line)
            at += 0.05
        if written == 0:
            lines[len(lines) // 2] = lines[0].replace(b"page-", _NEEDLE)
        plain = top / "plain"
        plain.write_bytes(b"".join(lines))
        written += here
        with plain.open("rb") as file:
            pack(file, Form.REQUEST, place.archive / f"access.{int(begin)}.{int(at) + 1}.{number:x}.zst")
        with (peer / f"{number:04d}.gz").open("wb") as packed:
            subprocess.run(["gzip", "-6", "-c", plain], stdout=packed, check=True)
        plain.unlink()
        number += 1
    return place, peer, at


def _zstd_files(top: Path, place: places.Place) -> list[Path]:
    """The same lines as plain zstd keeps them, file by file."""
    peer = top / "zst"
    peer.mkdir()
    for each in places.archives(place.archive):
        lines = subprocess.run(["zstd", "-dcq", place.archive / each.name], capture_output=True, check=True).stdout
        with (peer / each.name).open("wb") as packed:
            subprocess.run(["zstd", "-3", "-q", "-c"], input=lines, stdout=packed, check=True)
    return sorted(peer.iterdir())


def _packing(session: Session, top: Path, place: places.Place) -> Row:
    """One closed file after the other, as the agent packs them, beside ``zstd`` of the same level; both to the disk."""
    first = places.archives(place.archive)[0]
    plain = top / "closed"
    with plain.open("wb") as file:
        subprocess.run(["zstd", "-dcq", place.archive / first.name], stdout=file, check=True)
    size = plain.stat().st_size

    def ours(number: int) -> float:
        target = top / f"ours-{number}"
        began = time.perf_counter()
        with plain.open("rb") as file:
            pack(file, Form.REQUEST, target)
        took = time.perf_counter() - began
        target.unlink()
        return took

    def zstd(number: int) -> float:
        target = top / f"zstd-{number}"
        began = time.perf_counter()
        subprocess.run(["zstd", "-3", "-q", plain, "-o", target], check=True)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
        took = time.perf_counter() - began
        target.unlink()
        return took

    seen = interleave(session.runs(15, 3), {"ours": ours, "zstd": zstd})
    mine, theirs = median(seen["ours"]), median(seen["zstd"])
    return Row(
        f"packing {size >> 20} MiB of closed lines, with the table of moments",
        f"{size / mine / 1e6:.0f} MB/s",
        f"{size / theirs / 1e6:.0f} MB/s (zstd -3)",
        mine / theirs,
        "≤ 1.25 of its time",
        mine <= 1.25 * theirs,
        len(seen["ours"]),
        "both with fsync",
        seen,
    )


def _journal(top: Path, place: places.Place) -> tuple[int, str]:
    """What journald takes for the same lines (bytes), where the tool that writes a journal from a stream is here."""
    if not _REMOTE.exists():
        return 0, "no journal to compare with: apt-get install systemd-journal-remote"
    journal = top / "peer.journal"
    with subprocess.Popen([_REMOTE, "-o", journal, "-"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        number = 0
        # A part of it: this tool writes some thousand entries a second.
        for each in places.archives(place.archive)[:1]:
            done = subprocess.run(["zstd", "-dcq", place.archive / each.name], capture_output=True, check=True)
            for line in done.stdout.splitlines():
                number += 1
                at = 1_795_000_000_000_000 + number * 50_000
                process.stdin.write(
                    b"__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%b\nPRIORITY=6\n"
                    b"SYSLOG_IDENTIFIER=site\nMESSAGE=%b\n\n" % (at, number * 50_000, b"1" * 32, line)
                )
        process.stdin.close()
        if process.wait() != 0:
            return 0, "systemd-journal-remote did not take them"
    return journal.stat().st_size, ""


def figure(session: Session) -> list[Row]:
    """A site's packed lines beside what others keep of the same: packing, searching, a word in a time, disk."""
    size = (64 if session.quick else 1024) * 1024 * 1024
    top = Path(tempfile.mkdtemp(prefix="alvbench", dir="/var/tmp"))
    try:
        place, peer, end = _fill(top, size)
        files = sorted(peer.iterdir())
        others = _zstd_files(top, place)
        middle = end - size / 300 * 0.05 / 2

        def ours(_number: int) -> float:
            began = time.perf_counter()
            found = search([place], Wanted(words=(_NEEDLE.decode(),)), seconds=600)
            if len(found.lines) != 1:
                raise BenchError(f"{len(found.lines)} lines were found in place of one")
            return time.perf_counter() - began

        def grep(argv: list[str], packed: list[Path]) -> float:
            began = time.perf_counter()
            # Its status is that of the last file, for one of the two.
            done = subprocess.run([*argv, "-h", "-i", "-F", _NEEDLE, *packed], capture_output=True, check=False)
            if done.stdout.count(b"\n") != 1:
                raise BenchError(f"{argv[0]} found something else")
            return time.perf_counter() - began

        def newest(_number: int) -> float:
            began = time.perf_counter()
            if len(search([place], Wanted(last=100)).lines) != 100:
                raise BenchError("there are fewer lines")
            return time.perf_counter() - began

        def minute(_number: int) -> float:
            began = time.perf_counter()
            if not search([place], Wanted(since=middle, until=middle + 60, words=("page-7",), last=10_000)).lines:
                raise BenchError("nothing in that minute")
            return time.perf_counter() - began

        # Whoever has files by their time looks into the one that holds that minute, and picks the minute out of it.
        (held,) = [
            each for each in others if int(each.name.split(".")[1]) <= middle < int(each.name.split(".")[2]) - 1
        ][:1]
        stamp = datetime.fromtimestamp(middle, UTC).strftime("%Y-%m-%dT%H:%M:")

        def minute_by_zstdgrep(_number: int) -> float:
            began = time.perf_counter()
            subprocess.run(["zstdgrep", "-E", f"{stamp}.*page-7", held], capture_output=True, check=True)
            return time.perf_counter() - began

        seen = interleave(
            session.runs(3, 1),
            {
                "ours": ours,
                "zgrep": lambda _n: grep(["zgrep"], files),
                "zstdgrep": lambda _n: grep(["zstdgrep"], others),
                "newest": newest,
            },
        )
        spans = interleave(session.runs(9, 3), {"minute": minute, "zstdgrep": minute_by_zstdgrep})
        packed = sum(each.stat().st_size for each in place.archive.iterdir())
        plain_zstd = sum(each.stat().st_size for each in others)
        first = places.archives(place.archive)[0]
        journal, missing = _journal(top, place)
        share = (place.archive / first.name).stat().st_size
        beside = f"; journald takes {journal / share:.1f} times ours for the same lines" if journal else f"; {missing}"
        mine, theirs = median(seen["ours"]), median(seen["zgrep"])
        rows = [
            Row(
                f"one word in {size >> 20:,} MiB of lines of a site, all of them read",
                f"{mine:.2f} s",
                f"{theirs:.2f} s (zgrep over .gz of the same lines)",
                mine / theirs,
                "≤ zgrep",
                mine <= theirs,
                len(seen["ours"]),
                f"zstdgrep over plain zstd {median(seen['zstdgrep']):.2f} s; "
                f"the newest 100 lines {ms(median(seen['newest']))}",
                seen,
            ),
            Row(
                f"one word within one minute of {size >> 20:,} MiB",
                ms(median(spans["minute"])),
                f"{ms(median(spans['zstdgrep']))} (zstdgrep over the one file of that time)",
                median(spans["minute"]) / median(spans["zstdgrep"]),
                "≤ zstdgrep",
                median(spans["minute"]) <= median(spans["zstdgrep"]),
                len(spans["minute"]),
                "whoever has no file by its time looks through all of them",
                spans,
            ),
            _packing(session, top, place),
            Row(
                f"disk for {size >> 20:,} MiB of lines",
                f"{packed / 1e6:.0f} MB",
                f"{plain_zstd / 1e6:.0f} MB (zstd -3)",
                packed / plain_zstd,
                "≤ 1.1",
                packed <= 1.1 * plain_zstd,
                1,
                f"each two megabytes are read by themselves; "
                f"gzip -6 {sum(each.stat().st_size for each in files) / 1e6:.0f} MB{beside}",
            ),
        ]
        return rows
    finally:
        shutil.rmtree(top)


if __name__ == "__main__":
    main("logs", figure)
