"""Incidents from readings to what real receivers got: opened once, grouped, told once, closed once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import killkit
import pytest
from doorkit import ROOT, until
from incidentkit import Incidents
from peoplekit import Browser
from receiverkit import MailServer, Receiver

from alveole.incidents import rules as grammar

MOOD = 'on = "site.mood"\nis = ["bad"]\nfor = "30s"\nwell = "1m"\ncause = "serving"\nseverity = "critical"\n'
HEAT = 'on = "site.heat"\nabove = 90\nwell = "1m"\ncause = "serving"\n'
POWER = 'on = "platform.power"\nis = ["off"]\nfor = "20s"\nwell = "30s"\ncovers = ["serving"]\nseverity = "critical"\n'


@pytest.fixture(autouse=True)
def clean(world: Incidents) -> Iterator[None]:
    yield
    world.clean()


def events(receiver: Receiver) -> list[tuple[str, str]]:
    return [(each["incident"]["event"], each.get("site", "")) for each in receiver.messages()]


def test_opened_once_told_once_and_closed_once(world: Incidents) -> None:
    """Bad for long enough, however many rounds; `why` and the last changes are in it; well for long enough ends it."""
    ana, zoe = world.receiver("ana"), world.receiver("zoe")
    world.rule("mood", MOOD)
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
    assert any(": " in line for line in news["why"])
    (shown,) = world.services.wall(ROOT).incidents
    assert (shown.site, shown.severity) == ("blog", "critical") and shown.title, "the screen on the wall says it too"
    assert zoe.messages() == [], "it is none of hers"
    world.say("site.mood", "blog", "good")
    world.round()
    world.round(30)
    assert [each.state for each in world.open()] == ["open"], "not well for long enough"
    world.round(40)
    assert world.open() == [] and world.services.wall(ROOT).incidents == ()
    world.round(40)
    world.told()
    assert events(ana) == [("opened", "blog"), ("closed", "blog")]
    detail = world.services.show_incident(ROOT, found.id)
    assert [each.kind for each in detail.notes] == ["opened", "told", "well", "closed"]


def test_what_log_lines_say(world: Incidents) -> None:
    """Words that a rule names, and errors, in what the site prints; nothing of before, and well after five minutes."""
    services = world.services
    logs = services.settings.logs / world.id("blog")
    logs.mkdir(parents=True, exist_ok=True)

    def prints(*texts: str) -> None:
        with (logs / "current").open("a") as file:
            file.writelines(f"2026-11-22 08:00:00.123456789  {text}\n" for text in texts)

    def look() -> None:
        services.readings.forget()
        world.round()

    prints("ERROR: Deadlock Found")
    world.rule("words", 'on = "site.log-lines"\nitems = ["deadlock found", "no such row"]\nabove = 0\nwell = "0s"\n')
    world.rule("many", 'on = "site.log-errors"\nabove = 2\nwell = "0s"\n')
    look()
    assert world.open() == [], "what was there before"
    prints("all is well", "ERROR: Deadlock Found", "a warning", "ERROR: another")
    look()
    (found,) = world.open()
    (signal,) = services.show_incident(ROOT, found.id).signals
    assert (found.site, signal.item) == ("blog", "deadlock found")
    assert signal.text.startswith("1 lines") and signal.text.endswith("ERROR: Deadlock Found")
    prints("CRITICAL: third")
    look()
    assert {each.cause for each in world.open()} == {"t-words", "t-many"}
    for _ in range(10):
        look()
    assert world.open() == []
    for text, field in (
        ('on = "site.log-lines"\nabove = 0\n', "items"),
        ('on = "site.log-lines"\nitems = ["a*b", "x"]\nabove = 0\n', "items"),
    ):
        answer = world.door.http.put("/v1/rules/t-bad", json={"text": text})
        assert answer.status_code == 422 and {each["field"] for each in answer.json()["problems"]} == {field}


def test_what_belongs_together_is_one_incident(world: Incidents) -> None:
    """Several rules of one cause at one site; and a site whose trouble is the platform's."""
    ana, olga, zoe = world.receiver("ana"), world.receiver("olga"), world.receiver("zoe")
    world.rule("mood", MOOD)
    world.rule("heat", HEAT)
    world.rule("power", POWER)
    world.say("site.heat", "blog", 99.0)
    world.round()
    world.say("site.mood", "blog", "bad")
    for _ in range(3):
        world.round(20)
    (one,) = world.open()
    assert one.severity == "critical", "the worst of its parts"
    assert {each.rule for each in world.services.show_incident(ROOT, one.id).signals} == {"t-mood", "t-heat"}
    # Something of the platform begins: what sites say now waits for it, and what was just told goes into it.
    world.say("platform.power", "", "off")
    world.say("site.heat", "shop", 99.0)
    world.round(10)
    assert len(world.open()) == 1, "shop waits for what becomes of the platform"
    world.round(10)
    world.round(15)
    (found,) = world.open()
    assert found.site == "" and found.sites == ("blog", "shop")
    assert world.services.show_incident(ROOT, one.id).part_of == found.id
    world.told()
    assert events(ana) == [("opened", "blog")], "she knows already that hers is broken"
    assert events(olga) == [("opened", "")] and events(zoe) == [("opened", "")]
    message = zoe.messages()[0]["incident"]
    assert message["sites"] == ["shop"] and "why" not in message, "nothing of other people's sites"
    # The platform is well again and one site is not: that goes its own way.
    world.say("platform.power", "", "on")
    world.say("site.heat", "blog", 10.0)
    world.say("site.mood", "blog", "good")
    world.round()
    world.round(70)
    world.round(10)
    (left,) = world.open()
    assert left.site == "shop"
    world.told()
    assert events(olga) == [("opened", ""), ("closed", "")]
    assert events(ana)[-1] == ("closed", ""), "whoever was told that it began is told that it is over, once"
    assert events(zoe) == [("opened", ""), ("closed", ""), ("opened", "shop")]


def test_silence(world: Incidents) -> None:
    """What begins in it is written down; what is over with it is never told, what is not is told at its end."""
    ana = world.receiver("ana")
    world.rule("heat", HEAT)
    world.rule("mood", MOOD.replace("serving", "mood"))
    with Browser(world.door) as browser:
        browser.sign_in("ana")
        wanted = {"why": "its database is moved", "length": "1h", "begins_at": world.at}
        assert browser.ask("POST", "/v1/silences", json=wanted).status_code == 403, "of all sites: not hers to say"
        assert browser.ask("POST", "/v1/sites/shop/silences", json=wanted).status_code == 404
        made = browser.ask("POST", "/v1/sites/blog/silences", json=wanted)
        assert made.status_code == 201, made.text
    world.say("site.heat", "blog", 99.0)
    world.round()
    (found,) = world.open()
    assert found.silent
    world.say("site.heat", "blog", 1.0)
    world.round()
    world.round(100)
    assert world.open() == []
    world.say("site.mood", "blog", "bad")
    world.round()
    world.round(40)
    assert [each.silent for each in world.open()] == [True]
    world.told()
    assert ana.messages() == []
    world.door.ok("silence", "remove", world.door.ok("silence", "list")[0]["id"])
    world.round()
    world.told()
    assert events(ana) == [("opened", "blog")]


def test_escalated_once_when_nobody_acknowledges(world: Incidents) -> None:
    ana, olga = world.receiver("ana"), world.receiver("olga")
    world.rule("heat", HEAT + 'escalate = "10m"\nescalate_to = ["operators"]\n')
    world.say("site.heat", "blog", 99.0)
    world.say("site.heat", "shop", 99.0)
    world.round()
    blog = next(each for each in world.open() if each.site == "blog")
    with Browser(world.door) as browser:
        browser.sign_in("ana")
        assert browser.ask("GET", "/v1/incidents").json()[0]["id"] == blog.id
        taken = browser.ask("POST", f"/v1/incidents/{blog.id}/ack", json={"text": "on my way"})
        assert taken.status_code == 200 and taken.json()["acknowledged_by"] == "ana"
    for _ in range(4):
        world.round(300)
    world.told()
    # Zoe has no channel: hers went to the operators at once, who are not told a second time.
    assert events(ana) == [("opened", "blog")]
    assert events(olga) == [("opened", "shop")]
    kinds = {each.site: each.escalated for each in world.open()}
    assert kinds == {"blog": False, "shop": True}


def test_what_flaps_is_damped(world: Incidents) -> None:
    """While it is open nothing more is told; soon after its end it is the same one, and must be well for longer."""
    ana = world.receiver("ana")
    world.rule("heat", HEAT)
    for _ in range(6):
        world.say("site.heat", "blog", 99.0)
        world.round(10)
        world.say("site.heat", "blog", 1.0)
        world.round(10)
    (found,) = world.open()
    (part,) = world.services.show_incident(ROOT, found.id).signals
    assert part.times == 6
    world.round(61)
    assert world.open() == []
    world.say("site.heat", "blog", 99.0)
    world.round(30)
    (again,) = world.open()
    assert (again.id, again.reopened) == (found.id, 1)
    world.say("site.heat", "blog", 1.0)
    world.round(10)
    world.round(61)
    assert len(world.open()) == 1, "twice as long this time"
    world.round(60)
    assert world.open() == []
    world.told()
    assert [event for event, _site in events(ana)] == ["opened", "closed", "reopened", "closed"]


def test_what_people_do(world: Incidents) -> None:
    """Comment, act, close while it is bad (told anew only once it was well), reopen; and the report."""
    ana = world.receiver("ana")
    world.rule("heat", HEAT)
    world.say("site.heat", "blog", 99.0)
    world.round()
    (found,) = world.open()
    door = world.door
    door.ok("incident", "ack", found.id)
    door.ok("incident", "comment", found.id, "the", "sun", "shines")
    assert door.run("incident", "comment", found.id).status == 2, "of nothing"
    door.ok("incident", "act", found.id, "a parasol")
    assert door.ok("incident", "close", found.id, "known")["closed_by"] == "root"
    world.round()
    world.services.watch.load()
    world.round()
    assert world.open() == [], "neither the next round nor a start opens it anew"
    door.ok("incident", "reopen", found.id, "it is not")
    assert [each.state for each in world.open()] == ["acknowledged"]
    assert door.run("incident", "reopen", found.id).status == 0
    door.ok("incident", "close", found.id)
    world.say("site.heat", "blog", 1.0)
    world.round()
    world.say("site.heat", "blog", 99.0)
    world.round()
    (other,) = world.open()
    assert other.id != found.id, "it was closed by a person: another one"
    report = door.ok("incident", "report", found.id)
    # The rounds of these tests are ahead of the clock.
    assert report["to_acknowledge"] is not None and report["to_repair"] is None and report["lasted"] is not None
    assert [each["text"] for each in report["actions"]] == ["a parasol"]
    assert "the sun shines" in [each["text"] for each in report["comments"]]
    page = door.run("incident", "report", found.id, "--html").out
    assert page.lstrip().startswith("<!doctype html>") and "a parasol" in page
    for command in (("list",), ("show", found.id), ("report", found.id)):
        assert door.run("incident", *command).status == 0
    assert "the sun shines" in door.run("incident", "show", found.id).out
    assert "another-cause" not in door.run("incident", "list", "--site", "shop").out
    world.told()
    assert [event for event, _site in events(ana)] == ["opened", "closed", "reopened", "closed", "opened"]


def test_rules_by_command(world: Incidents) -> None:
    door = world.door
    file = world.door.directory / "rule.toml"
    file.write_text(MOOD.replace("critical", "loud").replace("bad", "sad"))
    ran = door.run("rule", "add", "t-x", str(file))
    assert ran.status == 2 and "severity" in ran.err and "never a value" in ran.err
    file.write_text(MOOD + 'tell = ["nobody-here"]\n')
    assert "there is no person" in door.run("rule", "add", "t-x", str(file)).err
    file.write_text(MOOD)
    assert door.ok("rule", "add", "t-x", str(file))["built_in"] is False
    assert door.run("rule", "add", "t-x", str(file)).status == 3
    assert door.ok("rule", "set", "t-x", "for=5m", 'tell=["ana"]', "above=")["condition"] == "is bad"
    assert 'for = "5m"' in door.run("rule", "show", "t-x").out
    world.say("site.mood", "blog", "bad")
    tried = door.run("rule", "try", "t-x", "--json")
    assert tried.status == 3 and [each["site"] for each in tried.document if each["bad"]] == ["blog"]
    assert world.open() == [], "nothing came of trying"
    assert door.ok("rule", "set", "disk-low", "below=20")["changed"]
    door.ok("rule", "remove", "disk-low")
    assert not door.ok("rule", "show", "disk-low")["changed"]
    door.ok("rule", "set", "disk-low", "enabled=false")
    assert door.run("rule", "list").status == 0 and door.run("rule", "figures").status == 0
    with Browser(door) as browser:
        browser.sign_in("ana")
        assert browser.ask("GET", "/v1/rules").status_code == 403
    figures = world.services.readings.figures
    for name, rule in grammar.BUILT_IN.items():
        assert grammar.of(grammar.document(rule), figures) == rule, name


def test_by_ntfy_matrix_and_mail(world: Incidents) -> None:
    door = world.door
    phone, room, mails = Receiver(), Receiver(), MailServer("a mail server's own")
    world.receivers += [phone, room]
    base = phone.url.rpartition("/hooks")[0]
    server = room.url.rpartition("/hooks")[0]
    try:
        door.http.patch("/v1/accounts/ana", json={"email": "ana@school.example"})
        mail = {"host": "localhost", "port": mails.port, "sender": "alveole@school.example", "user": "alveole"}
        mail |= {"password": "a mail server's own", "certificates": mails.authority}
        assert door.http.put("/v1/mail", json=mail).status_code == 200
        for body in (
            {"name": "mails", "kind": "mail", "to": "ana@school.example"},
            {"name": "phone", "kind": "ntfy", "to": f"{base}/our-topic", "token": "tk_secret"},
            {"name": "room", "kind": "matrix", "to": f"{server}/!abc:matrix.example", "token": "syt_secret"},
        ):
            made = door.http.post("/v1/channels", json={**body, "whom": "ana", "events": ["incident"]})
            assert made.status_code == 201 and "_secret" not in made.text, made.text
        for wrong in (
            {"kind": "matrix", "to": f"{server}/abc"},
            {"kind": "ntfy", "to": f"{base}/a/b"},
            {"kind": "mail", "token": "x"},
            {"kind": "ntfy", "to": f"{base}/a", "token": "a\nb"},
        ):
            assert door.http.post("/v1/channels", json={"name": "x", "whom": "ana", **wrong}).status_code == 422, wrong
        world.rule("heat", HEAT + 'title = "Too hot — 99 °"\nseverity = "critical"\n')
        world.say("site.heat", "blog", 99.0, text="it is hot")
        world.round()
        world.told()
        head = {key.lower(): value for key, value in phone.got[0][0].items()}
        assert head["priority"] == "5" and head["tags"] == "rotating_light" and head["title"].startswith("=?UTF-8?B?")
        assert head["authorization"] == "Bearer tk_secret" and "it is hot" in phone.got[0][1].decode()
        said = json.loads(room.got[0][1])
        assert said["msgtype"] == "m.text" and said["body"].startswith("blog: Too hot — 99 °")
        assert room.paths[0].startswith("/_matrix/client/v3/rooms/%21abc%3Amatrix.example/send/m.room.message/m")
        (mail_got,) = mails.mails
        assert str(mail_got["Subject"]).startswith("=?utf-8?") or "Too hot" in str(mail_got["Subject"])
        content = mail_got.get_payload(decode=True)
        assert isinstance(content, bytes) and b"Changed just before:" in content and b"Why:" in content
        log = door.ok("notify", "log", "phone")
        assert [(each["verb"], each["state"], each["told"]) for each in log] == [("incident", "opened", "told")]
    finally:
        door.http.delete("/v1/mail")
        mails.close()


def test_what_a_channel_for_incidents_hears_of_checks(world: Incidents) -> None:
    """A failing check opens an incident, so the same channel does not hear of it as news of checks too."""
    both = world.receiver("ana", "both", "incident", "check", "failed")
    news = world.receiver("ana", "news", "check")
    journal, stored = world.services.journal, world.services.store.site("blog")
    live = journal.begin("check", "monitor", site=stored.site, reason="front")
    journal.end(live, (), {"check": "front"})
    world.told()
    assert len(news.messages()) == 1 and both.messages() == []


def test_a_deploy_that_was_taken_back_and_a_backup_that_failed(world: Incidents) -> None:
    """A failing verification opens an incident with what was found; the next deploy that holds closes it."""
    from alveole.errors import Problem

    ana = world.receiver("ana")
    for name in ("verification-failed", "backup-failed"):
        world.door.ok("rule", "set", name, "enabled=true")
    try:
        journal, stored = world.services.journal, world.services.store.site("blog")
        problem = Problem("check/front", "step 1: the status is 500")
        journal.end(journal.begin("deploy", ROOT, site=stored.site), (problem,), {"went_back": "blog"})
        journal.end(journal.begin("backup", ROOT, site=stored.site), (Problem("", "the disk is full"),))
        # By the clock of the machine: these are of now.
        world.round()
        titles = {each.title for each in world.open()}
        assert titles == {"A new version did not hold and was taken back", "The last backup failed"}
        world.told()
        broken = [line for each in ana.messages() for line in each["incident"]["broken"]]
        assert any("step 1: the status is 500" in line for line in broken)
        world.services._last_ended._read = False
        world.services._last_ended._verified.clear()
        world.round()
        assert len(world.open()) == 2, "the same after a start, from the journal"
        journal.end(journal.begin("deploy", ROOT, site=stored.site))
        journal.end(journal.begin("backup", ROOT, site=stored.site))
        until(lambda: len(world.services._last_ended.readings()["site.backup"]) == 1)
        world.round()
        assert world.open() == []
    finally:
        for name in ("verification-failed", "backup-failed"):
            world.door.ok("rule", "set", name, "enabled=false")


def test_promises_are_kept_count_of_over_a_start(world: Incidents) -> None:
    """Since when, which change broke it, how often; and what is not looked at counts for nothing."""
    world.rule("mood", MOOD.replace("for", "#for") + 'promise = "mood"\n')
    world.say("site.mood", "blog", "good")
    world.round()
    began = world.at
    stored = world.services.store.site("blog")
    journal = world.services.journal
    change = journal.end(journal.begin("set", ROOT, site=stored.site, reason="a worse mood"))
    world.say("site.mood", "blog", "bad", text="it is in a bad mood")
    world.round(3600)
    found = next(each for each in world.door.ok("site", "promises", "blog")["promises"] if each["promise"] == "mood")
    assert found["state"] == "broken" and found["broken_by"]["change"] == change.id and found["times_broken"] == 1
    assert found["since"] == pytest.approx(world.at) and found["text"] == "it is in a bad mood"
    ledger = type(world.services.watch.ledger)(world.services.store, lambda _site: None, world.at + 10)
    entry = ledger.of(stored.site.id)["mood"]
    assert entry.state == "broken" and entry.since == world.at and entry.broken_by.change == change.id
    from alveole.incidents.promises import share

    kept = share(entry, began + 3600)
    assert kept.kept == pytest.approx(3600, abs=1)
    assert "mood" in world.door.run("site", "promises", "blog").out


SCRIPT = """
import json, sys, time
from killkit import open_services
services = open_services(json.loads(sys.argv[1]), sys.argv[2], tells=sys.argv[4] == "tells")
services.watch.round(float(sys.argv[3]))
time.sleep(60)
"""


@pytest.mark.turn
@pytest.mark.parametrize(
    ("point", "told"),
    [("incidents.stored", 1), ("incidents.opened", 1), ("telling.told", 2), ("incidents.closed", 1)],
)
def test_told_once_though_control_is_killed(directory: Path, point: str, told: int) -> None:
    """Faults 1 and 2: killed between finding, storing and telling, what is broken is told once, and that it is over
    once; only between a receiver's answer and its commit the same message comes again, under the same id."""
    raw: dict[str, Any] = {
        "paths": {"state": str(directory / "s"), "run": str(directory / "r")},
        "outgoing": {"inside_hosts": ["localhost"]},
    }
    receiver = Receiver()
    try:
        killkit.prepare(raw, receiver.url)
        now = 1_800_000_000.0

        def go(value: str, at: float) -> None:
            """A control that is not killed: two rounds, and all that waits is told."""
            services = killkit.open_services(raw, value)
            try:
                services.watch.round(at)
                services.watch.round(at + 1)
                until(lambda: killkit.nothing_waits(services), 60)
            finally:
                services.close()

        closing = point == "incidents.closed"
        if closing:
            go("off", now)
        argv = [sys.executable, "-c", SCRIPT, json.dumps(raw), "on" if closing else "off", str(now + 5)]
        # Where it dies elsewhere nothing may be told before: which comes first would be a matter of luck.
        argv.append("tells" if point == "telling.told" else "silent")
        environment = {**os.environ, "ALVEOLE_FAILPOINT": point, "PYTHONPATH": str(Path(__file__).parent)}
        assert subprocess.run(argv, env=environment, check=False).returncode == -signal.SIGKILL
        if not closing:
            go("off", now + 10)
        go("on", now + 20)
        go("on", now + 30)
        found = [(headers["webhook-id"], json.loads(body)["incident"]["event"]) for headers, body in receiver.got]
        opened = [id for id, event in found if event == "opened"]
        closed = [id for id, event in found if event == "closed"]
        assert len(opened) == told and len(set(opened)) == 1 and len(closed) == 1, found
        assert killkit.open_flags(raw) == [False]
    finally:
        receiver.close()
