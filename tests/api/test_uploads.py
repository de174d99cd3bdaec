"""Uploads: streamed, under ceilings, gone when they are cut."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorkit import Door, until
from test_gate import problem


@pytest.fixture
def small(directory: Path) -> Iterator[Door]:
    """A door with a ceiling of 3 MiB."""
    made = Door(directory, content={"bytes": 3 << 20})
    try:
        yield made
    finally:
        made.close()


def test_the_bytes_arrive_whole(door: Door) -> None:
    content = bytes(range(256)) * 20_000
    for sent in (content, iter([content[:7], content[7:100_000], content[100_000:]])):
        answer = door.http.post("/v1/uploads", content=sent)
        assert answer.status_code == 201
        made = answer.json()
        assert made.keys() == {"id", "bytes", "digest"}
        assert made["bytes"] == len(content)
        assert made["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = door.settings.database.parent / "uploads" / made["id"]
        assert place.read_bytes() == content
        assert place.stat().st_mode & 0o777 == 0o600


def test_too_large_is_413_and_leaves_nothing(small: Door) -> None:
    """Threat 8: a ceiling on what is sent, known by its length or not."""
    for sent in (b"x" * (4 << 20), iter([b"x" * (1 << 20)] * 4)):
        answer = small.http.post("/v1/uploads", content=sent)
        assert answer.status_code == 413
        assert "ceiling" in str(problem(answer)["problems"])
        assert small.spool() == []
    assert small.http.post("/v1/uploads", content=b"x" * (3 << 20)).status_code == 201


def test_an_empty_upload_is_refused(door: Door) -> None:
    assert door.http.post("/v1/uploads").status_code == 422
    assert door.spool() == []


def test_no_room_is_507(directory: Path) -> None:
    """Fault 12: the reserve of the state disk is not touched by uploads."""
    door = Door(directory, content={"reserve_bytes": 1 << 60})
    try:
        answer = door.http.post("/v1/uploads", content=b"x")
        assert answer.status_code == 507
        assert problem(answer)["code"] == "no-room"
        assert door.spool() == []
    finally:
        door.close()


@pytest.mark.parametrize("head", [b"Content-Length: 9000000", b"Transfer-Encoding: chunked"])
def test_a_cut_upload_is_discarded(door: Door, head: bytes) -> None:
    """Fault 16: the connection ends in the middle; its space is given back."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(door.settings.api_socket))
        client.sendall(b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
        piece = b"y" * 2_000_000
        client.sendall(piece if b"Length" in head else b"%x\r\n%b\r\n" % (len(piece), piece))
        until(door.spool)
        time.sleep(0.2)
    until(lambda: door.spool() == [])


def test_a_stop_of_the_server_discards_what_was_under_way(door: Door) -> None:
    """Fault 16: control ends in the middle of an upload; nothing stays that nobody waits for."""
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(str(door.settings.api_socket))
        client.sendall(b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"y" * 1_500_000)
        until(door.spool)
        began = time.monotonic()
        door.stop()
        assert time.monotonic() - began < 8
        assert door.spool() == []
    finally:
        client.close()
        door.start()


def test_an_upload_is_used_once(door: Door) -> None:
    upload = door.upload()
    door.ended(door.http.post("/v1/sites", json={"name": "one", "upload": upload}))
    until(lambda: door.spool() == [])
    answer = door.http.post("/v1/sites", json={"name": "two", "upload": upload})
    assert answer.status_code == 422
    for foreign in ("../alveole.db", "/etc/passwd", ""):
        answer = door.http.post("/v1/sites", json={"name": "two", "upload": foreign})
        assert answer.status_code == 422, foreign
