"""Incidents from readings to what real receivers got: opened once, grouped, told once, closed once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from doorkit import ROOT
from incidentkit import Incidents

MOOD = 'on = "site.mood"\nis = ["bad"]\nfor = "30s"\nwell = "1m"\ncause = "serving"\nseverity = "critical"\n'


@pytest.fixture(autouse=True)
def clean(world: Incidents) -> Iterator[None]:
    yield
    world.clean()


def test_opened_once_told_once_and_closed_once(world: Incidents) -> None:
    """Bad for long enough, however many rounds; `why` and the last changes are in it; well for long enough ends it."""
    ana = world.receiver("ana")
    zoe = world.receiver("zoe")
    world.rule("mood", MOOD)
    world.say("site.mood", "blog", "good")
    world.round()
    world.say("site.mood", "blog", "bad", text="it is in a bad mood")
    world.round()
    world.round(20)
    assert world.open() == [], "not yet for long enough"
    for _ in range(5):
        world.round(20)
    (found,) = world.open()
    assert (found.site, found.severity, found.state, found.silent) == ("blog", "critical", "open", False)
    world.told()
    (message,) = ana.messages()
    news = message["incident"]
    assert message["kind"] == "incident" and news["event"] == "opened" and message["site"] == "blog"
    assert news["broken"] == ["it is in a bad mood"] and any("create by root" in line for line in news["before"])
    assert len(news["why"]) >= 1
    assert zoe.messages() == [], "it is none of hers"
    world.say("site.mood", "blog", "good")
    world.round()
    world.round(30)
    assert [each.state for each in world.open()] == ["open"], "not well for long enough"
    world.round(40)
    assert world.open() == []
    world.round(40)
    world.told()
    assert [each["incident"]["event"] for each in ana.messages()] == ["opened", "closed"]
    detail = world.services.show_incident(ROOT, found.id)
    kinds = [each.kind for each in detail.notes]
    assert kinds == ["opened", "told", "well", "closed"], kinds
