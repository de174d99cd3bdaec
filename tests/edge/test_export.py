"""What ``export`` writes, loaded by a real nginx and a real Apache, with requests through them to real sites."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import Answer, World, free_ports, world

from alveole.actuators.certificates import issue, make_authority
from alveole.errors import InvalidInput
from alveole.export import ExportedSite, Front, Tls, export
from alveole.model.site import Access

pytestmark = pytest.mark.root
KINDS: tuple[Front, ...] = ("nginx", "apache")
APACHE_MODULES = (
    *("mpm_event", "authz_core", "authz_host", "alias", "env", "setenvif", "headers"),
    *("proxy", "proxy_http", "proxy_wstunnel", "socache_shmcb", "ssl"),
)


@dataclass
class InFront:
    """The proxy that already stood there."""

    http: int
    https: int
    logs: Path

    def ask(
        self,
        host: str,
        path: str = "/",
        address: str = "127.0.0.1",
        tls: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection(address, self.https if tls else self.http, timeout=10)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            plain = socket.create_connection((address, self.https), 10)
            connection.sock = context.wrap_socket(plain, server_hostname=host)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": host, **(headers or {})})
            answer = connection.getresponse()
            return Answer(
                answer.status,
                {key.lower(): value for key, value in answer.getheaders()},
                answer.read(),
                answer.msg.get_all("Set-Cookie") or [],
            )


@contextlib.contextmanager
def in_front(kind: Front, edge: World, sites: list[ExportedSite], secure: bool = True) -> Iterator[InFront]:
    directory = edge.directory / f"front-{kind}-{time.monotonic_ns()}"
    logs = directory / "logs"
    logs.mkdir(parents=True)
    port, secure_port = free_ports(2)
    tls = None
    if secure:
        pem = directory / "front.pem"
        pem.write_bytes(_certificate())
        tls = Tls(str(pem), str(pem))
    text = export(
        kind,
        sites,
        f"http://127.0.0.1:{edge.http}",
        domain="alv.test",
        tls=tls,
        logs=str(logs),
        http_port=port,
        https_port=secure_port,
    )
    conf = directory / "main.conf"
    if kind == "nginx":
        (directory / "exported.conf").write_text(text)
        temp = "".join(
            f"{one}_temp_path {directory}/{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        conf.write_text(
            f"pid {directory}/pid; error_log {logs}/main.log; events {{}}\n"
            f"http {{ {temp} access_log {logs}/other.log; server_names_hash_bucket_size 128;"
            f" include {directory}/exported.conf; }}\n"
        )
        argv = ["/usr/sbin/nginx", "-c", str(conf)]
    else:
        (directory / "exported.conf").write_text(text)
        modules = [f"LoadModule {one}_module /usr/lib/apache2/modules/mod_{one}.so" for one in APACHE_MODULES]
        conf.write_text(
            "\n".join(
                [
                    *modules,
                    "ServerName front.test",
                    "User www-data",
                    "Group www-data",
                    f"PidFile {directory}/pid",
                    f"DefaultRuntimeDir {directory}",
                    f"ErrorLog {logs}/main.log",
                    'LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined',
                    f"Listen {port}",
                    *([f"Listen {secure_port}"] if secure else []),
                    f"Include {directory}/exported.conf",
                ]
            )
            + "\n"
        )
        argv = ["/usr/sbin/apache2", "-f", str(conf)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{text}"
    try:
        end = time.monotonic() + 5
        while not (directory / "pid").exists() or not (directory / "pid").read_text().strip():
            assert time.monotonic() < end, (logs / "main.log").read_text()
            time.sleep(0.02)
        yield InFront(port, secure_port, logs)
    finally:
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((directory / "pid").read_text())
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + 5
            while time.monotonic() < end and _running(pid):
                time.sleep(0.02)


def _running(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _certificate() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key, certificate = make_authority("front.test")
    signing = load_pem_private_key(key, None)
    return issue("front.test", "front.test", (signing, x509.load_pem_x509_certificate(certificate), "0" * 16))


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world(trusted_proxies=["127.0.0.1/32"]) as made:
        made.site(1, "one.alv.test")
        made.route(1, "www.one.org")
        made.site(2, "secure.alv.test", https_only=True)
        made.site(3, "alv.test", path="/my-app", name="app")
        made.site(4, "alv.test", path="/my-app/inner", name="inner")
        made.site(5, "ruled.alv.test")
        made.instances.open("direct", ("127.0.0.1", 18125))
        yield made


SITES = [
    ExportedSite("one", ("one.alv.test", "www.one.org")),
    ExportedSite("secure", ("secure.alv.test",), https_only=True),
    ExportedSite("app", (), path="/my-app"),
    ExportedSite("inner", (), path="/my-app/inner"),
    ExportedSite("closed", (), path="/my-app/closed", access=Access(deny=("127.0.0.0/8",))),
    ExportedSite("ruled", ("ruled.alv.test",), access=Access(allow=("127.0.0.0/8",), deny=("127.0.0.2/32",))),
    ExportedSite("direct", ("direct.alv.test",), path="/direct", target="http://127.0.0.1:18125"),
]


@pytest.fixture(scope="module", params=KINDS)
def front(request: pytest.FixtureRequest, edge: World) -> Iterator[InFront]:
    with in_front(request.param, edge, SITES) as made:
        yield made


@pytest.mark.parametrize("tls", [False, True])
def test_names_go_through_the_edge(front: InFront, tls: bool) -> None:
    for host in ("one.alv.test", "www.one.org"):
        answer = front.ask(host, "/x%2Fy?z=1", tls=tls)
        assert answer.json["site"] == "one.alv.test"
        assert answer.json["target"] == "/x%2Fy?z=1"
        headers = answer.json["headers"]
        assert headers["host"] == host
        assert headers["x-real-ip"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == ("https" if tls else "http")


def test_the_client_is_who_the_front_says(front: InFront) -> None:
    """Threat 19: what the client claims is dropped by the front; the edge hears of the client from it alone."""
    headers = front.ask(
        "one.alv.test", headers={"X-Forwarded-For": "198.51.100.66", "Forwarded": "for=198.51.100.66"}
    ).json["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert "198.51.100.66" not in str(headers)


def test_https_only(front: InFront) -> None:
    answer = front.ask("secure.alv.test", "/a?b=c")
    assert answer.status == 308
    assert answer.headers["location"] == f"https://secure.alv.test:{front.https}/a?b=c"
    assert front.ask("secure.alv.test", "/a", tls=True).json["site"] == "secure.alv.test"


def test_paths_of_the_main_domain(front: InFront) -> None:
    for asked, site, target in (("/my-app/x?y", "app", "/x?y"), ("/my-app/inner/z", "inner", "/z")):
        answer = front.ask("alv.test", asked)
        assert (answer.json["site"], answer.json["target"]) == (site, target)
        assert answer.json["headers"]["x-forwarded-prefix"] in ("/my-app", "/my-app/inner")
    answer = front.ask("alv.test", "/my-app")
    assert answer.status == 308
    assert answer.headers["location"].endswith("/my-app/")


def test_rules_are_kept_by_the_front(front: InFront) -> None:
    assert front.ask("ruled.alv.test").status == 200
    with contextlib.closing(socket.socket()) as link:
        link.bind(("127.0.0.2", 0))
        link.connect(("127.0.0.1", front.http))
        link.sendall(b"GET / HTTP/1.1\r\nHost: ruled.alv.test\r\nConnection: close\r\n\r\n")
        assert b" 403 " in link.recv(4096).split(b"\r\n", 1)[0]


def test_rules_of_a_longer_prefix_are_not_those_of_a_shorter_one(front: InFront) -> None:
    assert front.ask("alv.test", "/my-app/closed/").status == 403
    assert front.ask("alv.test", "/my-app/").status == 200


def test_a_site_asked_directly(front: InFront) -> None:
    assert front.ask("direct.alv.test", "/x").json["site"] == "direct"
    answer = front.ask("alv.test", "/direct/x?y=1")
    assert (answer.json["site"], answer.json["target"]) == ("direct", "/x?y=1")
    assert answer.json["headers"]["x-forwarded-prefix"] == "/direct"
    moved = front.ask("alv.test", "/direct/answer?Set-Cookie=a%3D1%3B+Path%3D/")
    assert moved.cookies == ["a=1; Path=/direct/"]


def test_websocket_passes(front: InFront) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", front.http), 10)) as link:
        link.sendall(
            b"GET /echo HTTP/1.1\r\nHost: one.alv.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert link.recv(4096).startswith(b"HTTP/1.1 101")
        link.sendall(b"hello")
        assert link.recv(100) == b"HELLO"


def test_each_site_has_logs_of_its_own(front: InFront) -> None:
    front.ask("one.alv.test", "/only-one")
    front.ask("alv.test", "/my-app/only-app")
    front.ask("alv.test", "/my-app/inner/only-inner")
    time.sleep(0.3)
    for name in ("one", "app", "inner"):
        log = (front.logs / f"{name}.access.log").read_text()
        for other in ("one", "app", "inner"):
            assert (f"/only-{other} " in log) is (name == other), (name, other)
    assert list(front.logs.glob("one.error.log"))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_certificate_the_edge_sends_to_https(edge: World, kind: Front) -> None:
    with in_front(kind, edge, SITES, secure=False) as front:
        assert front.ask("one.alv.test").json["site"] == "one.alv.test"
        answer = front.ask("secure.alv.test", "/x")
        assert answer.headers["location"] == f"https://secure.alv.test:{edge.https}/x"


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_values_are_refused_all_at_once(kind: Front) -> None:
    """Threat 11: nothing that came from a person can end a line or a block of the export."""
    bad = [
        ExportedSite("a;b", ("x.test;\n}",), path="/a b"),
        ExportedSite("ok", ("x.test",), access=Access(("1.2.3.4; allow all",)), target="http://x/;"),
    ]
    with pytest.raises(InvalidInput) as caught:
        export(kind, bad, "http://127.0.0.1:80\n", domain="alv.test", logs="/var/log/$x")
    assert len(caught.value.problems) == 7
