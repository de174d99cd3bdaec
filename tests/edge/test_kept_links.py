"""What the edge keeps of the links it read never differs from what the directory holds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import World, site_id, world

from alveole.host import paths

pytestmark = pytest.mark.root
HOST = "blog.alv.test"
#: Longer than the edge lets the directory rest before it keeps anything.
REST = 3.5


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world() as made:
        for slot in (0, 1):
            made.instances.open(f"blog.{slot}", paths.web_socket(made.settings, site_id(1), slot))
        yield made


def kept(edge: World) -> None:
    """The directory rests until its links are kept, and they are."""
    time.sleep(REST)
    for _ in range(3):
        edge.ask(HOST)


def answering(edge: World) -> str | int:
    answer = edge.ask(HOST)
    return str(answer.json["site"]) if answer.status == 200 else answer.status


def test_the_request_after_a_change_sees_it(edge: World) -> None:
    made = edge.route(1, HOST)
    kept(edge)
    assert answering(edge) == "blog.0"
    edge.route(1, HOST, slot=1)
    assert answering(edge) == "blog.1"
    kept(edge)
    edge.unroute(made)
    assert answering(edge) == 404
    kept(edge)
    edge.route(1, HOST)
    assert answering(edge) == "blog.0"


def test_changes_of_one_clock_tick_are_all_seen(edge: World) -> None:
    """A kernel of 6.12 or older stamps them with the same time."""
    edge.route(1, HOST)
    kept(edge)
    for number in range(300):
        edge.route(1, HOST, slot=number % 2)
        assert answering(edge) == f"blog.{number % 2}"


def test_a_directory_in_place_of_the_directory(edge: World) -> None:
    edge.route(1, HOST)
    kept(edge)
    routes = paths.routes(edge.settings)
    old = routes.with_name("routes-old")
    routes.rename(old)
    try:
        routes.mkdir(mode=0o755)
        edge.route(1, HOST, slot=1)
        until = time.monotonic() + 60
        while answering(edge) != "blog.1":
            assert time.monotonic() < until, answering(edge)
    finally:
        for link in routes.iterdir():
            link.unlink()
        routes.rmdir()
        old.rename(routes)
    until = time.monotonic() + 60
    while answering(edge) != "blog.0":
        assert time.monotonic() < until, answering(edge)
