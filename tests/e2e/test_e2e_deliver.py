"""A version from the archive to PROD and back, on a whole machine: by the command line, under load, in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import PYTHON

from instance import Instance
from instancekit import ApiError, archive, directory, page, until
from loadkit import Load

#: Answers with the word of its release; what it is asked to add stays in its volume.
WORD = """
import http.server, pathlib
class S(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        here = pathlib.Path("/site/current/word").read_bytes()
        data = pathlib.Path("/data/rows")
        text = here + b" " + (data.read_bytes() if data.exists() else b"")
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), S).serve_forever()
"""
MIGRATE = """
import pathlib, sys
(pathlib.Path(sys.argv[1]) / "serve.py").read_bytes()
rows = pathlib.Path("/data/rows")
rows.write_text((rows.read_text() if rows.exists() else "") + sys.argv[1][-4:])
"""


def word(text: str) -> bytes:
    return archive({"word": text, "serve.py": WORD})


class Shop:
    """An application of a name of its own, taken apart with its sites at the end."""

    def __init__(self, alveole: Instance, name: str, environments: list[str], **more: Any) -> None:
        self.alveole, self.name = alveole, name
        body = {"name": name, "environments": environments, "accept": "at-once", **more}
        alveole.ended(alveole.api("POST", "/v1/apps", body)["id"], good=True)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return self.alveole.api(method, f"/v1/apps/{self.name}{path}", body)

    def done(self, change: Any, good: bool = True) -> Any:
        return self.alveole.ended(change["id"], good=good)

    def send(self, version: str, content: bytes) -> Any:
        upload = self.alveole.upload(content)
        return self.done(self.ask("POST", "/versions", {"version": version, "upload": upload}))

    def deliver(self, environment: str, version: str) -> Any:
        return self.done(self.ask("POST", f"/environments/{environment}/deliver", {"version": version}))

    def deploy(self, environment: str, good: bool = True) -> Any:
        return self.done(self.ask("POST", f"/environments/{environment}/deploy", {}), good)

    def roll_back(self, environment: str, **more: Any) -> Any:
        return self.done(self.ask("POST", f"/environments/{environment}/rollback", more))

    def bring(self, environment: str, version: str) -> None:
        self.deliver(environment, version)
        self.deploy(environment)

    def site(self, environment: str) -> str:
        found = self.ask("GET", "")["environments"]
        return str(next(each["site"] for each in found if each["name"] == environment))

    def end(self) -> None:
        sites = [each["site"] for each in self.ask("GET", "")["environments"]]
        self.done(self.alveole.api("DELETE", f"/v1/apps/{self.name}?confirm={self.name}"))
        for site in sites:
            self.alveole.destroy(site)


@pytest.fixture
def shops(alveole: Instance) -> Iterator[list[Shop]]:
    made: list[Shop] = []
    yield made
    for shop in made:
        shop.end()


def test_by_the_command_line_from_alpha_to_prod_and_back(alveole: Instance, shops: list[Shop], tmp_path: Path) -> None:
    """S1-S5: send, accept, deliver, deploy; nothing is skipped; back in one command; the history says all of it."""
    run = alveole.cli
    made = run("app", "create", "web", "--env", "alpha,prod", "--json").json
    assert [each["state"] for each in made["environments"]] == ["stopped", "stopped"]
    shop = object.__new__(Shop)
    shop.alveole, shop.name = alveole, "web"
    shops.append(shop)
    for number in ("1.0", "2.0"):
        place = directory(tmp_path / number, {"index.html": f"<h1>{number}</h1>", "same.txt": "same"})
        sent = run("app", "send", "web", str(place), "--version", number, "--note", "a note").out
        assert "2 files" in sent
        run("app", "accept", "web", number)
    assert "0 added, 1 changed, 0 removed" in sent
    for number in ("1.0", "2.0"):
        with pytest.raises(ApiError):
            shop.deliver("prod", number)
        for environment in ("alpha", "prod"):
            before = alveole.fetch(f"web-{environment}").body
            run("app", "deliver", "web", environment, number)
            assert alveole.fetch(f"web-{environment}").body == before, "delivered is not live"
            run("app", "deploy", "web", environment)
            assert f"<h1>{number}</h1>" in alveole.fetch(f"web-{environment}").body
    assert "Nothing was done" in run("app", "rollback", "web", "prod", "--dry-run").out
    kept = alveole.state / "sites" / alveole.site("web-prod")["id"] / "content" / "releases"
    assert len(list(kept.iterdir())) == 2
    assert "serves 1.0 again" in run("app", "rollback", "web", "prod", "--reason", "slow").out
    assert "<h1>1.0</h1>" in alveole.fetch("web-prod").body
    shown = run("app", "show", "web").out
    assert "PROD" in shown and "2.0" in shown and "1.0" in shown
    history = run("app", "history", "web", "--env", "prod").out
    assert history.count("left") == 2 and "(rolled back)" in history
    assert run("site", "update", "web-prod", "--from", str(tmp_path / "1.0"), status=3).status == 3


def test_no_request_fails_or_gets_the_wrong_version(alveole: Instance, shops: list[Shop]) -> None:
    """The bar of stateless applications: after the word "done" no request gets the other version, and none fails."""
    shop = Shop(alveole, "many", ["live"])
    shops.append(shop)
    for name in ("one", "two"):
        shop.send(name, page(name))
    shop.bring("live", "one")
    site = shop.site("live")
    turns: list[tuple[float, float, str]] = []
    with Load(alveole, site, threads=3, bodies=True) as load:
        for turn in range(6):
            if turn % 2 == 0:
                shop.deliver("live", "two")
            asked = time.monotonic()
            if turn % 2 == 0:
                shop.deploy("live")
            else:
                shop.roll_back("live")
            done = time.monotonic()
            turns.append((asked, done, ("two", "one")[turn % 2]))
            # Before the next turn is asked for, somebody has asked after this one.
            until(lambda: any(began > done for began, _, _ in load.seen), 60)  # noqa: B023  waited for at once
    load.check(50)
    follows = [asked for asked, _, _ in turns[1:]] + [float("inf")]
    for (_, done, name), until_asked in zip(turns, follows, strict=True):
        between = [body for began, ended, body in load.seen if began > done and ended < until_asked]
        assert between and all(f"<h1>{name}</h1>" in body for body in between), (name, between[:3])
    took = [done - asked for asked, done, name in turns if name == "one"]
    assert min(took) < 1.0, f"a roll back takes {took}"


def test_a_program_with_data_goes_forward_and_back(alveole: Instance, shops: list[Shop]) -> None:
    """Saved before each deploy, migrated inside, taken back by itself when it does not hold, and with its data."""
    shop = Shop(
        alveole,
        "data",
        ["live"],
        command=[PYTHON, "/site/current/serve.py"],
        port=8000,
        volumes=[{"name": "data", "path": "/data"}],
        ready_seconds=8,
    )
    shops.append(shop)
    shop.ask("PATCH", "/environments/live", {"before": [PYTHON, "-c", MIGRATE, "{release}"]})
    for name in ("one", "two"):
        shop.send(name, word(name))
    shop.send("bad", archive({"word": "bad", "serve.py": "raise SystemExit('broken')"}))
    shop.bring("live", "one")
    site = shop.site("live")
    assert alveole.fetch(site).body == "one ", "nothing was there to be migrated"
    with Load(alveole, site, threads=2) as load:
        shop.bring("live", "two")
        migrated = alveole.fetch(site).body
        assert migrated.startswith("two ") and len(migrated) == 8
        shop.ask("PATCH", "/environments/live", {"snapshot": False})
        shop.deliver("live", "bad")
        ended = shop.deploy("live", good=False)
        assert ended["state"] == "failed" and "status 1" in str(ended["problems"]), ended
        assert alveole.fetch(site).body.startswith("two ")
        began = time.monotonic()
        shop.roll_back("live", version="one")
        assert alveole.fetch(site).body.startswith("one ")
        assert time.monotonic() - began < 3
    load.check(20)
    shop.roll_back("live", version="two")
    shop.ask("PATCH", "/environments/live", {"before": [], "snapshot": True})
    live = shop.ask("GET", "")["environments"][0]["live"]
    assert live["version"] == "two" and live["backup"] is None
    shop.send("three", word("three"))
    shop.bring("live", "three")
    alveole.inside(site, "import pathlib; pathlib.Path('/data/rows').write_text('lost')")
    assert alveole.fetch(site).body == "three lost"
    shop.roll_back("live", with_data=True)
    body = alveole.fetch(site).body
    assert body.startswith("two ") and "lost" not in body, body
    with pytest.raises(ApiError) as refused:
        shop.roll_back("live", version="one", with_data=True)
    assert refused.value.status == 409
    until(lambda: not alveole.site(site)["problem"], 30)


def test_scenarios_are_asked_beside_the_old_copy_and_of_what_is_live(
    alveole: Instance, shops: list[Shop], tmp_path: Path
) -> None:
    """S10: what fails beside the old copy gets no request of anybody; what fails live is rolled back by itself."""
    shop = Shop(alveole, "gated", ["alpha", "prod"], command=[PYTHON, "/site/current/serve.py"], port=8000)
    shops.append(shop)
    for name in ("good1", "bad", "good2"):
        shop.send(name, word(name))
    shop.bring("alpha", "good1")
    alpha, prod = shop.site("alpha"), shop.site("prod")
    file = tmp_path / "steps.yaml"

    def check(use: str, text: str) -> None:
        file.write_text(f"use: [{use}]\nsteps:\n  - {{request: GET /, expect: {{text: {text}}}}}\n")
        alveole.cli("check", "add", alpha, str(file), "--name", "word")

    check("gate", "good")
    with Load(alveole, alpha, threads=2, bodies=True) as load:
        shop.deliver("alpha", "bad")
        ended = shop.deploy("alpha", good=False)
        assert "check/word" in str(ended["problems"]), ended
        shop.deliver("alpha", "good2")
        shop.deploy("alpha")
    load.check(20)
    assert {body.split()[0] for _began, _ended, body in load.seen} <= {"good1", "good2"}
    shop.bring("prod", "good2")
    assert "good2" in alveole.fetch(prod).body, "asked there under its own name, and passed"

    check("verify", "good1")
    shop.bring("alpha", "good1")
    shop.deliver("alpha", "bad")
    ended = shop.deploy("alpha", good=False)
    assert "going back" in str(ended["events"]) and "good1" in alveole.fetch(alpha).body, ended
    check("verify", "never")
    alveole.cli("check", "run", alpha, "word", status=3)
    with pytest.raises(ApiError) as refused:
        shop.deliver("prod", "good1")
    assert "fails in ALPHA" in str(refused.value)
