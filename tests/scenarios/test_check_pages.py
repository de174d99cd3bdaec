"""Checks and channels in the pages, by a browser without scripts: made, run, mended, removed; by whom."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from doorkit import Door, until
from outsidekit import PASSWORD, Shop, seen
from peoplekit import add
from receiverkit import Receiver, is_signed
from test_pages import check
from webkit import Found, Visitor

from alveole.notices import MailServer
from alveole.people.model import Role

TEXT = "every: 5m\nsteps: [{name: the front page, request: GET /, expect: {text: Welcome}}]"


@pytest.fixture
def ana(door: Door, outside: Shop) -> Iterator[Visitor]:
    with Visitor(door) as visitor:
        visitor.sign_in("ana")
        yield visitor
    outside.broken = False
    for each in door.ok("check", "list", "blog"):
        door.ok("check", "remove", "blog", each["name"], "--yes")
    for each in door.ok("notify", "list"):
        door.ok("notify", "remove", each["id"])


def shown(visitor: Visitor) -> Found:
    """The page of a run, once it has ended."""
    path = visitor.at
    assert "/checks/run/" in path
    until(lambda: "every 400ms" not in visitor.ask("GET", path).text, 30)
    return visitor.page


def test_a_check_is_made_run_mended_and_removed(door: Door, outside: Shop, ana: Visitor) -> None:
    page = ana.get("/site/blog/checks")
    assert "There is no check yet." in page.text
    ana.get("/site/blog/checks/new")
    page = ana.submit("/site/blog/checks/new", ("do", "keep"), 422, name="Front Page", text="steps: [{requst: GET /}]")
    assert "[steps[0].requst] is not a key here" in page.text and "requst: GET /" in page.text, "what was typed is kept"
    page = ana.submit("/site/blog/checks/new", ("do", "keep"), 422, name="Front Page", text=TEXT)
    assert "is not a name" in page.text
    page = ana.submit("/site/blog/checks/new", ("do", "keep"), name="front", text=TEXT)
    assert ana.at == "/site/blog/check/front" and "not run yet" in page.text
    ana.get("/site/blog/checks/new")
    page = ana.submit("/site/blog/checks/new", ("do", "keep"), 409, name="front", text=TEXT)
    assert "there is a check 'front' already" in page.text.lower()

    page = ana.get("/site/blog/checks")
    assert "every 5" in page.text
    ana.submit("/site/blog/checks/run")
    page = shown(ana)
    assert "passes" in page.text and "1. the front page: GET https://blog.localhost" in page.text
    outside.broken = True
    ana.get("/site/blog/checks")
    ana.submit("/site/blog/checks/run")
    page = shown(ana)
    assert "fails" in page.text and "out of order" in page.text and "500" in page.text
    page = ana.get("/site/blog/checks")
    assert "Last failure of front" in page.text and "out of order" in page.text
    page = ana.get("/site/blog/check/front")
    assert "Last failure" in page.text and "by hand" in page.text
    page = ana.submit("/site/blog/check/front", ("do", "try"), text=TEXT.replace("Welcome", "anything"))
    assert "anything" in page.text and "going on" in page.text
    assert "Welcome" in door.ok("check", "show", "blog", "front")["text"], "what is tried is not kept"
    ana.get("/site/blog/check/front")
    ana.submit("/site/blog/check/front", ("do", "keep"), text=TEXT.replace("5m", "10m"))
    assert door.ok("check", "show", "blog", "front")["state"]["every"] == 600
    page = ana.submit("/site/blog/check/front/remove")
    assert ana.at == "/site/blog/checks" and "There is no check yet." in page.text


def test_from_a_recording_and_its_secrets(door: Door, ana: Visitor) -> None:
    ana.get("/site/blog/checks")
    form = next(each for each in ana.page.forms if each["action"].endswith("/record"))
    url = "https://blog.localhost/login"
    entry = {
        "request": {"method": "GET", "url": url, "headers": []},
        "response": {"status": 200, "content": {"mimeType": "text/html", "text": "<title>Sign in</title>"}},
    }
    har = json.dumps({"log": {"entries": [entry]}}).encode()
    fields = [(key, (None, value)) for key, value in form["fields"]]
    answer = ana.ask("POST", form["action"], files=[*fields, ("file", ("My visit.har", har))])
    assert answer.status_code == 200 and "Nothing is kept yet" in ana.page.text and "GET /login" in ana.page.text
    ana.submit("/site/blog/checks/new", ("do", "keep"))
    assert ana.at == "/site/blog/check/my-visit"
    ana.get("/site/blog/checks")
    answer = ana.ask("POST", form["action"], files=[*fields, ("file", ("x.har", b"no"))])
    assert answer.status_code == 422 and "is no HAR file" in ana.page.text.replace("Is", "is")
    ana.get("/site/blog/checks")
    page = ana.submit("/site/blog/checks/secrets", expect=422, secret="password", value="12")
    assert "must have" in page.text.lower()
    page = ana.submit("/site/blog/checks/secrets", secret="password", value=PASSWORD)
    assert "password" in page.text and "horse" not in ana.answer.text, "no secret is shown again"
    page = ana.submit("/site/blog/checks/secrets/password/remove")
    assert door.ok("check", "secret", "blog", "--list") == []


def test_a_visit_is_recorded_and_shown(door: Door) -> None:
    """Without a script: begin, visit, stop; what nobody saw is named."""
    with Visitor(door) as ana:
        ana.sign_in("ana")
        page = ana.get("/site/blog/checks")
        assert any(values.get("href", "").endswith("/checks/recording") for _, values in page.tags)
        page = ana.get("/site/blog/checks/recording")
        assert "?since=" in ana.at and "Stop and show the steps" in page.text
        check(page, ana)
        page = ana.submit("/site/blog/checks/recording", expect=422)
        assert "Nobody has visited blog" in page.text
        agent = ana.http.headers["user-agent"]
        seen(door, "blog", ("GET", "/login", 200, ""), ("POST", "/login", 303, "/login"), agent=agent)
        page = ana.submit("/site/blog/checks/recording")
        assert "POST /login" in ana.answer.text and "/login: user" in page.text and "password" in page.text
        check(page, ana)
    with Visitor(door) as zoe:
        zoe.sign_in("zoe")
        assert zoe.ask("GET", "/site/blog/checks/recording").status_code == 404


def test_others_do_not_see_it(door: Door, ana: Visitor) -> None:
    """Threat 24: neither the list nor a run that somebody else follows."""
    ana.get("/site/blog/checks/new")
    ana.submit("/site/blog/checks/new", ("do", "keep"), name="front", text=TEXT)
    ana.submit("/site/blog/checks/run")
    run = ana.at
    with Visitor(door) as zoe:
        zoe.sign_in("zoe")
        for path in ("/site/blog/checks", "/site/blog/check/front", run):
            assert zoe.ask("GET", path).status_code == 404, path
    if "rita" not in [each["name"] for each in door.ok("account", "list")]:
        add(door, "rita", Role.READER)
    with Visitor(door) as rita:
        rita.sign_in("rita")
        page = rita.get("/site/blog/checks")
        assert "front" in page.text and not [each for each in page.forms if "/checks" in each["action"]]
        assert rita.ask("GET", run).status_code == 403


def test_a_channel_is_made_tested_changed_and_removed(door: Door, ana: Visitor) -> None:
    receiver = Receiver()
    try:
        ana.get("/channels")
        page = ana.submit("/channels", expect=422, name="Chat", kind="webhook", to=receiver.url)
        assert "is not a name" in page.text and receiver.url in ana.answer.text, "what was typed is kept"
        page = ana.submit("/channels", name="chat", kind="webhook", to=receiver.url)
        secret = page.text.partition("copy it now. ")[2].partition(" ")[0]
        assert secret.startswith("whsec_")
        page = ana.get("/channels")
        assert secret not in page.text and "chat" in page.text, "it is shown once"
        (found,) = door.ok("notify", "list")
        page = ana.submit(f"/channels/{found['id']}/test")
        assert "It was told." in page.text and is_signed(*receiver.got[-1], secret)
        page = ana.submit(f"/channels/{found['id']}", name="talk", to="", event="site")
        (changed,) = door.ok("notify", "list")
        assert changed["name"] == "talk" and changed["events"] == ["site"] and changed["to"] == found["to"]
        receiver.answers[:] = [500] * 5
        door.ok("site", "restart", "blog")
        until(lambda: [each for each in door.ok("notify", "log", "talk") if each["attempts"]], 30)
        page = ana.get(f"/channels/{found['id']}")
        assert "the receiver answered 500" in page.text.replace("The", "the") and "Restart: blog" in page.text
        assert door.run("notify", "log", "talk").status == 0
        door.ok("notify", "set", "talk", "--name", "chat")
        with Visitor(door) as zoe:
            zoe.sign_in("zoe")
            assert zoe.ask("GET", f"/channels/{found['id']}").status_code == 404
        ana.get(f"/channels/{found['id']}")
        page = ana.submit(f"/channels/{found['id']}/remove")
        assert "Nobody is told of anything yet." in page.text
        page = ana.submit("/channels", name="reader", kind="feed", to="")
        assert "/v1/feeds/feed_" in page.text
    finally:
        receiver.close()


def test_an_administrator_sets_the_mail_server(door: Door) -> None:
    with Visitor(door) as ada:
        if "ada" not in [each["name"] for each in door.ok("account", "list")]:
            add(door, "ada", Role.ADMIN)
        ada.sign_in("ada")
        ada.get("/channels")
        page = ada.submit("/mail", expect=422, host="mail.school.example", sender="alveole", port="25", tls="none")
        assert "unencrypted" in page.text
        given = {"sender": "alveole@school.example", "user": "alveole", "password": "not shown again"}
        ada.get("/channels")
        ada.submit("/mail", host="mail.school.example", port="587", tls="starttls", **given)
        assert "not shown again" not in ada.answer.text
        ada.submit("/mail", port="465", tls="tls")
        kept = door.services._setting("mail", MailServer)
        assert kept is not None and (kept.password, kept.port) == ("not shown again", 465)
        door.ok("notify", "mail", "remove")
