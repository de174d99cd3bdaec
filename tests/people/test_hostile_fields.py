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

import pytest
from fastapi.routing import APIRoute
from peoplekit import Browser
from test_matrix import BODIES, CONSTANT, STOPPED, World, fill, routes, world

__all__ = ["world"]
#: Two faces of an attack in each, so that the whole stays short.
HOSTILE = (
    "x\r\nSet-Cookie: a=b\r\n\r\n<script>alert(1)</script>",
    "../../../../etc/passwd\x00.html",
    "$(id);`id`'\"\\ --oProxyCommand=id \x1b]0;owned\x07\x9b31m",
    "\u202egnp.exe \u2028 \ud7ff\uffff {{7*7}} ${7*7} %s%n",
    "A" * 200_000,
    "-oX",
)
#: Text of several lines by its nature: programs, keys, scenarios, what people write to each other.
MANY_LINES = frozenset({"text", "chain", "key", "note", "reason", "why", "certificates", "stdin", "dsn"})
#: These run a program at the place of the site's, which here is this machine: they have tests where a container is.
NOT_HERE = ("/files", "/exec", "/run", "/visit", "/console")
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


def complaint(browser: Browser, what: str, method: str, url: str, **more: Any) -> str:
    answer = browser.ask(method, url, **more)
    if answer.status_code >= 500 and answer.status_code not in (503, 507):
        return f"{what}: {answer.status_code} {answer.text[:200]}"
    if "set-cookie: a" in str(answer.headers).lower():
        return f"{what}: a header of the attacker's"
    return ""


def test_no_text_of_a_request_is_a_fault_of_ours_or_two_lines(world: World) -> None:
    """Threats 11, 13 and 31: in the fields of every form of the API."""
    browser, words = world.browsers["ada"], words_of(world)
    wrong, count = [], 0
    for method, path, body, place in forms(world, words):
        for number, hostile in enumerate(HOSTILE):
            what = f"{method} {path} {'.'.join(map(str, place))} {number}"
            changed = put(body, place, hostile)
            count += 1
            if said := complaint(browser, what, method, fill(path, words), json=changed):
                wrong.append(said)
                continue
            # A line feed in what is one line would have been stored, if the test had let it.
            if number == 0 and not MANY_LINES & set(map(str, place)):
                answer = browser.ask(method, fill(path, words), json=changed)
                if answer.status_code < 300 or STOPPED in answer.text:
                    wrong.append(f"{what}: several lines are taken")
    assert count > 400
    assert not wrong, "\n".join(wrong)


def test_no_name_in_an_address_is_a_fault_of_ours(world: World) -> None:
    """Threats 11 and 13: each part of each path, and each parameter behind it."""
    browser, words = world.browsers["ada"], words_of(world)
    wrong, count = [], 0
    for method, path, route in tried(world):
        body = fill(BODIES.get(f"{method} {path}"), words)
        more = {"json": body} if body is not None else {}
        for name in re.findall(r"{(\w+)}", path):
            for number, hostile in enumerate(HOSTILE):
                url = fill(path, {**words, name: quote(hostile[:2000], safe="")})
                count += 1
                wrong.append(complaint(browser, f"{method} {path} {name} {number}", method, url, **more))
        for parameter in route.dependant.query_params:
            for number, hostile in enumerate(HOSTILE):
                url = f"{fill(path, words)}?{parameter.alias}={quote(hostile[:2000], safe='')}"
                count += 1
                wrong.append(complaint(browser, f"{method} {path} ?{parameter.alias} {number}", method, url, **more))
    assert count > 400
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_what_is_told_of_a_refusal_is_one_clean_line_each(world: World) -> None:
    """Threat 31: a refusal repeats what was sent, and is read at terminals."""
    browser, words = world.browsers["ada"], words_of(world)
    wrong = []
    for method, path, body, place in forms(world, words):
        answer = browser.ask(method, fill(path, words), json=put(body, place, HOSTILE[2]))
        if answer.status_code == 422:
            told = [text for text in strings(answer.json()) if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)]
            if told or len(answer.content) > 20_000:
                wrong.append(f"{method} {path} {'.'.join(map(str, place))}: {told[:1]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_idempotency_key_or_agent_breaks_nothing(world: World, hostile: str) -> None:
    text = re.sub(r"[\x00-\x1f\x7f]", "", hostile.encode("ascii", "replace").decode()[:4000])
    headers = {"Idempotency-Key": text, "User-Agent": text}
    answer = world.browsers["ada"].ask("POST", "/v1/sites", json=BODIES["POST /v1/sites"], headers=headers)
    assert answer.status_code in (400, 409, 422, 431), answer.text
