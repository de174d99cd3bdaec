"""A request, or a connection used again, never reaches another site; and none fails while routes change."""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import World, site_id, world

from alveole.host import paths

pytestmark = pytest.mark.root
SITES = 60


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world() as made:
        for number in range(1, SITES + 1):
            made.site(number, f"site{number}.alv.test", name=f"{number}.0")
        yield made


class Clients:
    """Threads that keep their connections and ask for one site after the other over each."""

    def __init__(self, edge: World, numbers: range, threads: int = 6) -> None:
        self.edge = edge
        self.numbers = numbers
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(place,)) for place in range(threads)]

    def __enter__(self) -> Clients:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(20)

    def _run(self, place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.edge.http, timeout=10)
        at = place * 7
        while not self.ended.is_set():
            at += 1
            number = self.numbers[at % len(self.numbers)]
            try:
                connection.request("GET", "/x", headers={"Host": f"site{number}.alv.test"})
                answer = connection.getresponse()
                body = answer.read().decode()
            except OSError as error:
                self.wrong.append(f"site{number}: {error!r}")
                connection.close()
                continue
            self.counts[str(answer.status)] += 1
            if answer.status == 200:
                if f'"site": "{number}.' not in body:
                    self.wrong.append(f"site{number} answered by {body[:60]}")
            elif answer.status != 404:
                self.wrong.append(f"site{number}: {answer.status}")
        connection.close()


def test_many_sites_over_the_same_connections(edge: World) -> None:
    with Clients(edge, range(1, SITES + 1)) as clients:
        time.sleep(3)
    assert not clients.wrong
    assert clients.counts.keys() == {"200"}
    assert clients.counts["200"] > 500


def test_switching_sites_under_load_fails_no_request(edge: World) -> None:
    """A new instance ready, the route switched, the old one ended: as an update does it."""
    slots = dict.fromkeys(range(1, SITES + 1), 0)
    with Clients(edge, range(1, SITES + 1)) as clients:
        for turn in range(80):
            number = turn % 20 + 1
            old, new = slots[number], 1 - slots[number]
            edge.instances.open(f"{number}.{new}", paths.web_socket(edge.settings, site_id(number), new))
            edge.route(number, f"site{number}.alv.test", slot=new)
            slots[number] = new
            # Requests in flight end within it; the agent waits settings.reconcile.drain_seconds.
            time.sleep(0.05)
            edge.instances.close(f"{number}.{old}")
    assert not clients.wrong
    assert clients.counts.keys() == {"200"}


def test_removing_and_adding_routes_disturbs_nobody_else(edge: World) -> None:
    with Clients(edge, range(30, SITES + 1)) as clients:
        for _ in range(10):
            gone = [edge.route(number, f"site{number}.alv.test", slot=0) for number in range(21, 30)]
            for resource in gone:
                edge.unroute(resource)
            assert edge.ask("site21.alv.test").status == 404
            for number in range(21, 30):
                edge.route(number, f"site{number}.alv.test")
            assert edge.ask("site21.alv.test").status == 200
    assert not clients.wrong
    assert clients.counts.keys() == {"200"}


def test_a_name_given_to_another_site_is_the_other_sites_at_once(edge: World) -> None:
    edge.site(90, "moved.alv.test", name="90.0")
    connection = http.client.HTTPConnection("127.0.0.1", edge.http, timeout=10)
    seen = []
    for number in (90, 91):
        if number == 91:
            edge.unroute(edge.route(90, "moved.alv.test"))
            edge.site(91, "moved.alv.test", name="91.0")
        connection.request("GET", "/", headers={"Host": "moved.alv.test"})
        seen.append(connection.getresponse().read()[:16])
    assert seen == [b'{"site": "90.0",', b'{"site": "91.0",']


def test_the_address_of_a_dead_instance_taken_by_another_site(edge: World) -> None:
    """Pooled connections to an address do not lead to who has the address next."""
    net = edge.settings.addressing().instance(92, 0)
    edge.instances.open("first", (str(net.own4), 18124))
    edge.route(92, "first.alv.test", port=18124)
    for _ in range(5):
        assert edge.ask("first.alv.test").json["site"] == "first"
    edge.instances.close("first")
    edge.instances.open("second", (str(net.own4), 18124))
    edge.route(92, "second.alv.test", port=18124)
    for _ in range(5):
        assert edge.ask("second.alv.test").json["site"] == "second"


def test_an_application_that_closes_idle_connections_loses_no_request(edge: World) -> None:
    """Keep-alive of 5 s at the application, 4 s at the edge: never a request into a closing connection."""
    edge.instances.open("idle", paths.web_socket(edge.settings, site_id(93), 0), idle=5.0)
    edge.route(93, "idle.alv.test")
    for pause in (0.0, 3.9, 4.3):
        time.sleep(pause)
        assert edge.ask("idle.alv.test", method="POST", body=b"x").status == 200


def test_the_second_try_follows_the_route(edge: World) -> None:
    """An instance that is gone when the request comes, its route just switched: the new one answers."""
    number = 94
    edge.instances.open("94.1", paths.web_socket(edge.settings, site_id(number), 1))
    failures = 0
    for _ in range(50):
        edge.route(number, "late.alv.test", slot=0)
        switch = threading.Thread(target=edge.route, args=(number, "late.alv.test"), kwargs={"slot": 1})
        switch.start()
        status = edge.ask("late.alv.test").status
        switch.join()
        failures += status != 200
        assert edge.ask("late.alv.test").status == 200
    # Slot 0 never answers: those that came before the switch fail, none after it.
    assert failures <= 50
