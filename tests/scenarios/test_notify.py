"""Notifications, told to a real mail server and a real receiver of webhooks; and who is told of what."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa
from doorkit import ROOT, Door, until
from peoplekit import Browser
from receiverkit import MailServer, Receiver, is_signed

from alveole.config import parse
from alveole.errors import Problem
from alveole.services import Services, telling
from alveole.store import tables
from alveole.testing import FakeAgent

PASSWORD = "a mail server's own"


@pytest.fixture(scope="module")
def mails(door: Door) -> Iterator[MailServer]:
    made = MailServer(PASSWORD)
    file = door.directory / "mail.toml"
    (door.directory / "ca.pem").write_text(made.authority)
    file.write_text(
        f'host = "localhost"\nport = {made.port}\nsender = "alveole@school.example"\nuser = "alveole"\n'
        f'password = "{PASSWORD}"\ncertificates_file = "{door.directory / "ca.pem"}"\n'
    )
    assert door.ok("notify", "mail", "set", str(file))["password"] == "***"
    for name in ("ana", "zoe"):
        door.ok("account", "set", name, "--email", f"{name}@school.example")
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clean(door: Door) -> Iterator[None]:
    yield
    for each in door.ok("notify", "list"):
        door.ok("notify", "remove", each["id"])


def happen(door: Door, verb: str = "update", problem: str = "", reason: str = "") -> str:
    """A change of the site ``blog``, as a flow would end it."""
    stored = door.services.store.site("blog")
    assert stored is not None
    live = door.services.journal.begin(verb, ROOT, site=stored.site, reason=reason)
    door.services.journal.end(live, (Problem("workload/0", problem),) if problem else ())
    return live.id


def outbox(door: Door) -> list[Any]:
    with door.services.store.read() as connection:
        return list(connection.execute(sa.select(tables.outbox).order_by(tables.outbox.c.created_at)))


def text(mail: Message) -> str:
    content = mail.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


def test_by_mail(door: Door, mails: MailServer) -> None:
    door.ok("notify", "add", "mails", "--mail", "ana@school.example", "--for", "ana", "--event", "deploy")
    id = happen(door, problem="it did\r\nBcc: all@school.example not start", reason="version \x1b[2J2.6")
    happen(door, "start")
    until(lambda: mails.mails)
    (mail,) = mails.mails
    assert mail["To"] == "ana@school.example" and mail["From"] == "alveole@school.example"
    assert mail["Subject"].endswith("blog: update failed") and mail["Bcc"] is None
    assert id in text(mail) and "\x1b" not in text(mail) and "version 2.6" in text(mail)
    until(lambda: [row.state for row in outbox(door)] == ["told"])
    assert f"<{outbox(door)[0].id}@school.example>" == mail["Message-ID"]
    assert door.ok("notify", "test", "mails")["ok"] and len(mails.mails) == 2
    trial = mails.mails[-1]
    assert trial["Subject"].endswith("a trial of the channel mails") and "nothing to do" in text(trial)
    assert "change show" not in text(trial), "there is no such change"


def test_a_channel_for_nobody(door: Door) -> None:
    """An administrator is told that a name was mistyped, and not of rights; a webhook how to let it go inside."""
    ran = door.run("notify", "add", "mails", "--mail", "ana@school.example", "--for", "anna")
    assert ran.status == 4 and "there is no person or team 'anna'" in ran.err, ran.err
    ran = door.run("notify", "add", "chat", "--ntfy", "http://ntfy.example/topic", "--for", "ana")
    assert ran.status == 2 and "'ntfy.example' to outgoing.inside_hosts" in ran.err, ran.err


def test_a_mail_server_that_is_away_is_asked_again(
    door: Door, mails: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PAUSES", (0.05,))
    monkeypatch.setattr(telling, "_TICK_SECONDS", 0.05)
    mails.mails.clear()
    mails.refuse = True
    door.ok("notify", "add", "mails", "--mail", "ana@school.example", "--for", "ana")
    ran = door.run("notify", "test", "mails")
    assert ran.status == 3 and "come back later" in ran.out
    happen(door, problem="no")
    until(lambda: any(row.attempts for row in outbox(door)))
    (shown,) = door.ok("notify", "list")
    assert shown["waiting"] == 1 and "come back later" in shown["problem"]
    mails.refuse = False

    def told() -> bool:
        door.services.ticker.poke("outbox")
        return bool(mails.mails)

    until(told)
    time.sleep(0.1)
    door.services.ticker.poke("outbox")
    until(lambda: [row.state for row in outbox(door)] == ["told"])
    assert len(mails.mails) == 1


def test_what_is_wrong_with_the_mail_server_is_told_without_its_password(door: Door, mails: MailServer) -> None:
    right = door.http.get("/v1/mail").json()
    door.ok("notify", "add", "mails", "--mail", "ana@school.example", "--for", "ana")
    try:
        for change, told in (
            ({"password": "wrong and secret"}, "does not take the user and password"),
            ({"certificates": ""}, "certificate"),
            ({"port": 1}, "refused"),
        ):
            assert door.http.put("/v1/mail", json={**right, **change}).status_code == 200
            came = door.run("notify", "test", "mails")
            assert came.status == 3 and told in came.out.lower() and "secret" not in came.out, came
            door.http.put("/v1/mail", json={**right, "password": PASSWORD})
    finally:
        door.http.put("/v1/mail", json={**right, "password": PASSWORD})
    for wrong in ({"tls": "none", "host": "mail.school.example"}, {"sender": "a@b\r\nBcc: c@d"}, {"tls": "maybe"}):
        assert door.http.put("/v1/mail", json={**right, **wrong}).status_code == 422
    assert door.http.put("/v1/mail", json={"host": "localhost"}).status_code == 422
    assert door.ok("notify", "mail", "show")["password"] == "***"


def test_by_webhook(door: Door, receiver: Receiver) -> None:
    """Signed, tried again until it is taken, the same id at every attempt, redirects not followed."""
    made = door.ok("notify", "add", "chat", "--webhook", receiver.url, "--for", "site:blog", "--event", "deploy")
    assert made["whom"] == "site:blog" and made["secret"].startswith("whsec_")
    assert "very-secret-path" not in json.dumps(door.ok("notify", "list"))
    assert "whsec" not in json.dumps(door.ok("notify", "list"))
    receiver.answers = [500, 302]
    id = happen(door)

    def taken() -> bool:
        with door.services.store.write() as transaction:
            transaction.connection.execute(sa.update(tables.outbox).values(next_at=0.0))
        door.services.ticker.poke("outbox")
        return [row.state for row in outbox(door)] == ["told"]

    until(taken)
    assert len(receiver.got) == 3
    headers, body = receiver.got[-1]
    assert is_signed(headers, body, made["secret"]) and not is_signed(headers, body + b" ", made["secret"])
    assert abs(time.time() - int({key.lower(): value for key, value in headers.items()}["webhook-timestamp"])) < 60
    assert len({json.dumps([headers["webhook-id"], body.decode()]) for headers, body in receiver.got}) == 1
    message = receiver.messages()[0]
    assert (message["id"], message["kind"], message["site"], message["state"]) == (id, "deploy", "blog", "done")


def test_webhooks_reach_nothing_inside(door: Door, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat 18: neither when they are added, nor when the name leads elsewhere afterwards."""
    for url in (
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://user:secret@hooks.example/",
        "ftp://hooks.example/",
        "https://hooks.example/\r\nX: y",
        "",
    ):
        ran = door.run("notify", "add", "chat", "--webhook", url, "--for", "ana", "--json")
        assert ran.status in (2, 5), (url, ran)
    where = ["1.1.1.1"]
    real = socket.getaddrinfo

    def resolve(host: Any, *more: Any, **named: Any) -> Any:
        if host == "hooks.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (where[0], 0))]
        return real(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    door.ok("notify", "add", "chat", "--webhook", "https://hooks.example/x", "--for", "ana")
    where[0] = "10.1.1.254"
    ran = door.run("notify", "test", "chat")
    assert ran.status == 3 and "which is inside" in ran.out
    assert receiver.got == []


def test_by_feed(door: Door) -> None:
    made = door.ok("notify", "add", "reader", "--feed", "--for", "ana", "--event", "deploy", "--event", "check")
    path = made["secret"]
    id = happen(door, reason="<b>2.6 & more</b>")
    happen(door, "start")
    with door.tcp() as nobody:
        answer = nobody.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/atom+xml")
        assert nobody.get("/v1/feeds/feed_wrong").status_code == 404
    root = ElementTree.fromstring(answer.content)  # noqa: S314  our own
    space = {"a": "http://www.w3.org/2005/Atom"}
    titles = [entry.findtext("a:title", "", space) for entry in root.findall("a:entry", space)]
    assert titles[0] == "blog: update done" and not any("start" in title for title in titles)
    entry = root.find("a:entry", space)
    assert entry is not None and entry.findtext("a:id", "", space) == f"urn:alveole:change:{id}"
    assert "<b>2.6 & more</b>" in entry.findtext("a:content", "", space)
    with door.services.store.read() as connection:
        kept = connection.execute(sa.select(tables.channels.c.secret)).scalar_one()
    assert path.rpartition("/")[2] != kept, "of the token only the digest is kept"
    zoe = door.ok("notify", "add", "reader", "--feed", "--for", "zoe", "--event", "deploy")["secret"]
    with door.tcp() as nobody:
        assert b"<entry>" not in nobody.get(zoe).content, "nothing of foreign sites"


def test_everybody_is_told_of_their_own_only(door: Door, receiver: Receiver) -> None:
    """Threat 24: by what they may look at when it happens, not when the channel was added."""
    door.http.post("/v1/teams", json={"name": "club", "members": ["zoe"]})
    for whom in ("ana", "zoe", "team:club", "site:blog"):
        name = whom.rpartition(":")[2]
        door.ok("notify", "add", name, "--webhook", receiver.url, "--for", whom, "--event", "site")
    names = {each["id"]: each["name"] for each in door.ok("notify", "list")}

    def told() -> set[str]:
        happen(door, "start")
        newest = outbox(door)[-1].change_id
        until(lambda: all(row.state == "told" for row in outbox(door)))
        return {names[row.channel_id] for row in outbox(door) if row.change_id == newest}

    assert told() == {"ana", "blog"}
    door.http.put("/v1/sites/blog/sharing", json={"whom": "team:club", "level": "look"})
    assert told() == {"ana", "zoe", "club", "blog"}
    door.http.put("/v1/sites/blog/sharing", json={"whom": "team:club", "level": "none"})
    door.ok("account", "disable", "ana")
    assert told() == {"blog"}
    door.http.patch("/v1/accounts/ana", json={"active": True})


def test_channels_are_their_owners(door: Door, mails: MailServer, receiver: Receiver) -> None:
    made = door.ok("notify", "add", "chat", "--webhook", receiver.url, "--for", "ana")
    with Browser(door) as zoe:
        zoe.sign_in("zoe")
        assert zoe.ask("GET", "/v1/channels").json() == []
        assert zoe.ask("DELETE", f"/v1/channels/{made['id']}").status_code == 404
        assert zoe.ask("POST", f"/v1/channels/{made['id']}/test").status_code == 404
        for whom, status in (("ana", 403), ("team:nobody", 403), ("site:blog", 404)):
            wanted = {"name": "x", "kind": "feed", "whom": whom}
            assert zoe.ask("POST", "/v1/channels", json=wanted).status_code == status, whom
        strange = zoe.ask("POST", "/v1/channels", json={"name": "x", "kind": "mail", "to": "ana@school.example"})
        assert strange.status_code == 422, "nobody has mail sent to strangers"
        own = zoe.ask("POST", "/v1/channels", json={"name": "x", "kind": "mail"})
        assert own.status_code == 201 and own.json()["to"] == "zoe@school.example"
        assert zoe.ask("GET", "/v1/mail").status_code == 403
    assert door.run("notify", "add", "y", "--feed").status == 2, "root is nobody with an account"
    assert door.run("notify", "add", "y", "--feed", "--mail", "a@b.example").status == 2
    assert door.run("notify", "add", "y", "--feed", "--for", "ana", "--event", "lottery").status == 2
    assert door.run("notify", "add", "chat", "--feed", "--for", "ana").status == 3


def test_whoever_goes_takes_their_channels_along(door: Door, receiver: Receiver) -> None:
    door.http.post("/v1/accounts", json={"name": "mia", "role": "owner", "password": "correct horse battery"})
    door.site("brief", command=["serve"], port=8000)
    for whom in ("mia", "site:brief"):
        door.ok("notify", "add", whom.rpartition(":")[2], "--webhook", receiver.url, "--for", whom, "--event", "site")
    door.ended(door.http.post("/v1/sites/brief/stop"))
    door.ended(door.http.delete("/v1/sites/brief", params={"confirm": "brief"}))
    until(lambda: receiver.messages() and receiver.messages()[-1]["verb"] == "destroy")
    assert door.http.delete("/v1/accounts/mia").status_code == 204
    assert door.ok("notify", "list") == []
    with door.services.store.read() as connection:
        assert connection.execute(sa.select(tables.channels)).all() == []


SCRIPT = """
import json, sys, time
from alveole import requests as ask
from alveole.config import parse
from alveole.journal import Journal
from alveole.people.model import Actor, Role
from alveole.services import Services
from alveole.testing import FakeAgent
root = Actor("root", Role.ADMIN, "socket")
services = Services.open(parse(json.loads(sys.argv[1])), FakeAgent(), loop=False)
services.telling.start()
services.ticker.start()
services.journal.end(services.journal.begin("update", root, reason="to be told"))
time.sleep(20)
"""


@pytest.mark.parametrize(("point", "before"), [("store.after-commit", 0), ("telling.told", 1)])
def test_what_ended_is_told_though_control_is_killed(
    directory: Path, receiver: Receiver, point: str, before: int
) -> None:
    """Faults 1 and 2: from the commit on it is told; and again under the same id when its taking was not written."""
    raw = {
        "paths": {"state": str(directory / "s"), "run": str(directory / "r")},
        "outgoing": {"inside_hosts": ["localhost"]},
    }
    settings = parse(raw)
    services = Services.open(settings, FakeAgent(), loop=False)
    from alveole import requests as ask
    from alveole.requests.channels import AddChannel

    services.add_account(ROOT, ask.AddAccount(name="ada", role="administrator", password="correct horse battery"))
    wanted = AddChannel(name="chat", kind="webhook", to=receiver.url, whom="ada", events=("deploy",))
    services.add_channel(ROOT, wanted)
    services.close()
    receiver.got.clear()
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(raw)], env={**os.environ, "ALVEOLE_FAILPOINT": point}, check=False
    )
    assert ended.returncode == -signal.SIGKILL and len(receiver.got) == before
    for _round in range(2):
        again = Services.open(settings, FakeAgent())
        _until_told(again)
        again.close()
    reasons = [message.get("reason", "") for message in receiver.messages()]
    assert reasons.count("to be told") == 1 + before, reasons
    ids = {headers["webhook-id"] for headers, body in receiver.got if b"to be told" in body}
    assert len(ids) == 1


def _until_told(services: Services) -> None:
    def states() -> set[str]:
        with services.store.read() as connection:
            return set(connection.execute(sa.select(tables.outbox.c.state)).scalars())

    until(lambda: states() == {"told"})
