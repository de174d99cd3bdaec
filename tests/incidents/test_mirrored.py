"""What another machine says of its incidents, taken as it comes: also when it is said wrongly, or by a new name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from doorkit import ROOT
from incidentkit import Incidents

from alveole.errors import NotFound, Refused
from alveole.incidents.model import IncidentDetail, Severity
from alveole.people.model import Role
from alveole.requests import CreateToken

POWER = 'on = "platform.power"\nis = ["off"]\nwell = "30s"\n'


class Machine:
    """What a machine answers; ``refused``: the ids that it lists and says nothing of, ``gone``: nor knows."""

    def __init__(self, *incidents: IncidentDetail) -> None:
        self.incidents = {each.id: each for each in incidents}
        self.refused: set[str] = set()
        self.gone: set[str] = set()

    def get(self, path: str, _query: Any = None) -> Any:
        id = path.removeprefix("/v1/incidents").strip("/")
        if not id:
            return [{**msgspec.to_builtins(self.incidents[each]), "sites": []} for each in self.incidents]
        if id in self.refused:
            raise Refused("not this one")
        if id in self.gone:
            raise NotFound("there is no such incident")
        return msgspec.to_builtins(self.incidents[id])


def incident(id: str, **more: Any) -> IncidentDetail:
    now = time.time()
    words: dict[str, Any] = {"severity": Severity.CRITICAL, "state": "open", "cause": f"t-{id}", "site": ""}
    words |= {
        "title": f"Title of {id}",
        "began_at": now,
        "opened_at": now,
        "signals": (),
        "notes": (),
        "evidence": None,
    }
    return msgspec.convert({**words, "id": id, **more}, IncidentDetail)


@pytest.fixture(autouse=True)
def clean(world: Incidents) -> Iterator[None]:
    yield
    for each in list(world.services.watch.open.values()):
        if each.node:
            world.services.watch.end(each, "", time.time(), "the test is over")
    world.clean()


def fetch(world: Incidents, monkeypatch: pytest.MonkeyPatch, node: str, machine: Machine) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(world.services, "_api_of", lambda _name: machine)
        world.services._fetch_incidents(node)


def mirrored(world: Incidents) -> dict[str, str]:
    """The open ones by id, with their machine."""
    return {id: each.node for id, each in world.services.watch.open.items()}


def test_one_that_cannot_be_kept_does_not_keep_the_others_back(
    world: Incidents, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(incident("ia"), incident("ib"), incident("ic"))
    machine.refused = {"ia"}
    fetch(world, monkeypatch, "far", machine)
    assert mirrored(world) == {"ib": "far", "ic": "far"}
    machine.refused = set()
    fetch(world, monkeypatch, "far", machine)
    assert mirrored(world) == {"ia": "far", "ib": "far", "ic": "far"}


def test_no_machine_ends_what_is_of_another(world: Incidents, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names an id of this machine, or of a third one, and knows nothing of it when it is asked."""
    world.rule("power", POWER)
    world.say("platform.power", "", "off")
    world.round()
    (own,) = world.open()
    fetch(world, monkeypatch, "third", Machine(incident("i3")))
    machine = Machine(incident(own.id), incident("i3"))
    machine.gone = {own.id, "i3"}
    fetch(world, monkeypatch, "far", machine)
    world.services._fetch_incident(machine, "far", own.id)
    assert mirrored(world) == {own.id: "", "i3": "third"}


def test_a_silence_of_here_is_noted_once(world: Incidents) -> None:
    wanted = {"rule": "", "length": "1h", "why": "it is moved"}
    assert world.door.http.post("/v1/silences", json=wanted).status_code < 300
    watch, told = world.services.watch, incident("is")
    for _ in range(4):
        watch.take("far", told, lambda _site: "", (), time.time())
    assert [each.kind for each in watch.book.notes("is")] == ["silent"]


def test_a_machine_that_comes_back_under_another_name(world: Incidents) -> None:
    watch, told = world.services.watch, incident("in")
    watch.take("far", told, lambda _site: "", (), time.time(), driven=("far",))
    watch.end(watch.open["in"], "", time.time(), "far is not driven from here any more")
    watch.take("paris", told, lambda _site: "", (), time.time(), driven=("far", "paris"))
    assert mirrored(world) == {}, "another one says so, and far is there still"
    watch.take("paris", told, lambda _site: "", (), time.time(), driven=("paris",))
    assert mirrored(world) == {"in": "paris"}
    assert world.services.show_incident(ROOT, "in").node == "paris"


def test_the_screen_on_the_wall_names_the_machine(world: Incidents) -> None:
    """And to a screen, whose token may look at figures alone, it says how many there are and no more."""
    watch = world.services.watch
    watch.take("far", incident("iw"), lambda _site: "", (), time.time())
    (told,) = world.services.wall(ROOT).incidents
    assert (told.site, told.title) == ("", "far: Title of iw")
    secret = world.services.create_token(
        ROOT, CreateToken(name="wall", role=Role.READER, scope=("metrics.look",))
    ).secret
    (told,) = world.services.wall(world.services.authenticate(secret)).incidents
    assert (told.site, told.title, told.severity) == ("", "", "critical")
    headers = {"Accept": "text/html", "Cookie": f"__Host-alveole-wall={secret}"}
    page = httpx.get(f"http://127.0.0.1:{world.door.port}/wall", headers=headers)
    assert page.status_code == 200 and "1 open incident" in page.text and "Title of" not in page.text
