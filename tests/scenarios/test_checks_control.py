"""Scenarios as a site's: added, run by hand, as a gate and to watch; told where people look; bounded."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from doorkit import ROOT, Door, until
from outsidekit import AGENT, PASSWORD, Shop, seen
from peoplekit import Browser

from alveole.agent.reaching import Reach
from alveole.scenarios.model import Use
from alveole.scenarios.reading import read
from alveole.services import watching
from alveole.services.scenarios import CHECKS_MAX
from alveole.store import Store

FRONT = "steps: [{name: the front page, request: GET /, expect: {text: Welcome}}]\n"
SIGN_IN = """
steps:
  - request: GET /login
  - {request: POST /login, form: {user: ana, password: "${secret:password}"}, fill: true, expect: {text: Hello Ana}}
"""


def add(door: Door, name: str, text: str, file: str = "") -> dict[str, Any]:
    path = door.directory / f"{file or name}.yaml"
    path.write_text(text)
    found: dict[str, Any] = door.ok("check", "add", "blog", str(path), "--name", name)
    return found


@pytest.fixture(autouse=True)
def clean(door: Door, outside: Shop) -> Any:
    yield
    outside.broken = False
    for each in door.ok("check", "list", "blog"):
        door.ok("check", "remove", "blog", each["name"], "--yes")


def test_from_the_command_line(door: Door, outside: Shop) -> None:
    found = add(door, "sign-in", SIGN_IN)
    assert found["missing_secrets"] == ["password"] and found["state"]["ok"] is None
    ran = door.run("check", "run", "blog")
    assert ran.status == 3 and "there is no secret 'password'" in ran.out
    site = door.services.store.site("blog")
    assert site is not None
    answer = door.http.put("/v1/sites/blog/check-secrets/password", json={"value": PASSWORD})
    assert answer.status_code == 204
    assert door.ok("check", "secret", "blog", "--list") == ["password"]
    ran = door.run("check", "run", "blog", "sign-in")
    assert ran.status == 0 and "POST https://blog.localhost" in ran.out and "led to" in ran.out
    (report,) = door.ok("check", "run", "blog")
    assert report["ok"] and report["use"] == "hand" and report["target"] == "public"
    assert outside.seen[-1][1].startswith("blog.localhost")
    shown = door.ok("check", "show", "blog", "sign-in")
    assert [run["ok"] for run in shown["runs"]] == [True, True, False]
    assert "passes" in door.run("check", "show", "blog", "sign-in").out
    assert "passes" in door.run("check", "list", "blog").out
    assert "sign-in passes" in door.run("site", "show", "blog").out
    everything = door.settings.database.read_bytes() + door.settings.database.with_suffix(".db-wal").read_bytes()
    assert PASSWORD.encode() not in everything, "it is sealed"
    for path in ("/v1/sites/blog/checks/sign-in", "/v1/sites/blog", "/v1/changes", "/v1/sites/blog/check-secrets"):
        assert "horse" not in door.http.get(path).text, "no secret is shown again"
    assert door.run("check", "run", "blog", "none").status == 4
    assert door.run("check", "show", "blog", "none").status == 4
    door.ok("check", "secret", "blog", "password", "--remove")
    assert door.ok("check", "secret", "blog", "--list") == []


def test_what_is_wrong_is_named_before_anything_is_kept(door: Door) -> None:
    path = door.directory / "bad.yaml"
    path.write_text("steps: [{request: GET /, expext: {}}]\nevery: soon\n")
    ran = door.run("check", "lint", str(path))
    assert ran.status == 2 and "expext" in ran.err
    assert door.run("check", "add", "blog", str(path)).status == 2
    assert door.ok("check", "list", "blog") == []
    path.write_text(FRONT)
    assert "is in order: 1 steps" in door.run("check", "lint", str(path)).out
    assert door.run("check", "add", "blog", str(path), "--name", "Not a name").status == 2
    answer = door.http.put("/v1/sites/blog/check-secrets/pin", json={"value": "12"})
    assert answer.status_code == 422, "too short to be hidden"
    for number in range(CHECKS_MAX):
        add(door, f"c{number}", FRONT, "front")
    ran = door.run("check", "add", "blog", str(path), "--name", "more")
    assert ran.status == 3 and "at most" in ran.err


def test_one_that_is_not_kept(door: Door, outside: Shop) -> None:
    path = door.directory / "once.yaml"
    path.write_text(FRONT)
    assert door.run("check", "run", "blog", "--file", str(path)).status == 0
    outside.broken = True
    ran = door.run("check", "run", "blog", "--file", str(path))
    assert ran.status == 3 and "out of order" in ran.out and "the status is 500" in ran.out
    assert door.ok("check", "list", "blog") == []


def test_watching_tells_of_the_beginning_and_the_end(
    door: Door, outside: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once: in the journal, where people look, and not for one failure alone."""
    add(door, "front", "every: 30s\nafter: 2\n" + FRONT)
    checks = door.services.checks
    monkeypatch.setattr(watching, "RUNS_KEPT", 6)

    def newest() -> float:
        return max((run.at for run in door.services.show_check(ROOT, "blog", "front").runs), default=0.0)

    def watched() -> None:
        before = newest()
        for known in checks.of_site(site.id):
            checks._due[known.id] = 0.0
        door.services.ticker.poke("checks")

        def came() -> bool:
            door.services.ticker.poke("checks")
            return newest() > before

        until(came)

    stored = door.services.store.site("blog")
    assert stored is not None
    site = stored.site
    door.ended(door.http.post("/v1/sites/blog/stop"))
    seen = len(outside.seen)
    for known in checks.of_site(site.id):
        checks._due[known.id] = 0.0
    checks.tick()
    assert len(outside.seen) == seen, "a site that is not to run is not asked"
    door.ended(door.http.post("/v1/sites/blog/start"))
    watched()
    outside.broken = True
    watched()

    def told() -> list[tuple[str, str]]:
        changes = door.http.get("/v1/changes", params={"site": "blog", "limit": 1000}).json()
        return [(change["state"], change["actor"]) for change in changes if change["verb"] == "check"]

    assert told() == []
    watched()
    watched()
    until(lambda: told() == [("failed", "monitor")])
    (link,) = [link for link in door.run("why", "blog", "--json").document["links"] if link["name"] == "scenario front"]
    assert not link["ok"] and "the status is 500" in link["came"]
    (state,) = door.ok("site", "show", "blog")["checks"]
    assert state["failing"] and not state["ok"] and "step 1 (the front page): the status is 500" in state["problem"]
    runs = door.ok("check", "show", "blog", "front")["runs"]
    assert runs[0]["report"]["steps"][0]["came"].startswith("500") and runs[-1]["report"] is None
    outside.broken = False
    watched()
    until(lambda: told() == [("done", "monitor"), ("failed", "monitor")])
    for _round in range(3):
        watched()
    assert len(door.ok("check", "show", "blog", "front")["runs"]) == watching.RUNS_KEPT
    # What watching has found outlives control.
    again = watching.Checks(door.settings, Store(door.settings.database), door.services.journal, door.agent)
    again.load()
    assert [each.ok for each in again.states(site.id)] == [True]


def test_a_gate_asks_an_instance_that_is_not_live(door: Door, outside: Shop) -> None:
    """The seam for a deploy: the same scenario, with the site's own names, before anybody is led there."""
    add(door, "front", FRONT)
    add(door, "later", "use: [verify]\n" + FRONT)
    stored = door.services.store.site("blog")
    assert stored is not None
    asked: list[Reach] = []

    def reached(request: Reach, file: int) -> None:
        asked.append(request)
        outside.serve_over(socket.socket(fileno=file))

    door.agent.reached = reached
    verdict = door.services.checks.run(stored.site, use=Use.GATE, slot=1)
    assert verdict.ok and [report.target for report in verdict.reports] == ["slot 1"], verdict
    assert [(each.site, each.slot, each.port) for each in asked] == [(stored.site.id, 1, 8000)]
    assert outside.seen[-1][1] == f"blog.localhost:{outside.port}"
    assert outside.seen[-1][3]["X-Forwarded-Proto"] == "https"
    outside.broken = True
    verdict = door.services.checks.run(stored.site, use=Use.GATE, slot=1)
    assert not verdict.ok and verdict.problems[0].field == "check/front"
    assert door.ok("check", "list", "blog")[0]["ok"] is None, "what is not live says nothing of the site"
    outside.broken = False
    checks, id = door.services.checks, stored.site.id
    assert [each.message for each in checks.standing(id)] == ["it has not been run there yet"] * 2
    outside.broken = True
    assert len(checks.run(stored.site, use=Use.VERIFY).problems) == len(checks.standing(id)) == 2
    outside.broken = False
    verdict = door.services.checks.run(stored.site, use=Use.VERIFY)
    assert verdict.ok and len(verdict.reports) == 2
    door.agent.reached = lambda _request, file: os.close(file)
    verdict = door.services.checks.run(stored.site, use=Use.GATE, slot=1)
    assert not verdict.ok and "step 1" in verdict.problems[0].message


def test_strangers_see_and_run_nothing(door: Door) -> None:
    add(door, "front", FRONT)
    with Browser(door) as zoe:
        zoe.sign_in("zoe")
        for method, path in (("GET", ""), ("GET", "/front"), ("PUT", "/front"), ("POST", "/run"), ("DELETE", "/front")):
            answer = zoe.ask(method, f"/v1/sites/blog/checks{path}", json={"text": FRONT} if method == "PUT" else {})
            assert answer.status_code == 404, (method, path)


def test_destroying_the_site_takes_its_checks_along(door: Door) -> None:
    door.site("gone", command=["serve"], port=8000)
    path = door.directory / "x.yaml"
    path.write_text("every: 30s\n" + FRONT)
    door.ok("check", "add", "gone", str(path), "--name", "front")
    door.http.put("/v1/sites/gone/check-secrets/password", json={"value": "something"})
    stored = door.services.store.site("gone")
    assert stored is not None
    door.ended(door.http.post("/v1/sites/gone/stop"))
    door.ended(door.http.delete("/v1/sites/gone", params={"confirm": "gone"}))
    assert door.services.checks.of_site(stored.site.id) == ()
    assert door.services.checks.secrets(stored.site.id) == {}


def visited(door: Door, wanted: dict[str, Any]) -> dict[str, Any]:
    answer = door.http.post("/v1/sites/blog/checks/record", json=wanted)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_visit_is_recorded_by_what_the_proxy_saw(door: Door, outside: Shop) -> None:
    """Addresses, titles and forms; nothing that was typed, no key in an address, nobody else's visit (threat 24)."""
    since = time.time() - 1
    seen(door, "blog", ("GET", "/account", 200, ""), agent="somebody else", client="192.0.2.1")
    seen(door, "blog", ("GET", "/api/cart", 200, ""), agent="alveole-check/1")
    seen(
        door,
        "blog",
        ("GET", "/", 200, ""),
        ("GET", "/style.css", 200, "/"),
        ("GET", "/nowhere", 404, "/"),
        ("GET", "/login", 200, "/"),
        ("POST", "/login", 303, "/login"),
        ("GET", "/account", 200, "/login"),
        ("GET", "/api/cart?token=tell-no-one&of=7", 200, "/account"),
        ("GET", "/api/cart?token=tell-no-one&of=7", 200, "/account"),
        ("POST", "/api/cart/7", 200, "/account"),
    )
    asked = len(outside.seen)
    wanted = {"since": since, "address": "127.0.0.1", "agent": AGENT}
    made = visited(door, wanted)
    steps = read(made["text"]).steps
    assert [each.request for each in steps] == [
        "GET /",
        "GET /login",
        "POST /login",
        "GET /api/cart?token=${secret:token}&of=7",
        "POST /api/cart/7",
    ]
    assert steps[2].form == {"user": "FILL-IN", "password": "${secret:password}"} and steps[2].fill
    assert made["secrets"] == ["password", "token"] and made["unfilled"] == ["/login: user", "/api/cart/7"]
    assert "tell-no-one" not in str(made)
    again = {(method, path) for method, _host, path, _headers, _body in outside.seen[asked:]}
    assert again == {("GET", "/"), ("GET", "/login"), ("GET", "/account")}, "read as anybody reads it, and nothing sent"
    assert door.services.journal.list(site="blog", limit=1)[0].verb == "record-check"
    # Whoever reaches the pages over another family is known by what their browser calls itself.
    other = visited(door, wanted | {"address": "::1"})
    assert other["text"] == made["text"]
    told = door.ok("check", "record", "blog", "--visit", "--since", "1m", "--from", "192.0.2.1")
    assert [each.request for each in read(told["text"]).steps] == ["GET /account"]
    for wrong in ({"since": 1.0}, {"since": since, "agent": "nobody"}, {"since": time.time() + 60}):
        answer = door.http.post("/v1/sites/blog/checks/record", json=wrong)
        assert answer.status_code == 422, answer.text
    assert door.run("check", "record", "blog").status == 2
    assert door.run("check", "record", "blog", "--visit").status == 2, "nobody can be asked here"


def test_recorded_in_a_browser(door: Door, outside: Shop) -> None:
    """A HAR file as browsers write it: what is elsewhere, pictures, cookies and passwords are not taken."""
    here = f"https://blog.localhost:{outside.port}"
    page = (
        '<title>Sign in</title><form action="/login"><input type=hidden name=csrf value="abc"><input name=user></form>'
    )

    def entry(method: str, url: str, status: int, kind: str, text: str = "", **more: Any) -> dict[str, Any]:
        request = {"method": method, "url": url, "headers": [{"name": "Cookie", "value": "session=tell-no-one"}]}
        if fields := more.get("fields"):
            params = [{"name": name, "value": value} for name, value in fields.items()]
            request["postData"] = {"mimeType": "application/x-www-form-urlencoded", "params": params}
        answer = {"status": status, "content": {"mimeType": kind, "text": text}, "redirectURL": more.get("led", "")}
        return {"request": request, "response": answer}

    entries = [
        entry("GET", f"{here}/", 200, "text/html", "<title>Shop</title>Welcome"),
        entry("GET", f"{here}/style.css", 200, "text/css"),
        entry("GET", "https://elsewhere.example/pixel", 200, "text/html"),
        entry("GET", f"{here}/login", 200, "text/html", page),
        entry(
            "POST",
            f"{here}/login",
            303,
            "text/html",
            led="/account",
            fields={"csrf": "abc", "user": "ana", "password": "tell-no-one"},
        ),
        entry("GET", f"{here}/account", 200, "text/html", "Hello Ana"),
        entry("GET", f"{here}/api/cart", 200, "application/json", "{}"),
    ]
    har = door.directory / "visit.har"
    har.write_text(json.dumps({"log": {"version": "1.2", "entries": entries}}))
    made = door.ok("check", "record", "blog", "--har", str(har))
    assert made["secrets"] == ["password"] and "tell-no-one" not in made["text"] and "abc" not in made["text"]
    assert [line.split()[-1] for line in made["text"].splitlines() if "request:" in line] == [
        "/",
        "/login",
        "/login",
        "/api/cart",
    ]
    door.http.put("/v1/sites/blog/check-secrets/password", json={"value": PASSWORD})
    assert door.run("check", "record", "blog", "--har", str(har), "--add", "visit").status == 0
    (report,) = json.loads(door.run("check", "run", "blog", "visit", "--json").out)
    # The shop here has another title; all the rest of the visit is understood.
    assert report["steps"][0]["problems"] == ["'Shop' is not in the answer"]
    for content in (b"{", b"[]", b'{"log": {"entries": []}}'):
        Path(har).write_bytes(content)
        assert door.run("check", "record", "blog", "--har", str(har)).status == 2
