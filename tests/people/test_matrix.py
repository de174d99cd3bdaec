"""Every role on every route, about what is theirs, shared, their team's and foreign: generated from the route table.

Threat 24. What the answer must be follows from the right that the route declares and from ``may``; that table is itself
written out in ``test_rights.py``. Nothing is done for real: each transaction is rolled back where it would be stored.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from doorkit import Door
from peoplekit import Browser, add
from starlette.routing import BaseRoute

from alveole.agent.protocol import BackupMade
from alveole.api import gate
from alveole.errors import Refused
from alveole.incidents.book import Incident
from alveole.model.app import App, Environment, Version, VersionState
from alveole.model.site import Backup
from alveole.people.model import Actor, Held, Near, Role
from alveole.people.rights import OBJECTS, Right, may
from alveole.store import new_id
from alveole.store.pastdays import PastDay

NEARNESS = ("own", "team", "work", "look", "foreign")
PEOPLE = {"ada": Role.ADMIN, "olga": Role.OPERATOR, "ana": Role.OWNER, "rita": Role.READER}
STOPPED = "rolled back by the test"
PASSWORD = "correct horse battery"
#: What a request must hold to be looked at, by method and path; where nothing stands, nothing is needed.
BODIES: dict[str, dict[str, Any]] = {
    "POST /v1/sites": {"name": "fresh", "command": ["serve"], "port": 8000},
    "PATCH /v1/sites/{site}": {"https_only": True},
    "POST /v1/sites/{site}/rename": {"name": "renamed"},
    "POST /v1/sites/{site}/configure": {},
    "POST /v1/sites/{site}/questions": {},
    "POST /v1/sites/{site}/releases": {"release": "0" * 12},
    "POST /v1/backups": {"site": "{site}"},
    "POST /v1/backups/{backup}/restore": {},
    "POST /v1/backups/{backup}/open": {},
    "POST /v1/backups/prove": {"site": "{site}"},
    "PUT /v1/backups/{backup}/pinned": {"pinned": True},
    "POST /v1/backups/{backup}/files": {"path": "volumes/data/x"},
    "PATCH /v1/backup-policy": {"days": 8},
    "PATCH /v1/sites/{site}/backups": {"days": 8},
    "PUT /v1/repositories/{repository}": {"kind": "local", "place": "/mnt/x"},
    "POST /v1/plans": {"name": "tiny", "cpu_millis": 100, "memory_bytes": 64 << 20, "pids": 32},
    "PATCH /v1/plans/{plan}": {"sleep_after": 3600},
    "POST /v1/bases/verify": {},
    "POST /v1/bases/upgrade": {},
    "POST /v1/bases/prune": {},
    "POST /v1/bases/rollback": {"sites": ["own-ada"]},
    "POST /v1/images": {"upload": "0"},
    "POST /v1/images/pull": {"registry": "registry.test", "repository": "club/app"},
    "POST /v1/modules/questions": {"modules": []},
    "POST /v1/modules/detect": {"names": ["index.html"]},
    "POST /v1/module-sources": {"source": "https://example.org/x.git", "pin": "0" * 40},
    "POST /v1/session": {"name": "nobody-here", "password": "x"},
    "POST /v1/invitations/use": {"token": "x", "password": PASSWORD},
    "POST /v1/tokens": {"name": "fresh"},
    "POST /v1/accounts": {"name": "fresh"},
    "PATCH /v1/accounts/{account}": {"title": "Ana"},
    "PUT /v1/accounts/{account}/password": {"password": "another good one", "old": PASSWORD},
    "POST /v1/teams": {"name": "fresh"},
    "PATCH /v1/teams/{team}": {"title": "x"},
    "PUT /v1/sites/{site}/sharing": {"whom": "zoe", "level": "look"},
    "PUT /v1/sites/{site}/owner": {"owner": "{me}"},
    "PUT /v1/quotas/{whom}": {"sites": 3},
    "PUT /v1/dns": {"mode": "elsewhere", "server": "127.0.0.1", "port": 1, "addresses": ["192.0.2.1"]},
    "POST /v1/dns/try": {
        "settings": {"mode": "elsewhere", "server": "127.0.0.1", "port": 1, "addresses": ["192.0.2.1"]}
    },
    "PUT /v1/ldap": {"servers": ["ldaps://localhost"], "base": "dc=x"},
    "POST /v1/ldap/try": {"name": "x"},
    "PUT /v1/oidc": {"issuer": "https://id.test", "client_id": "x", "redirect": "https://panel.test/"},
    "POST /v1/oidc/try": {"issuer": "not an address"},
    "PUT /v1/second-factor": {"roles": []},
    "POST /v1/session/code": {"code": "123456"},
    "POST /v1/session/passkey": {"credential": {}},
    "POST /v1/factors/totp/confirm": {"code": "123456"},
    "POST /v1/keys": {"key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIiyuBLDGW4uhJ3HQYx36mFc0y8hOgOrLaP4UEcrPSGv"},
    "POST /v1/sites/{site}/work/publish": {},
    "PUT /v1/sites/{site}/files/text": {"text": "x"},
    "POST /v1/sites/{site}/files/folders": {"at": "none/none"},
    "POST /v1/sites/{site}/files/rename": {"at": "none", "to": "other"},
    "POST /v1/sites/{site}/files/unpack": {"at": "none"},
    "POST /v1/factors/passkey": {"credential": {}},
    "POST /v1/sites/{site}/passports": {},
    "POST /v1/sites/{site}/move": {"to": "here"},
    "POST /v1/passports": {"upload": "0"},
    "PUT /v1/signers/{signer}": {"key": "none"},
    "POST /v1/nodes/scan": {"host": "-"},
    "POST /v1/nodes": {"name": "-", "host": "-", "fingerprint": "-"},
    "POST /v1/nodes/install": {"host": "-", "fingerprint": "-", "upload": "0"},
    "POST /v1/nodes/{node}/drain": {},
    "POST /v1/sites/{site}/checks/record": {"since": 1.0},
    "POST /v1/apps": {"name": "fresh", "environments": ["alpha"], "command": ["serve"], "port": 8000},
    "PATCH /v1/apps/{app}": {"accept": "wait"},
    "PUT /v1/apps/{app}/owner": {"owner": "{me}"},
    "POST /v1/apps/{app}/environments": {"name": "demo"},
    "PATCH /v1/apps/{app}/environments/{environment}": {"soak_seconds": 1},
    "POST /v1/apps/{app}/environments/{environment}/deliver": {"version": "1.0"},
    "POST /v1/apps/{app}/environments/{environment}/approve": {"version": "1.0"},
    "POST /v1/apps/{app}/environments/{environment}/deploy": {},
    "POST /v1/apps/{app}/environments/{environment}/rollback": {},
    "POST /v1/apps/{app}/environments/{environment}/synchronise": {"source": "prod", "content": True},
    "POST /v1/apps/{app}/versions": {"version": "2.0", "upload": "0"},
    "POST /v1/apps/{app}/versions/{version}/decision": {"accept": True},
    "POST /v1/channels": {"name": "fresh", "kind": "feed"},
    "PUT /v1/sites/{site}/operations/{operation}": {"argv": ["true"]},
    "PUT /v1/apps/{app}/operations/{operation}": {"argv": ["true"]},
    "POST /v1/sites/{site}/operations/{operation}/run": {},
    "POST /v1/sites/{site}/programs/{pid}/signal": {"started": 1},
    "PATCH /v1/channels/{channel}": {"name": "fresh"},
    "PUT /v1/mail": {"host": "localhost", "sender": "a@b.example"},
    "POST /v1/incidents/{incident}/comment": {"text": "x"},
    "POST /v1/incidents/{incident}/act": {"text": "x"},
    "PUT /v1/rules/{rule}": {"text": 'on = "site.state"\nis = ["failed"]'},
    "PATCH /v1/rules/{rule}": {"changes": {"below": 7}},
    "POST /v1/rules/try": {"name": "disk-low"},
    "POST /v1/silences": {"why": "x", "length": "1h"},
    "POST /v1/sites/{site}/silences": {"why": "x", "length": "1h"},
    "POST /v1/sites/{site}/domains": {"domain": "club.example.org"},
    "POST /v1/certificates": {"chain": "none", "key": "none"},
    "POST /v1/certificates/{certificate}/issue": {},
    "POST /v1/sites/{site}/certificates": {"chain": "none", "key": "none"},
    "POST /v1/sites/{site}/certificates/{domain}/issue": {},
    "PATCH /v1/acme": {"automatic": True},
    "POST /v1/acme/authorities": {"settings": {"name": "-", "directory": "-"}},
    "POST /v1/acme/zones": {"zone": "-", "server": "-"},
    "POST /v1/checks/lint": {"text": "steps: [{request: GET /}]"},
    "PUT /v1/sites/{site}/checks/{check}": {"text": "steps: [{request: GET /}]"},
    "POST /v1/sites/{site}/checks/run": {},
    "PUT /v1/sites/{site}/check-secrets/{secret}": {"value": "something"},
}
#: Objects that are nobody's.
CONSTANT = {
    "plan": "medium",
    "base": "host",
    "module": "static",
    "source": "none",
    "kind": "nginx",
    "factor": "all",
    "key": "all",
    "environment": "prod",
    "version": "1.0",
    "check": "front",
    "operation": "clear",
    "run": "none",
    "pid": "7",
    "process": "none",
    "domain": "absent.example.org",
    "certificate": "absent.example.org",
    "authority": "none",
    "zone": "absent.example.org",
    "secret": "password",
    "channel": "none",
    "feed": "none",
    "rule": "disk-low",
    "silence": "none",
    "passport": "none",
    "signer": "far",
    "node": "far",
    "interface": "none",
    "month": "2001-01",
    "repository": "none",
}

#: What of these is not there for anybody.
ABSENT = (
    *("check", "secret", "channel", "operation", "run", "pid", "process", "passport", "signer", "node", "domain"),
    *("certificate", "authority", "zone"),
    *("interface", "month"),
    "silence",
    "repository",
)


class World:
    """Sites of each nearness, with a change and a backup each, and people of each role."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.browsers: dict[str, Browser] = {}
        for name, role in (*PEOPLE.items(), ("zoe", Role.OWNER)):
            add(door, name, role)
        door.http.post("/v1/teams", json={"name": "club", "members": list(PEOPLE)})
        door.http.post("/v1/teams", json={"name": "others", "members": ["zoe"]})
        self.sites = {f"own-{name}": name for name in PEOPLE}
        self.sites |= {"team": "team:club", "work": "zoe", "look": "zoe", "foreign": "zoe"}
        for site, owner in self.sites.items():
            door.site(site, owner=owner)
        for site, level in (("work", "change"), ("look", "look")):
            wanted = {"whom": "team:club", "level": level}
            assert door.http.put(f"/v1/sites/{site}/sharing", json=wanted).status_code == 200
        services = door.services
        # They are rows alone, which are closed by the clock.
        services.ticker._works.pop("past-days")
        self.backups, self.changes, self.incidents, self.days = {}, {}, {}, {}
        with services.store.write() as transaction:
            for site, owner in self.sites.items():
                found = services.store.site(site)
                assert found is not None
                backup = Backup(new_id("b"), found.site.id, site, "x", 1, 1.0, f"sha256:{'0' * 64}", found.site.owner)
                transaction.put_backup(backup)
                self.backups[site] = backup.id
                self.incidents[site] = new_id("i")
                about = {"site_id": found.site.id, "site_name": site, "owner": found.site.owner, "cause": "serving"}
                about |= {"title": "x", "severity": "warning", "opened_at": 1.0, "began_at": 1.0, "closed_at": 2.0}
                services.watch.book.put(transaction, Incident(id=self.incidents[site], **about))
                self.days[site] = new_id("s")
                about = {"id": self.days[site], "number": 1, "name": "past-x", "backup_id": backup.id, "backup_at": 1.0}
                about |= {"site_id": found.site.id, "site_name": site, "owner": found.site.owner, "opened_by": owner}
                services._put_day(transaction, PastDay(**about, seconds=1.0, opened_at=1.0, closes_at=9e9))
        services.agent.backups["x"] = (BackupMade("b" + "a" * 12, "x", 1, f"sha256:{'0' * 64}"), "{}", None)
        for site in self.sites:
            self.changes[site] = door.http.get("/v1/changes", params={"site": site}).json()[-1]["id"]
        for name in PEOPLE:
            browser = self.browsers[name] = Browser(door)
            assert browser.sign_in(name, PASSWORD).status_code == 200
        self.make_apps()
        self.tokens = {
            name: self.browsers[name].ask("POST", "/v1/tokens", json={"name": "t"}).json()["id"] for name in PEOPLE
        }
        with Browser(door) as browser:
            browser.sign_in("zoe", PASSWORD)
            self.tokens["zoe"] = browser.ask("POST", "/v1/tokens", json={"name": "t"}).json()["id"]

    def make_apps(self) -> None:
        """Each site is also the one environment of an application, with a version that waits."""
        services = self.door.services
        with services.store.write() as transaction:
            for site, owner in self.sites.items():
                found = services.store.site(site)
                assert found is not None
                store = new_id("s")
                app = App(
                    new_id("a"),
                    f"app-{site}",
                    found.site.owner,
                    store,
                    transaction.lease(store, 1000),
                    (Environment("prod", found.site.id),),
                )
                digest = f"sha256:{'0' * 64}"
                version = Version(new_id("v"), app.id, "1.0", VersionState.WAITING, digest, digest, 1, 1, 1.0, owner)
                services.apps.put_app(transaction, app)
                services.apps.put_version(transaction, version)

    def near(self, person: str, nearness: str) -> str:
        return f"own-{person}" if nearness == "own" else nearness

    def held(self, site: str) -> Held:
        found = self.door.services.store.site(site)
        assert found is not None
        return self.door.services.people.held(found.site)

    def actor(self, name: str) -> Actor:
        person = self.door.services.people.person(name)
        assert person is not None
        return self.door.services.people.actor(person, "session:x")

    def id(self, name: str) -> str:
        found = self.door.services.people.whom(name)
        assert found is not None
        return found.id

    def close(self) -> None:
        for browser in self.browsers.values():
            browser.http.close()


@pytest.fixture
def world(door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(door)
    store = door.services.store
    write = store.write

    @contextlib.contextmanager
    def rolled_back() -> Iterator[Any]:
        with write() as transaction:
            yield transaction
            raise Refused(STOPPED)

    monkeypatch.setattr(store, "write", rolled_back)
    yield made
    monkeypatch.undo()
    made.close()


def routes(door: Door, pages: bool = False) -> list[tuple[str, str, Right, BaseRoute]]:
    """Those of the API, or those of the pages, which ``tests/web/test_page_rights.py`` tries."""
    found = []
    for route in gate.routes_of(door.app):
        right = gate.declared(route)
        assert right is not None
        if (getattr(route, "path", "/").startswith(("/v1/", "/openapi.json", "/healthz"))) == pages:
            continue
        for method in sorted(getattr(route, "methods", None) or {"WEBSOCKET"}):
            if method != "HEAD":
                found.append((method, str(getattr(route, "path", "")), right, route))
    return found


def fill(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: fill(item, words) for key, item in value.items()}
    return re.sub(r"{(\w+)}", lambda found: words[found[1]], value) if isinstance(value, str) else value


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}


def ask(browser: Browser, method: str, path: str, words: dict[str, str]) -> httpx.Response:
    body = fill(BODIES.get(f"{method} {path}"), words)
    url = fill(path, words)
    if method == "WEBSOCKET":
        # Wrong after the rights were asked for, so that nothing starts.
        return browser.ask("GET", f"{url}?argv=true&uid=-1", headers=UPGRADE)
    query = {"confirm": words["site"]} if method == "DELETE" else {}
    if method == "GET" and path.endswith("/quota"):
        query = {"whom": words["account"]}
    if path.endswith("/compare"):
        query = {"one": "1.0", "other": "1.0"}
    named = path.startswith(("/v1/sessions", "/v1/factors/{factor}", "/v1/keys"))
    if named or (method == "GET" and path in ("/v1/tokens", "/v1/factors")):
        query = {"account": words["account"]}
    content = {"content": b"x"} if path == "/v1/uploads" else {"json": body} if body is not None else {}
    return browser.ask(method, url, params=query, **content)


def expected(world: World, person: str, right: Right, path: str, words: dict[str, str]) -> int:
    """0 when it is allowed, else 403 or 404."""
    actor = world.actor(person)
    if right is Right.OPEN:
        return 0
    held: Held | None = None
    look = Right.SITE_LOOK
    if right in OBJECTS:
        if "{account}" in path or right in (Right.ACCOUNT_LOOK, Right.ACCOUNT_KEYS, Right.QUOTA_LOOK):
            own = path in ("/v1/tokens", "/v1/factors/recovery-codes") and right is Right.ACCOUNT_KEYS
            held, look = Held(world.id(person if own else words["account"])), Right.ACCOUNT_LOOK
        elif right is Right.TEAM_LOOK:
            held, look = Held(world.id(f"team:{words['team']}")), Right.TEAM_LOOK
        elif right in (Right.SITE_CREATE, Right.APP_CREATE):
            # Who asks owns what they create; nobody looks at it before.
            return 0 if may(actor, right, Held(actor.person)) else 403
        elif "{app}" in path:
            # The application has its owner; whom the site of an environment is shared with works on that one.
            site = world.held(words["site"])
            held = site if "{environment}" in path and right is not Right.APP_CHANGE else Held(site.owner)
            held = site if right is Right.APP_LOOK else held
            return 0 if may(actor, right, held) else 403 if may(actor, Right.APP_LOOK, site) else 404
        else:
            held = world.held(words["site"])
            look = {"{backup}": Right.BACKUP_LOOK, "{change}": Right.CHANGE_LOOK}.get(
                next(iter(re.findall(r"{(?:backup|change)}", path)), ""), look
            )
    if may(actor, right, held):
        return 0
    return 403 if held is None or may(actor, look, held) else 404


def test_every_route_declares_a_right(door: Door) -> None:
    found = routes(door)
    assert len(found) >= 60
    assert {right for _, _, right, _ in found} <= set(Right)
    opened = {f"{method} {path}" for method, path, right, _ in found if right is Right.OPEN}
    assert opened == {
        "GET /healthz",
        "GET /openapi.json",
        "POST /v1/session",
        "POST /v1/invitations/use",
        "GET /v1/oidc/start",
        "GET /v1/oidc/callback",
        "GET /v1/feeds/{feed}",
    }
    route = next(route for _, path, _, route in found if path == "/v1/sites")
    endpoint: Any = route.endpoint
    kept = endpoint.right
    del endpoint.right
    try:
        with pytest.raises(RuntimeError, match="/v1/sites"):
            gate.check_declared(gate.routes_of(door.app))
    finally:
        endpoint.right = kept


@pytest.mark.turn
@pytest.mark.parametrize("person", PEOPLE)
def test_every_route_as(world: World, person: str) -> None:
    """Allowed means that neither 401, 403 nor 404 comes; denied means 404 for what may not even be looked at."""
    wrong = []
    tried = 0
    browser = world.browsers[person]
    for method, path, right, _ in routes(world.door):
        if path in ("/openapi.json",) or (method, path) == ("DELETE", "/v1/session"):
            continue
        nearness = NEARNESS if "{" in path or "{site}" in str(BODIES.get(f"{method} {path}")) else ("own", "foreign")
        for near in nearness:
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
                "whom": account,
                "team": "club" if near in ("own", "team") else "others",
                "session": "all",
                "token": world.tokens[account],
                **CONSTANT,
            }
            if (method, path) == ("PUT", "/v1/sites/{site}/owner") and near == "foreign" and person == "olga":
                words["me"] = "zoe"
            answer = ask(browser, method, path, words)
            tried += 1
            want = expected(world, person, right, path, words)
            got = answer.status_code if answer.status_code in (401, 403, 404) else 0
            # A source and settings that are not there, and a wrong password, are refused whoever asks.
            absent = path.startswith("/v1/module-sources/")
            absent = absent or any(f"/{{{each}}}" in path for each in ABSENT)
            # No such file: that was asked of the program, so they may.
            absent = absent or ("/files" in path and '"field":"at"' in answer.text)
            absent = absent or (path in ("/v1/ldap", "/v1/oidc", "/v1/mail") and method != "PUT")
            absent = absent or (method, path) == ("DELETE", "/v1/syslog")
            absent = (
                absent or path.startswith("/v1/dns/") or (method, path) in (("GET", "/v1/dns"), ("DELETE", "/v1/dns"))
            )
            if want == 0 and (absent or right is Right.OPEN):
                continue
            if got != want:
                wrong.append(f"{method} {path} {near}: {answer.status_code} instead of {want}: {answer.text[:150]}")
    assert not wrong, "\n".join(wrong)
    assert tried > 150


def test_without_anybody_only_open_routes_answer(world: World) -> None:
    words = {
        "site": "foreign",
        "app": "app-foreign",
        "backup": "b",
        "past": "p",
        "change": "c",
        "incident": "i",
        "me": "ana",
        "account": "zoe",
        "whom": "zoe",
    }
    words |= {"team": "others", "session": "all", "token": "t", **CONSTANT}
    with Browser(world.door) as nobody:
        for method, path, right, _ in routes(world.door):
            answer = ask(nobody, method, path, words)
            assert (answer.status_code == 401) == (right is not Right.OPEN or path == "/v1/session"), (method, path)


def test_lists_hold_nothing_foreign(world: World) -> None:
    """Nor do documents about something else name a foreign site."""
    browser = world.browsers["ana"]
    names = {site["name"] for site in browser.ask("GET", "/v1/sites").json()}
    assert names == {"own-ana", "team", "work", "look"}
    assert {backup["site"] for backup in browser.ask("GET", "/v1/backups").json()} == names
    assert {change["site_name"] for change in browser.ask("GET", "/v1/changes").json()} - {None} == names
    assert browser.ask("GET", "/v1/changes", params={"site": "foreign"}).json() == []
    assert browser.ask("GET", "/v1/backups", params={"site": "foreign"}).status_code == 404
    for path in ("/v1/bases", "/v1/bases/host", "/v1/modules", "/v1/plans", "/v1/teams"):
        text = browser.ask("GET", path).text
        assert "own-rita" not in text and '"foreign"' not in text and "zoe" not in text, path
    assert browser.ask("GET", "/v1/sites/own-ana").json()["owner"] == "ana"
    everything = {site["name"] for site in world.browsers["rita"].ask("GET", "/v1/sites").json()}
    assert everything == set(world.sites)


def test_owners_give_sites_to_themselves_and_their_teams_only(world: World) -> None:
    for person, owner, status in (
        ("ana", "team:club", 409),
        ("ana", "team:others", 403),
        ("ana", "zoe", 403),
        ("ana", "nobody-knows", 403),
        ("ana", "nobody", 403),
        ("olga", "zoe", 409),
        ("ada", "nobody-knows", 422),
    ):
        answer = world.browsers[person].ask("PUT", "/v1/sites/own-ana/owner", json={"owner": owner})
        assert answer.status_code == status, (person, owner, answer.text)
        wanted = {**BODIES["POST /v1/sites"], "owner": owner}
        answer = world.browsers[person].ask("POST", "/v1/sites", json=wanted)
        assert answer.status_code == status, (person, owner, answer.text)


def test_what_is_shared_never_reaches_beyond_the_role(world: World) -> None:
    reader = world.actor("rita")
    assert may(reader, Right.SITE_LOOK, world.held("work"))
    assert not any(
        may(reader, right, world.held(site))
        for right in (Right.SITE_RUN, Right.SITE_LOGS, Right.SITE_SECRETS, Right.SITE_FILES)
        for site in ("work", "own-rita")
    )
    assert Near.NEVER > Near.OWN


def test_owners_do_not_take_the_domains_of_others(world: World) -> None:
    """Threat 27: neither while creating nor afterwards; operators say whose a domain is."""
    for person, status in (("ana", 422), ("olga", 409)):
        browser = world.browsers[person]
        for more in ({"domains": ["bank.example"]}, {"path": "/bank"}):
            wanted = {**BODIES["POST /v1/sites"], **more}
            assert browser.ask("POST", "/v1/sites", json=wanted).status_code == status, more
            assert browser.ask("POST", "/v1/sites?dry_run=true", json=wanted).status_code == (
                422 if status == 422 else 200
            )
        for more in ({"add_domains": ["bank.example"]}, {"domains": ["bank.example"]}, {"path": "/bank"}):
            assert browser.ask("PATCH", f"/v1/sites/own-{person}", json=more).status_code == status, more
    answer = world.browsers["ana"].ask("PATCH", "/v1/sites/own-ana", json={"add_domains": ["bank.example"]})
    assert "site domain add" in answer.text
