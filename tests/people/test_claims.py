"""Domains that people claim, with a real name server that proves them or does not (threat 27)."""

from __future__ import annotations

import itertools
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doorkit import Door, until
from peoplekit import Browser, add

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alveole.people.model import Role
from alveole.store import claims
from dnskit import ZONE, NameServer, name_server

pytestmark = pytest.mark.skipif(not Path("/usr/sbin/named").exists(), reason="needs named (package bind9)")
_turn = itertools.count(1)


@pytest.fixture(scope="module")
def zone() -> Iterator[NameServer]:
    with name_server() as made:
        yield made


class World:
    def __init__(self, door: Door, zone: NameServer) -> None:
        self.door, self.zone = door, zone
        self.people: dict[str, Browser] = {}
        for name, role in (("ana", Role.OWNER), ("zoe", Role.OWNER), ("olga", Role.OPERATOR)):
            add(door, name, role)
            self.people[name] = Browser(door)
            assert self.people[name].sign_in(name).status_code == 200

    def ask(self, who: str, method: str, path: str, **more: Any) -> Any:
        return self.people[who].ask(method, f"/v1/sites/{path}", **more)

    def claim(self, who: str, site: str, domain: str) -> dict[str, Any]:
        answer = self.ask(who, "POST", f"{site}/domains", json={"domain": domain})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def check(self, who: str, site: str, domain: str) -> dict[str, Any]:
        """As the button, without the pause between two looks."""
        with self.door.services.store.write() as transaction:
            for each in claims.of_site(transaction.connection, self.id_of(site)):
                claims.put(transaction.connection, msgspec.structs.replace(each, asked_at=None))
        answer = self.ask(who, "POST", f"{site}/domains/{domain}/check")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        self.settle(found)
        return found

    def settle(self, found: dict[str, Any]) -> None:
        if found["change"]:
            until(lambda: self.door.http.get(f"/v1/changes/{found['change']}").json()["state"] == "done", 30)

    def remove(self, who: str, site: str, domain: str) -> None:
        """The change that made it live may be at work still."""
        until(lambda: self.door.http.get(f"/v1/sites/{site}").json()["change"] is None, 30)
        answer = self.ask(who, "DELETE", f"{site}/domains/{domain}")
        assert answer.status_code == 200, answer.text
        self.settle(answer.json())
        until(lambda: self.door.http.get(f"/v1/sites/{site}").json()["change"] is None, 30)

    def id_of(self, site: str) -> str:
        stored = self.door.services.store.site(site)
        assert stored is not None
        return stored.site.id

    def name(self) -> str:
        return f"n{next(_turn)}.{ZONE}"

    def domains(self, site: str) -> list[str]:
        found: list[str] = self.door.http.get(f"/v1/sites/{site}").json()["domains"]
        return found


@pytest.fixture(scope="module")
def world(zone: NameServer) -> Iterator[World]:
    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    door = Door(place, dns={"resolvers": [zone.address], "seconds": 20})
    try:
        made = World(door, zone)
        for site, owner in (("blog", "ana"), ("shop", "zoe")):
            door.site(site, owner=owner)
        yield made
        for browser in made.people.values():
            browser.http.close()
    finally:
        door.close()
        shutil.rmtree(place)


def test_a_claim_gives_nothing_until_it_is_proven(world: World) -> None:
    """Threat 27: a tenant claims another's domain → pending, no certificate, no route, and the name stays free."""
    domain = world.name()
    for refused in (
        world.ask("ana", "PATCH", "blog", json={"add_domains": [domain]}),
        world.people["ana"].ask(
            "POST", "/v1/sites", json={"name": "new", "command": ["x"], "port": 8000, "domains": [domain]}
        ),
    ):
        assert refused.status_code == 422 and "site domain add" in refused.text
    made = world.claim("ana", "blog", domain)
    assert made["state"] == "pending" and made["record"] == f"_alveole-challenge.{domain}" and made["change"] is None
    assert world.claim("ana", "blog", domain)["value"] == made["value"]
    world.zone.put(made["record"], "alveole=" + "0" * 32, "something else")
    said = world.check("ana", "blog", domain)
    assert said["state"] == "pending" and "instead" in said["problem"]
    assert world.domains("blog") == [] and world.door.services.store.owner_of(domain) is None
    assert not any(domain in str(each) for each in world.door.services.loop.looks[world.id_of("blog")].found)
    why = world.door.http.get("/v1/sites/blog/why").json()
    assert any(made["value"] in each for each in why["waiting"]) and why["site"]["claims"] == [domain]
    assert domain in world.door.run("site", "show", "blog").out
    # Not even by who has the word of another site, or puts it at another name.
    world.zone.put(domain, made["value"])
    assert world.check("ana", "blog", domain)["state"] == "pending"
    world.zone.put(made["record"], "something else", made["value"])
    assert world.check("ana", "blog", domain)["state"] == "live"
    assert world.domains("blog") == [domain] and world.ask("ana", "GET", "blog/domains").json()[0]["state"] == "live"
    told = world.door.http.get("/v1/changes?site=blog").json()
    assert [each["actor"] for each in told if each["verb"] == "prove-domain"] == ["ana"]
    world.remove("ana", "blog", domain)


def test_the_first_proof_has_the_name(world: World) -> None:
    """Threat 27: two claims on one name; what is proven by one is not taken by another, until it is free again."""
    domain = world.name()
    ana, zoe = world.claim("ana", "blog", domain), world.claim("zoe", "shop", domain)
    assert ana["value"] != zoe["value"]
    world.zone.put(zoe["record"], zoe["value"])
    assert world.check("ana", "blog", domain)["state"] == "pending"
    assert world.check("zoe", "shop", domain)["state"] == "live"
    # Her own word is there too now, and too late: the name is another's.
    world.zone.put(ana["record"], ana["value"], zoe["value"])
    late = world.check("ana", "blog", domain)
    assert late["state"] == "pending" and "taken by another site" in late["problem"]
    again = world.ask("ana", "POST", "blog/domains", json={"domain": domain})
    assert again.status_code == 409 and "taken" in again.text
    assert world.domains("shop") == [domain] and world.domains("blog") == []
    world.remove("zoe", "shop", domain)
    assert world.check("ana", "blog", domain)["state"] == "live"
    world.remove("ana", "blog", domain)


def test_it_is_looked_for_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "DELAYS", (0.05, 0.2))
    domain = world.name()
    made = world.claim("ana", "blog", domain)

    def looked(found: Any) -> bool:
        world.door.services.ticker.poke("claims")
        return bool(found())

    def attempts() -> int:
        with world.door.services.store.read() as connection:
            return max((each.attempts for each in claims.of_site(connection, world.id_of("blog"))), default=0)

    until(lambda: looked(lambda: attempts() >= 2), 30)
    world.zone.put(made["record"], made["value"])
    until(lambda: looked(lambda: world.domains("blog") == [domain]), 30)
    until(lambda: not world.door.http.get("/v1/sites/blog").json()["claims"], 30)
    world.remove("ana", "blog", domain)


def test_it_is_looked_for_less_and_less_often() -> None:
    found = [claims.delay(each) for each in range(20)]
    assert found == sorted(found) and found[0] == claims.DELAYS[0] and found[-1] == claims.DELAYS[1]


def test_a_claim_ends(world: World) -> None:
    """Threat 27: with its time, and when who made it may not change the site any more, proven or not."""
    domain, other = world.name(), world.name()
    world.claim("ana", "blog", domain)
    with world.door.services.store.write() as transaction:
        for each in claims.of_site(transaction.connection, world.id_of("blog")):
            claims.put(transaction.connection, msgspec.structs.replace(each, expires_at=1.0))
    world.door.services._look_at_claims()
    assert world.ask("ana", "GET", "blog/domains").json() == []
    assert any(
        each["verb"] == "claim-ended" and domain in each["reason"]
        for each in world.door.http.get("/v1/changes?site=blog").json()
    )
    made = world.claim("ana", "blog", other)
    world.zone.put(made["record"], made["value"])
    world.door.http.put("/v1/sites/blog/owner", json={"owner": "zoe"})
    try:
        said = world.check("zoe", "blog", other)
        assert "may not change" in said["problem"] and world.domains("blog") == []
    finally:
        world.door.http.put("/v1/sites/blog/owner", json={"owner": "ana"})


def test_who_runs_the_machine_needs_no_proof(world: World) -> None:
    domain = world.name()
    made = world.claim("olga", "blog", domain)
    assert made["state"] == "live" and made["change"]
    world.settle(made)
    assert world.domains("blog") == [domain]
    done = world.door.run("site", "domain", "list", "blog")
    assert domain in done.out and "live" in done.out
    assert world.door.run("site", "domain", "remove", "blog", domain).status == 0
    assert world.domains("blog") == []


def test_what_cannot_be_claimed(world: World) -> None:
    for domain in (
        "*.localhost",
        "*.org",
        "localhost",
        "org",
        "panel.localhost",
        "x" * 64 + ".org",
        f"{'a.' * 117}org",
    ):
        answer = world.ask("ana", "POST", "blog/domains", json={"domain": domain})
        assert answer.status_code in (409, 422), (domain, answer.text)
    made = [world.name() for _ in range(claims.MOST)]
    for domain in made:
        world.claim("zoe", "shop", domain)
    answer = world.ask("zoe", "POST", "shop/domains", json={"domain": world.name()})
    assert answer.status_code == 409 and "wait for their proof" in answer.text
    for domain in made:
        assert world.ask("zoe", "DELETE", f"shop/domains/{domain}").status_code == 200
    assert world.ask("zoe", "POST", f"shop/domains/{made[0]}/check").status_code == 404


def test_a_backup_brings_no_domain_back_for_its_owner(world: World) -> None:
    """Threats 10 and 27: a destroyed site frees its domain, and its backup does not take it back without proof."""
    domain = world.name()
    world.door.site("gone", owner="ana")
    made = world.claim("olga", "gone", domain)
    world.settle(made)
    backup = world.door.run("backup", "create", "gone", "--json").document["id"]
    assert world.door.run("site", "stop", "gone").status == 0
    assert world.door.run("site", "destroy", "gone", "--yes").status == 0
    assert world.door.services.store.owner_of(domain) is None
    answer = world.people["ana"].ask("POST", f"/v1/backups/{backup}/restore", json={"name": "back"})
    assert answer.status_code == 202, answer.text
    world.settle({"change": answer.json()["id"]})
    assert world.domains("back") == []
    told = world.door.http.get(f"/v1/changes/{answer.json()['id']}").json()
    assert any(domain in each["text"] and "site domain add" in each["text"] for each in told["events"])
    answer = world.people["olga"].ask("POST", f"/v1/backups/{backup}/restore", json={"name": "again"})
    world.settle({"change": answer.json()["id"]})
    assert world.domains("again") == [domain]


def test_every_name_below_one(world: World) -> None:
    """Threat 27: those below a site's own name are its own; others are proven at the domain itself; nobody else's are
    had, and they go with the site's name."""
    below = "*.blog.localhost"
    found = world.claim("ana", "blog", below)
    assert found["state"] == "live"
    world.settle(found)
    assert below in world.domains("blog")
    for refused in ("*.shop.localhost", "*.localhost", "*.a.blog.localhost"):
        answer = world.ask("ana", "POST", "blog/domains", json={"domain": refused})
        assert answer.status_code == 422, answer.text
    domain = world.name()
    found = world.claim("ana", "blog", f"*.{domain}")
    assert found["state"] == "pending" and found["record"] == f"_alveole-challenge.{domain}"
    assert f"*.{domain}" not in world.domains("blog")
    world.zone.put(f"_alveole-challenge.{domain}", found["value"])
    assert world.check("ana", "blog", f"*.{domain}")["state"] == "live"
    # One site has them; what somebody has in full below is another name.
    answer = world.ask("olga", "POST", "shop/domains", json={"domain": f"*.{domain}"})
    assert answer.status_code == 409 and "taken by another site" in answer.text
    world.settle(world.claim("olga", "shop", f"own.{domain}"))
    urls = world.door.http.get("/v1/sites/blog").json()["urls"]
    assert urls and not any("*" in each for each in urls)
    until(lambda: world.door.http.get("/v1/sites/blog").json()["change"] is None, 30)
    answer = world.door.http.post("/v1/sites/blog/rename", json={"name": "journal"})
    world.settle({"change": answer.json()["id"]})
    assert world.domains("journal") == ["*.journal.localhost", f"*.{domain}"]
    answer = world.door.http.post("/v1/sites/journal/rename", json={"name": "blog"})
    world.settle({"change": answer.json()["id"]})
    for each in (below, f"*.{domain}"):
        world.remove("ana", "blog", each)
    world.remove("zoe", "shop", f"own.{domain}")


def test_a_name_server_that_does_not_answer() -> None:
    """Fault: it is said, within the time of the settings, and tried again."""
    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        door = Door(place, dns={"resolvers": [f"127.0.0.1:{silent.getsockname()[1]}"], "seconds": 0.2})
        try:
            add(door, "ana")
            door.site("blog", owner="ana")
            with Browser(door) as ana:
                ana.sign_in("ana")
                ana.ask("POST", "/v1/sites/blog/domains", json={"domain": "www.example.org"})
                said = ana.ask("POST", "/v1/sites/blog/domains/www.example.org/check").json()
            assert said["state"] == "pending" and "no name server answered" in said["problem"]
            assert said["next_at"] > said["asked_at"]
        finally:
            door.close()
            shutil.rmtree(place)
