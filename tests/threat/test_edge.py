"""What a client can pretend to the edge, and what a site can make it do: threats 7, 11, 19, 20, 21."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "edge"))
from edgefixtures import World, site_id, world

from alveole.actuators.edge_config import CLEARED
from alveole.host import paths

pytestmark = pytest.mark.root
CANARY = "canary: nobody may read this"


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world() as made:
        made.certify(0, "alv.test", scope="platform")
        made.site(1, "one.alv.test")
        made.certify(1, "one.alv.test", wildcard=True)
        run = paths.edge(made.settings)
        (run / "canary").write_text(CANARY)
        (run / "canary.pem").write_text(CANARY)
        (run / "pages" / "canary").write_text(CANARY)
        # What a hostile name would find if it were let through: a link one level up, and odd names.
        for name in ("canary", "routes/..canary", "routes/.hidden", "routes/a_b", "routes/UPPER", "routes/a b"):
            (run / name).unlink(missing_ok=True)
            (run / name).symlink_to(f"unix:{paths.web_socket(made.settings, site_id(1), 0)} site={site_id(1)}")
        yield made


HOSTILE = [
    b"../canary",
    b"..",
    b".",
    b"..canary",
    b".hidden",
    b"%2e%2e%2fcanary",
    b"%2e%2e/canary",
    b"..\\canary",
    b"one.alv.test\x00.evil",
    b"one.alv.test/../x",
    b"a b",
    b"a_b",
    b"@",
    b"@|my-app",
    b"@/my-app",
    b"-a.alv.test",
    b"a-.alv.test",
    b"a..alv.test",
    b".alv.test",
    b"a" * 300,
    b"a" * 64 + b".alv.test",
    b".".join([b"a" * 60] * 5),
    b"one.alv.test:80:80",
    b"one.alv.test:",
    b"one.alv.test:8080x",
    b"one.alv.test:999999",
    b"one.alv.test:80/../x",
    b"user@one.alv.test",
    b"[::1]",
    b"[::1]:80",
    b"127.0.0.1",
    b"0177.0.0.1",
    b"2130706433",
    b"\xc3\xa9.alv.test",
    b"$host",
    b"unix:/tmp/x",
    b"",
]


@pytest.mark.parametrize("host", HOSTILE, ids=lambda host: repr(host[:20]))
def test_a_hostile_host_reaches_no_site_and_no_file(edge: World, host: bytes) -> None:
    """Threat 20: bad Host → 400, unknown Host → 404."""
    answer = edge.raw(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] in (b"400", b"404"), answer[:200]
    assert CANARY.encode() not in answer
    assert b'"site"' not in answer


def test_a_name_in_upper_case_is_the_name_in_lower_case(edge: World) -> None:
    """Threat 20: UPPER is looked up as upper, and the link of that odd name is never read."""
    assert b" 404 " in edge.raw(b"GET / HTTP/1.1\r\nHost: UPPER\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "codes"),
    [
        (b"GET http://one.alv.test/ HTTP/1.1\r\nHost: one.alv.test\r\n", (b"404",)),
        (b"GET http://one.alv.test/ HTTP/1.1\r\nHost: other.example.org\r\n", (b"404",)),
        (b"GET http://evil.example.org/ HTTP/1.1\r\nHost: one.alv.test\r\n", (b"404",)),
        (b"GET / HTTP/1.1\r\n", (b"400",)),
        (b"GET / HTTP/1.0\r\n", (b"404",)),
        (b"GET / HTTP/1.1\r\nHost: one.alv.test\r\nHost: two.alv.test\r\n", (b"400",)),
        (b"CONNECT one.alv.test:443 HTTP/1.1\r\nHost: one.alv.test\r\n", (b"400", b"405")),
        (b"TRACE / HTTP/1.1\r\nHost: one.alv.test\r\n", (b"405",)),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: one.alv.test\r\n", (b"400",)),
        (
            b"POST / HTTP/1.1\r\nHost: one.alv.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            (b"400",),
        ),
    ],
)
def test_odd_requests_reach_no_site(edge: World, request_bytes: bytes, codes: tuple[bytes, ...]) -> None:
    """Threat 20: one name in a request, and nothing is proxied for strangers."""
    answer = edge.raw(request_bytes + b"Connection: close\r\n\r\n")
    assert answer.split(b" ")[1] in codes, answer[:200]
    assert b'"site"' not in answer


def test_the_edges_own_places_are_not_to_be_asked_for(edge: World) -> None:
    """Threat 21: what the edge uses inside is not reachable from outside."""
    for path in ("/.alveole/prefix", "/.alveole/503.html", "/.alveole/../canary"):
        answer = edge.ask("one.alv.test", path)
        assert answer.status in (200, 404)
        assert CANARY.encode() not in answer.body
    assert edge.ask("one.alv.test", "/.alveole/503.html").status == 404


@pytest.mark.parametrize(
    "name",
    [
        "unknown.alv.test",
        "other.example.org",
        "../canary",
        "..%2fcanary",
        "canary/../one.alv.test",
        "a" * 240,
        "@",
        ".",
        "-",
        "one.alv.test\n",
        "one.alv.test\n/../canary",
        "ONE.ALV.TEST/",
        "a_b.alv.test",
    ],
)
def test_an_unknown_server_name_ends_in_an_alert(edge: World, name: str) -> None:
    """Threat 20: unknown SNI → alert; no certificate is shown and no file but a certificate is read."""
    assert _handshake(edge, name) is None


def test_no_server_name_ends_in_an_alert(edge: World) -> None:
    """Threat 20: asked for by its address, the edge shows no certificate."""
    assert _handshake(edge, None) is None


def test_a_known_server_name_is_shown_its_certificate(edge: World) -> None:
    """Threat 20, the other half: the test above fails for the right reason."""
    assert _handshake(edge, "one.alv.test")


def _handshake(edge: World, name: str | None) -> bytes | None:
    """The certificate shown for ``name``, which Python's own checks would not let us send."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = (name or "").encode()
    stand_in = ".".join(["x" * 59] * (len(plain) // 60) + ["x" * (len(plain) % 60 or 1)]) if name else None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=stand_in)
    with socket.create_connection(("127.0.0.1", edge.https), 10) as link:
        while True:
            try:
                tls.do_handshake()
                return tls.getpeercert(binary_form=True)
            except ssl.SSLWantReadError:
                hello = outgoing.read()
                if stand_in:
                    hello = hello.replace(stand_in.encode(), plain.ljust(len(stand_in), b"a")[: len(stand_in)])
                link.sendall(hello)
                data = link.recv(65536)
                if not data:
                    return None
                incoming.write(data)
            except ssl.SSLError as error:
                # A handshake signature over a hello that was changed on the way cannot be right;
                # it means that a certificate was shown.
                if "ALERT" in str(error) or "alert" in str(error):
                    return None
                return b"shown"


@pytest.mark.parametrize("header", [*CLEARED, "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"])
def test_no_header_of_the_client_says_who_he_is(edge: World, header: str) -> None:
    """Threat 19: the edge writes the forwarded headers; what the client sent of them is gone."""
    headers = edge.ask("one.alv.test", headers={header: "198.51.100.66"}).json["headers"]
    assert "198.51.100.66" not in headers.values()
    assert headers["x-real-ip"] == headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"] == "one.alv.test"


def test_rules_and_logs_go_by_the_real_peer(edge: World) -> None:
    """Threat 19: a forged address opens nothing."""
    edge.route(1, "closed.alv.test", allow=("198.51.100.0/24",))
    for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP"):
        assert edge.ask("closed.alv.test", headers={header: "198.51.100.66"}).status == 403


@pytest.mark.parametrize("name", ["X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Expires", "X-Accel-Charset"])
@pytest.mark.parametrize("value", ["/.alveole/503.html", "/.alveole/prefix", "/canary", "1"])
def test_what_a_site_tells_nginx_is_ignored_and_hidden(edge: World, name: str, value: str) -> None:
    """Threat 21: no X-Accel header of a site is obeyed, nor seen outside."""
    answer = edge.ask("one.alv.test", f"/answer?{name}={value}")
    assert answer.status == 200
    assert answer.json["site"] == "one.alv.test"
    assert name.lower() not in answer.headers


def test_a_link_that_is_not_understood_leads_nowhere(edge: World) -> None:
    """Threat 11: a rule the edge cannot read must not be a rule it skips."""
    table = paths.routes(edge.settings)
    socket_path = paths.web_socket(edge.settings, site_id(1), 0)
    for text in (
        f"unix:{socket_path} site={site_id(1)} allow=nonsense",
        f"unix:{socket_path} site={site_id(1)} deny=10.0.0.0/99",
        f"unix:{socket_path} site={site_id(1)} auth=later",
        f"unix:{socket_path};x",
        "/etc/passwd",
        "tcp:999999999999:1",
        "tcp:127.0.0.1:99999",
        "http://127.0.0.1",
        " ",
    ):
        link = table / "odd.alv.test"
        link.unlink(missing_ok=True)
        link.symlink_to(text)
        answer = edge.ask("odd.alv.test")
        assert answer.status in (404, 502), text


def test_workers_cannot_replace_logs_nor_certificates(edge: World) -> None:
    """Threat 7: the directories are root's; the proxy's workers own single log files and nothing else."""
    import pwd

    edge.ask("one.alv.test")
    worker = pwd.getpwnam("www-data")
    for directory in (
        edge.settings.logs / "edge",
        edge.settings.logs / "edge" / site_id(1),
        paths.certificates(edge.settings),
        paths.edge_certificates(edge.settings),
        paths.routes(edge.settings),
        paths.edge(edge.settings),
    ):
        status = directory.stat()
        assert status.st_uid == 0, directory
        assert status.st_mode & 0o022 == 0, directory
        assert status.st_uid != worker.pw_uid
    key = paths.certificate(edge.settings, "alv.test").stat()
    assert (key.st_uid, key.st_gid, key.st_mode & 0o777) == (0, worker.pw_gid, 0o640)
    authority = paths.authority(edge.settings)
    assert authority.stat().st_mode & 0o777 == 0o700
    assert (authority / "key.pem").stat().st_mode & 0o777 == 0o600


def test_one_site_cannot_take_every_connection(edge: World) -> None:
    """Threat 29 at the edge: requests to one site that never end leave the others their connections."""
    edge.site(70, "hog.alv.test", name="hog")
    edge.site(71, "calm.alv.test", name="calm")
    unending = b"POST / HTTP/1.1\r\nHost: hog.alv.test\r\nContent-Length: 9\r\n\r\n"
    held: list[socket.socket] = []
    try:
        for _ in range(1100):
            connection = socket.create_connection(("127.0.0.1", edge.http), timeout=10)
            connection.sendall(unending)
            held.append(connection)
        refused = held[-1].recv(100)
        with socket.create_connection(("127.0.0.1", edge.http), timeout=10) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: calm.alv.test\r\nConnection: close\r\n\r\n")
            answer = other.recv(100)
    finally:
        for connection in held:
            connection.close()
    assert refused.startswith(b"HTTP/1.1 429 "), refused
    assert answer.startswith(b"HTTP/1.1 200 "), answer
