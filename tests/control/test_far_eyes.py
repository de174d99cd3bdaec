"""What is kept of another machine that only answers: its incidents, and how good its sites were."""

from __future__ import annotations

import time
from typing import Any

import pytest
from controlkit import ROOT, Control

# ``machine`` is a fixture.
from farkit import Machine, away, there

from alveole import requests as ask
from alveole.errors import Temporary
from alveole.figures import months
from alveole.incidents.model import Reading, ReadingSource, Said
from alveole.remote.fleet import Node
from alveole.remote.passport import EMPTY_KEY
from alveole.requests.channels import AddChannel
from alveole.services.audience import whither

ID = "i" + "2" * 12


def driven(control: Control) -> None:
    node = Node("far", "far", 22, "root", "ssh-ed25519 AAAA", "/etc/a.toml", "/run/a", "far.test", EMPTY_KEY, "1", 0.0)
    control.services._nodes_known = {"far": node}


def says(machine: Machine, **more: Any) -> None:
    """One incident of it, open unless ``closed_at`` is given."""
    now = time.time()
    view = {
        **{"id": ID, "title": "The newest backup is old", "severity": "warning", "state": "open"},
        **{"cause": "backup-old", "site": "blog", "began_at": now, "opened_at": now, **more},
    }
    signal = {
        "rule": "backup-old",
        "site": view["site"],
        "site_id": "s" + "f" * 12,
        "item": "",
        "text": "51 h",
        "since": now,
    }
    notes = [{"at": now, "kind": "opened", "who": "watch", "text": "51 h"}]
    whole = {"signals": [signal], "notes": notes, "evidence": None, "told_to": [], **view}
    machine.answers["/v1/incidents"] = (
        [] if view.get("closed_at") else [{key: value for key, value in view.items() if key != "told_to"}]
    )
    machine.answers[f"/v1/incidents/{ID}"] = whole


def listed(control: Control) -> list[tuple[str, str, str]]:
    return [(each.id, each.node, each.site) for each in control.services.list_incidents(ROOT, state="open")]


def test_an_incident_is_told_once(control: Control, machine: Machine) -> None:
    """Here, but not to an address that was told there; taken twice it is one; over there it is over here."""
    services = control.services
    id = there(control)
    driven(control)
    services.add_account(ROOT, ask.AddAccount(name="olga", role="operator", password="correct horse battery"))
    for name in ("one", "two"):
        wanted = AddChannel(name=name, kind="mail", to=f"{name}@example.org", whom="olga", events=("incident",))
        services.add_channel(ROOT, wanted)
    channels = {each.name: each for each in services.telling.channels.values()}
    says(machine, told_to=[whither(channels["one"])])
    services._fetch_incidents("far")
    services._fetch_incidents("far")
    assert listed(control) == [(ID, "far", "blog")]
    (found,) = services.watch.open.values()
    assert found.site_id == id and found.copied == 1
    assert found.spared == (channels["one"].id,) and found.told == (channels["two"].id,)
    assert len(services.list_messages(ROOT, channels["two"].id)) == 1
    says(machine, closed_at=time.time(), state="closed")
    services._fetch_incidents("far")
    services._fetch_incidents("far")
    assert listed(control) == []
    assert [each.state for each in services.list_messages(ROOT, channels["two"].id)] == ["closed", "opened"]
    assert services.list_messages(ROOT, channels["one"].id) == ()
    closed = services.show_incident(ROOT, ID)
    assert closed.state == "closed" and closed.node == "far"
    assert [each.kind for each in closed.notes].count("opened") == 1


def test_what_both_look_at(control: Control, machine: Machine) -> None:
    """The machine is waited for; where it says nothing, or is away, it is told here; never both."""
    services, watch = control.services, control.services.watch
    id = there(control)
    driven(control)
    figure = services.readings.figures["site.backup-hours"]
    said: list[Reading] = [Reading(id, 60.0, "", "60 h old")]
    services.readings.add(ReadingSource((figure,), lambda: {figure.name: said}))
    machine.answers["/v1/incidents"] = []
    services._fetch_incidents("far")
    begun = time.time()
    for later in (0.0, 700.0):
        watch.round(begun + later)
    assert listed(control) == [], "that machine is waited for"
    says(machine)
    services._fetch_incidents("far")
    watch.round(begun + 3000.0)
    assert listed(control) == [(ID, "far", "blog")], "one of that machine, and none of this one beside it"
    says(machine, closed_at=time.time(), state="closed")
    services._fetch_incidents("far")
    watch.round(begun + 3010.0)
    ((own, node, site),) = listed(control)
    assert own != ID and (node, site) == ("", "blog"), "it is bad all the same"
    says(machine, id="i" + "3" * 12)
    machine.answers["/v1/incidents/" + "i" + "3" * 12] = machine.answers[f"/v1/incidents/{ID}"]
    services._fetch_incidents("far")
    assert [each[0] for each in listed(control)] == [own], "and is told already"
    said.clear()
    machine.answers["/v1/incidents"] = []
    watch.round(begun + 3020.0)
    watch.round(begun + 9000.0)
    assert listed(control) == []


def test_a_machine_that_is_driven_no_more(control: Control, machine: Machine) -> None:
    """What it said of itself and of sites of its own is the operators'; driven no more, it is over here."""
    services = control.services
    there(control)
    driven(control)
    says(machine, site="private")
    services._fetch_incidents("far")
    (found,) = services.list_incidents(ROOT, state="open")
    assert (found.site, found.node, found.title) == ("", "far", "private: The newest backup is old")
    assert services.show_incident(ROOT, ID).signals[0].text == "private: 51 h"
    away(control, 1)
    assert services.list_incidents(ROOT, state="open")[0].id == ID
    # Its own round neither clears nor closes it.
    services.watch.round(time.time() + 100_000.0)
    assert listed(control) == [(ID, "far", "")]
    services._nodes_known = {}
    services._watch_nodes()
    assert listed(control) == []


def test_quality_of_a_machine_that_is_away(control: Control, machine: Machine) -> None:
    """Each month as it was said last; nothing of a month of which nothing was said, and nobody is asked."""
    services = control.services
    there(control)
    driven(control)
    now = months.month_of(time.time())
    said = {
        **{"site": "blog", "month": now, "known": 1.0, "availability": 0.5, "requests": 10, "failed": 1},
        **{"answered": 0.9, "p50": 1.0, "p95": 2.0, "p99": 3.0, "promises_kept": 0.75},
        **{"deploys": 4, "deploys_failed": 1, "rollbacks": 2},
    }
    machine.answers["/v1/quality"] = [said, {**said, "site": "private"}]
    (found,) = services.list_quality(ROOT)
    assert (found.site, found.node, found.availability, found.deploys) == ("blog", "far", 0.5, 4)
    assert found.seen_at is None
    away(control, 1)
    machine.answers["/v1/quality"] = Temporary("nobody must be asked")
    services.far._months.clear()
    (found,) = services.list_quality(ROOT)
    assert found.seen_at and found.promises_kept == 0.75
    assert services.show_quality(ROOT, "blog") == found
    assert services.quality_months(ROOT, "blog") == (found,)
    report = services.show_report(ROOT)
    assert report.sites == (found,)
    html, _ = services.report_file(ROOT, now, "html", "fr")
    assert "far était injoignable" in html.decode()
    (before,) = services.list_quality(ROOT, months.before(now))
    assert before.availability is None and before.known == 0.0
    wall = services.wall(ROOT)
    assert [(each.node, each.reached, each.sites) for each in wall.nodes] == [("far", False, 1)]
    assert wall.broken == () and wall.running == 0


@pytest.mark.parametrize("what", ["ack", "close"])
def test_acting_while_it_is_away(control: Control, machine: Machine, what: str) -> None:
    services = control.services
    there(control)
    driven(control)
    says(machine)
    services._fetch_incidents("far")
    away(control, 1)
    machine.answers[f"/v1/incidents/{ID}/{what}"] = Temporary("far cannot be reached")
    act = services.acknowledge_incident if what == "ack" else services.close_incident
    with pytest.raises(Temporary, match="cannot be reached"):
        act(ROOT, ID, Said(text="I look"))
    (found,) = services.list_incidents(ROOT, state="open")
    assert found.state == "open" and found.acknowledged_by == ""
