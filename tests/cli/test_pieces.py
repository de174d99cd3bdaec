"""The parts of the command line that need no API: packing, parsing, printing."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import threading
import time
from pathlib import Path

import pytest
from doorkit import Door
from hypothesis import given
from hypothesis import strategies as some

from alveole.cli import app, output, pack, parse, reading
from alveole.errors import InvalidInput
from alveole.remote.apiclient import escape


# --- pack ---------------------------------------------------------------------------------------
def packed(path: Path, skipped: list[str] | None = None) -> dict[str, tarfile.TarInfo]:
    content = b"".join(pack.directory(path, None if skipped is None else skipped.append))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {entry.name: entry for entry in archive}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "b").mkdir(parents=True)
    (top / "b" / "file").write_bytes(b"x" * 1000)
    (top / "a").write_bytes(b"")
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "to-a").symlink_to("a")
    (top / "out").symlink_to("/etc/passwd")
    (top / ("long" * 40)).write_text("long")
    (top / "déjà\udcff").write_text("not UTF-8")
    return top


def test_a_directory_is_packed_whole_and_in_order(tree: Path) -> None:
    entries = packed(tree)
    names = list(entries)
    assert names == sorted(names)
    assert set(names) == {"a", "b", "b/file", "run", "to-a", "out", "long" * 40, "déjà\udcff"}
    assert entries["b/file"].size == 1000
    assert stat.S_IMODE(entries["run"].mode) == 0o755
    assert {(entry.uid, entry.gid, entry.uname) for entry in entries.values()} == {(0, 0, "")}


def test_links_are_kept_and_not_followed(tree: Path) -> None:
    """Threat 6: what a link in somebody's directory points to is never read."""
    entries = packed(tree)
    assert entries["out"].issym()
    assert entries["out"].linkname == "/etc/passwd"
    assert entries["to-a"].linkname == "a"


def test_the_same_directory_gives_the_same_bytes(tree: Path) -> None:
    first = b"".join(pack.directory(tree))
    os.utime(tree, (1, 1))
    assert b"".join(pack.directory(tree)) == first


def test_what_is_no_file_is_left_out_and_named(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    skipped: list[str] = []
    assert "pipe" not in packed(tree, skipped)
    assert skipped == ["pipe"]


def test_a_link_put_in_place_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    """Threat 6: a directory swapped with a link to elsewhere while it is packed; the canary stays unread."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("CANARY")
    top = tmp_path / "top"
    (top / "d").mkdir(parents=True)
    (top / "d" / "file").write_text("fine")
    end = threading.Event()

    def swap() -> None:
        while not end.is_set():
            (top / "d").rename(top / "away")
            (top / "d").symlink_to(secret)
            (top / "d").unlink()
            (top / "away").rename(top / "d")

    swapper = threading.Thread(target=swap)
    swapper.start()
    good = 0
    try:
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            try:
                content = b"".join(pack.directory(top))
            except InvalidInput:
                continue
            assert b"CANARY" not in content
            good += 1
    finally:
        end.set()
        swapper.join()
    assert good > 10


def test_a_file_that_grows_or_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1_000_000)
    blocks = pack.directory(tmp_path)
    parts = [next(blocks), next(blocks)]
    with path.open("ab") as file:
        file.write(b"more")
    parts += list(blocks)
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
        assert archive.getmember("file").size == 1_000_000
    blocks = pack.directory(tmp_path)
    next(blocks)
    os.truncate(path, 10)
    with pytest.raises(InvalidInput, match="shorter"):
        list(blocks)


def test_an_archive_is_sent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(os.urandom(700_000))
    blocks, length = pack.file(path)
    assert length == 700_000
    assert b"".join(blocks) == path.read_bytes()
    with pytest.raises(InvalidInput, match="cannot read"):
        pack.file(tmp_path / "none")


# --- parse --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1024", 1024),
        ("1k", 1024),
        ("256M", 256 << 20),
        ("1.5GiB", 3 << 29),
        ("2 gb", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text: str, count: int) -> None:
    problems = parse.Problems()
    assert parse.size(text, "x", problems) == count
    assert not problems


@pytest.mark.parametrize("text", ["", "-1", "1X", "M", "1e9", "1,5G"])
def test_wrong_sizes(text: str) -> None:
    problems = parse.Problems()
    assert parse.size(text, "x", problems) is None
    assert [problem.field for problem in problems] == ["x"]


def test_processors() -> None:
    problems = parse.Problems()
    assert [parse.cpu(text, "x", problems) for text in ("0.25", "2", "250m", "1.5")] == [250, 2000, 250, 1500]
    assert not problems
    assert parse.cpu("fast", "x", problems) is None
    assert problems


def test_a_command_is_words_and_never_a_shell() -> None:
    """Threat 13: what a shell would run stays a word."""
    problems = parse.Problems()
    assert parse.command("run '$(id)' ; `id` $HOME && rm -rf /", "x", problems) == [
        "run",
        "$(id)",
        ";",
        "`id`",
        "$HOME",
        "&&",
        "rm",
        "-rf",
        "/",
    ]
    assert not problems
    parse.command("'open", "x", problems)
    parse.command("  ", "x", problems)
    assert len(problems) == 2


def test_a_secret_is_not_repeated() -> None:
    problems = parse.Problems()
    parse.environment(["PASSWORDhunter2"], [], problems)
    parse.environment(["=hunter2"], [], problems)
    assert [problem.message for problem in problems] == ["'PASSWORDhunter2' has no '='"]


# --- output -------------------------------------------------------------------------------------
@given(some.text())
def test_a_document_on_a_terminal_is_inert_and_whole(text: str) -> None:
    """Threat 31: JSON keeps what a site wrote, but as escapes."""
    import contextlib

    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        output.emit({"text": text.encode("utf-8", "ignore").decode()})
    printed = stream.getvalue()
    assert json.loads(printed)["text"] == text.encode("utf-8", "ignore").decode()
    assert not set(printed) & {*map(chr, range(0x7F, 0xA0)), *map(chr, range(10)), "\x1b", "\u202e", "\u2028"}


def test_hostile_words_of_a_site_are_inert_in_tables(door: Door) -> None:
    """Threat 31: an environment, a note or a log line cannot speak to the terminal."""
    evil = "\x1b]0;owned\x07\x1b[2Jx\x9b31m"
    door.site("blog", env={"EVIL": evil})
    place = door.settings.logs / str(door.ok("site", "show", "blog")["id"])
    place.mkdir(parents=True)
    (place / "current").write_text(f"2026-11-21 06:51:26.123456789  {evil}\n")
    for argv in (["site", "show", "blog", "--show-env"], ["site", "logs", "blog"], ["site", "logs", "blog", "--json"]):
        ran = door.run(*argv)
        assert ran.status == 0
        assert "\x1b" not in ran.out
        assert "\x9b" not in ran.out
        assert "\x07" not in ran.out


def test_units() -> None:
    assert [output.size(count) for count in (0, 1023, 1536, 128 << 20, 3 << 29)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "128 MiB",
        "1.5 GiB",
    ]
    assert [output.seconds(count) for count in (0.012, 1.234, 119, 3661, 10_000, 300_000)] == [
        "12 ms",
        "1.2 s",
        "119.0 s",
        "61 min 1 s",
        "2 h 46 min",
        "3 d 11 h",
    ]


def test_no_colour_but_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.paint("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert output.paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("x", "red", Terminal()) == "x"


@given(some.text())
def test_an_address_is_one_segment_of_plain_ascii(text: str) -> None:
    """Threat 11: nothing that is typed as a name can leave its place in the request."""
    text = text.encode("utf-8", "ignore").decode()
    found = escape(text)
    assert found.isascii()
    assert not set(found) & set("/?#& \r\n")
    from urllib.parse import unquote

    assert unquote(found) == text


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        (None, "file", "cannot read .*: No such file"),
        (b"\x30\x82\xff\xff", "file", "is not text"),
        (b"x = \n", "file", "is not TOML"),
        (b"#" * (reading.MOST + 1), "file", f"is larger than {reading.MOST} characters"),
        (b"authority_file = '/nowhere'\n", "authority_file", "cannot read /nowhere: No such file"),
    ],
)
def test_files_that_cannot_be_taken(tmp_path: Path, content: bytes | None, field: str, said: str) -> None:
    file = tmp_path / "settings.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=said) as refused:
        reading.pems(reading.toml(str(file)), "authority")
    assert [each.field for each in refused.value.problems] == [field]


def test_a_pem_file_is_sent_in_place_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("-----BEGIN")
    monkeypatch.setattr("sys.stdin", io.StringIO(f'server = "x"\nauthority_file = "{pem}"\n'))
    assert reading.pems(reading.toml("-"), "authority", "other") == {"server": "x", "authority": "-----BEGIN"}


# --- applications -------------------------------------------------------------------------------
def test_what_an_environment_asks_for_is_said_in_words() -> None:
    policy = {"soak_seconds": 86_400, "approvals": 2, "windows": ["mon-thu 08:00-16:00"], "verify_seconds": 300}
    policy |= {"snapshot": False, "before": ["/bin/migrate", "{release}/a b"]}
    assert app._asks(policy) == [
        "1d in the environment before",
        "2 approvals by others",
        "a time of mon-thu 08:00-16:00",
        "5m of checks after the switch",
        "no saved data",
        "/bin/migrate '{release}/a b' before the switch",
    ]
    assert app._asks({}) == []
