"""Sites that sleep, seen from outside: a visit waits and gets there whole, a crawler does not wake it."""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import World, site_id, world

from alveole.actuators.robots import is_robots
from alveole.host import connections, paths
from alveole.model.resource import RouteTarget
from alveole.services.sleep import Woken
from alveole.wakedoor import WakeDoor

pytestmark = pytest.mark.root
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}
CRAWLER = {"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}


class Waker:
    """Wakes by switching the route, as the loop does."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.awaken: dict[str, Callable[[], object]] = {}
        self.seconds = 0.0
        self.answer = Woken(True)
        self.lock = threading.Lock()
        self.hold = threading.Event()
        self.hold.set()

    def sleeps(self, site_id: str) -> bool:
        return site_id in self.awaken

    def wake(self, site_id: str, by: str = "", seconds: float = 0.0, routed: object = None) -> Woken:
        with self.lock:
            self.woken.append(site_id)
        time.sleep(self.seconds)
        assert self.hold.wait(60)
        if self.answer.awake:
            self.awaken.pop(site_id)()
        return self.answer


class Night:
    """An edge with one site that can sleep, at a name and below a path."""

    def __init__(self, edge: World) -> None:
        self.edge = edge
        self.waker = Waker()
        edge.settings.wake_socket.parent.mkdir(mode=0o755, exist_ok=True)
        self.door = WakeDoor(edge.settings, self.waker)
        self.door.start()

    def sleep(self, *, target: RouteTarget = RouteTarget.ASLEEP, **more: bool | tuple[str, ...]) -> None:
        names: list[tuple[str, str | None]] = [("idle.alv.test", None), ("alv.test", "/idle")]
        for host, path in names:
            self.edge.route(1, host, path=path, target=target, **more)
        self.waker.woken.clear()
        self.waker.awaken[site_id(1)] = lambda: [self.edge.route(1, host, path=path, **more) for host, path in names]


@pytest.fixture(scope="module")
def night() -> Iterator[Night]:
    with world() as edge:
        edge.certify(0, "alv.test", scope="platform")
        edge.site(1, "idle.alv.test", name="idle")
        edge.certify(1, "idle.alv.test", wildcard=True)
        made = Night(edge)
        yield made
        made.door.close()


@pytest.fixture(autouse=True)
def fresh(night: Night) -> Iterator[None]:
    yield
    night.waker.answer, night.waker.seconds = Woken(True), 0.0
    night.waker.hold.set()


def test_a_visit_wakes_and_is_answered_by_the_site(night: Night) -> None:
    """Whatever it is: a body of any length, a WebSocket, a name below a path, HTTP/2."""
    edge, site = night.edge, site_id(1)
    night.sleep()
    answer = edge.ask("idle.alv.test", "/a%2Fb?c=%20d", headers=BROWSER)
    assert (answer.status, answer.json["target"]) == (200, "/a%2Fb?c=%20d")
    assert night.waker.woken == [site]
    assert edge.ask("idle.alv.test", headers=BROWSER).status == 200 and night.waker.woken == [site]

    night.sleep()
    night.waker.seconds = 0.2
    answer = edge.ask("idle.alv.test", "/form", method="POST", body=b"x" * 300_000, headers=BROWSER, tls=True)
    assert (answer.json["method"], answer.json["body"]) == ("POST", 300_000)
    assert answer.json["headers"]["x-forwarded-proto"] == "https"

    night.sleep()
    answer = edge.ask("alv.test", "/idle/deep/er?x=1", method="PUT", body=b"abc", headers=BROWSER)
    assert (answer.json["target"], answer.json["body"]) == ("/deep/er?x=1", 3)
    assert answer.json["headers"]["x-forwarded-prefix"] == "/idle"
    night.sleep()
    assert edge.ask("alv.test", "/idle", headers=BROWSER).status == 308 and not night.waker.woken

    trust = edge.directory / "ca.pem"
    trust.write_text(edge.certificates.authority_pem())
    argv = ["curl", "-sS", "--http2", "--cacert", str(trust), "--resolve", f"idle.alv.test:{edge.https}:127.0.0.1"]
    argv += ["--data-binary", "@-", "-w", "\n%{http_version} %{http_code}", f"https://idle.alv.test:{edge.https}/x"]
    sent = subprocess.run(argv, input=b"y" * 200_000, capture_output=True, check=True).stdout.decode()
    told, _, version = sent.rpartition("\n")
    assert (json.loads(told)["body"], version) == (200_000, "2 200")


def test_a_websocket_wakes_and_counts_as_a_connection(night: Night) -> None:
    """What is open says so in no log: the kernel does, by the instance's own socket."""
    edge = night.edge
    night.sleep()
    path = paths.web_socket(edge.settings, site_id(1), 0)
    with socket.create_connection(("127.0.0.1", edge.http), 10) as link:
        link.sendall(b"GET /echo HTTP/1.1\r\nHost: idle.alv.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert link.recv(1000).startswith(b"HTTP/1.1 101")
        link.sendall(b"hello")
        assert link.recv(100) == b"HELLO"
        assert connections.count([path, path.with_name("none")], [])[0][path] >= 1
    until(lambda: connections.count([path], [])[0][path] == 0)


def test_connections_over_tcp_are_counted(night: Night) -> None:
    edge = night.edge
    address = edge.settings.addressing().instance(2, 0).own4
    edge.instances.open("tcp", (str(address), 8000))
    edge.route(2, "tcp.alv.test", port=8000)
    assert edge.ask("tcp.alv.test").status == 200
    _files, ports = connections.count([], [(address, 8000), (address, 8001)])
    assert ports[f"{address}:8000"] >= 1 and ports[f"{address}:8001"] == 0


def test_many_first_visits_are_one(night: Night) -> None:
    """Threat: a crowd at a site that sleeps wakes it once; so many are held, and the others are told to come again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    night.sleep()
    most = night.edge.settings.sleep.waiting_site
    turned_away = 40
    night.waker.hold = threading.Event()
    request = b"GET / HTTP/1.1\r\nHost: idle.alv.test\r\nConnection: close\r\n\r\n"
    with contextlib.ExitStack() as stack:
        links = []
        for _ in range(most + turned_away):
            links.append(stack.enter_context(socket.create_connection(("127.0.0.1", night.edge.http), 60)))
            links[-1].sendall(request)
        refused: list[socket.socket] = []
        with selectors.DefaultSelector() as waits:
            for link in links:
                waits.register(link, selectors.EVENT_READ)
            while len(refused) < turned_away:
                ready = [key.fileobj for key, _ in waits.select(60)]
                assert ready, f"{len(refused)} were told to come again"
                for link in ready:
                    waits.unregister(link)
                refused += ready
        night.waker.hold.set()
        heads = {link: _whole(link).partition(b"\r\n\r\n")[0] for link in links}
    assert all(b" 503 " in heads[link] and b"Retry-After: 5\r" in heads[link] + b"\r" for link in refused)
    served = [link for link in links if heads[link].startswith(b"HTTP/1.1 200 ")]
    assert (len(served), len(refused)) == (most, turned_away) and night.waker.woken == [site_id(1)]


def _whole(link: socket.socket) -> bytes:
    found = b""
    while part := link.recv(65536):
        found += part
    return found


@pytest.mark.parametrize(
    ("agent", "robot"),
    [
        (CRAWLER["User-Agent"], True),
        ("Mozilla/5.0 (compatible; bingbot/2.0)", True),
        ("Pingdom.com_bot_version_1.4", True),
        ("UptimeRobot/2.0", True),
        ("check_http/v2.3.3 (monitoring-plugins 2.3.3)", True),
        ("alveole", True),
        (BROWSER["User-Agent"], False),
        ("Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20)", False),
        ("curl/7.88.1", False),
        ("Bottle of ink/1.0", False),
        ("", False),
    ],
)
def test_who_is_no_person_does_not_wake(night: Night, agent: str, robot: bool) -> None:
    """The edge, which wakes, and the agent, which knows the last visit from the log, judge alike."""
    edge, site = night.edge, site_id(1)
    night.sleep()
    answer = edge.ask("idle.alv.test", headers={"User-Agent": agent})
    assert answer.status == (503 if robot else 200) and night.waker.woken == ([] if robot else [site])
    assert is_robots(b'{"uri":"/bot","agent":"' + agent.encode() + b'"}') is robot
    if robot:
        assert answer.headers["retry-after"] == "3600" and answer.headers["cache-control"] == "no-store"
        assert b"This site is asleep" in answer.body and b"Ce site dort" in answer.body
        night.sleep(target=RouteTarget.ASLEEP_FOR_ALL)
        assert edge.ask("idle.alv.test", headers={"User-Agent": agent}).status == 200


def test_who_may_not_come_in_wakes_nothing(night: Night) -> None:
    edge = night.edge
    night.sleep()
    assert edge.ask("idle.alv.test", "/robots.txt", headers=BROWSER).status == 503
    night.sleep(deny=("127.0.0.0/8",))
    assert edge.ask("idle.alv.test", headers=BROWSER).status == 403
    night.sleep(https_only=True)
    assert edge.ask("idle.alv.test", headers=BROWSER).status == 308
    assert not night.waker.woken
    assert edge.ask("idle.alv.test", headers=BROWSER, tls=True).status == 200


def test_what_cannot_be_woken_is_told_to_come_again(night: Night) -> None:
    edge = night.edge
    night.sleep()
    night.waker.answer = Woken(False, 17)
    answer = edge.ask("idle.alv.test", method="POST", body=b"x", headers=BROWSER)
    assert (answer.status, answer.headers["retry-after"]) == (503, "17") and b"asleep" in answer.body
    night.door.close()
    try:
        answer = edge.ask("idle.alv.test", headers=BROWSER)
        assert (answer.status, answer.headers["retry-after"]) == (503, "10"), "control is away"
        assert edge.ask("alv.test", "/idle/x", headers=BROWSER).status == 503
    finally:
        night.door = WakeDoor(edge.settings, night.waker)
        night.door.start()
    night.waker.answer = Woken(True)
    assert edge.ask("idle.alv.test", headers=BROWSER).status == 200


def test_the_last_visit_is_known_from_the_log(night: Night) -> None:
    edge = night.edge
    edge.site(3, "seen.alv.test")
    log = paths.edge_log(edge.settings, site_id(3)) / "access.log"
    begun = time.time()
    edge.ask("seen.alv.test", headers=CRAWLER)
    edge.logged(log)
    people, anybody = edge.logs.last_asked(site_id(3))
    assert people < begun <= anybody, "before this one, nobody: then it is told when the agent began"
    edge.ask("seen.alv.test", headers=BROWSER)
    edge.logged(log, 2)
    assert edge.logs.last_asked(site_id(3))[0] >= begun


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)
