"""Logs and programs over the API."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from doorkit import Door, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from alveole.people.model import Role

STDIN, STDOUT, STDERR, CONTROL = range(4)


# --- logs ---------------------------------------------------------------------------------------
def write(door: Door, site: dict[str, Any], lines: list[tuple[datetime, str]], mode: str = "a") -> None:
    place = door.settings.logs / site["id"]
    place.mkdir(parents=True, exist_ok=True)
    with (place / "current").open(mode) as file:
        for at, text in lines:
            file.write(f"{at:%Y-%m-%d %H:%M:%S.%f}000  {text}\n")


def test_logs_are_filtered(door: Door) -> None:
    site = door.site()
    now = datetime.now(UTC)
    write(door, site, [(now - timedelta(minutes=60 - minute), f"line {minute}") for minute in range(60)])

    def texts(**query: Any) -> list[str]:
        answer = door.http.get("/v1/sites/blog/logs", params=query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line)["text"] for line in answer.text.splitlines()]

    assert texts() == [f"line {minute}" for minute in range(60)]
    assert texts(n=3) == ["line 57", "line 58", "line 59"]
    assert texts(since="10m") == [f"line {minute}" for minute in range(50, 60)][-len(texts(since="10m")) :]
    assert texts(until=(now - timedelta(minutes=58, seconds=30)).isoformat()) == ["line 0", "line 1"]
    assert texts(since="1h", n=2) == ["line 58", "line 59"]
    assert texts(n=0) == []
    assert door.http.get("/v1/sites/none/logs").status_code == 404


def test_a_site_that_said_nothing_has_no_lines(door: Door) -> None:
    door.site()
    answer = door.http.get("/v1/sites/blog/logs")
    assert answer.status_code == 200
    assert answer.text == ""


def test_logs_are_followed(door: Door) -> None:
    site = door.site()
    now = datetime.now(UTC)
    write(door, site, [(now, "old"), (now, "before")])
    got: list[str] = []

    def writer() -> None:
        for number in range(5):
            time.sleep(0.1)
            write(door, site, [(datetime.now(UTC), f"new {number}\x1b[31m")])

    thread = threading.Thread(target=writer)
    with door.http.stream("GET", "/v1/sites/blog/logs", params={"follow": True, "n": 1}) as stream:
        thread.start()
        for line in stream.iter_lines():
            got.append(json.loads(line)["text"])
            if len(got) == 6:
                break
    thread.join()
    assert got == ["before", *(f"new {number}" for number in range(5))], "no line twice, none lost, none alive"


# --- exec ---------------------------------------------------------------------------------------
@contextmanager
def session(door: Door, *argv: str, **query: Any) -> Iterator[ClientConnection]:
    asked = urlencode([*(("argv", word) for word in argv), *query.items()])
    with unix_connect(
        str(door.settings.api_socket), uri=f"ws://x/v1/sites/app/exec?{asked}", compression=None, max_size=None
    ) as socket:
        yield socket


def control(socket: ClientConnection, **message: Any) -> None:
    socket.send(bytes([CONTROL]) + json.dumps(message).encode())


def drain(socket: ClientConnection) -> tuple[int, dict[int, bytes]]:
    """The exit status, and what came on each stream."""
    out = {STDOUT: b"", STDERR: b""}
    while True:
        message = socket.recv(timeout=20)
        assert isinstance(message, bytes)
        if message[0] in out:
            out[message[0]] += message[1:]
        else:
            said = json.loads(message[1:])
            if "exit" in said:
                return said["exit"], out


@pytest.fixture
def app(door: Door) -> Door:
    door.site("app", command=["serve"], port=8000)
    return door


def test_a_program_with_input_output_and_status(app: Door) -> None:
    with session(app, "sh", "-c", "cat; echo wrong >&2; exit 7") as socket:
        socket.send(bytes([STDIN]) + b"in ")
        socket.send(bytes([STDIN]) + b"and out")
        control(socket, eof=True)
        socket.send(bytes([STDIN]) + b"too late")
        status, out = drain(socket)
    assert status == 7
    assert out == {STDOUT: b"in and out", STDERR: b"wrong\n"}

    def journalled() -> bool:
        newest = app.http.get("/v1/changes", params={"site": "app"}).json()[0]
        return bool(newest["verb"] == "exec" and newest["ended_at"])

    until(journalled)


def test_a_program_on_a_terminal(app: Door) -> None:
    with session(app, "sh", "-c", "stty size; read x; echo got $x", tty="true") as socket:
        control(socket, resize=[40, 120])
        socket.send(bytes([STDIN]) + b"hello\n")
        status, out = drain(socket)
    assert status == 0
    assert b"got hello\r\n" in out[STDOUT]
    assert app.sessions[0].size == (40, 120)


def test_a_signal_ends_a_program(app: Door) -> None:
    with session(app, "sleep", "60") as socket:
        control(socket, signal=int(signal.SIGTERM))
        status, _ = drain(socket)
    assert status == 128 + signal.SIGTERM


def test_much_in_both_directions_at_once(app: Door) -> None:
    """Neither side waits for ever when the pipes are full: input waits until it is taken."""
    total = 4 << 20
    sent = taken = 0
    got = b""
    with session(app, "cat") as socket:
        while len(got) < total:
            while sent < total and sent - taken < 64 * 1024:
                socket.send(bytes([STDIN]) + os.urandom(1) * 16_384)
                sent += 16_384
                if sent == total:
                    control(socket, eof=True)
            message = socket.recv(timeout=20)
            assert isinstance(message, bytes)
            if message[0] == STDOUT:
                got += message[1:]
            elif "taken" in (said := json.loads(message[1:])):
                taken += said["taken"]
        assert drain(socket)[0] == 0
    assert len(got) == total


def test_a_program_does_not_outlive_its_caller(app: Door) -> None:
    with session(app, "sleep", "60"):
        until(lambda: app.sessions)
    assert app.sessions[0].process.wait(10) == -signal.SIGKILL


def test_a_background_child_does_not_hold_the_session(app: Door) -> None:
    began = time.monotonic()
    with session(app, "sh", "-c", "sleep 20 & echo done; echo $!") as socket:
        status, out = drain(socket)
    assert status == 0
    assert time.monotonic() - began < 10
    os.kill(int(out[STDOUT].split()[1]), signal.SIGKILL)


def test_no_session_where_none_may_be(app: Door) -> None:
    def refused(*argv: str, **query: Any) -> dict[str, Any]:
        with pytest.raises(InvalidStatus) as caught, session(app, *argv, **query):
            pass
        found: dict[str, Any] = json.loads(bytes(caught.value.response.body or b""))
        assert caught.value.response.status_code == found["status"]
        return found

    assert refused()["code"] == "invalid"
    app.ended(app.http.post("/v1/sites/app/stop"))
    assert refused("id")["code"] == "refused"
    assert app.sessions == []
    token = app.token(Role.READER)
    with (
        pytest.raises(InvalidStatus) as caught,
        # A reader may look, but not into a site.
        __import__("websockets.sync.client", fromlist=["connect"]).connect(
            f"ws://127.0.0.1:{app.port}/v1/sites/app/exec?argv=id",
            additional_headers={"Authorization": f"Bearer {token}"},
        ),
    ):
        pass
    assert caught.value.response.status_code == 403


def test_garbage_in_a_session_is_ignored(app: Door) -> None:
    with session(app, "cat") as socket:
        for garbage in (b"", b"\x09x", b"\x03{", b'\x03{"resize": ["a", 1]}', b'\x03{"signal": 4000}'):
            socket.send(garbage)
        socket.send("text")
        socket.send(bytes([STDIN]) + b"ok")
        control(socket, eof=True)
        status, out = drain(socket)
    assert (status, out[STDOUT]) == (0, b"ok")


def test_a_stop_of_the_server_ends_sessions(app: Door) -> None:
    with pytest.raises((ConnectionClosed, TimeoutError)), session(app, "sleep", "60") as socket:
        until(lambda: app.sessions)
        app.stop()
        while True:
            socket.recv(timeout=10)
    assert app.sessions[0].process.wait(10) == -signal.SIGKILL
    app.start()
