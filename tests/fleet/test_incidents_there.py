"""Incidents of another machine: seen, told once and acted on at the main one, also while that machine is away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetkit import Pair

from instancekit import ApiError, page, until

sys.path[:0] = [str(Path(__file__).parents[1] / kit) for kit in ("api", "people", "web", "scenarios")]
from receiverkit import Receiver  # noqa: E402  found by the line above

PASSWORD = "incidents on another machine"
#: Always so, as long as there is such a rule.
DISK = 'on = "platform.disk-free"\nabove = 0\ntitle = "The disk is there"\ncause = "t"\nwell = "0s"\nescalate = "2s"\n'
#: Of another cause: what comes again soon would be the same incident.
FREE = DISK.replace('"t"', '"t-free"')
RUNS = 'on = "site.state"\nis = ["running"]\ntitle = "It runs"\ncause = "t"\nwell = "0s"\n'


class Watched:
    """The pair with somebody on each machine who is told by a webhook."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.main, self.far = pair, pair.main, pair.far
        self.here, self.there, self.both = Receiver(), Receiver(), Receiver()

    def rule(self, name: str, text: str) -> None:
        self.far.api("PUT", f"/v1/rules/{name}", {"text": text})

    def over(self, name: str) -> None:
        self.far.api("DELETE", f"/v1/rules/{name}")

    def open(self, instance: Any = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (instance or self.main).api("GET", "/v1/incidents?state=open")
        return [each for each in found if each["cause"] in ("t", "t-free")]

    def seen(self) -> dict[str, Any]:
        """The one of that machine, once it is here."""
        until(lambda: len(self.open()) == 1, 60, lambda: f"{self.open()} {self.open(self.far)} {self.main.tail()}")
        (found,) = self.open()
        return found

    def events(self, receiver: Receiver, id: str) -> list[str]:
        return [each["incident"]["event"] for each in receiver.messages() if each["incident"]["id"] == id]


@pytest.fixture(scope="module")
def watched(pair: Pair) -> Iterator[Watched]:
    if pair.sshd is None:
        pair.up()
    pair.let_in()
    if all(each["name"] != "far" for each in pair.main.api("GET", "/v1/nodes")):
        pair.add()
    made = Watched(pair)
    for instance, own in ((pair.main, made.here), (pair.far, made.there)):
        instance.api("POST", "/v1/accounts", {"name": "olga", "role": "operator", "password": PASSWORD})
        for name, url in (("own", own.url), ("both", made.both.url)):
            wanted = {"name": name, "kind": "webhook", "to": url, "whom": "olga", "events": ["incident"]}
            instance.api("POST", "/v1/channels", wanted)
    # What has sites of this machine is asked every few seconds.
    pair.main.create("kappa", page("there"), node="far")
    yield made
    if pair.sshd is None:
        pair.up()
    for instance in (pair.main, pair.far):
        for each in instance.api("GET", "/v1/channels"):
            instance.api("DELETE", f"/v1/channels/{each['id']}")
        instance.api("DELETE", "/v1/accounts/olga")
    for receiver in (made.here, made.there, made.both):
        receiver.close()
    pair.main.destroy("kappa")
    pair.back()


def test_of_the_machine_itself(watched: Watched) -> None:
    """Seen with its machine, told to each receiver once, escalated once, closed when it is over there."""
    watched.rule("t-disk", DISK)
    found = watched.seen()
    (there,) = watched.open(watched.far)
    id = there["id"]
    assert (found["id"], found["node"], found["site"]) == (id, "far", "") and there["node"] == ""
    until(lambda: watched.events(watched.here, id)[:1] == ["opened"], 60)
    assert watched.here.messages()[-1]["incident"]["title"].startswith("far: ")
    until(lambda: watched.events(watched.both, id)[:1] == ["opened"], 60)
    detail = watched.main.api("GET", f"/v1/incidents/{id}")
    assert "MiB are free" in detail["signals"][0]["text"] and detail["evidence"]["links"]
    assert {each["machine"] for each in detail["evidence"]["links"]} == {"far"}
    listed = watched.main.cli("incident", "list", "--state", "open").out
    assert "server far" in listed
    watched.over("t-disk")
    until(lambda: not watched.open(), 60, lambda: str(watched.open()))
    until(lambda: "closed" in watched.events(watched.here, id), 60)
    assert watched.main.api("GET", f"/v1/incidents/{id}")["state"] == "closed"
    for receiver in (watched.here, watched.there, watched.both):
        told = watched.events(receiver, id)
        assert len(told) == len(set(told)) and told[0] == "opened" and told[-1] == "closed", told


def test_of_a_site_there(watched: Watched) -> None:
    """Under the site, with what somebody does about it forwarded, in their name."""
    main, far = watched.main, watched.far
    far.create("private", page("of that machine alone"))
    try:
        watched.rule("t-runs", RUNS)
        until(lambda: len(watched.open()) == 2, 60, lambda: str(watched.open()))
        own = next(each for each in watched.open() if each["site"] == "kappa")
        other = next(each for each in watched.open() if not each["site"])
        assert own["node"] == "far" and other["title"].startswith("private: ")
        assert [each["id"] for each in main.api("GET", "/v1/incidents?site=kappa&state=open")] == [own["id"]]
        id = own["id"]
        assert main.api("POST", f"/v1/incidents/{id}/ack", {"text": "I look"})["state"] == "acknowledged"
        there = far.api("GET", f"/v1/incidents/{id}")
        assert there["state"] == "acknowledged"
        assert any("I look" in each["text"] and "root (localhost)" in each["text"] for each in there["notes"])
        main.api("POST", f"/v1/incidents/{id}/comment", {"text": "a word"})
        assert any("a word" in each["text"] for each in far.api("GET", f"/v1/incidents/{id}")["notes"])
        assert main.api("POST", f"/v1/incidents/{id}/close", {"text": "enough"})["state"] == "closed"
        assert far.api("GET", f"/v1/incidents/{id}")["state"] == "closed"
        assert main.api("POST", f"/v1/incidents/{id}/reopen", {"text": "it is not"})["state"] == "acknowledged"
        assert far.api("GET", f"/v1/incidents/{id}")["closed_at"] is None
        notes = [each["kind"] for each in main.api("GET", f"/v1/incidents/{id}")["notes"]]
        assert {"opened", "acknowledged", "comment", "closed", "reopened", "told"} <= set(notes)
        assert "acknowledge-incident" in [each["verb"] for each in main.journal(site="kappa")]
    finally:
        watched.over("t-runs")
        until(lambda: not watched.open(), 60, lambda: str(watched.open()))
        far.destroy("private")


@pytest.mark.turn
def test_while_it_is_away(watched: Watched) -> None:
    """What was seen last stays, with when; acting is refused; one incident says that the machine is away, and ends."""
    main = watched.main
    changes = {"for": "2s", "well": "2s"}
    main.api("PATCH", "/v1/rules/node-away", {"changes": changes})
    watched.rule("t-free", FREE)
    id = watched.seen()["id"]
    assert main.api("GET", f"/v1/incidents/{id}")["seen_at"] is None

    def away() -> list[dict[str, Any]]:
        return [each for each in main.api("GET", "/v1/incidents?state=open") if each["cause"] == "node-away"]

    try:
        watched.pair.down()
        until(lambda: len(away()) == 1, 90, lambda: str(main.api("GET", "/v1/incidents?state=open")))
        found = main.api("GET", f"/v1/incidents/{id}")
        assert found["seen_at"] and found["signals"] and found["notes"] and found["state"] == "open"
        with pytest.raises(ApiError) as refused:
            main.api("POST", f"/v1/incidents/{id}/ack", {})
        assert refused.value.status == 503 and "cannot be reached" in str(refused.value.document)
        assert not main.api("GET", f"/v1/incidents/{id}")["acknowledged_at"]
        # Control here forgets nothing of it.
        main.kill_role("control")
        main.start()
        assert main.api("GET", f"/v1/incidents/{id}")["node"] == "far"
        watched.over("t-free")
        until(lambda: not watched.open(watched.far), 60)
        assert [each["id"] for each in watched.open()] == [id], "nobody here knows that it is over"
    finally:
        watched.pair.up()
    until(lambda: not watched.open(), 90, lambda: str(watched.open()))
    until(lambda: not away(), 90, lambda: str(away()))
    for receiver in (watched.here, watched.both):
        told = watched.events(receiver, id)
        assert len(told) == len(set(told)) and told[0] == "opened", told
    main.api("DELETE", "/v1/rules/node-away")
