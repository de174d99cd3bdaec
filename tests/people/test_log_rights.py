"""Log lines through both doors and the pages: who may read what, searching, following, room, figures of visitors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from doorkit import Door, until
from peoplekit import Browser, add

from alveole.actuators.analysis import Analyses
from alveole.agent.logwords import AnalyseLogs
from alveole.logbook import places
from alveole.people.model import Role
from alveole.services import Services

NOW = time.time()


def write(directory: Path, name: str, *lines: tuple[float, str], mode: str = "ab") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open(mode) as file:
        for ago, text in lines:
            at = datetime.fromtimestamp(NOW - ago, UTC)
            stamp = at.strftime("%Y-%m-%d %H:%M:%S.%f000  ") if name == "current" else ""
            file.write(f"{stamp}{text}\n".encode())


def request(ago: float, uri: str, status: int = 200, client: str = "203.0.113.77") -> tuple[float, str]:
    at = datetime.fromtimestamp(NOW - ago, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
    line = {"time": at, "client": client, "scheme": "https", "method": "GET", "host": "blog.example", "uri": uri}
    line |= {"protocol": "HTTP/1.1", "status": str(status), "bytes": "500", "seconds": "0.010", "site_seconds": ""}
    line |= {"referer": "https://ex.org/a?who=me", "agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}
    return ago, json.dumps(line, separators=(",", ":"))


@pytest.fixture(scope="module")
def filled() -> Iterator[Door]:
    """Two sites of two people, each with lines; Alvéole's own; one site that is destroyed."""
    directory = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    door = Door(directory)
    try:
        yield _fill(door)
    finally:
        door.close()
        shutil.rmtree(directory)


def _fill(door: Door) -> Door:
    for name, role in (("ana", Role.OWNER), ("zoe", Role.OWNER), ("rita", Role.READER), ("olga", Role.OPERATOR)):
        add(door, name, role)
    logs = door.settings.logs
    for name, owner in (("blog", "ana"), ("shop", "zoe")):
        site = door.site(name, owner=owner)["id"]
        write(
            logs / site, "current", (50, f"{name} begins"), (40, f"ERROR {name} \x1b[2Jfails"), (30, f"{name} goes on")
        )
        write(logs / "edge" / site, "access.log", request(35, f"/{name}?x=1"), request(5, f"/{name}/none", 404))
    write(logs / "own" / "control", "current", (20, "warning alveole.api: one of ours"))
    write(logs / "host", "current", (10, "info sshd: the machine speaks"))
    write(logs / "saaaaaaaaaaaz", "current", (60, "of a site that is gone"))
    return door


def texts(found: dict[str, Any]) -> list[str]:
    return [each["text"] for each in found["lines"]]


def test_whose_lines_somebody_reads(filled: Door) -> None:
    """Threat 24: an owner's search over everything holds lines of the own sites alone; a foreign one is not there."""
    expected = {"ana": {"blog"}, "zoe": {"shop"}, "olga": {"blog", "shop", "", "saaaaaaaaaaaz"}, "rita": set()}
    for name, sites in expected.items():
        with Browser(filled) as browser:
            browser.sign_in(name)
            found = browser.ask("GET", "/v1/logs").json()
            assert {each["site"] for each in found["lines"]} == sites, name
            assert browser.ask("GET", "/v1/logs?source=own").status_code == (200 if name == "olga" else 403)
            if name != "olga":
                assert browser.ask("GET", "/v1/logs?follow=true&source=host").status_code == 403
            wanted = {"ana": 200, "zoe": 404, "olga": 200, "rita": 403}[name]
            for path in ("/v1/logs?site=blog", "/v1/sites/blog/logs"):
                assert browser.ask("GET", path).status_code == wanted, (name, path)
            if wanted != 200:
                assert browser.ask("GET", "/v1/logs?follow=true&site=blog").status_code == wanted
            gone = browser.ask("GET", "/v1/logs?site=saaaaaaaaaaaz")
            assert gone.status_code == (200 if name == "olga" else 404)
            usage = browser.ask("GET", "/v1/logs/usage")
            assert usage.status_code == (200 if name in ("olga", "rita") else 403)
            if name == "rita":
                assert usage.json()["sites"] == [], "how much others print is not theirs to know"


def test_searching_by_the_command(filled: Door) -> None:
    assert texts(filled.ok("logs", "blog", "--source", "out")) == [
        "blog begins",
        "ERROR blog fails",
        "blog goes on",
    ], "control characters are gone, and the order is that of time"
    assert texts(filled.ok("logs", "blog", "--level", "err")) == ["ERROR blog fails"]
    assert len(texts(filled.ok("logs", "blog", "--grep", "GET none"))) == 1
    bounds = ("--since", str(NOW - 45), "--until", str(NOW - 35))
    assert texts(filled.ok("logs", "blog", "--source", "out", *bounds)) == ["ERROR blog fails"]
    assert texts(filled.ok("logs", "-n", "2")) and len(texts(filled.ok("logs", "-n", "2"))) == 2
    assert texts(filled.ok("logs", "--source", "own,host")) == ["one of ours", "the machine speaks"]
    ran = filled.run("logs", "--source", "own")
    assert ran.status == 0 and "alveole.api: one of ours" in ran.out and "\x1b" not in ran.out
    assert filled.run("logs", "blog", "--source", "own").status == 2
    assert filled.run("logs", "blog", "--level", "loud").status == 2
    assert filled.run("logs", "none").status == 4
    used = filled.ok("logs", "usage")
    assert used["bytes"] > 0 and {each["site"] for each in used["sites"]} == {"blog", "shop", "saaaaaaaaaaaz"}
    assert [each["destroyed"] for each in used["sites"] if each["site"] == "saaaaaaaaaaaz"] == [True]
    assert "blog" in filled.run("logs", "usage").out


def test_lines_are_followed(filled: Door) -> None:
    site = filled.http.get("/v1/sites/shop").json()["id"]
    got: list[dict[str, Any]] = []
    begun = threading.Event()

    def read() -> None:
        with (
            filled.tcp(filled.token()) as http,
            http.stream("GET", "/v1/logs?follow=true&site=shop&grep=new") as answer,
        ):
            begun.set()
            for line in answer.iter_lines():
                got.append(json.loads(line))
                if len(got) == 2:
                    return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert begun.wait(30)
    write(filled.settings.logs / site, "current", (0, "a new line"), (0, "another"))
    write(filled.settings.logs / "edge" / site, "access.log", request(0, "/new"))
    thread.join(30)
    assert {each["source"] for each in got} == {"out", "access"} and got[0]["site"] == "shop"


def test_the_page_searches_and_follows(filled: Door) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "web"))
    from webkit import Visitor

    with Visitor(filled) as visitor:
        visitor.sign_in("ana")
        page = visitor.get("/site/blog/logs?source=&q=blog+fails")
        assert "ERROR blog fails" in page.text and "blog begins" not in page.text
        assert "data-follow" in visitor.answer.text
        page = visitor.get("/site/blog/logs?since=soonish&until=now")
        assert "1 thing to correct" in page.text and "data-follow" not in visitor.answer.text
        assert visitor.ask("GET", "/admin/logs").status_code == 403
    with Visitor(filled) as visitor:
        visitor.sign_in("olga")
        page = visitor.get("/admin/logs")
        assert "one of ours" in page.text and "destroyed" in page.text
        page = visitor.get("/admin/logs?source=&site=saaaaaaaaaaaz")
        assert "of a site that is gone" in page.text
        page = visitor.get("/admin/logs?site=nowhere&source=out")
        assert "There is no site" in page.text


@pytest.mark.root
def test_visitors_are_counted_without_personal_data(filled: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real goaccess, as the site's user: an address and a query reach nobody."""
    services: Services = filled.services
    analyses = Analyses(filled.settings)
    fake = filled.agent.call
    monkeypatch.setattr(
        filled.agent,
        "call",
        lambda request, files=(), say=None: (
            analyses.analyse(request, files) if isinstance(request, AnalyseLogs) else fake(request, files, say)
        ),
    )
    site = filled.http.get("/v1/sites/blog").json()["id"]
    write(
        filled.settings.logs / "edge" / site,
        "access.log",
        *(request(4, f"/p{number % 3}?secret={number}", client=f"198.51.100.{number}") for number in range(60)),
        request(3, "/v6", client="2001:db8:1:2::9"),
    )
    found = filled.ok("analytics", "blog")
    assert found["requests"] == 63 and found["complete"] and found["short_addresses"] and found["bytes"] == 63 * 500
    pages = {each["name"]: each["requests"] for each in found["tables"]["pages"]}
    assert pages["GET /p0"] == 20 and pages["GET /blog"] == 1
    networks = {each["name"] for each in found["tables"]["addresses"]}
    assert networks == {"198.51.100.0", "203.0.113.0", "2001:db8:1::"}
    assert [each["name"] for each in found["tables"]["not_found"]] == ["GET /blog/none"]
    assert "secret" not in json.dumps(found) and "who=me" not in json.dumps(found)
    assert len(services._analytics) == 1
    again = filled.ok("analytics", "blog")
    assert again["made_at"] == found["made_at"] or len(services._analytics) == 2
    assert "GET /p0" in filled.run("analytics", "blog").out
    empty = filled.ok("analytics", "shop", "--until", "6d")
    assert empty["requests"] == 0 and empty["tables"]["pages"] == []
    assert filled.run("analytics", "blog", "--since", "5000d").status == 2


@pytest.mark.root
def test_what_counts_runs_as_the_sites_user_and_reaches_nothing(door: Door) -> None:
    """The program that reads strangers' lines has the site's ids, no network and no capability."""
    from alveole.actuators import analysis

    argv = analysis.command(door.settings.uid_start(7) + 1000, 5)
    argv = (
        *argv[: argv.index(analysis.GOACCESS)],
        "/bin/sh",
        "-c",
        "id -u; id -G; ls /sys/class/net; grep Cap /proc/self/status",
    )
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    uid = str(door.settings.uid_start(7) + 1000)
    assert shown[:2] == [uid, uid]
    assert {"CapEff:", "CapBnd:"} <= set(shown)
    assert shown[shown.index("CapBnd:") + 1] == shown[shown.index("CapEff:") + 1] == "0" * 16


def test_own_lines_are_kept_as_they_are_logged(door: Door) -> None:
    """What a process of Alvéole logs is found again; a fault's whole trace too, line by line."""
    import logging

    from alveole.logbook.writer import OwnHandler

    place = door.settings.logs / "own" / "control"
    place.mkdir(parents=True)
    logger = logging.Logger("alveole.test")
    logger.addHandler(OwnHandler(door.settings.logs, "control"))
    try:
        raise ValueError("why \x1b[31m")
    except ValueError:
        logger.exception("it %s", "broke")
    found = until(lambda: texts(door.ok("logs", "--source", "own", "--grep", "alveole.test")))
    assert found[0] == "it broke" and found[-1].strip() == "ValueError: why"
    assert places.size_of(place) > 0
