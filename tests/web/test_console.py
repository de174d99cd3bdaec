"""The console in the page: who gets one, what of it is told, and how it ends. A program of this machine stands for the
site's shell; the real one is tried in ``tests/ssh``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from doorkit import Door, until
from peoplekit import Browser, add
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from alveole.api.admit import COOKIE
from alveole.people.model import Role

STDIN, STDOUT, CONTROL = 0, 1, 3


@contextlib.contextmanager
def console(browser: Browser, site: str = "blog", *, csrf: str | None = None) -> Iterator[ClientConnection]:
    words = ["alveole", f"csrf.{browser.csrf if csrf is None else csrf}"]
    headers = {"Cookie": f"{COOKIE}={browser.cookie}"}
    address = f"ws://127.0.0.1:{browser.door.port}/v1/sites/{site}/console"
    origin = browser.origin
    with connect(address, subprotocols=words, additional_headers=headers, origin=origin) as socket:
        assert socket.subprotocol == "alveole"
        yield socket


def until_seen(socket: ClientConnection, word: bytes) -> bytes:
    seen = b""
    while word not in seen:
        frame = socket.recv(timeout=20)
        assert isinstance(frame, bytes)
        seen += frame[1:] if frame[0] == STDOUT else b""
    return seen


@pytest.fixture
def desk(door: Door) -> Door:
    for name, role in (("ana", Role.OWNER), ("zoe", Role.OWNER), ("rita", Role.READER)):
        add(door, name, role)
    door.site("blog", owner="ana")
    return door


def told(door: Door) -> dict[str, object]:
    found = door.http.get("/v1/changes?site=blog").json()
    return next((each for each in found if each["verb"] == "console" and each["ended_at"]), {})


def test_a_shell_that_is_journalled(desk: Door) -> None:
    with Browser(desk) as ana:
        ana.sign_in("ana")
        with console(ana) as socket:
            socket.send(bytes([CONTROL]) + json.dumps({"resize": [30, 100]}).encode())
            socket.send(bytes([STDIN]) + b"echo $((40+2))-ok; exit 3\n")
            until_seen(socket, b"42-ok")
            with contextlib.suppress(ConnectionClosed):
                while True:
                    socket.recv(timeout=20)
        found = until(lambda: told(desk))
        assert found["actor"] == "ana" and found["reason"] == "from 127.0.0.1" and found["state"] == "done"
        assert found["result"]["exit_status"] == 3 and found["result"]["received_bytes"] > 10


def test_who_may_not_gets_none(desk: Door) -> None:
    """Threats 23 and 24: a foreign site is absent; without the page's token nobody comes in by somebody's cookie."""
    for name, status in (("zoe", 404), ("rita", 403)):
        with Browser(desk) as browser:
            browser.sign_in(name)
            with pytest.raises(InvalidStatus) as refused, console(browser):
                pass
            assert refused.value.response.status_code == status
    with Browser(desk) as ana:
        ana.sign_in("ana")
        for csrf in ("", "x" * 43):
            with pytest.raises(InvalidStatus) as refused, console(ana, csrf=csrf):
                pass
            assert refused.value.response.status_code == 403
        ana.origin = "https://blog.localhost"
        with pytest.raises(InvalidStatus), console(ana):
            pass


def test_it_ends_with_the_session(desk: Door) -> None:
    """Threat 25: signing out, or being shut out, ends what is open."""
    with Browser(desk) as ana, console_of(ana) as socket:
        ana.ask("DELETE", "/v1/session")
        with pytest.raises(ConnectionClosed):
            while True:
                socket.recv(timeout=10)
        found = until(lambda: told(desk))
        assert "signed out" in str(found["problems"])
    with Browser(desk) as ana, console_of(ana) as socket:
        desk.http.patch("/v1/accounts/ana", json={"active": False})
        with pytest.raises(ConnectionClosed):
            while True:
                socket.recv(timeout=10)
    assert all(each.process.poll() is not None for each in desk.sessions)


@contextlib.contextmanager
def console_of(browser: Browser) -> Iterator[ClientConnection]:
    browser.sign_in("ana")
    with console(browser) as socket:
        socket.send(bytes([STDIN]) + b"echo $((40+2))-ok\n")
        until_seen(socket, b"42-ok")
        yield socket


def test_only_some_at_a_time(desk: Door) -> None:
    with Browser(desk) as ana, contextlib.ExitStack() as stack:
        ana.sign_in("ana")
        for _ in range(5):
            stack.enter_context(console(ana))
        with pytest.raises(InvalidStatus) as refused, console(ana):
            pass
        assert refused.value.response.status_code == 409
        stack.pop_all().close()
        until(lambda: not desk.services._consoles)
        with console(ana):
            pass
