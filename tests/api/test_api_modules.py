"""Modules over HTTP: the catalogue, its questions, sites made and configured of it, and who may see what."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorkit import Door

from alveole.people.model import Role

sys.path.insert(0, str(Path(__file__).parent.parent / "control"))

from modulekit import write_module


@pytest.fixture
def door(directory: Path) -> Iterator[Door]:
    write_module(directory / "modules")
    made = Door(directory, modules={"directory": str(directory / "modules")})
    try:
        yield made
    finally:
        made.close()
    assert not made.agent.violations


def create(door: Door) -> None:
    answers = {"title": "Hi", "hello.secret": "hunter2hunter2"}
    door.ended(door.http.post("/v1/sites", json={"name": "blog", "modules": ["hello"], "answers": answers}))


def test_the_catalogue(door: Door) -> None:
    listed = door.http.get("/v1/modules").json()
    assert {"hello", "wordpress"} <= {each["name"] for each in listed}
    shown = door.http.get("/v1/modules/hello").json()
    assert shown["title"] == {"en": "Hello", "fr": "Bonjour"} and shown["questions"][0]["name"] == "title"
    gone = door.http.get("/v1/modules/nothing")
    assert gone.status_code == 404 and gone.json()["problems"][0]["field"] == "module"


def test_a_form_asks_step_by_step(door: Door) -> None:
    def ask(**answers: object) -> dict[str, dict[str, object]]:
        answer = door.http.post(
            "/v1/modules/questions", json={"modules": ["hello"], "answers": answers, "name": "blog"}
        )
        assert answer.status_code == 200, answer.text
        return {each["name"]: each for each in answer.json()["questions"]}

    first = ask()
    assert first["title"]["must"] and first["database"]["default"] == "blog" and first["secret"]["default"] is None
    assert ask(optimisation="huge")["workers"]["shown"] == "4"
    assert "not a whole number" in str(ask(workers="many")["workers"]["problem"])
    wrong = door.http.post("/v1/modules/questions", json={"modules": ["hello"], "answers": {"x": {"y": 1}}})
    assert wrong.status_code == 422


def test_a_site_is_made_and_configured(door: Door) -> None:
    create(door)
    site = door.http.get("/v1/sites/blog").json()
    assert site["application"]["answers"]["hello"]["secret"] == "***"
    assert site["application"]["files"][0]["path"] == "hello/page.ini"
    address = "/v1/sites/blog/configure"
    plan = door.http.post(address, params={"dry_run": True}, json={"answers": {"title": "Ho"}})
    assert plan.status_code == 200 and plan.json()["restarts"] == ["web"] and plan.json()["version"] == 1
    late = door.http.post(address, json={"answers": {"title": "Ho"}}, headers={"If-Match": '"7"'})
    assert late.status_code == 412
    door.ended(door.http.post(address, json={"answers": {"title": "Ho"}}, headers={"If-Match": '"1"'}))
    assert door.http.get("/v1/sites/blog/answers").json()["answers"]["hello"]["title"] == "Ho"
    wrong = door.http.post(address, json={"answers": {"titel": "x", "workers": "x"}, "keep": ["nothing"]})
    fields = {each["field"] for each in wrong.json()["problems"]}
    assert wrong.status_code == 422 and fields == {"answers.titel", "answers.hello.workers", "keep"}
    assert door.http.post(address, json={"answer": {}}).status_code == 422
    assert door.http.post("/v1/sites/nothing/configure", json={}).status_code == 404


def test_files_in_the_way_are_a_conflict(door: Door) -> None:
    create(door)
    id = door.http.get("/v1/sites/blog").json()["id"]
    door.agent.change_by_hand(id, "hello/page.ini", "mine")
    refused = door.http.post("/v1/sites/blog/configure", json={"answers": {"title": "Ho"}})
    assert refused.status_code == 409 and refused.json()["problems"][0]["field"] == "hello/page.ini"
    door.ended(door.http.post("/v1/sites/blog/configure", json={"answers": {"title": "Ho"}, "keep_all": True}))
    assert door.http.get("/v1/sites/blog").json()["application"]["files"][0]["kept"] is True


def test_a_reader_sees_no_secret_and_changes_nothing(door: Door) -> None:
    create(door)
    with door.tcp(door.token(Role.READER, "r")) as reader:
        assert reader.get("/v1/modules").status_code == 200
        answers = reader.get("/v1/sites/blog/answers")
        assert answers.status_code == 200 and "hunter2" not in answers.text
        assert reader.get("/v1/sites/blog/answers", params={"show_secrets": True}).status_code == 403
        assert reader.post("/v1/sites/blog/configure", json={}).status_code == 403
        assert reader.post("/v1/sites/blog/configure", params={"dry_run": True}, json={}).status_code == 403
        pin = "0" * 40
        assert reader.post("/v1/module-sources", json={"source": "https://a.example/x", "pin": pin}).status_code == 403
        assert reader.delete("/v1/module-sources/x").status_code == 403
    with door.tcp(door.token(Role.ADMIN, "a")) as admin:
        assert "hunter2" in admin.get("/v1/sites/blog/answers", params={"show_secrets": True}).text
        refused = admin.post("/v1/module-sources", json={"source": "/etc", "pin": "0" * 40})
        assert refused.status_code == 422 and "only root" in refused.text
    for address in ("/v1/sites", "/v1/sites/blog", "/v1/changes", "/v1/sites/blog/why"):
        assert "hunter2" not in door.http.get(address).text, address
