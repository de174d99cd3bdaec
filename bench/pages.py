#!/usr/bin/env python3
from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from machine import BenchError
from report import Row, Session, main, median, ms

SITES = 3000
#: Every page after the first visit has its style and scripts already.
MOST_BYTES = 100_000
BAR = 0.1


@contextlib.contextmanager
def panel(count: int) -> Iterator[tuple[int, str]]:
    """Control with ``count`` stored sites and an agent that only answers; its port and an administrator's cookie."""
    import msgspec

    from alveole import api, web
    from alveole import requests as ask
    from alveole.api.admit import COOKIE
    from alveole.config import parse
    from alveole.model.site import Base, BaseKind, Process, Run, Site, Wanted
    from alveole.people.model import Actor, Role
    from alveole.services import Services
    from alveole.services.doors import Place
    from alveole.store import new_id
    from alveole.testing import FakeAgent

    place = Path(tempfile.mkdtemp(prefix="alvbench"))
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    raw = {"paths": {"state": str(place / "s"), "run": str(place / "r")}, "api": {"port": port}}
    settings = parse({**raw, "reconcile": {"drift_seconds": 3600.0}})
    settings.api_socket.parent.mkdir(parents=True)
    services = Services.open(settings, FakeAgent())
    stop, ready = threading.Event(), threading.Event()
    server: threading.Thread | None = None
    try:
        root = Actor("root", Role.ADMIN, "socket")
        password = "correct horse battery"  # noqa: S105  of a database that lives for a minute
        services.add_account(root, ask.AddAccount(name="ada", role=Role.ADMIN, password=password))
        base = Base(BaseKind.HOST, f"host-{'0' * 16}")
        run = Run(processes=(Process("web", ("serve",)),), port=8000)
        template = Site(
            id="s", number=1, name="s", wanted=Wanted.STOPPED, plan="small", base=base, run=run, created_at=time.time()
        )
        with services.store.write() as transaction:
            for each in range(count):
                id = new_id("s")
                number = transaction.lease(id, services.addressing.capacity())
                site = msgspec.structs.replace(template, id=id, number=number, name=f"site-{each:04}", owner="root")
                transaction.insert_site(site, services._names(site), "")
        entered = services.sign_in(ask.SignIn(name="ada", password=password), Place())
        app = api.build(services, settings, pages=web.install)
        server = threading.Thread(target=api.run, args=(app, settings, ready.set), kwargs={"stop": stop})
        server.start()
        if not ready.wait(30):
            raise BenchError("control did not start")
        yield port, f"{COOKIE}={entered.secret}"
    finally:
        stop.set()
        if server is not None:
            server.join(30)
        services.close()
        shutil.rmtree(place, ignore_errors=True)


def figure(session: Session) -> list[Row]:
    """Pages of 50 sites among 3,000, from the request to the last byte, as an administrator who sees all of them."""
    paths = {
        "the first page": "/sites",
        "a page in the middle": "/sites?n=30",
        "a search": "/sites?q=site-12",
        "a filter": "/sites?owner=root&n=7",
    }
    seen: dict[str, list[float]] = {name: [] for name in paths}
    largest = 0
    with panel(SITES) as (port, cookie):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Cookie": cookie, "Accept": "text/html", "Accept-Language": "fr"}
        for number in range(session.runs(100, 20) + 5):
            for name, path in paths.items():
                began = time.perf_counter()
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                took = time.perf_counter() - began
                if answer.status != 200 or b"site-" not in body:
                    raise BenchError(f"{path} answered {answer.status}")
                largest = max(largest, len(body))
                if number >= 5:
                    seen[name].append(took)
        connection.close()
    every = sorted(value for values in seen.values() for value in values)
    slow = every[int(len(every) * 0.95)]
    each = ", ".join(f"{name} {ms(median(values))}" for name, values in seen.items())
    return [
        Row(
            f"a page of 50 sites among {SITES:,}, 95th percentile",
            ms(slow),
            bar="≤ 100 ms",
            met=slow <= BAR,
            runs=len(every),
            note=f"median {ms(median(every))}: {each}",
            samples=seen,
        ),
        Row(
            "the same, transferred after the first visit",
            f"{largest / 1000:.0f} kB",
            bar="≤ 100 kB",
            met=largest <= MOST_BYTES,
        ),
    ]


if __name__ == "__main__":
    main("pages", figure)
