"""Operations over both doors with real programs: arguments, limits, roles, what is kept; programs and processes."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from doorkit import ROOT, Door, until
from peoplekit import Browser, add

from alveole.people.model import Role
from alveole.requests.operations import AddOperation

ECHO = "import sys; print('got', sys.argv[1:], flush=True); print(len(sys.stdin.read()), 'on stdin', file=sys.stderr)"


@pytest.fixture
def site(door: Door) -> Door:
    processes = [{"name": "web", "argv": ["serve"]}, {"name": "worker", "argv": ["work"]}]
    door.site("blog", processes=processes, port=8000)
    return door


def declare(door: Door, name: str, *argv: str, status: int = 200, **more: Any) -> Any:
    answer = door.http.put(f"/v1/sites/blog/operations/{name}", json={"argv": [sys.executable, *argv], **more})
    assert answer.status_code == status, answer.text
    return answer.json()


def begin(door: Door, name: str, **arguments: Any) -> str:
    answer = door.http.post(f"/v1/sites/blog/operations/{name}/run", json={"arguments": arguments})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ended(door: Door, run: str) -> dict[str, Any]:
    def look() -> Any:
        found = door.http.get(f"/v1/sites/blog/operation-runs/{run}").json()
        return found if found["ended_at"] is not None else None

    found: dict[str, Any] = until(look, 30)
    return found


def test_declared_run_and_told(site: Door) -> None:
    """Who, which, with which arguments, how it ended; secrets in none of it (S11)."""
    arguments = [{"name": "word", "type": "string"}, {"name": "key", "type": "secret"}]
    declare(site, "echo", "-c", ECHO, "${word}", title="Say it", arguments=arguments)
    found = next(each for each in site.ok("op", "list", "blog") if each["name"] == "echo")
    assert found["of"] == "site" and found["allowed"] and found["least"] == "change"
    wrong = site.http.post("/v1/sites/blog/operations/echo/run", json={"arguments": {"word": "-x", "other": 1}})
    assert wrong.status_code == 422 and {each["field"] for each in wrong.json()["problems"]} == {
        "arguments.word",
        "arguments.key",
        "arguments.other",
    }
    run = begin(site, "echo", word="it's $(id)", key="correct horse")
    shown = ended(site, run)
    assert '["it\'s $(id)"]' in shown["output"] and "14 on stdin" in shown["output"]
    assert shown["exit_status"] == 0 and shown["arguments"] == {"word": "it's $(id)", "key": "***"}
    change = site.http.get(f"/v1/changes/{run}").json()
    assert change["verb"] == "operation" and change["reason"] == "echo word=it's $(id) key=***"
    assert change["result"]["exit_status"] == 0 and change["state"] == "done"
    everything = site.settings.database.read_bytes() + site.settings.database.with_suffix(".db-wal").read_bytes()
    assert b"correct horse" not in everything
    ran = site.run("op", "run", "blog", "echo", "--arg", "word=a b")
    assert ran.status == 2 and "key" in ran.err
    assert "echo" in site.run("op", "log", "blog").out and "got" in site.run("op", "log", "blog", run).out
    site.ok("op", "remove", "blog", "echo")
    assert site.run("op", "run", "blog", "echo").status == 4
    assert site.run("op", "remove", "blog", "echo").status == 4


def test_limits_of_time_and_output(site: Door) -> None:
    """A program that prints for ever, one that never ends, and one that is ended by hand; each leaves nothing."""
    declare(site, "flood", "-c", "while True: print('x' * 1000)", output_bytes=4096)
    declare(site, "sleep", "-c", "import time; print('here', flush=True); time.sleep(600)", seconds=1)
    declare(site, "long", "-c", "import time; print('here', flush=True); time.sleep(600)")
    declare(site, "fails", "-c", "import sys; sys.exit(7)")
    flood = ended(site, begin(site, "flood"))
    assert flood["cut"] and "more than 4096 bytes" in flood["problem"] and len(flood["output"]) == 4096
    slow = ended(site, begin(site, "sleep"))
    assert "longer than 1 s" in slow["problem"] and slow["output"] in ("", "here\n")
    run = begin(site, "long")
    until(lambda: "here" in site.http.get(f"/v1/sites/blog/operation-runs/{run}").json()["output"], 30)
    assert site.http.get("/v1/sites/blog").json()["change"] is None, "it does not hold the site"
    assert site.http.delete(f"/v1/sites/blog/operation-runs/{run}").status_code == 200
    assert "ended by root" in ended(site, run)["problem"]
    until(lambda: all(each.process.poll() is not None for each in site.sessions), 30)
    failed = site.run("op", "run", "blog", "fails")
    assert failed.status == 7, failed
    assert site.http.get("/v1/changes", params={"limit": 1}).json()[0]["state"] == "failed"


def test_one_that_control_did_not_survive_is_told(site: Door) -> None:
    """Fault 2: it is neither lost nor for ever going on."""
    declare(site, "long", "-c", "import time; time.sleep(600)")
    run = begin(site, "long")
    site.stop()
    site.start()
    found = ended(site, run)
    assert "control was stopped" in found["problem"]
    assert site.http.get(f"/v1/changes/{run}").json()["state"] == "failed"


def test_by_role_and_by_application(door: Door) -> None:
    """Threat 24: nobody runs, replaces, removes or reads what the declaration keeps from them."""
    for name, role in (("ana", Role.OWNER), ("ben", Role.OWNER), ("olga", Role.OPERATOR), ("rita", Role.READER)):
        add(door, name, role)
    made = {"name": "shop", "owner": "ana", "environments": ["prod"], "command": ["serve"], "port": 8000}
    change = door.http.post("/v1/apps", json=made)
    until(lambda: door.http.get(f"/v1/changes/{change.json()['id']}").json()["state"] == "done", 30)
    door.ok("site", "start", "shop-prod")
    door.http.put("/v1/sites/shop-prod/sharing", json={"whom": "ben", "level": "change"})
    hello = {"argv": [sys.executable, "-c", "print('hello')"]}
    assert door.http.put("/v1/apps/shop/operations/all", json=hello).status_code == 200
    for name, least in (("mine", "own"), ("theirs", "operator")):
        path = f"/v1/sites/shop-prod/operations/{name}"
        assert door.http.put(path, json={**hello, "least": least}).status_code == 200
    runs: dict[str, dict[str, int]] = {}
    for who in ("ana", "ben", "olga", "rita"):
        with Browser(door) as browser:
            browser.sign_in(who)
            runs[who] = {
                name: browser.ask("POST", f"/v1/sites/shop-prod/operations/{name}/run", json={}).status_code
                for name in ("all", "mine", "theirs")
            }
            # Only so many run at a time.
            until(lambda: not door.services._operations_running, 30)
            if who == "ben":
                assert browser.ask("PUT", "/v1/sites/shop-prod/operations/mine", json=hello).status_code == 403
                assert browser.ask("DELETE", "/v1/sites/shop-prod/operations/mine").status_code == 403
                assert browser.ask("PUT", "/v1/apps/shop/operations/mine", json=hello).status_code == 403
                listed = browser.ask("GET", "/v1/sites/shop-prod/operations").json()
                assert {each["name"]: each["allowed"] for each in listed} == {
                    "all": True,
                    "mine": False,
                    "theirs": False,
                }
                names = {each["name"] for each in browser.ask("GET", "/v1/sites/shop-prod/operation-runs").json()}
                assert names == {"all"}, "nor what others have run"
    assert runs == {
        "ana": {"all": 201, "mine": 201, "theirs": 403},
        "ben": {"all": 201, "mine": 403, "theirs": 403},
        "olga": {"all": 201, "mine": 201, "theirs": 201},
        "rita": {"all": 403, "mine": 403, "theirs": 403},
    }
    until(lambda: not door.services._operations_running, 30)
    assert door.http.delete("/v1/apps/shop/operations/all").status_code == 204


def test_what_is_wrong_with_a_declaration_is_named_at_once(site: Door) -> None:
    wrong = declare(site, "bad", "-c", "print ${x}", status=422, seconds=0, title="a\nb")
    assert {each["field"] for each in wrong["problems"]} >= {"seconds", "title", "argv[2]"}
    declare(site, "Bad", "-c", "1", status=422)
    file = site.directory / "op.toml"
    file.write_text('argv = ["/usr/bin/true", "${n}"]\n[[argument]]\nname = "n"\ntype = "integer"\nmin = 1\n')
    assert site.ok("op", "add", "blog", "count", str(file))["arguments"][0]["min"] == 1
    site.services.add_operation(ROOT, "other", AddOperation(argv=("x",)), site="blog")
    site.stop()
    site.start()
    assert [each["name"] for each in site.ok("op", "list", "blog")] == ["count", "other"]
    site.ok("site", "stop", "blog")
    ran = site.run("op", "run", "blog", "count", "--arg", "n=3")
    assert ran.status == 3 and "is not running" in ran.err
    site.ok("site", "destroy", "blog", "--yes")
    with site.services.store.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM operations").scalar() == 0


def test_programs_and_processes(site: Door) -> None:
    found = site.ok("op", "ps", "blog")["programs"]
    assert [each["name"] for each in found] == ["web", "worker"] and found[0]["user"] == "site"
    assert "worker" in site.run("op", "ps", "blog").out
    pid = str(found[1]["pid"])
    answer = site.http.post(f"/v1/sites/blog/programs/{pid}/signal", json={"started": 1})
    assert answer.status_code == 404, "another program of the same number"
    for body in ({"started": 7, "signal": "HUP"}, {"started": -1}):
        assert site.http.post(f"/v1/sites/blog/programs/{pid}/signal", json=body).status_code == 422
    assert site.http.post("/v1/sites/blog/programs/1/signal", json={"started": 7}).status_code == 422
    site.ok("op", "kill", "blog", pid)
    assert [each["name"] for each in site.ok("op", "ps", "blog")["programs"]] == ["web"]
    assert site.run("op", "restart", "blog", "worker").status == 0
    assert site.run("op", "restart", "blog", "nothing").status == 4
    verbs = [each["verb"] for each in site.http.get("/v1/changes", params={"site": "blog"}).json()]
    own = [each for each in verbs if each in ("restart-process", "signal")]
    assert own[:2] == ["restart-process", "signal"], json.dumps(verbs)
