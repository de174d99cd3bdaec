"""Log lines: forms, packed files, reading between moments, searching, following, packing and pruning.

Root is needed for the owners of packed files alone.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from alveole.actuators.edge_logs import EdgeLogs, rotate
from alveole.actuators.log_keeper import LogKeeper
from alveole.config import Settings, parse
from alveole.errors import InvalidInput
from alveole.logbook import lines, places
from alveole.logbook.asking import SearchLogs, examine
from alveole.logbook.follow import Tails
from alveole.logbook.lines import Form
from alveole.logbook.model import Source, Wanted
from alveole.logbook.packed import frames
from alveole.logbook.search import search
from alveole.logbook.segments import Packed, Plain, pack, split_lines
from alveole.logbook.shorten import network_of, shorten
from alveole.logbook.syslog import parse as parse_syslog
from alveole.logbook.writer import Writer

pytestmark = pytest.mark.root
START = datetime(2026, 11, 21, 6, 0, tzinfo=UTC).timestamp()
SITE = "saaaaaaaaaaab"


def stamped(second: float, text: str) -> bytes:
    at = datetime.fromtimestamp(START + second, UTC).strftime("%Y-%m-%d %H:%M:%S.%f000")
    return f"{at}  {text}\n".encode()


def request(second: int, uri: str = "/", status: int = 200, client: str = "203.0.113.77") -> bytes:
    at = datetime.fromtimestamp(START + second, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
    fields = {"time": at, "client": client, "scheme": "https", "method": "GET", "host": "blog.example", "uri": uri}
    fields |= {"protocol": "HTTP/1.1", "status": str(status), "bytes": "512", "seconds": "0.012"}
    fields |= {"site_seconds": "0.011", "referer": "https://ex.org/from?me=1", "agent": 'a "quoted" one'}
    return msgspec.json.encode(fields) + b"\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = parse({"paths": {"state": str(tmp_path / "s"), "run": "/tmp/r"}, "users": {"control": "root"}})
    found.logs.mkdir(parents=True)
    return found


def keeper(settings: Settings) -> LogKeeper:
    return LogKeeper(settings, lambda _site: None)


def place(settings: Settings, source: Source = Source.OUT) -> places.Place:
    (found,) = places.of_site(settings.logs, SITE, (source,))
    found.live.mkdir(parents=True, exist_ok=True)
    return found


def texts(found: object) -> list[str]:
    return [each.text for each in found.lines]


# --- forms ----------------------------------------------------------------------------------------
def test_each_form_gives_moment_level_and_text() -> None:
    raw = stamped(1.5, "[ERROR] it broke")[:-1]
    assert lines.read(raw, Form.PLAIN) == ("2026-11-21T06:00:01.500000Z", "err", "", "[ERROR] it broke")
    raw = stamped(0, "warning sshd: bad \x1b[2Jguess")[:-1]
    assert lines.read(raw, Form.LEVELLED)[1:] == ("warning", "sshd", "bad guess")
    at, level, _, text = lines.read(request(2, "/a?b", 503)[:-1], Form.REQUEST)
    assert (at, level) == ("2026-11-21T06:00:02.000000Z", "err")
    assert text.startswith('203.0.113.77 "GET https://blog.example/a?b" 503 512 B 0.012 s')
    raw = b"2026/11/21 06:00:00 [crit] 12#12: *1 open() failed"
    assert lines.read(raw, Form.PROXY)[1:] == ("crit", "proxy", "[crit] 12#12: *1 open() failed")


def test_hostile_lines_are_harmless() -> None:
    """Threat 31: escapes, bytes that are no text, a forged stamp and a line without end do nothing."""
    forged = b"2020-01-01 00:00:00.000000000  old \x1b]0;x\x07\xff\xfe" + b"A" * 100_000
    at, _, _, text = lines.read(stamped(3, "")[:-1] + forged, Form.PLAIN)
    assert at == "2026-11-21T06:00:03.000000Z", "the stamp is the writer's own, not the one that was printed"
    assert "\x1b" not in text and "\x07" not in text and len(text) <= lines.TEXT_MAX
    for raw in (b"", b"\x00" * 300, b"9999-99-99 99:99:99.999999999  x", b'{"time":"', b'{"time":"2026-13-40T"}'):
        for form in Form:
            at, _, _, text = lines.read(raw, form)
            assert at == "" and "\x00" not in text


def test_a_stamp_of_no_calendar_is_none() -> None:
    assert lines.stamp(1e20) == "" and lines.stamp(float("nan")) == ""


# --- packed files -----------------------------------------------------------------------------------
def test_a_packed_file_is_zstd_and_read_from_any_place(tmp_path: Path) -> None:
    rng = random.Random(3)  # noqa: S311  the same lines each time
    every = [stamped(n, f"line {n} {rng.randbytes(200).hex()}") for n in range(12_000)]
    (tmp_path / "in").write_bytes(b"".join(every))
    with (tmp_path / "in").open("rb") as file:
        begin, end = pack(file, Form.PLAIN, tmp_path / "out.zst")
    assert (begin, end) == (START, START + 11_999)
    with (tmp_path / "out.zst").open("rb") as file:
        assert len(frames(file)) > 2
        packed = Packed(file, Form.PLAIN)
        assert b"".join(packed.blocks()) == b"".join(every)
        assert b"".join(reversed(list(packed.blocks_back()))) == b"".join(every)
        some = b"".join(packed.blocks(START + 7000, START + 7100))
        assert every[7000] in some and every[7099] in some and every[0] not in some
    plain = subprocess.run(["zstd", "-dc", tmp_path / "out.zst"], capture_output=True, check=True).stdout
    assert plain == b"".join(every)


@pytest.mark.parametrize("cut", [1, 12, 40, 4000])
def test_a_damaged_packed_file_has_no_lines(tmp_path: Path, cut: int) -> None:
    """Threat 31: what does not fit its own table is not read."""
    (tmp_path / "in").write_bytes(b"".join(stamped(n, "x" * 100) for n in range(2000)))
    with (tmp_path / "in").open("rb") as file:
        pack(file, Form.PLAIN, tmp_path / "out.zst")
    whole = (tmp_path / "out.zst").read_bytes()
    for damaged in (whole[:-cut], whole[cut:], b"", b"\0" * len(whole)):
        (tmp_path / "bad").write_bytes(damaged)
        with (tmp_path / "bad").open("rb") as file:
            assert list(Packed(file, Form.PLAIN).blocks()) == []


# --- reading ----------------------------------------------------------------------------------------
def test_reading_both_ways_gives_the_same_lines(tmp_path: Path) -> None:
    rng = random.Random(5)  # noqa: S311  the same lines each time
    every = [stamped(n, "é" * rng.randrange(0, 2000)) for n in range(2000)]
    (tmp_path / "log").write_bytes(b"".join(every) + b"half a line")
    with (tmp_path / "log").open("rb") as file:
        plain = Plain(file, Form.PLAIN)
        forth = [line for block in plain.blocks() for line in split_lines(block)]
        back = [line for block in plain.blocks_back() for line in reversed(split_lines(block))]
        assert forth == list(reversed(back)) == [*(line[:-1] for line in every), b"half a line"]
        for since, until in ((0, 1), (5.5, 700), (1999, 5000), (-10, 3), (3000, 4000)):
            got = [line for block in plain.blocks(START + since, START + until) for line in split_lines(block)]
            wanted = [every[n][:-1] for n in range(2000) if since <= n < until]
            got = [line for line in got if line != b"half a line"]
            assert got == wanted, (since, until)


def test_a_line_without_end_is_given_in_pieces(tmp_path: Path) -> None:
    """Threat 31: a file of one line of megabytes never lies in memory as a whole."""
    (tmp_path / "log").write_bytes(b"B" * (3 << 20))
    with (tmp_path / "log").open("rb") as file:
        assert max(map(len, Plain(file, Form.PLAIN).blocks())) < 1 << 20
        assert max(map(len, Plain(file, Form.PLAIN).blocks_back())) < 1 << 20


# --- packing, searching -----------------------------------------------------------------------------
def fill(settings: Settings) -> places.Place:
    """A site with three packed files, an older one and a current one: 500 lines of a second each."""
    out = place(settings)
    for number in range(3):
        name = f"@{(1 << 62) + int(START) + number:016x}00000000.s"
        body = b"".join(stamped(n, f"line {n} of the site") for n in range(number * 100, number * 100 + 100))
        (out.live / name).write_bytes(body)
    assert keeper(settings).keep() == 3
    assert [each.label for each in places.archives(out.archive)] == ["out"] * 3
    (out.live / f"@{(1 << 62) + int(START) + 9:016x}00000000.u").write_bytes(
        b"".join(stamped(n, f"line {n} of the site") for n in range(300, 400))
    )
    (out.live / "current").write_bytes(
        b"".join(stamped(n, f"line {n} of the site" if n != 450 else "ERROR Größe 450") for n in range(400, 500))
    )
    return out


def test_search_by_time_level_and_words(settings: Settings) -> None:
    out = fill(settings)

    def found(**more: object) -> list[str]:
        return texts(search([out], Wanted(**more)))

    assert found(last=3) == [f"line {n} of the site" for n in (497, 498, 499)]
    assert found(last=600)[::100] == [f"line {n} of the site" for n in (0, 100, 200, 300, 400)]
    assert found(since=START + 95, until=START + 105) == [f"line {n} of the site" for n in range(95, 105)]
    assert found(words=("LINE 250",)) == ["line 250 of the site"]
    assert found(words=("site", "250")) == ["line 250 of the site"]
    assert found(words=("größe",)) == ["ERROR Größe 450"]
    assert found(level=3) == ["ERROR Größe 450"]
    assert found(words=("nowhere",)) == []
    assert found(last=0) == []
    whole = search([out], Wanted(since=START + 120, until=START + 130))
    assert whole.complete and whole.read_bytes < 20_000, "only the file of that time was read"


def test_a_search_that_takes_too_long_says_where_it_stopped(settings: Settings) -> None:
    out = fill(settings)
    found = search([out], Wanted(words=("250",)), seconds=-1.0)
    assert not found.complete and found.reached > "2026-11-21T06:06"
    assert search([out], Wanted(words=("250",), until=START + 400)).lines


def test_several_places_are_merged_by_time(settings: Settings) -> None:
    out, access = fill(settings), place(settings, Source.ACCESS)
    (access.live / "access.log").write_bytes(b"".join(request(n, f"/p{n}") for n in range(0, 500, 50)))
    found = search([out, access], Wanted(last=120), lambda _id: "blog")
    ats = [each.at for each in found.lines]
    assert ats == sorted(ats) and len(ats) == 120
    assert {each.source for each in found.lines} == {Source.OUT, Source.ACCESS}
    assert {each.site for each in found.lines} == {"blog"}


def test_a_file_that_is_packed_meanwhile_is_not_read_twice(settings: Settings) -> None:
    out = fill(settings)
    older = out.live / out.older()[0]
    kept = older.read_bytes()
    inode = older.stat().st_ino
    assert keeper(settings).keep() == 1
    # A crash between packing and removing: both are there.
    older.write_bytes(kept)
    packed = next(each for each in places.archives(out.archive) if each.begin == int(START) + 300)
    renamed = packed.name.replace(f".{inode:x}.", f".{older.stat().st_ino:x}.")
    (out.archive / packed.name).rename(out.archive / renamed)
    assert len(texts(search([out], Wanted(last=1000)))) == 500
    assert keeper(settings).keep() == 1
    assert len(texts(search([out], Wanted(last=1000)))) == 500


def test_links_and_foreign_files_are_not_packed(settings: Settings, tmp_path: Path) -> None:
    """A writer that was taken over cannot have the agent read another file by a link, nor a pipe."""
    out = place(settings)
    (tmp_path / "secret").write_text("2026-11-21 06:00:00.000000000  secret\n")
    first = f"@{(1 << 62) + 1:016x}00000000.s"
    (out.live / first).symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", out.live / f"@{(1 << 62) + 2:016x}00000000.s")
    os.mkfifo(out.live / f"@{(1 << 62) + 3:016x}00000000.s")
    (out.live / "current").symlink_to(tmp_path / "secret")
    assert keeper(settings).keep() == 0
    assert places.archives(out.archive) == []
    found = texts(search([out], Wanted()))
    assert found in ([], ["secret"]), "the hard link is a file of that directory; a link is never followed"
    keeper(settings).retire(SITE)
    assert places.archives(out.archive) == []


# --- keeping ----------------------------------------------------------------------------------------
def test_age_and_room_bound_what_is_kept(settings: Settings) -> None:
    out = fill(settings)
    day = 86_400.0
    assert keeper(settings).tidy(START + 30 * day) == 0
    tight = msgspec.structs.replace(settings, logbook=msgspec.structs.replace(settings.logbook, site_bytes=1))
    small = {each.name: (out.archive / each.name).stat().st_size for each in places.archives(out.archive)}
    room = max(small.values()) * 2 + 10
    tight = msgspec.structs.replace(tight, logbook=msgspec.structs.replace(tight.logbook, site_bytes=room))
    assert keeper(tight).tidy(START + day) == 1, "the oldest goes when there is no room"
    assert [each.begin for each in places.archives(out.archive)] == [int(START) + 100, int(START) + 200]
    total = msgspec.structs.replace(settings, logbook=msgspec.structs.replace(settings.logbook, total_bytes=1))
    assert keeper(total).tidy(START + day) == 2, "and all of them beyond the room of all"
    assert len(texts(search([out], Wanted(last=1000)))) == 200, "what is live stays"


def test_what_is_old_is_removed_and_what_is_small_is_closed(settings: Settings) -> None:
    out = fill(settings)
    closed: list[str] = []
    old = LogKeeper(settings, closed.append)
    assert old.tidy(START + 91 * 86_400.0) == 3
    assert closed == [SITE], "its output begins a new file"
    access = place(settings, Source.ACCESS)
    (access.live / "access.log").write_bytes(request(0))
    old.tidy(START + 2 * 86_400.0)
    assert [each.name for each in access.live.iterdir()] == ["access.log.1"]
    assert texts(search([access], Wanted())) != []
    assert out.current.exists()


def test_lines_outlive_the_site_for_a_time(settings: Settings) -> None:
    out, access = fill(settings), place(settings, Source.ACCESS)
    (access.live / "access.log").write_bytes(request(1, "/last"))
    kept = keeper(settings)
    kept.retire(SITE)
    kept.retire(SITE)
    assert list(access.live.iterdir()) == [] and not out.older()
    gone = places.destroyed(settings.logs, SITE)
    assert gone is not None
    assert len(texts(search([out, access], Wanted(last=1000)))) == 501
    assert SITE in places.sites(settings.logs)
    kept.tidy(gone + 29 * 86_400.0)
    assert places.archives(out.archive)
    kept.tidy(gone + 31 * 86_400.0)
    assert not out.archive.exists()


def test_the_proxys_older_files_are_packed_and_none_is_lost(settings: Settings) -> None:
    access = place(settings, Source.ACCESS)
    for number in range(4):
        (access.live / "access.log").write_bytes(request(number, f"/r{number}"))
        rotate(access.current)
    assert keeper(settings).keep() == 3, "the newest older one stays for who counts the requests of today"
    assert [f"/r{n}" in text for n, text in enumerate(texts(search([access], Wanted())))] == [True] * 4


def test_lines_that_waited_too_long_are_given_up_and_the_rest_is_handed_out(settings: Settings) -> None:
    """Fault: the agent was away for long, and the proxy has given the oldest part of its stream back to the disk."""
    top = settings.logs / "edge"
    (top / SITE).mkdir(parents=True)
    stream = top / "requests.log"
    before = b"200 " + SITE.encode() + b" 0.001 120 400 192.0.2.7 "
    forged = before + b'{"time":"2020-01-01T00:00:00+00:00","uri":"/forged"}'
    with stream.open("wb") as file:
        for number in range(400):
            file.write(before + request(number, "/x" * 200 + forged.decode("latin-1")))
    size = stream.stat().st_size
    hole = 200 * 1024
    subprocess.run(["fallocate", "--punch-hole", "--offset=0", f"--length={hole}", stream], check=True)
    lines_out = EdgeLogs(settings, lambda: None)
    count = lines_out.collect()
    written = (top / SITE / "access.log").read_bytes()
    assert 0 < count < 400 and written.count(b"\n") == count
    assert all(each.startswith(b'{"time":"2026-11-21T') for each in written.splitlines()), "no half line is taken"
    assert len(written) <= size - hole
    assert lines_out.collect() == 0


# --- following --------------------------------------------------------------------------------------
def test_following_across_rotations(settings: Settings) -> None:
    out, access = place(settings), place(settings, Source.ACCESS)
    (out.live / "current").write_bytes(stamped(0, "before"))
    tails = Tails([out, access], Wanted(words=("x",)))
    assert tails.poll() == []
    with (out.live / "current").open("ab") as file:
        file.write(stamped(1, "x one") + stamped(1, "other") + b"2026-11-21 06:00:02.0000")
    (access.live / "access.log").write_bytes(request(1, "/x"))
    assert [each.source for each in tails.poll()] == [Source.OUT, Source.ACCESS]
    with (out.live / "current").open("ab") as file:
        file.write(b"00000  x two\n")
    (out.live / "current").rename(out.live / f"@{(1 << 62) + 5:016x}00000000.s")
    (out.live / "current").write_bytes(stamped(3, "x three"))
    rotate(access.current)
    (access.live / "access.log").write_bytes(request(4, "/x4"))
    found = tails.poll()
    assert [each.text for each in found if each.source is Source.OUT] == ["x two", "x three"]
    assert len(found) == 3 and tails.poll() == [] and tails.skipped == 0


# --- writing ----------------------------------------------------------------------------------------
def test_the_writer_rotates_and_bounds_itself(tmp_path: Path) -> None:
    writer = Writer(tmp_path, full=1000)
    for number in range(400):
        writer.write("info", "me", f"number {number}\nsecond line \x1b[1m")
    writer.close()
    names = sorted(each.name for each in tmp_path.iterdir())
    assert len(names) <= 8 and all(each == "current" or places.OLDER.match(each) for each in names)
    assert "\x1b" not in "".join((tmp_path / name).read_text() for name in names)
    nowhere = Writer(tmp_path / "none")
    nowhere.write("info", "me", "lost")
    assert nowhere.lost == 1


# --- questions --------------------------------------------------------------------------------------
def test_all_that_is_wrong_with_a_question_is_told_at_once() -> None:
    wrong = SearchLogs(site="x", source="own,nix", level="loud", since="soonish", until="2020-01-01", n=99_999)
    with pytest.raises(InvalidInput) as refused:
        examine(wrong, follow=True)
    assert {each.field for each in refused.value.problems} == {"source", "level", "since", "until", "n"}
    with pytest.raises(InvalidInput, match="own is of no site"):
        examine(SearchLogs(site="x", source="own"))
    asked = examine(SearchLogs(source="out, access", level="warn", grep='one "two three"'))
    assert asked.wanted.level == 4 and asked.wanted.words == ("one", "two three")
    assert asked.sources == (Source.OUT, Source.ACCESS)


@pytest.mark.parametrize(
    ("section", "values", "field"),
    [
        ("syslog_out", {"server": "udp://a:1"}, "syslog_out.server"),
        ("syslog_out", {"sources": ["all"]}, "syslog_out.sources[0]"),
        ("syslog_in", {"tcp": "localhost"}, "syslog_in.tcp"),
        ("syslog_in", {"tls": "127.0.0.1:6514"}, "syslog_in.certificate"),
        ("syslog_in", {"networks": ["10.0.0.1/8"]}, "syslog_in.networks[0]"),
        ("syslog_in", {"sites": {"web1": "blog"}}, "syslog_in.sites"),
        ("logbook", {"site_bytes": 1 << 30, "total_bytes": 1 << 29}, "logbook.total_bytes"),
    ],
)
def test_settings_that_cannot_be_are_refused(section: str, values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse({section: values})
    assert field in refused.value.problems[0].field


# --- who visits -------------------------------------------------------------------------------------
def test_personal_data_are_shortened() -> None:
    """Of an address only its network, and nothing after a question mark, reaches the figures."""
    block = request(0, "/p?secret=1") + request(1, "/q", client="2001:db8:1:2:3::4") + b"junk\n" + request(2, "/\t")
    found = shorten(block).decode().splitlines()
    assert found[0].split("\t")[:5] == ["203.0.113.0", "2026-11-21", "06:00:00", "GET", "/p"]
    assert found[1].split("\t")[0] == "2001:db8:1::"
    assert len(found) == 3 and all(line.count("\t") == 10 for line in found)
    assert "secret" not in "".join(found) and "me=1" not in "".join(found)
    whole = shorten(block, addresses=False, queries=False).decode()
    assert "203.0.113.77" in whole and "/p?secret=1" in whole
    assert network_of(b"::ffff:203.0.113.9") == b"203.0.113.0" and network_of(b"unix:") == b"0.0.0.0"


def test_packing_reads_what_is_open(tmp_path: Path) -> None:
    begin, end = pack(io.BufferedReader(io.FileIO(_written(tmp_path))), Form.PLAIN, tmp_path / "out")
    assert (begin, end) == (0.0, 0.0), "lines without a stamp have no moment"


def _written(tmp_path: Path) -> str:
    (tmp_path / "plain").write_bytes(b"no stamp\n" * 10)
    return str(tmp_path / "plain")


@pytest.mark.parametrize(
    "raw",
    [
        b"<27>1 2026-11-22T10:56:45.368559+00:00 web1 backupd 7 - -  the tape is full",
        b"<27>2026-11-22T10:56:45.368559+00:00 web1 backupd[7]: the tape is full",
        b"<27>2026-11-22T10:56:45Z web1 backupd:  the tape is full",
        b"<27>Nov 22 10:56:45 web1 backupd[7]: the tape is full",
        b"<27>Nov  2 10:56:45 web1 backupd: the tape is full",
    ],
)
def test_each_form_that_rsyslog_sends_names_host_and_program(raw: bytes) -> None:
    """Its ForwardFormat has neither the stamp of RFC 3164 nor a version: without the host no site is found."""
    assert parse_syslog(raw) == ("err", "web1", "backupd", "the tape is full")
