"""Every text field, parameter and name in an address of every route, filled with what attackers send.

Generated from the route table like ``test_matrix.py``, and from the description of the API, so a new form is tried as
soon as it is there. Threats 11, 13 and 31: what comes is a refusal that names what is wrong, or a value that is kept as
it is: never a fault of ours, and never a line feed where text is one line. Asked by an administrator, whom no right
keeps from the checks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi.routing import APIRoute
from test_matrix import BODIES, CONSTANT, STOPPED, World, fill, routes, world

__all__ = ["world"]
#: Two faces of an attack in each, so that the whole stays short.
HOSTILE = (
    "x\r\nSet-Cookie: a=b\r\n\r\n<script>alert(1)</script>",
    "-oProxyCommand=$(id);`id`'\"\\ \x1b]0;owned\x07\x9b31m",
    "../../../../etc/passwd\x00.html",
    "\u202egnp.exe \u2028 \ud7ff\uffff {{7*7}} ${7*7} %s%n" + "A" * 70_000,
)
#: Text of several lines by its nature: programs, keys, scenarios, what people write to each other.
MANY_LINES = frozenset({"text", "chain", "key", "note", "reason", "why", "certificates", "stdin", "dsn"})
#: Words that no line is made of: arguments, and what is only compared or hashed.
NO_LINE = frozenset({"argv", "command", "names", "password", "old"})
#: These run a program at the place of the site's, which here is this machine: they have tests where a container is.
NOT_HERE = ("/files", "/exec", "/run", "/visit", "/console")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: They end what the test is signed in with, or wait for somebody else.
NOT_THESE = ("/v1/session", "/v1/invitations", "/v1/oidc", "/events", "/stream")


def leaves(body: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a document a text stands."""
    if isinstance(body, dict):
        for key, value in body.items():
            yield from leaves(value, (*place, key))
    elif isinstance(body, list):
        for number, value in enumerate(body):
            yield from leaves(value, (*place, number))
    elif isinstance(body, str):
        yield place


def put(body: Any, place: tuple[Any, ...], value: str) -> Any:
    copy = json.loads(json.dumps(body))
    at = copy
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return copy


def strings(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        document = [*document.keys(), *document.values()]
    if isinstance(document, list):
        for each in document:
            yield from strings(each)
    elif isinstance(document, str):
        yield document


def words_of(world: World) -> dict[str, str]:
    site = "own-ada"
    words = {"site": site, "app": f"app-{site}", "backup": world.backups[site], "change": world.changes[site]}
    words |= {"incident": world.incidents[site], "me": "ada", "account": "ada", "whom": "ada", "team": "club"}
    return {**words, "session": "none", "token": world.tokens["ada"], **CONSTANT}


def tried(world: World) -> list[tuple[str, str, APIRoute]]:
    found = []
    for method, path, _, route in routes(world.door):
        if method == "WEBSOCKET" or not isinstance(route, APIRoute):
            continue
        if not any(part in path for part in NOT_HERE) and not path.startswith(NOT_THESE):
            found.append((method, path, route))
    return found


def forms(world: World, words: dict[str, str]) -> Iterator[tuple[str, str, Any, tuple[Any, ...]]]:
    """Method, path, a body that is looked at, and where in it a text stands, or may stand."""
    spec = world.browsers["ada"].ask("GET", "/openapi.json").json()
    for method, path, _ in tried(world):
        body = fill(BODIES.get(f"{method} {path}"), words)
        places = set(leaves(body))
        places |= {(name,) for name in optional(spec, spec["paths"].get(path, {}).get(method.lower(), {}))}
        for place in sorted(places, key=str):
            yield method, path, body if isinstance(body, dict) else {}, place


def optional(spec: Any, operation: Any) -> Iterator[str]:
    """The fields of a form that are, or may be, a text."""
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    while "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for name, each in schema.get("properties", {}).items():
        if any(kind.get("type") == "string" for kind in (each, *each.get("anyOf", ()))):
            yield name


def complaints(answer: httpx.Response) -> Iterator[str]:
    """What is wrong with any answer to anything hostile."""
    if answer.status_code >= 500 and answer.status_code not in (503, 507):
        yield f"{answer.status_code} {answer.text[:200]}"
    if "set-cookie: a" in str(answer.headers).lower():
        yield "a header of the attacker's"
    if answer.status_code == 422:
        # It repeats what was sent, and is read at terminals.
        if told := [text for text in strings(answer.json()) if _CONTROLS.search(text)]:
            yield f"controls come back: {told[0][:100]!r}"
        if len(answer.content) > 20_000:
            yield f"{len(answer.content)} bytes come back"


def test_no_text_of_a_form_is_a_fault_of_ours_or_two_lines(world: World) -> None:
    """Threats 11, 13 and 31: in the fields of every form of the API."""
    browser, words = world.browsers["ada"], words_of(world)
    wrong, count = [], 0
    for method, path, body, place in forms(world, words):
        for number, hostile in enumerate(HOSTILE):
            answer = browser.ask(method, fill(path, words), json=put(body, place, hostile))
            found = list(complaints(answer))
            # A line feed in what is one line would have been stored, if the test had let it.
            taken = answer.status_code < 300 or STOPPED in answer.text
            if number == 0 and taken and not (MANY_LINES | NO_LINE) & set(map(str, place)):
                found.append("several lines are taken")
            wrong += [f"{method} {path} {'.'.join(map(str, place))} {number}: {each}" for each in found]
            count += 1
    assert count > 400
    assert not wrong, "\n".join(wrong)


@pytest.mark.turn
def test_no_name_in_an_address_is_a_fault_of_ours(world: World) -> None:
    """Threats 11 and 13: each part of each path, and each parameter behind it."""
    browser, words = world.browsers["ada"], words_of(world)
    wrong, count = [], 0
    for method, path, route in tried(world):
        body = fill(BODIES.get(f"{method} {path}"), words)
        more = {"json": body} if body is not None else {}
        places = [f"{{{name}}}" for name in re.findall(r"{(\w+)}", path)]
        for place in [*places, *(parameter.alias for parameter in route.dependant.query_params)]:
            for number, hostile in enumerate(HOSTILE):
                value = quote(hostile[:2000], safe="")
                url = fill(path.replace(place, value), words)
                answer = browser.ask(method, url if place in places else f"{url}?{place}={value}", **more)
                wrong += [f"{method} {path} {place} {number}: {each}" for each in complaints(answer)]
                count += 1
    assert count > 400
    assert not wrong, "\n".join(wrong)
