"""What the API takes and answers: problems, changes, keys, ETags, documents."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import httpx
import msgspec
import pytest
from doorkit import Door, until
from test_gate import problem

from alveole import views
from alveole.model.change import Change
from alveole.views.backups import BackupView


def fields(answer: httpx.Response) -> list[str]:
    found = problem(answer)["problems"]
    assert isinstance(found, list)
    return sorted(item["field"] for item in found)


# --- problems -----------------------------------------------------------------------------------
def test_all_wrong_types_and_names_at_once(door: Door) -> None:
    answer = door.http.post(
        "/v1/sites",
        json={"name": 5, "port": "eighty", "domains": ["ok.example", 7], "colour": "red", "env": {"A": None}},
    )
    assert answer.status_code == 422
    assert fields(answer) == ["colour", "domains[1]", "env[...]", "name", "port"]


def test_all_wrong_values_at_once(door: Door) -> None:
    answer = door.http.post(
        "/v1/sites",
        json={"name": "No Name", "plan": "giant", "domains": ["nodot"], "command": ["x"], "port": 99999, "path": "x"},
    )
    assert answer.status_code == 422
    found = problem(answer)["problems"]
    assert isinstance(found, list)
    assert {item["field"].partition(".")[0] for item in found} >= {"name", "plan", "domains", "port", "path"}
    assert all(item["hint"] for item in found)
    assert door.http.get("/v1/sites").json() == []
    assert {change["verb"] for change in door.http.get("/v1/changes").json()} <= {"repair"}, "nothing half done"


def test_missing_fields_are_named(door: Door) -> None:
    assert fields(door.http.post("/v1/plans", json={})) == ["cpu_millis", "memory_bytes", "name", "pids"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"name": "a", "name": }'])
def test_what_is_no_json_object_is_refused(door: Door, content: bytes) -> None:
    answer = door.http.post("/v1/sites", content=content)
    assert answer.status_code == 422
    assert fields(answer) == ["body"]


def test_a_huge_body_is_refused(door: Door) -> None:
    answer = door.http.post("/v1/sites", content=b'{"name": "' + b"x" * (5 << 20) + b'"}')
    assert answer.status_code == 413
    assert fields(answer) == ["body"]


def test_wrong_parameters_are_problems(door: Door) -> None:
    door.site()
    assert fields(door.http.get("/v1/changes", params={"limit": "many"})) == ["limit"]
    assert fields(door.http.get("/v1/changes", params={"limit": 0})) == ["limit"]
    assert fields(door.http.get("/v1/exports/iis")) == ["kind"]
    answer = door.http.get("/v1/sites/blog/logs", params={"n": -1, "since": "soon", "until": "1h", "follow": True})
    assert fields(answer) == ["n", "since", "until"]


@pytest.mark.parametrize("name", ["..", ".", "%2e%2e%2fetc", "a%00b", "x" * 300, "%C3%A9", "<script>", "%0d%0aX:y"])
def test_a_hostile_name_in_the_address_finds_nothing(door: Door, name: str) -> None:
    """Threat 11: whatever stands in the address is a name that is not known."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(door.settings.api_socket))
        client.sendall(f"GET /v1/sites/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = client.makefile().read()
    assert answer.startswith(("HTTP/1.1 404", "HTTP/1.1 422")), answer
    assert "problem+json" in answer
    assert "\nX: y" not in answer


# --- changes ------------------------------------------------------------------------------------
def test_what_takes_time_answers_202_and_where_to_follow(door: Door) -> None:
    door.agent.slow_start = 2.0
    answer = door.http.post("/v1/sites", json={"name": "blog", "upload": door.upload()})
    assert answer.status_code == 202
    change = msgspec.convert(answer.json(), Change)
    assert answer.headers["location"] == f"/v1/changes/{change.id}"
    assert change.verb == "create"
    assert change.ended_at is None
    began = time.monotonic()
    assert door.http.get(answer.headers["location"]).json()["ended_at"] is None, "without wait it answers at once"
    assert time.monotonic() - began < 0.4
    ended = door.http.get(answer.headers["location"], params={"wait": 30}).json()
    assert ended["state"] == "done"
    assert ended["events"]
    assert time.monotonic() - began < 15, "a long poll ends with the change"


def test_a_wait_ends_when_its_time_is_over(door: Door) -> None:
    door.agent.slow_start = 30
    answer = door.http.post("/v1/sites", json={"name": "blog", "upload": door.upload()})
    began = time.monotonic()
    assert door.http.get(answer.headers["location"], params={"wait": 1}).json()["ended_at"] is None
    assert 0.9 < time.monotonic() - began < 3
    assert fields(door.http.get(answer.headers["location"], params={"wait": 1000})) == ["wait"]
    door.agent.slow_start = 0
    door.http.get(answer.headers["location"], params={"wait": 20})


def test_events_of_a_change_as_they_come(door: Door) -> None:
    door.agent.slow_start = 0.5
    answer = door.http.post("/v1/sites", json={"name": "blog", "upload": door.upload()})
    kinds: list[str] = []
    last: dict[str, Any] = {}
    with door.http.stream("GET", answer.headers["location"] + "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kinds.append(line[7:])
            elif line.startswith("data: "):
                last = json.loads(line[6:])
    assert kinds[-1] == "change"
    assert kinds.count("change") == 1
    assert "event" in kinds
    assert last["state"] == "done"
    assert door.http.get("/v1/changes/cnosuch/events").status_code == 404


def test_many_waiters_do_not_keep_others_out(door: Door) -> None:
    door.agent.slow_start = 3
    answer = door.http.post("/v1/sites", json={"name": "blog", "upload": door.upload()})
    address = answer.headers["location"]

    def wait() -> None:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(door.settings.api_socket)), timeout=30) as client:
            client.get(f"http://x{address}", params={"wait": 20})

    waiters = [threading.Thread(target=wait) for _ in range(60)]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.5)
    began = time.monotonic()
    assert door.http.get("/v1/sites").status_code == 200
    # The waiters hold out for 20 s: whoever had to queue behind one would come after that.
    assert time.monotonic() - began < 10
    for waiter in waiters:
        waiter.join(30)


def test_the_journal_is_listed_and_filtered(door: Door) -> None:
    door.site("one")
    door.site("two")
    door.ended(door.http.post("/v1/sites/two/stop"))
    every = door.http.get("/v1/changes").json()
    assert [item["verb"] for item in every if item["site_name"]][:1] == ["stop"], "newest first"
    assert {item["site_name"] for item in door.http.get("/v1/changes", params={"site": "one"}).json()} == {"one"}
    first = door.http.get("/v1/changes", params={"limit": 1}).json()
    assert len(first) == 1
    older = door.http.get("/v1/changes", params={"before": first[0]["id"]}).json()
    assert first[0]["id"] not in [item["id"] for item in older]
    assert len(older) == len(every) - 1


# --- idempotency and ETags ----------------------------------------------------------------------
def test_the_same_key_has_one_effect(door: Door) -> None:
    """Fault 2: the reply was lost, the request comes again."""
    upload = door.upload()
    body = {"name": "blog", "upload": upload}
    first = door.http.post("/v1/sites", json=body, headers={"Idempotency-Key": "k1"})
    again = door.http.post("/v1/sites", json=body, headers={"Idempotency-Key": "k1"})
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == again.headers["location"]
    door.ended(first)
    other = door.http.post("/v1/sites", json={**body, "name": "shop"}, headers={"Idempotency-Key": "k1"})
    assert other.status_code == 409
    assert [site["name"] for site in door.http.get("/v1/sites").json()] == ["blog"]
    for bad in ("", "x" * 200, "with space"):
        answer = door.http.post("/v1/sites", json=body, headers={"Idempotency-Key": bad})
        assert fields(answer) == ["Idempotency-Key"]


def test_two_people_do_not_overwrite_each_other(door: Door) -> None:
    door.site()
    seen = door.http.get("/v1/sites/blog")
    etag = seen.headers["etag"]
    assert etag == f'"{seen.json()["version"]}"'
    door.ended(door.http.patch("/v1/sites/blog", json={"plan": "medium"}, headers={"If-Match": etag}))
    late = door.http.patch("/v1/sites/blog", json={"plan": "large"}, headers={"If-Match": etag})
    assert late.status_code == 412
    assert problem(late)["code"] == "refused"
    assert door.http.get("/v1/sites/blog").json()["plan"] == "medium"
    assert door.http.get("/v1/sites/blog").headers["etag"] != etag
    assert door.http.post("/v1/sites/blog/stop", headers={"If-Match": etag}).status_code == 412
    assert fields(door.http.post("/v1/sites/blog/stop", headers={"If-Match": "W/abc"})) == ["If-Match"]
    door.ended(door.http.post("/v1/sites/blog/stop", headers={"If-Match": "*"}))


# --- documents ----------------------------------------------------------------------------------
def test_documents_are_what_the_schema_says(door: Door) -> None:
    door.site("blog", env={"SECRET": "hush"}, domains=["blog.example.org"])
    get = door.http.get
    site = msgspec.convert(get("/v1/sites/blog").json(), views.SiteView)
    assert site.env == {"SECRET": "***"}
    assert get("/v1/sites/blog", params={"show_env": True}).json()["env"] == {"SECRET": "hush"}
    assert "hush" not in get("/v1/sites").text
    msgspec.convert(get("/v1/sites").json(), tuple[views.SiteView, ...])
    msgspec.convert(get("/v1/sites/blog/why").json(), views.WhyView)
    msgspec.convert(get("/v1/doctor").json(), views.DoctorView)
    msgspec.convert(get("/v1/status").json(), views.StatusView)
    msgspec.convert(get("/v1/plans").json(), tuple[views.PlanView, ...])
    msgspec.convert(get("/v1/plans/small").json(), views.PlanView)
    msgspec.convert(get("/v1/bases").json(), tuple[views.BaseView, ...])
    msgspec.convert(get("/v1/backups").json(), tuple[BackupView, ...])
    msgspec.convert(get("/v1/changes").json(), tuple[Change, ...])
    assert get("/v1/authority").text.startswith("-----BEGIN CERTIFICATE-----")


def test_a_dry_run_stores_nothing(door: Door) -> None:
    answer = door.http.post("/v1/sites", params={"dry_run": True}, json={"name": "blog", "upload": door.upload()})
    assert answer.status_code == 200
    found = msgspec.convert(answer.json(), views.DryRun)
    assert found.others == 0
    assert found.site.name == "blog"
    assert found.steps
    assert door.http.get("/v1/sites").json() == []


def test_the_whole_life_of_a_site(door: Door) -> None:
    door.site()
    post = door.http.post
    assert post("/v1/sites/blog/start").status_code == 409
    door.ended(post("/v1/sites/blog/restart"))
    door.ended(post("/v1/sites/blog/releases", json={"upload": door.upload(b"new")}))
    door.ended(post("/v1/sites/blog/rename", json={"name": "journal"}))
    assert door.http.get("/v1/sites/blog").status_code == 404
    saved = door.ended(post("/v1/backups", json={"site": "journal"}))["result"]["backup"]
    assert door.http.delete("/v1/sites/journal", params={"confirm": "journal"}).status_code == 409, "it runs"
    door.ended(post("/v1/sites/journal/stop"))
    assert door.http.delete("/v1/sites/journal").status_code == 422, "not confirmed"
    until(lambda: door.http.get("/v1/sites/journal").json()["state"] == "stopped")
    door.ended(door.http.delete("/v1/sites/journal", params={"confirm": "journal"}))
    until(lambda: door.http.get("/v1/sites").json() == [])
    door.ended(post(f"/v1/backups/{saved}/restore", json={"name": "back"}))
    assert door.http.get("/v1/sites/back").json()["name"] == "back"
    door.ended(door.http.delete(f"/v1/backups/{saved}"))
    # What was made before it was destroyed stays.
    until(lambda: saved not in [each["id"] for each in door.http.get("/v1/backups").json()])
    assert door.http.get("/v1/backups").json()


def test_a_change_that_ended_is_stored(door: Door) -> None:
    """Fault 2: what is answered as done is in the database, and is seen by whoever asks next."""
    door.site(stopped=True)
    door.ended(door.http.delete("/v1/sites/blog", params={"confirm": "blog"}))
    assert door.http.get("/v1/sites").json() == []


def test_plans_and_tokens(door: Door) -> None:
    body = {"name": "tiny", "cpu_millis": 100, "memory_bytes": 64 << 20, "pids": 32}
    made = door.http.post("/v1/plans", json=body)
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/plans/tiny"
    assert door.http.post("/v1/plans", json=body).status_code == 409
    assert door.http.delete("/v1/plans/tiny").status_code == 204
    assert door.http.delete("/v1/plans/tiny").status_code == 404
    assert door.http.delete("/v1/plans/small").status_code == 409
    secret = door.http.post("/v1/tokens", json={"name": "deploy", "role": "administrator"}).json()["secret"]
    listed = door.http.get("/v1/tokens").json()
    assert [item["name"] for item in listed] == ["deploy"]
    assert listed[0]["secret"] is None
    assert secret not in door.settings.database.read_bytes().decode("latin-1"), "only its hash is kept"


def test_when_the_agent_is_down(door: Door) -> None:
    door.site()
    door.agent.down = True
    until(lambda: door.http.get("/v1/status").json()["agent"] is False)
    assert door.http.get("/v1/sites/blog").status_code == 200, "what is known is still told"
    answer = door.http.get("/v1/authority")
    assert answer.status_code == 503
    assert problem(answer)["code"] == "temporary"
    assert answer.headers["retry-after"] == "1"
    door.agent.down = False
