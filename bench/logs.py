#!/usr/bin/env python3
from __future__ import annotations

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


def figure(session: Session) -> list[Row]:
    """Searching a site's lines for a word that stands once, and for the newest: beside zgrep over the same lines."""
    size = (64 if session.quick else 1024) * 1024 * 1024
    top = Path(tempfile.mkdtemp(prefix="alvbench", dir="/var/tmp"))
    try:
        place, peer, end = _fill(top, size)
        files = sorted(peer.iterdir())

        def ours(_number: int) -> float:
            began = time.perf_counter()
            found = search([place], Wanted(words=(_NEEDLE.decode(),)), seconds=600)
            if len(found.lines) != 1:
                raise BenchError(f"{len(found.lines)} lines were found in place of one")
            return time.perf_counter() - began

        def zgrep(_number: int) -> float:
            began = time.perf_counter()
            done = subprocess.run(["zgrep", "-h", "-i", "-F", _NEEDLE, *files], capture_output=True, check=True)
            if done.stdout.count(b"\n") != 1:
                raise BenchError("zgrep found something else")
            return time.perf_counter() - began

        def newest(_number: int) -> float:
            began = time.perf_counter()
            if len(search([place], Wanted(last=100)).lines) != 100:
                raise BenchError("there are fewer lines")
            return time.perf_counter() - began

        def minute(_number: int) -> float:
            began = time.perf_counter()
            middle = end - size / 300 * 0.05 / 2
            if not search([place], Wanted(since=middle, until=middle + 60, words=("page-7",), last=10_000)).lines:
                raise BenchError("nothing in that minute")
            return time.perf_counter() - began

        seen = interleave(session.runs(3, 1), {"ours": ours, "zgrep": zgrep, "newest": newest, "minute": minute})
        mine, theirs = median(seen["ours"]), median(seen["zgrep"])
        packed = sum(each.stat().st_size for each in place.archive.iterdir())
        return [
            Row(
                f"one word in {size >> 20:,} MiB of lines of a site, all of them read",
                f"{mine:.2f} s",
                f"{theirs:.2f} s (zgrep over .gz of the same lines)",
                mine / theirs,
                "≤ zgrep",
                mine <= theirs,
                len(seen["ours"]),
                f"packed {packed >> 20} MiB (gzip {sum(each.stat().st_size for each in files) >> 20} MiB); "
                f"the newest 100 lines {ms(median(seen['newest']))}; a word in one minute {ms(median(seen['minute']))}",
                seen,
            )
        ]
    finally:
        shutil.rmtree(top)


if __name__ == "__main__":
    main("logs", figure)
