"""Every role on every route of the pages, about what is theirs, shared, their team's and foreign.

Threat 24, for the second door: the same world, rights and expectations as for the API in ``test_matrix.py``.
"""

from __future__ import annotations

import re

import pytest
from doorkit import Door
from test_matrix import CONSTANT, NEARNESS, PEOPLE, World, expected, fill, routes, world

from alveole.people.rights import Right

__all__ = ["world"]
#: The fields of a form that its refusals come after, by path.
FORMS = {
    "/admin/certificates": {"do": "set", "look": "yes"},
    "/site/{site}/certificates": {"do": "upload", "chain": "none", "key": "none"},
    "/new/{way}": {"name": "fresh", "do": "create", "base": "host", "command": "serve", "port": "8000"},
    "/site/{site}/settings": {"https_only": "yes", "do": "apply"},
    "/site/{site}/content": {"release": "0" * 12},
    "/app/{app}/send": {"version": "2.0", "upload": "0" * 32},
    "/app/{app}/version/{version}": {"do": "accept"},
    "/app/{app}/{environment}/deliver": {"version": "1.0"},
    "/app/{app}/{environment}/approve": {"version": "1.0"},
    "/environment/{app}/{environment}/deliver": {"version": "1.0"},
    "/app/{app}/give": {"owner": "{me}"},
    "/site/{site}/rename": {"new_name": "renamed"},
    "/site/{site}/share": {"whom": "zoe", "level": "look"},
    "/site/{site}/give": {"owner": "{me}"},
    "/site/{site}/destroy": {"confirm": "{site}"},
    "/account/tokens": {"token_name": "fresh", "days": "7"},
    "/account/password": {"old": "correct horse battery", "password": "another good one", "again": "another good one"},
    "/site/{site}/checks/new": {"name": "front", "text": "steps: [{request: GET /}]", "do": "keep"},
    "/site/{site}/check/{check}": {"text": "steps: [{request: GET /}]", "do": "keep"},
    "/site/{site}/checks/secrets": {"secret": "password", "value": "something"},
    "/site/{site}/application": {"name": "fresh", "environment": "prod"},
    "/new/app": {"name": "fresh", "do": "create", "env": "alpha", "env_plan": "", "command": "serve", "port": "8000"},
    "/app/{app}/environments": {"environment": "demo"},
    "/channels": {"name": "fresh", "kind": "feed"},
    "/mail": {"host": "localhost", "sender": "a@b.example", "tls": "none", "port": "25"},
    "/admin/plans": {"name": "tiny", "memory": "64", "pids": "32"},
    "/admin/bases/import": {"upload": "0"},
    "/admin/accounts": {"name": "fresh"},
    "/admin/servers": {"host": "-"},
    "/site/{site}/move": {"to": "here"},
    "/admin/teams": {"name": "fresh"},
}
#: One's own in every case: no name of somebody in the address.
OWN = ("/account", "/second-factor")
MORE = {
    "way": "image",
    "part": "",
    "verb": "verify",
    "digest": "0",
    "name": "x",
    "factor": "none",
    "run": "none",
    "operation": "none",
    "what": "ack",
}


@pytest.mark.turn
@pytest.mark.parametrize("person", PEOPLE)
def test_every_page_as(world: World, person: str) -> None:
    wrong = []
    tried = 0
    browser = world.browsers[person]
    for method, path, right, _ in routes(world.door, pages=True):
        # Signing in and out has its own tests; of these, what is there depends on nobody.
        if right in (Right.OPEN, Right.SELF_ENTER) or path.startswith(OWN):
            continue
        for near in NEARNESS if "{" in path else ("own",):
            site = world.near(person, near)
            account = person if near in ("own", "team") else "zoe"
            words = {
                "site": site,
                "app": f"app-{site}",
                "backup": world.backups[site],
                "past": world.days[site],
                "change": world.changes[site],
                "incident": world.incidents[site],
                "me": person,
                "account": account,
                "team": "club" if near in ("own", "team") else "others",
                **CONSTANT,
                **MORE,
            }
            if path == "/site/{site}/give" and near == "foreign" and person == "olga":
                words["me"] = "zoe"
            url = fill(path, words)
            headers = {"Accept": "text/html", "Content-Type": "application/x-www-form-urlencoded"}
            body = "&".join(f"{key}={value}" for key, value in fill(FORMS.get(path, {}), words).items())
            answer = browser.ask(method, url, headers=headers, content=body if method == "POST" else None)
            tried += 1
            want = expected(world, person, right, path, words)
            got = answer.status_code if answer.status_code in (401, 403, 404) else 0
            if want == 0 and "/{node}" in path:
                continue
            absent = any(
                each in path
                for each in ("/{check}", "/{secret}", "/{channel}", "/{run}", "/{operation}", "/{month}", "/{silence}")
            )
            if got != want and not (absent and want == 0):
                text = " ".join(re.sub(r"<[^>]*>", " ", answer.text.partition("<main")[2]).split())
                wrong.append(f"{method} {url} ({right}) {near}: {answer.status_code} instead of {want}: {text[:120]}")
    assert not wrong, "\n".join(wrong)
    assert tried > 100


def test_without_anybody_every_page_leads_to_the_sign_in(door: Door) -> None:
    opened = set()
    with door.tcp() as http:
        for method, path, right, _ in routes(door, pages=True):
            url = re.sub(r"{\w+}", "x", path)
            answer = http.request(method, url, headers={"Accept": "text/html"})
            if right is Right.OPEN:
                opened.add(f"{method} {path}")
            elif method == "GET":
                assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in"), path
            else:
                assert answer.status_code == 401, path
    assert opened == {
        "GET /static/{digest}/{name}",
        "GET /favicon.ico",
        "GET /sign-in",
        "POST /sign-in",
        "GET /welcome",
        "POST /welcome",
        "POST /language",
        "POST /theme",
        # They show nobody anything without a token of their own.
        "GET /wall",
        "POST /wall",
    }
