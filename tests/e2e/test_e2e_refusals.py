"""What is refused, with all its problems at once, and nothing half done (section 6)."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2ekit import Sites, unchanged

from instance import Instance
from instancekit import ApiError, directory, page


@pytest.fixture
def same(alveole: Instance) -> Iterator[None]:
    with unchanged(alveole):
        yield


def refused(alveole: Instance, *words: str, status: int = 2) -> Any:
    done = alveole.cli("site", "create", "--json", *words, status=status)
    text = done.out if done.out.strip() else done.err
    assert "Traceback" not in done.err
    import json

    return json.loads(text)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Upper",
        "-a",
        "a-",
        "a.b",
        "a_b",
        "a b",
        "ü",
        "x" * 41,
        "www",
        "api",
        "a\nb",
        "../x",
        "$(id)",
        "xn--a",
        "localhost",
    ],
)
def test_bad_names(alveole: Instance, same: Any, name: str) -> None:
    found = refused(alveole, "--command", "x", "--", name)
    assert {each["field"] for each in found["problems"]} == {"name"}
    assert all(each["message"] for each in found["problems"])


def test_all_problems_at_once(alveole: Instance, same: Any) -> None:
    found = refused(
        alveole,
        *("Bad Name", "--command", "x", "--port", "70000", "--plan", "huge", "--domain", "nodot", "--path", "nope"),
        *("--volume", "d:/etc/x", "--env", "LD_PRELOAD=x", "--allow", "10.0.0.0/99", "--packages", "vim"),
        *("--base", "host", "--health", "x", "--ready-seconds", "0", "--from", "/no/such/place"),
    )
    fields = {each["field"].partition(".")[0] for each in found["problems"]}
    assert fields >= {
        "name",
        "port",
        "plan",
        "domains",
        "path",
        "volumes",
        "env",
        "allow",
        "packages",
        "health",
        "from",
    }
    assert all(each["hint"] for each in found["problems"] if each["field"] in ("name", "port", "plan", "path", "from"))


def test_what_is_taken(alveole: Instance, sites: Sites) -> None:
    name = sites.create(page("x"), domains=["taken.example.org"], path="/taken")
    found = refused(alveole, name, "--command", "x", status=3)
    assert "taken" in str(found)
    other = sites.name()
    found = refused(alveole, other, "--command", "x", "--domain", "taken.example.org", "--path", "/taken", status=3)
    assert {each["field"] for each in found["problems"]} == {"domains", "path"}
    alveole.cli("site", "show", other, status=4)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(name: str, type: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, link
    return info


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return out.getvalue()


HOSTILE = {
    "traversal": tar_of((member("../../../../tmp/alveole-canary"), b"x")),
    "absolute": tar_of((member("/tmp/alveole-canary"), b"x")),
    "link out and through it": tar_of((member("a", tarfile.SYMTYPE, "/tmp"), b""), (member("a/alveole-canary"), b"x")),
    "device": tar_of((member("dev", tarfile.CHRTYPE), b"")),
    "zip traversal": zipped("../../../tmp/alveole-canary", b"x"),
    "bomb": zipped("index.html", b"\0" * 300_000_000),
    "empty": b"",
    "empty tar": tar_of(),
    "no archive": b"this is no archive, whatever its name says\n" * 50,
    "cut": tar_of((member("index.html"), os.urandom(100_000)))[:50_000],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives(alveole: Instance, sites: Sites, same: Any, tmp_path: Path, what: str) -> None:
    """Threat 8, fault 16: refused, nothing outside, nothing kept."""
    file = tmp_path / ("x.zip" if "zip" in what or what == "bomb" else "x.tar.gz")
    file.write_bytes(HOSTILE[what])
    name = sites.name("bad")
    done = alveole.cli("site", "create", name, "--from", str(file), "--json", status=None)
    assert done.status in (2, 3), done
    assert not Path("/tmp/alveole-canary").exists()
    alveole.cli("site", "show", name, status=4)


def test_a_hostile_update_leaves_the_site_alone(alveole: Instance, sites: Sites, tmp_path: Path) -> None:
    name = sites.create(page("good"))
    file = tmp_path / "x.tar.gz"
    for what in ("traversal", "no archive", "cut"):
        file.write_bytes(HOSTILE[what])
        assert alveole.cli("site", "update", name, "--from", str(file), "--json", status=None).status in (2, 3)
        assert "good" in alveole.fetch(name).body
    assert len(alveole.site(name)["releases"]) == 1
    alveole.cli("site", "update", name, "--from", "/no/such", status=2)
    alveole.cli("site", "update", name, status=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    alveole.cli("site", "update", name, "--from", str(empty), status=2)


def test_unknown_bases_and_packages(alveole: Instance, same: Any) -> None:
    assert "base" in str(refused(alveole, "x1", "--base", "fedora", "--command", "x"))
    assert "base" in str(refused(alveole, "x1", "--base", "sha256:" + "0" * 64, "--command", "x"))
    assert "no-such-package-here" in str(
        refused(alveole, "x1", "--packages", "no-such-package-here", "--command", "x", "--port", "80")
    )
    for hostile in ("a;id", "-oX", "$(id)"):
        refused(alveole, "x1", f"--packages={hostile}", "--command", "x")


def test_nothing_to_serve(alveole: Instance, same: Any) -> None:
    assert {each["field"] for each in refused(alveole, "x1")["problems"]} == {"from"}


def test_unknown_fields_and_wrong_types_are_named(alveole: Instance, same: Any) -> None:
    for body in ({"name": "x", "privileged": True}, {"name": "x", "port": "many"}, {"name": 3}, ["x"], {}):
        with pytest.raises(ApiError) as caught:
            alveole.api("POST", "/v1/sites", body)
        assert caught.value.status == 422 and caught.value.document["problems"]


@pytest.mark.turn
def test_no_free_address(tmp_path: Path) -> None:
    """A network that holds few sites: the next one is refused, and fits when one has gone."""
    with Instance(drift=5.0) as alveole:
        alveole.stop()
        alveole.cut()
        text = alveole.config.read_text()
        alveole.config.write_text(
            text.replace(f"10.{alveole.octet}.0.0/16", f"10.{alveole.octet}.1.0/26").replace(".1.254", ".1.62")
        )
        alveole.start()
        source = directory(tmp_path / "a", {"index.html": "x"})
        capacity = alveole.api("GET", "/v1/status")["capacity"]
        assert 1 <= capacity <= 15
        for number in range(capacity):
            alveole.create(f"s{number}", page("x"), wait=number % 4 == 0)
        done = alveole.cli("site", "create", "more", "--from", str(source), "--json", status=3)
        assert "address" in done.out + done.err
        alveole.until_kept()
        alveole.destroy("s0")
        alveole.cli("site", "create", "more", "--from", str(source))
        assert alveole.site("more")["ipv4"] == f"10.{alveole.octet}.1.1"
        assert alveole.fetch("more").body == "x"
