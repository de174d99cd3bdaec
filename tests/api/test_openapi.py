"""The OpenAPI document is valid, complete, and says the same as the code."""

from __future__ import annotations

import re
from typing import Any

import pytest
from doorkit import Door
from fastapi import FastAPI

from alveole import api, requests
from alveole.api import exec, schema
from alveole.config import Settings

METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = api.build(None, Settings())
    assert isinstance(app, FastAPI)
    return app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [ref for value in node.values() for ref in references(value)]
    if isinstance(node, list):
        return [ref for value in node for ref in references(value)]
    return []


def test_it_is_served_and_names_no_other_host(door: Door) -> None:
    with door.tcp() as nobody:
        answer = nobody.get("/openapi.json")
    assert answer.status_code == 200
    assert not re.search(r"https?://(?!alveole)", answer.text), "nothing is loaded from elsewhere"


def test_its_form(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"].keys() >= {"title", "version", "summary"}
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in document["tags"]}
    for reference in references(document):
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"], reference
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert set(operation["tags"]) <= tags, where
        good = [code for code in operation["responses"] if code[0] in "23"]
        # 200 beside 202 where one may ask what would happen, beside 206 where one may ask for a part.
        assert len(good) == 1 or sorted(good) in (["200", "202"], ["200", "206"]), where
        named = set(re.findall(r"{(\w+)}", path))
        assert named == {item["name"] for item in operation.get("parameters", ()) if item["in"] == "path"}, where
        for item in operation.get("parameters", ()):
            assert item["in"] == "path" or item.get("description"), f"{where}: {item['name']}"
        for code, response in operation["responses"].items():
            if code[0] in "45":
                assert list(response["content"]) == ["application/problem+json"], f"{where} {code}"


def test_every_route_is_described(document: dict[str, Any]) -> None:
    known = {(path, method) for path, method, _ in operations(document)}
    assert len(known) >= 35
    expected = {
        ("/v1/sites", "post"),
        ("/v1/sites/{site}", "patch"),
        ("/v1/sites/{site}/logs", "get"),
        ("/v1/changes/{change}/events", "get"),
        ("/v1/uploads", "post"),
        ("/healthz", "get"),
        ("/v1/status", "get"),
    }
    assert known >= expected
    assert exec.router.routes, "the one door that OpenAPI cannot describe is in exec's docstring"
    assert "Binary frames" in (exec.__doc__ or "")


def test_what_takes_time_says_so(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        if "202" in operation["responses"]:
            assert "Location" in operation["responses"]["202"]["headers"], f"{method} {path}"
            names = {item["name"] for item in operation["parameters"]}
            assert "Idempotency-Key" in names, f"{method} {path}"


def test_bodies_are_the_requests_of_the_services(document: dict[str, Any]) -> None:
    asked = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations(document)
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    kinds = {kind.__name__ for kind in schema.TYPES if isinstance(kind, type) and issubclass(kind, requests.Body)}
    kinds |= {"DnsSettings", "LdapSettings", "OidcSettings", "MailServer", "SetSyslog", "Zone"}
    assert asked == kinds, "a body that no route takes, or one that is not described"
    upload = document["paths"]["/v1/uploads"]["post"]["requestBody"]["content"]
    assert list(upload) == ["application/octet-stream"]
