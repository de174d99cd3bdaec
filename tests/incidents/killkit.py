"""Control without a loop, with one rule over one figure that a test says: for tests that kill it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from alveole import requests as ask
from alveole.config import parse
from alveole.incidents import rules as grammar
from alveole.incidents.model import PLATFORM, About, Figure, Reading, ReadingSource, Rule
from alveole.incidents.tables import incidents
from alveole.people.model import Actor, Role
from alveole.requests.channels import AddChannel
from alveole.services import Services
from alveole.store import tables
from alveole.testing import FakeAgent

ROOT = Actor("root", Role.ADMIN, "socket")
POWER = Figure(name="platform.power", title="Power", about=About.PLATFORM, words=("on", "off"))


def prepare(raw: dict[str, Any], url: str) -> None:
    """An administrator who is told, and no rule but the test's."""
    services = Services.open(parse(raw), FakeAgent(), loop=False)
    services.add_account(ROOT, ask.AddAccount(name="ada", role="administrator", password="correct horse battery"))
    services.add_channel(ROOT, AddChannel(name="chat", kind="webhook", to=url, whom="ada", events=("incident",)))
    with services.store.write() as transaction:
        for name, rule in grammar.BUILT_IN.items():
            off = grammar.of({**grammar.document(rule), "enabled": False}, services.readings.figures)
            services.watch.book.put_rule(transaction, name, off, "test")
        services.watch.book.put_rule(transaction, "power", Rule(on=POWER.name, words=("off",), well="0s"), "test")
    services.close()


def open_services(raw: dict[str, Any], value: str, *, tells: bool = True) -> Services:
    """Rounds are the caller's. ``tells``: with what empties the outbox."""
    services = Services.open(parse(raw), FakeAgent(), loop=False)
    services.readings.add(ReadingSource((POWER,), lambda: {POWER.name: [Reading(PLATFORM, value)]}))
    services.watch.load()
    if tells:
        services.telling.start()
        services.ticker.start()
    return services


def nothing_waits(services: Services) -> bool:
    services.ticker.poke("outbox")
    with services.store.read() as connection:
        return "waiting" not in connection.execute(sa.select(tables.outbox.c.state)).scalars().all()


def open_flags(raw: dict[str, Any]) -> list[bool]:
    """Of all incidents that are stored."""
    services = Services.open(parse(raw), FakeAgent(), loop=False)
    with services.store.read() as connection:
        found = list(connection.execute(sa.select(incidents.c.open)).scalars())
    services.close()
    return found
