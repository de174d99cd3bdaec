"""Past days, seen from outside: the edge lets in who has a pass of control's, for every request anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import Answer, World, site_id, world

from alveole.host import paths
from alveole.model.resource import Action, Kind, ResourceId, RouteSpec, RouteTarget, Step, stamp
from alveole.model.site import Access
from alveole.people import passwords
from alveole.wakedoor import WakeDoor

pytestmark = pytest.mark.root
HOST = "past-0a1b2c3d.alv.test"
TICKET, PASS = "t" * 43, "p" * 43
COOKIE = {"Cookie": f"a=1; __Host-alveole-past={PASS}; b=2"}


class Day:
    """An edge with one past day, and what control would say of its visitors."""

    def __init__(self, edge: World) -> None:
        self.edge = edge
        self.asked: list[tuple[str, str, str]] = []
        self.tickets = {TICKET}
        self.passes = {PASS}
        edge.settings.wake_socket.parent.mkdir(mode=0o755, exist_ok=True)
        self.door = WakeDoor(edge.settings, None, self.admit)
        self.door.start()

    def admit(self, word: str, day: str, secret: str) -> str:
        self.asked.append((word, day, secret))
        if word == "ticket":
            known = secret in self.tickets
            self.tickets.discard(secret)
            return f"{PASS} 3600" if known else ""
        return "yes" if secret in self.passes else ""

    def ask(self, path: str = "/", **more: object) -> Answer:
        return self.edge.ask(HOST, path, tls=True, **more)


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    with world() as edge:
        edge.certify(0, "alv.test", scope="platform")
        edge.certify(1, HOST, wildcard=True)
        edge.instances.open("that day", paths.web_socket(edge.settings, site_id(1), 0))
        spec = RouteSpec(site_id(1), 1, 0, RouteTarget.WORKLOAD, None, HOST, None, Access(), True, past=True)
        done = edge.routes.apply(Step(ResourceId(Kind.ROUTE, site_id(1), HOST), Action.CREATE, stamp(spec), spec))
        assert done.done, done
        made = Day(edge)
        try:
            yield made
        finally:
            made.door.close()


@pytest.fixture(autouse=True)
def fresh(day: Day) -> None:
    day.asked.clear()
    day.passes, day.tickets = {PASS}, {TICKET}


def test_nobody_comes_in_without_a_pass(day: Day) -> None:
    """Threat 22: nothing that a visitor says of themself counts; who is not let in is led to the pages."""
    panel = f"https://panel.alv.test:{day.edge.https}/past/{site_id(1)}"
    headers = (
        {},
        {"Cookie": "alveole-past=" + PASS},
        {"Cookie": f"__Host-alveole-past={'x' * 43}"},
        {"Cookie": "__Host-alveole-past=../../x"},
        {"Cookie": f"__Host-alveole-past={PASS}; __Host-alveole-past={PASS}"},
        {"X-Real-IP": "127.0.0.1", "X-Alveole-Person": "ana", "Authorization": f"Bearer {PASS}"},
    )
    for each in headers:
        answer = day.ask("/page?x=1", headers=each)
        assert (answer.status, answer.headers["location"]) == (303, panel), each
        assert answer.headers["cache-control"] == "no-store" and not answer.cookies
    assert day.ask("/form", method="POST", body=b"x").status == 403
    assert day.edge.ask(HOST, "/page").status == 308, "over HTTPS only"
    assert {word for word, _day, _secret in day.asked} == {"pass"} and len(day.asked) == 1


def test_a_ticket_gives_a_pass_once(day: Day) -> None:
    answer = day.ask(f"/.alveole/enter?ticket={TICKET}")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    (cookie,) = answer.cookies
    assert cookie == f"__Host-alveole-past={PASS}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=3600"
    assert answer.headers["referrer-policy"] == "no-referrer"
    again = day.ask(f"/.alveole/enter?ticket={TICKET}")
    assert again.status == 303 and "/past/" in again.headers["location"] and not again.cookies
    for wrong in ("", "x" * 300, "a%0d%0ab"):
        assert "/past/" in day.ask(f"/.alveole/enter?ticket={wrong}").headers["location"]
    # Control is asked about nothing that it cannot have given.
    day.asked.clear()
    for many in (20, 42, 44, 100):
        assert day.ask(f"/.alveole/enter?ticket={'t' * many}").status == 303
        assert day.ask("/", headers={"Cookie": f"__Host-alveole-past={'p' * many}"}).status == 303
    assert not day.asked and len(passwords.secret("")) == len(PASS)


def test_with_a_pass_all_goes_through_but_the_pass(day: Day) -> None:
    answer = day.ask("/a%2Fb?c=%20d", headers=COOKIE)
    assert (answer.status, answer.json["site"], answer.json["target"]) == (200, "that day", "/a%2Fb?c=%20d")
    assert answer.json["headers"]["cookie"] == "a=1; b=2"
    assert answer.json["headers"]["x-forwarded-proto"] == "https"
    alone = day.ask("/", headers={"Cookie": f"__Host-alveole-past={PASS}"})
    assert "cookie" not in alone.json["headers"]
    sent = day.ask("/form", method="POST", body=b"y" * 200_000, headers=COOKIE)
    assert (sent.json["method"], sent.json["body"]) == ("POST", 200_000)
    assert day.asked[0] == ("pass", site_id(1), PASS)
    # The pass ends: at the very next request.
    day.passes = set()
    assert day.ask("/", headers=COOKIE).status == 303


def test_a_page_of_elsewhere_does_not_look_with_anothers_pass(day: Day) -> None:
    """Threat 23: another site of this machine is the same site to a browser, whose cookie then goes with it."""
    other = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    frame = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    link = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    socket = {"Origin": "https://evil.alv.test", "Upgrade": "websocket", "Connection": "Upgrade"}
    for each in (other, frame, socket, {"Origin": "null"}):
        assert day.ask("/", headers=COOKIE | each).status == 403, each
    assert day.ask("/", method="POST", body=b"x", headers=COOKIE | link).status == 403
    assert day.ask("/", headers=COOKIE | link).status == 200
    own = {"Origin": f"https://{HOST}", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert day.ask("/", method="POST", body=b"x", headers=COOKIE | own).status == 200


def test_while_control_is_away_nobody_comes_in(day: Day) -> None:
    """Fault 8: what is not said is not allowed."""
    day.door.close()
    try:
        assert day.ask("/", headers=COOKIE).status == 303
    finally:
        day.door = WakeDoor(day.edge.settings, None, day.admit)
        day.door.start()
    assert day.ask("/", headers=COOKIE).status == 200
