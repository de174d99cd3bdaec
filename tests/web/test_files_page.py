"""The file manager and the working copy, by a browser without scripts. The program is the real one; the container in
which it runs on a machine is tried in ``tests/ssh``."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorkit import Door, until
from peoplekit import add
from webkit import Found, Visitor

from alveole.agent import protocol
from alveole.services.files import clean

FILES = "/site/blog/files"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    made = Door(tmp_path_factory.mktemp("alvdesk"))
    add(made, "ana")
    made.site("blog", owner="ana")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def ana(desk: Door) -> Iterator[Visitor]:
    with Visitor(desk) as visitor:
        visitor.sign_in("ana")
        visitor.get(FILES)
        yield visitor


@pytest.fixture
def place(desk: Door) -> Path:
    for each in desk.work.rglob("*"):
        each.chmod(0o755)
    __import__("shutil").rmtree(desk.work, ignore_errors=True)
    desk.work.mkdir()
    return desk.work


def send(visitor: Visitor, name: str, content: bytes) -> Found:
    """As a browser without scripts does: the form as it is, with one file."""
    form = next(each for each in visitor.page.forms if each["multipart"])
    answer = visitor.ask("POST", form["action"], data=dict(form["fields"]), files={"file": (name, content)})
    assert answer.status_code == 200, visitor.page.text
    return visitor.page


def act(visitor: Visitor, do: str, name: str, expect: int = 200, **fields: str) -> Found:
    return visitor.submit(FILES, ("do", do), expect=expect, name=name, **fields)


def test_files_are_sent_moved_and_deleted(ana: Visitor, place: Path) -> None:
    assert "Nothing is in this folder." in ana.get(FILES).text
    ana.submit(FILES, ("do", "folder"), new_folder="été & co")
    assert (place / "été & co").is_dir() and "The folder is made." in ana.page.text
    link = next(v["href"] for tag, v in ana.page.tags if tag == "a" and "%C3%A9t%C3%A9" in v["href"])
    ana.get(link)
    page = send(ana, "C:\\old\\note.txt", b"first\n")
    assert (place / "été & co" / "note.txt").read_bytes() == b"first\n" and "1 file is here." in page.text
    act(ana, "rename", "note.txt", to="../moved.txt")
    assert (place / "moved.txt").read_bytes() == b"first\n"
    ana.get(FILES)
    (place / "other").write_text("x")
    page = act(ana, "rename", "moved.txt", expect=409, to="other")
    assert "Is there already" in page.text and (place / "other").read_text() == "x"
    assert ("to", "other") in next(each["fields"] for each in page.forms if ("to", "other") in each["fields"])
    act(ana, "delete", "été & co")
    assert sorted(each.name for each in place.iterdir()) == ["moved.txt", "other"]
    told = ana.door.http.get("/v1/changes?site=blog").json()
    reasons = [each["reason"] for each in told if each["verb"] == "files"]
    assert "deleted été & co" in reasons and "renamed été & co/note.txt to moved.txt" in reasons


def test_a_text_is_edited_and_two_editors_do_not_lose_anything(ana: Visitor, place: Path) -> None:
    ana.get(f"{FILES}/edit?new=1")
    ana.submit(f"{FILES}/edit", name="index.html", text="\n<h1>Café</h1>\r\nend\r\n")
    assert (place / "index.html").read_text() == "\n<h1>Café</h1>\nend\n"
    (place / "index.html").chmod(0o600)
    form = next(each for each in ana.page.forms if each["action"] == f"{FILES}/edit")
    assert dict(form["fields"])["text"] == "\n<h1>Café</h1>\nend\n"
    # Somebody else stores another one meanwhile.
    (place / "index.html").write_text("theirs")
    page = ana.submit(f"{FILES}/edit", expect=412, text="mine")
    assert "Somebody stored another text meanwhile" in page.text and "theirs" in page.text
    assert (place / "index.html").read_text() == "theirs"
    ana.submit(f"{FILES}/edit")
    assert (place / "index.html").read_text() == "mine"
    assert (place / "index.html").stat().st_mode & 0o777 == 0o600
    (place / "dos.ini").write_bytes(b"a=1\r\nb=2\r\n")
    ana.get(f"{FILES}/edit?at=dos.ini")
    ana.submit(f"{FILES}/edit", text="a=1\r\nb=3\r\n")
    assert (place / "dos.ini").read_bytes() == b"a=1\r\nb=3\r\n", "its lines end as they did"
    (place / "real").write_text("1")
    (place / "link").symlink_to("real")
    ana.get(f"{FILES}/edit?at=link")
    ana.submit(f"{FILES}/edit", text="2")
    assert (place / "link").is_symlink() and (place / "real").read_text() == "2"
    ana.get(f"{FILES}/edit?new=1")
    assert "Is there already" in ana.submit(f"{FILES}/edit", expect=409, name="real", text="no").text
    ana.submit(f"{FILES}/edit", expect=422, name="a/b", text="no")


def test_what_is_no_text_is_not_opened(ana: Visitor, place: Path) -> None:
    (place / "picture").write_bytes(b"\x89PNG\0")
    (place / "long").write_text("x" * 300_000)
    os.mkfifo(place / "pipe")
    for name in ("picture", "long", "pipe", "none", "a/b"):
        ana.get(f"{FILES}/edit?at={name}")
        assert ana.at.startswith(FILES) and "/edit" not in ana.at, name
    assert b"\0" in ana.ask("GET", f"{FILES}/download?at=picture").content


def test_archives(ana: Visitor, place: Path) -> None:
    """Threat 8: nothing is written beside the folder, whatever an archive says; links in it are left out."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("site/index.html", "from the zip")
        archive.writestr("site/empty/", "")
    (place / "site.zip").write_bytes(packed.getvalue())
    evil = io.BytesIO()
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("../../evil", "x")
    (place / "evil.zip").write_bytes(evil.getvalue())
    with tarfile.open(place / "links.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("out")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
        tar.add(place / "site.zip", "inner.zip")
    (place / "no.zip").write_text("no archive")
    ana.get(FILES)
    assert "1 file is unpacked." in act(ana, "unpack", "site.zip").text
    assert (place / "site" / "index.html").read_text() == "from the zip" and (place / "site" / "empty").is_dir()
    assert "leads elsewhere" in act(ana, "unpack", "evil.zip", expect=422).text
    ana.get(FILES)
    act(ana, "unpack", "links.tar.gz")
    assert not os.path.lexists(place / "out") and (place / "inner.zip").exists()
    assert "is no archive" in act(ana, "unpack", "no.zip", expect=422).text.lower()
    back = zipfile.ZipFile(io.BytesIO(ana.ask("GET", f"{FILES}/download").content))
    assert "site/index.html" in back.namelist() and "site/empty/" in back.namelist()


def test_what_the_pages_script_sends(ana: Visitor, place: Path) -> None:
    """Several files and folders, packed by the page, keep their paths."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("css/a.css", "index.html"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    upload = ana.door.upload(out.getvalue())
    ana.get(FILES)
    page = ana.submit(f"{FILES}/upload", upload=upload)
    assert "2 files are here." in page.text and (place / "css" / "a.css").read_text() == "abc"
    assert ana.door.spool() == []


def test_a_file_of_a_site_is_never_a_page_of_ours(ana: Visitor, place: Path) -> None:
    """Threat 22: what a site's files hold does not run under the panel's name."""
    (place / "evil.html").write_text("<script>alert(1)</script>")
    answer = ana.ask("GET", f"{FILES}/download?at=evil.html")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''evil.html"
    assert (
        answer.headers["content-type"] == "application/octet-stream"
        and "sandbox" in answer.headers["content-security-policy"]
    )
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["content-length"] == "25"
    (place / "<img src=x>").write_text("")
    (place / b"\xff\xfe".decode("utf-8", "surrogateescape")).write_text("")
    (place / "line\nend").write_text("")
    page = ana.get(FILES)
    assert "<img src=x>" in page.text and not [1 for tag, v in page.tags if tag == "img" and v.get("src") == "x"]
    assert page.text.count("Only by SFTP.") == 2


def test_many_at_once_wait(ana: Visitor, place: Path) -> None:
    """Threat 29: one site's files do not take all the threads that answer pages."""
    ana.door.services._orders[ana.door.http.get("/v1/sites/blog").json()["id"]] = 6
    try:
        assert ana.ask("GET", FILES).status_code == 503
    finally:
        ana.door.services._orders.clear()
    ana.get(FILES)


def test_the_working_copy_is_published_with_one_click(ana: Visitor, desk: Door, place: Path) -> None:
    id = desk.http.get("/v1/sites/blog").json()["id"]
    fresh = protocol.Changes(2, 10, ("index.html", "css/a.css"))
    desk.agent.work[id] = protocol.WorkState(True, None, None, 0, fresh)
    for path in ("/site/blog/content", FILES):
        page = ana.get(path)
        assert "2 changed files are not published" in page.text and "css/a.css" in page.text
    ana.submit("/site/blog/work/publish")
    assert ana.at.startswith("/change/")
    until(lambda: "state-done" in ana.ask("GET", ana.at).text)
    assert desk.http.get("/v1/changes?site=blog").json()[0]["verb"] == "publish"
    desk.agent.work[id] = protocol.WorkState(True, None, None, 0, fresh)
    ana.get("/site/blog/content")
    assert "as what is live again" in ana.submit("/site/blog/work/drop").text


def test_the_first_field_of_a_form_with_files_says_where_it_comes_from(ana: Visitor, place: Path) -> None:
    """Threat 23: by the token in the body; an address, which a proxy writes into its log, is not looked at."""
    form = next(each for each in ana.page.forms if each["multipart"])
    fields = dict(form["fields"])
    assert next(iter(fields)) == "csrf" and "csrf" not in form["action"]
    token = fields.pop("csrf")
    target = form["action"]
    file = {"file": ("a", b"x")}
    assert ana.ask("POST", f"{target}?csrf={token}", data=fields, files=file).status_code == 403
    assert ana.ask("POST", target, data={**fields, "csrf": token}, files=file).status_code == 403, "not the first"
    assert ana.ask("POST", target, data={"csrf": "x" * 43, **fields}, files=file).status_code == 403
    assert not any(place.iterdir())
    assert ana.ask("POST", target, data={"csrf": token, **fields}, files=file).status_code == 200


@pytest.mark.parametrize(
    ("given", "found"),
    [("", ""), (".", ""), ("a//b/./c", "a/b/c"), ("/data/", "/data"), ("//x", "/x"), ("a/../b", "b")],
)
def test_one_folder_has_one_address(given: str, found: str) -> None:
    assert clean(given) == found
