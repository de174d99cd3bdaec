"""Requests through the real edge to real instances: routing, schemes, headers, paths, pages, logs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import World, line_count, site_id, world

from alveole.actuators.edge_logs import WAITING_BYTES, EdgeLogs
from alveole.host import paths
from alveole.model.resource import RouteTarget

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world(body_bytes=100_000) as made:
        made.certify(0, "alv.test", scope="platform")
        made.site(1, "one.alv.test")
        made.certify(1, "one.alv.test", wildcard=True)
        made.site(2, "two.example.org")
        made.certify(2, "two.example.org")
        made.site(10, "alv.test", path="/my-app", name="app")
        made.site(11, "alv.test", path="/my-app/inner", name="inner")
        made.site(12, "alv.test", path="/a/b/c/d", name="deep")
        yield made


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("tls", [False, True])
def test_each_name_reaches_its_site(edge: World, address: str, tls: bool) -> None:
    for host in ("one.alv.test", "two.example.org"):
        answer = edge.ask(host, "/a%2Fb?c=%20d", address=address, tls=tls)
        assert answer.status == 200
        assert answer.json["site"] == host
        assert answer.json["target"] == "/a%2Fb?c=%20d"
        assert answer.json["headers"]["x-forwarded-proto"] == ("https" if tls else "http")
        assert answer.json["headers"]["x-real-ip"] == address


@pytest.mark.parametrize("host", ["ONE.Alv.Test", "one.alv.test.", "one.alv.test:8080", "One.alv.test.:1"])
def test_case_final_dot_and_port_do_not_matter(edge: World, host: str) -> None:
    assert edge.ask(host).json["site"] == "one.alv.test"


def test_http2_with_the_authority_trusted(edge: World) -> None:
    trust = edge.directory / "ca.pem"
    trust.write_text(edge.certificates.authority_pem())
    for host in ("one.alv.test", "two.example.org"):
        argv = ["curl", "-sS", "--http2", "--cacert", str(trust), "--resolve", f"{host}:{edge.https}:127.0.0.1"]
        argv += ["-w", "\n%{http_version} %{http_code}", f"https://{host}:{edge.https}/x"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        body, _, line = done.stdout.rpartition("\n")
        assert line == "2 200"
        assert json.loads(body)["site"] == host
        assert json.loads(body)["headers"]["host"] == f"{host}:{edge.https}"


def test_an_instance_on_a_port_of_its_own_address(edge: World) -> None:
    net = edge.settings.addressing().instance(3, 1)
    edge.instances.open("three", (str(net.own4), 18123))
    edge.route(3, "three.alv.test", slot=1, port=18123)
    assert edge.ask("three.alv.test").json["site"] == "three"
    (seen,) = edge.routes.observe({site_id(3)}).found
    assert seen.uses[0].name == "1"


def test_websocket_goes_both_ways(edge: World) -> None:
    with socket.create_connection(("127.0.0.1", edge.http), 10) as link:
        link.sendall(
            b"GET /echo HTTP/1.1\r\nHost: one.alv.test\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"
        )
        head = link.recv(4096)
        assert head.startswith(b"HTTP/1.1 101")
        for word in (b"abc", b"defgh"):
            link.sendall(word)
            assert link.recv(100) == word.upper()


def test_no_other_protocol_is_upgraded_to(edge: World) -> None:
    answer = edge.ask("one.alv.test", headers={"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"})
    assert answer.status == 200
    assert "upgrade" not in answer.json["headers"]


def test_a_stopped_site_says_so(edge: World) -> None:
    edge.route(4, "stopped.alv.test", target=RouteTarget.STOPPED)
    for method in ("GET", "POST"):
        answer = edge.ask("stopped.alv.test", method=method, body=b"x" if method == "POST" else None)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "60"
        assert "arrêté" in answer.body.decode() and "stopped" in answer.body.decode()


def test_a_dead_instance_is_a_bad_gateway(edge: World) -> None:
    edge.route(5, "dead.alv.test")
    answer = edge.ask("dead.alv.test")
    assert answer.status == 502
    assert b"not answering" in answer.body
    log = edge.settings.logs / "edge" / site_id(5)
    edge.logged(log / "error.log")
    assert json.loads((log / "error.log").read_text())["status"] == "502"
    assert (log / "access.log").read_text() == (log / "error.log").read_text()


@pytest.mark.parametrize("status", [404, 500, 502, 503])
def test_pages_of_the_site_stay_its_own(edge: World, status: int) -> None:
    answer = edge.ask("one.alv.test", f"/answer?status={status}")
    assert answer.status == status
    assert answer.json["site"] == "one.alv.test"


def test_https_only_sends_to_https(edge: World) -> None:
    edge.site(6, "secure.alv.test", https_only=True)
    edge.certify(6, "secure.alv.test", wildcard=True)
    answer = edge.ask("secure.alv.test", "/a?b=c", method="POST", body=b"x")
    assert answer.status == 308
    assert answer.headers["location"] == f"https://secure.alv.test:{edge.https}/a?b=c"
    assert edge.ask("secure.alv.test", "/a?b=c", tls=True).json["target"] == "/a?b=c"


@pytest.mark.parametrize(
    ("allow", "deny", "address", "status"),
    [
        ((), (), "127.0.0.1", 200),
        (("127.0.0.0/8",), (), "127.0.0.1", 200),
        (("127.0.0.0/8",), (), "::1", 403),
        (("::1/128",), (), "::1", 200),
        (("10.0.0.0/8", "127.0.0.1/32"), (), "127.0.0.1", 200),
        (("10.0.0.0/8",), (), "127.0.0.1", 403),
        ((), ("127.0.0.0/30",), "127.0.0.1", 403),
        ((), ("127.0.0.2/31",), "127.0.0.1", 200),
        ((), ("::/0",), "::1", 403),
        ((), ("::/0",), "127.0.0.1", 200),
        (("127.0.0.1/32",), ("127.0.0.0/8",), "127.0.0.1", 403),
        (("0.0.0.0/0", "::/0"), (), "::1", 200),
    ],
)
def test_rules_by_network(
    edge: World, allow: tuple[str, ...], deny: tuple[str, ...], address: str, status: int
) -> None:
    edge.route(1, "rules.alv.test", allow=allow, deny=deny)
    assert edge.ask("rules.alv.test", address=address).status == status


class TestPaths:
    @pytest.mark.parametrize(
        ("asked", "site", "target"),
        [
            ("/my-app/", "app", "/"),
            ("/my-app/x?y=z", "app", "/x?y=z"),
            ("/my-app/caf%C3%A9/a%2Fb", "app", "/caf%C3%A9/a%2Fb"),
            ("/my-app/inner/x", "inner", "/x"),
            ("/my-app/innermost", "app", "/innermost"),
            ("/my-app/inner/../x", "app", "/x"),
            ("/a/../my-app/x%20y", "app", "/x%20y"),
            ("/my%2dapp/x", "app", "/x"),
            ("/a/b/c/d/e/f", "deep", "/e/f"),
        ],
    )
    def test_the_longest_prefix_wins_and_is_taken_off(self, edge: World, asked: str, site: str, target: str) -> None:
        answer = edge.ask("alv.test", asked)
        assert answer.status == 200, answer
        assert (answer.json["site"], answer.json["target"]) == (site, target)
        prefix = {"app": "/my-app", "inner": "/my-app/inner", "deep": "/a/b/c/d"}[site]
        assert answer.json["headers"]["x-forwarded-prefix"] == prefix

    @pytest.mark.parametrize("asked", ["/", "/my", "/my-app2/", "/a/b/c/", "/@/my-app/", "/|my-app/", "/my-app%00/"])
    def test_what_no_prefix_fits_reaches_no_site(self, edge: World, asked: str) -> None:
        assert edge.ask("alv.test", asked).status in (400, 404)

    def test_the_final_slash_is_added(self, edge: World) -> None:
        answer = edge.ask("alv.test", "/my-app?x=1")
        assert (answer.status, answer.headers["location"]) == (308, "/my-app/?x=1")

    def test_other_names_have_no_paths(self, edge: World) -> None:
        answer = edge.ask("one.alv.test", "/my-app/x")
        assert (answer.json["site"], answer.json["target"]) == ("one.alv.test", "/my-app/x")
        assert "x-forwarded-prefix" not in answer.json["headers"]

    @pytest.mark.parametrize(
        ("sent", "seen"),
        [
            ("/login", "/my-app/login"),
            ("/my-app/login", "/my-app/login"),
            ("/my-apple", "/my-app/my-apple"),
            ("login", "login"),
            ("https://elsewhere.org/x", "https://elsewhere.org/x"),
            ("http://alv.test/x", "http://alv.test/my-app/x"),
            ("//elsewhere.org/x", "//elsewhere.org/x"),
        ],
    )
    def test_redirects_stay_below_the_prefix(self, edge: World, sent: str, seen: str) -> None:
        answer = edge.ask("alv.test", f"/my-app/answer?status=302&Location={sent}")
        assert answer.headers["location"] == seen

    def test_cookies_stay_below_the_prefix(self, edge: World) -> None:
        query = "Set-Cookie=a%3D1%3B+Path%3D/%3B+HttpOnly&Set-Cookie=b%3D2&Set-Cookie=c%3D3%3B+path%3D/my-app/x"
        answer = edge.ask("alv.test", f"/my-app/answer?{query}")
        assert answer.cookies == ["a=1; Path=/my-app/; HttpOnly", "b=2", "c=3; path=/my-app/x"]


def test_a_body_too_large_is_refused(edge: World) -> None:
    assert edge.ask("one.alv.test", method="POST", body=b"x" * 90_000).json["body"] == 90_000
    assert edge.ask("one.alv.test", method="POST", body=b"x" * 110_000).status == 413


def test_challenges_of_an_authority_are_answered_for_every_name(edge: World) -> None:
    token = edge.settings.run / "edge" / "acme" / ".well-known" / "acme-challenge" / "abc"
    token.parent.mkdir(parents=True)
    token.write_text("proof")
    for host in ("one.alv.test", "secure.alv.test", "unknown.example.org"):
        assert edge.ask(host, "/.well-known/acme-challenge/abc").body == b"proof"
    assert edge.ask("one.alv.test", "/.well-known/acme-challenge/none").status == 404


def test_the_log_of_a_site_is_its_own_and_is_json(edge: World) -> None:
    edge.site(20, "logged.alv.test")
    file = edge.settings.logs / "edge" / site_id(20) / "access.log"
    edge.ask("logged.alv.test", "/x?q=%22%0a", headers={"User-Agent": 'a "quoted"\x7f one'})
    edge.logged(file)
    (line,) = file.read_text().splitlines()
    found = json.loads(line)
    assert found["uri"] == "/x?q=%22%0a"
    assert found["agent"].startswith('a "quoted"')
    assert found["status"] == "200"
    assert found["client"] == "127.0.0.1"
    unknown = edge.settings.logs / "edge" / "access.log"
    before = line_count(unknown)
    edge.ask("nobody.alv.test")
    edge.logged(unknown, before + 1)
    assert file.stat().st_mode & 0o777 == 0o640
    assert file.parent.stat().st_uid == 0


def test_a_log_that_is_long_is_rotated(edge: World) -> None:
    edge.site(21, "rotated.alv.test")
    file = edge.settings.logs / "edge" / site_id(21) / "access.log"
    edge.ask("rotated.alv.test", "/before")
    edge.logged(file.with_name("access.log.1"), limit=1)
    edge.ask("rotated.alv.test", "/after")
    edge.logged(file)
    assert "/after" in file.read_text()
    assert "/before" in file.with_name("access.log.1").read_text()


def test_the_stream_gets_a_new_file_and_loses_no_line(edge: World) -> None:
    """Also when who hands the lines out is killed and another takes over."""
    edge.site(23, "stream.alv.test")
    top = edge.settings.logs / "edge"
    file = top / site_id(23) / "access.log"
    renewed = 0
    for number in range(60):
        edge.ask("stream.alv.test", f"/{number}")
        if number % 10 == 9:
            inode = (top / "requests.log").stat().st_ino
            edge.logs = EdgeLogs(edge.settings, edge.edge.master)
            edge.logs.collect(stream_limit=1)
            renewed += (top / "requests.log").stat().st_ino != inode
    assert renewed
    edge.logged(file, 60)
    assert [json.loads(line)["uri"] for line in file.read_text().splitlines()] == [f"/{number}" for number in range(60)]
    edge.gone(top / "requests.log.1")


def test_the_stream_is_bounded_while_nobody_takes_lines_out(edge: World) -> None:
    """Fault: the agent is away for long. The oldest lines are given back to the disk, and the newest are all there."""
    edge.site(24, "bounded.alv.test")
    stream = edge.settings.logs / "edge" / "requests.log"
    size = stream.stat().st_size
    with stream.open("ab") as file:
        os.posix_fallocate(file.fileno(), size, WAITING_BYTES)
        # The end of a line, as every one that nginx writes has it.
        file.write(b"\n")
    end = time.monotonic() + 60
    while stream.stat().st_blocks * 512 > WAITING_BYTES * 3 / 4:
        assert time.monotonic() < end, "nothing is given back"
        time.sleep(0.1)
    edge.ask("bounded.alv.test", "/newest")
    file = edge.settings.logs / "edge" / site_id(24) / "access.log"
    edge.logged(file)
    assert json.loads(file.read_text().splitlines()[-1])["uri"] == "/newest"


def test_the_status_socket_answers(edge: World) -> None:
    from alveole.actuators.edge import ask

    text = ask(paths.edge(edge.settings) / "status.sock", "/")
    assert text is not None and text.startswith("Active connections")


def test_event_streams_may_turn_buffering_off(edge: World) -> None:
    answer = edge.ask("one.alv.test", "/answer?X-Accel-Buffering=no")
    assert answer.status == 200
    assert "x-accel-buffering" not in answer.headers


def test_an_address_of_a_trusted_proxy_is_believed() -> None:
    with world(trusted_proxies=["127.0.0.1/32"]) as made:
        made.site(1, "one.alv.test", https_only=True, deny=("203.0.113.0/24",))
        told = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9", "X-Forwarded-Proto": "https"}
        assert made.ask("one.alv.test", headers=told).status == 403
        told["X-Forwarded-For"] = "203.0.113.9, 198.51.100.7"
        headers = made.ask("one.alv.test", headers=told).json["headers"]
        assert headers["x-forwarded-for"] == headers["x-real-ip"] == "198.51.100.7"
        assert headers["x-forwarded-proto"] == "https"
        # The same words from somebody else mean nothing, however they are put.
        for word in ("https", "x:on", ":on", "https:on"):
            told["X-Forwarded-Proto"] = word
            assert made.ask("one.alv.test", headers=told, address="::1").status == 308, word
