"""The file manager's API and ``alveole site files``: the same verbs as the pages, over HTTP. The program is the real
one; the container in which it runs on a machine is tried in ``tests/ssh``."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from doorkit import Door
from peoplekit import add

from alveole.people.model import Role

FILES = "/v1/sites/blog/files"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    made = Door(tmp_path_factory.mktemp("alvfiles"))
    add(made, "ana")
    made.site("blog", owner="ana")
    yield made
    made.close()


@pytest.fixture
def place(door: Door) -> Path:
    shutil.rmtree(door.work, ignore_errors=True)
    door.work.mkdir()
    (door.work / "index.html").write_text("<h1>hello</h1>\n")
    return door.work


def ask(door: Door, method: str, path: str = "", at: str | None = None, **more: Any) -> httpx.Response:
    query = {} if at is None else {"at": at}
    return door.http.request(method, FILES + path, params=query, **more)


def test_looking(door: Door, place: Path) -> None:
    (place / "images").mkdir()
    (place / "link").symlink_to("/etc")
    found = ask(door, "GET").json()
    assert [(each["name"], each["kind"]) for each in found["entries"]] == [
        ("images", "folder"),
        ("link", "folder"),
        ("index.html", "file"),
    ]
    about = ask(door, "GET", "/stat", "index.html").json()
    assert (about["kind"], about["bytes"]) == ("file", 15)
    assert ask(door, "GET", "/stat").json()["kind"] == "folder"
    assert ask(door, "GET", "/stat", "nothing").status_code == 404
    assert ask(door, "GET", at="../../etc").status_code == 422
    assert ask(door, "GET", at="nothing").status_code == 404


def test_a_text_is_changed_only_as_it_was_read(door: Door, place: Path) -> None:
    read = ask(door, "GET", "/text", "index.html")
    etag = read.headers["ETag"]
    assert read.json()["text"] == "<h1>hello</h1>\n"
    done = ask(door, "PUT", "/text", "index.html", json={"text": "new\n"}, headers={"If-Match": etag})
    assert done.status_code == 200 and (place / "index.html").read_text() == "new\n"
    again = ask(door, "PUT", "/text", "index.html", json={"text": "lost"}, headers={"If-Match": etag})
    assert again.status_code == 412 and (place / "index.html").read_text() == "new\n"
    newer = ask(door, "PUT", "/text", "index.html", json={"text": "x"}, headers={"If-Match": done.headers["ETag"]})
    assert newer.status_code == 200
    # Without an ETag it is a new one, or nothing.
    assert ask(door, "PUT", "/text", "index.html", json={"text": "x"}).status_code == 409
    assert ask(door, "PUT", "/text", "about.html", json={"text": "é"}).status_code == 200
    assert (place / "about.html").read_text() == "é"
    assert ask(door, "PUT", "/text", "index.html", json={"text": "x"}, headers={"If-Match": '"3"'}).status_code == 422
    (place / "raw").write_bytes(b"\0\xff")
    assert ask(door, "GET", "/text", "raw").status_code == 409


def test_content_whole_in_parts_and_as_an_archive(door: Door, place: Path) -> None:
    content = bytes(range(256)) * 8192
    stored = ask(door, "PUT", "/content", "big.bin", content=content)
    assert stored.status_code == 200 and stored.json()["bytes"] == len(content)
    whole = ask(door, "GET", "/content", "big.bin")
    assert whole.content == content and whole.headers["Accept-Ranges"] == "bytes"
    for asked, first, part in (
        ("bytes=0-9", 0, content[:10]),
        ("bytes=2097000-", 2097000, content[2097000:]),
        ("bytes=-5", len(content) - 5, content[-5:]),
        ("bytes=2097150-9999999", 2097150, content[-2:]),
    ):
        got = ask(door, "GET", "/content", "big.bin", headers={"Range": asked})
        assert got.status_code == 206 and got.content == part, asked
        assert got.headers["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{len(content)}"
    for asked in ("bytes=5-1", "lines=1-2", "bytes=0-1,5-6", "bytes=-"):
        assert ask(door, "GET", "/content", "big.bin", headers={"Range": asked}).status_code == 200, "not understood"
    assert ask(door, "GET", "/content", "big.bin", headers={"Range": "bytes=9999999-"}).status_code == 416
    (place / "sub").mkdir()
    (place / "sub" / "one").write_text("1")
    archive = ask(door, "GET", "/content", "sub", headers={"Range": "bytes=0-3"})
    assert archive.status_code == 200
    assert "one" in zipfile.ZipFile(io.BytesIO(archive.content)).namelist()


def test_making_moving_unpacking_and_deleting(door: Door, place: Path) -> None:
    assert ask(door, "POST", "/folders", json={"at": "a"}).status_code == 201
    assert ask(door, "POST", "/folders", json={"at": "a"}).status_code == 409
    assert ask(door, "POST", "/rename", json={"at": "index.html", "to": "a/index.html"}).status_code == 204
    assert (place / "a" / "index.html").exists()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("b/two.txt", "2")
    assert ask(door, "PUT", "/content", "a/x.zip", content=packed.getvalue()).status_code == 200
    assert ask(door, "POST", "/unpack", json={"at": "a/x.zip"}).json() == {"files": 1}
    assert (place / "a" / "b" / "two.txt").read_text() == "2"
    (place / "other").write_text("kept")
    assert ask(door, "POST", "/rename", json={"at": "a/x.zip", "to": "other"}).status_code == 409
    assert ask(door, "DELETE", at="a").status_code == 204
    assert not (place / "a").exists() and (place / "other").read_text() == "kept"
    for at in ("", "a"):
        assert ask(door, "DELETE", at=at).status_code in (404, 422)


def test_who_may(door: Door, place: Path) -> None:
    with door.tcp(door.token(Role.READER, "reads")) as reader:
        for method, path, more in (
            ("GET", "", {}),
            ("GET", "/content?at=index.html", {}),
            ("PUT", "/content?at=index.html", {"content": b"x"}),
            ("PUT", "/text?at=new", {"json": {"text": "x"}}),
            ("DELETE", "?at=index.html", {}),
            ("POST", "/folders", {"json": {"at": "a"}}),
        ):
            assert reader.request(method, FILES + path, **more).status_code == 403, (method, path)
    assert (place / "index.html").read_text() == "<h1>hello</h1>\n"
    assert not list((door.settings.database.parent / "uploads").iterdir())


def test_the_command_line(door: Door, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        ran = door.run("site", "files", *words)
        assert ran.status == 0, ran
        return ran.out

    (tmp_path / "page.html").write_text("<p>page</p>")
    assert "page.html" in run("put", "blog", "page.html")
    run("mkdir", "blog", "sub")
    run("mv", "blog", "page.html", "sub/page.html")
    assert "sub/" in run("ls", "blog") and "page.html" in run("ls", "blog", "sub")
    run("get", "blog", "sub/page.html", "--to", "copy.html")
    assert (tmp_path / "copy.html").read_text() == "<p>page</p>"
    got = json.loads(run("get", "blog", "sub", "--json"))
    assert got["file"] == "sub.zip"
    run("put", "blog", "sub.zip", "--to", "back/../sub.zip")
    assert "1 files" in run("unzip", "blog", "sub.zip")
    assert (place / "page.html").read_text() == "<p>page</p>"
    run("rm", "blog", "sub")
    assert not (place / "sub").exists()
    for wrong, status in ((("rm", "blog", "sub"), 4), (("ls", "none"), 4)):
        assert door.run("site", "files", *wrong).status == status, wrong
    # What is here is never written over unasked.
    assert door.run("site", "files", "get", "blog", "page.html").status == 2
