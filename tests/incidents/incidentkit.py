"""A world in which a test says what is measured, and when a round is: nothing waits for a clock."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doorkit import ROOT, Door, until
from receiverkit import Receiver

from alveole.incidents.model import PLATFORM, About, Figure, Reading, ReadingSource
from alveole.people.model import Actor

FIGURES = (
    Figure(name="site.mood", title="Mood of the site", about=About.SITE, words=("good", "bad")),
    Figure(name="site.heat", title="Heat of the site", about=About.SITE, unit="K"),
    Figure(name="platform.power", title="Power of the machine", about=About.PLATFORM, words=("on", "off")),
)
#: No rule of the beginning is asked: what happens is what the test says.
OFF = {"enabled": False}


class Incidents:
    """A door, with figures that hold what ``says`` says. ``at`` is the time of the next round."""

    def __init__(self, place: Path) -> None:
        self.door = Door(place, outgoing={"inside_hosts": ["localhost"]}, incidents={"every_seconds": 3600.0})
        self.says: dict[str, list[Reading] | None] = {figure.name: [] for figure in FIGURES}
        self.at = time.time()
        self.receivers: list[Receiver] = []
        self.prepare()

    def prepare(self) -> None:
        """After each start of control."""
        # A round of its own, poked by the end of a change, would come in between with another clock.
        self.services.ticker.add("incidents", 1e9, lambda: None, first=1e9)
        self.services.readings.add(ReadingSource(FIGURES, self._read))
        watch = self.services.watch
        for name in list(watch.rules):
            if watch.rules[name].enabled and not name.startswith("t-"):
                self.door.http.patch(f"/v1/rules/{name}", json={"changes": OFF})
        watch.load()

    def _read(self) -> Mapping[str, Sequence[Reading]]:
        return {name: found for name, found in self.says.items() if found is not None}

    @property
    def services(self) -> Any:
        return self.door.services

    def id(self, site: str) -> str:
        return str(self.services.store.site(site).site.id)

    def rule(self, name: str, text: str) -> None:
        answer = self.door.http.put(f"/v1/rules/t-{name}", json={"text": text})
        assert answer.status_code == 200, answer.text

    def say(self, figure: str, site: str, value: Any, item: str = "", text: str = "") -> None:
        """From now on; of the same item what was said before is over."""
        subject = self.id(site) if site else PLATFORM
        kept = [each for each in self.says[figure] or [] if (each.subject, each.item) != (subject, item)]
        if value is not None:
            kept.append(Reading(subject, value, item, text))
        self.says[figure] = kept

    def round(self, seconds: float = 1.0) -> None:
        self.at += seconds
        self.services.watch.round(self.at)

    def open(self, caller: Actor = ROOT) -> list[Any]:
        return list(self.services.list_incidents(caller, state="open"))

    def receiver(self, whom: str, name: str = "hook", *events: str) -> Receiver:
        made = Receiver()
        self.receivers.append(made)
        argv = ["notify", "add", name, "--webhook", made.url, "--for", whom]
        for event in events or ("incident",):
            argv += ["--event", event]
        self.door.ok(*argv)
        return made

    def told(self) -> None:
        """Wait until nothing waits in the outbox."""
        import sqlalchemy as sa

        from alveole.store import tables

        def empty() -> bool:
            self.services.ticker.poke("outbox")
            with self.services.store.read() as connection:
                states = connection.execute(sa.select(tables.outbox.c.state)).scalars().all()
            return "waiting" not in states

        until(empty, 60)

    def clean(self) -> None:
        """After each test: nothing said, nothing open, no channel, no rule of a test, no silence."""
        for figure in self.says:
            self.says[figure] = []
        for each in self.open():
            self.door.http.post(f"/v1/incidents/{each.id}/close", json={"text": "the test is over"})
        self.round(10_000.0)
        for each in self.door.ok("notify", "list"):
            self.door.ok("notify", "remove", each["id"])
        for name in [each for each in self.services.watch.rules if each.startswith("t-")]:
            self.door.http.delete(f"/v1/rules/{name}")
        for each in self.services.list_silences(ROOT):
            self.door.http.delete(f"/v1/silences/{each.id}")
        for receiver in self.receivers:
            receiver.close()
        self.receivers.clear()

    def close(self) -> None:
        for receiver in self.receivers:
            receiver.close()
        self.door.close()
