"""A zone on a server elsewhere (Knot, by RFC 2136 and TSIG): the command line, the page, and ways it can go wrong."""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doorkit import Door
from peoplekit import add
from webkit import Visitor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alveole.issuing.model import AcmeSettings, Authority
from alveole.people.model import Role
from zonekit import THERE, Knot, dig, free_port, knot, until

pytestmark = pytest.mark.skipif(not THERE, reason="needs bind9, bind9-dnsutils and knot")
DOMAIN = "example.test"
_KEY = "alveole-update"
_OTHER = base64.b64encode(b"x" * 32).decode()


class World:
    def __init__(self, place: Path, server: Knot) -> None:
        self.server = server
        self.door = Door(place, domain=DOMAIN)
        add(self.door, "ada", Role.ADMIN)
        self.key = place / "key"
        self.key.write_text(f'key "{_KEY}" {{\n\talgorithm hmac-sha256;\n\tsecret "{server.secret}";\n}};\n')

    def dig(self, name: str, kind: str = "A") -> list[str]:
        return dig(self.server.port, name, kind)

    @property
    def there(self) -> tuple[str, ...]:
        return ("--server", "127.0.0.1", "--port", str(self.server.port), "--key-file", str(self.key))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    with knot(DOMAIN, _KEY) as server:
        made = World(place, server)
        try:
            yield made
        finally:
            made.door.close()
            shutil.rmtree(place)
    assert not made.door.agent.violations


def test_the_command_line(world: World) -> None:
    door = world.door
    assert door.run("dns", "show").status == 4
    tried = door.run("dns", "setup", *world.there, "--address", "192.0.2.1", "--try")
    assert tried.status == 0, tried
    # Nothing is kept, neither here nor there.
    assert door.run("dns", "show").status == 4 and world.dig(f"_alveole-try.{DOMAIN}", "TXT") == []
    done = door.run("dns", "setup", *world.there, "--address", "192.0.2.1", "--address", "2001:db8::1")
    assert done.status == 0 and "published" in done.out, done
    door.site("blog")
    until(lambda: world.dig(f"blog.{DOMAIN}") == ["192.0.2.1"] and world.dig(f"blog.{DOMAIN}", "AAAA"))
    # What is not said again stays as it was.
    assert door.ok("dns", "setup", "--ttl", "60")["settings"]["addresses"] == ["192.0.2.1", "2001:db8::1"]
    shown = door.ok("dns", "show")
    assert shown["ok"] and shown["settings"]["secret"] == "***" and shown["settings"]["key"] == _KEY
    assert world.server.secret not in door.run("dns", "show").out
    until(lambda: door.run("dns", "check").status == 0)
    assert door.run("dns", "show", "--transfer-key").status == 4
    # Deleted by hand, as its keeper would.
    naming = door.services.naming
    assert naming.dns is not None
    naming.updates(naming.dns).remove(f"blog.{DOMAIN}", "A")
    door.ok("dns", "sync")
    assert world.dig(f"blog.{DOMAIN}") == ["192.0.2.1"]
    assert door.ok("dns", "setup", "--undo") == {"left": []}
    assert world.dig(f"blog.{DOMAIN}") == [] and world.dig(DOMAIN, "NS") == [f"ns.{DOMAIN}."]
    assert world.dig(DOMAIN) == []


def test_a_server_elsewhere_that_says_no(world: World) -> None:
    """Threat 28 and fault 10: the wrong key, another zone, nobody there: it is told as what it is, and sites go on."""
    door = world.door
    wrong = door.directory / "wrong"
    wrong.write_text(f"# hmac-sha256:{_KEY}:{_OTHER}\n")
    there = ["--server", "127.0.0.1", "--port", str(world.server.port)]
    for argv, words in (
        ([*there, "--key-file", str(wrong)], ("BADSIG",)),
        (there, ("REFUSED", "NOTAUTH")),
        ([*there, "--zone", "test", "--key-file", str(world.key)], ("REFUSED", "NOTAUTH", "does not hold")),
        (["--server", "127.0.0.1", "--port", str(free_port())], ("cannot be asked",)),
    ):
        ran = door.run("dns", "setup", *argv, "--address", "192.0.2.1", "--try")
        assert ran.status == 3 and any(word in ran.out for word in words), (argv, ran)
        assert _OTHER not in ran.out + ran.err
    broken = door.run("dns", "setup", *there, "--key-file", str(wrong), "--address", "192.0.2.1", "--json")
    assert broken.status == 0 and not broken.document["ok"] and "BADSIG" in broken.document["problem"]
    door.site("goes-on")
    assert door.run("dns", "check").status == 3
    shown = door.ok("dns", "show")
    assert any(each["name"] == f"goes-on.{DOMAIN}" and each["state"] == "waiting" for each in shown["names"])
    # Put right: published at once, whatever the delay was.
    assert door.ok("dns", "setup", *world.there)["ok"]
    assert world.dig(f"goes-on.{DOMAIN}") == ["192.0.2.1"]
    # To a server that nobody answers at: what was published is taken out of the old one first.
    assert not door.ok("dns", "setup", "--server", "127.0.0.1", "--port", str(free_port()))["ok"]
    assert world.dig(f"goes-on.{DOMAIN}") == []
    left = door.ok("dns", "setup", "--undo")["left"]
    assert left == [] or "cannot be asked" in left[0]


def test_options_of_the_wrong_form(world: World) -> None:
    """Threat 11: a hostile name never gets as far as a server, nor into a configuration."""
    door = world.door
    for argv in (
        ["--server", "ns.example.org"],
        ["--server", "127.0.0.1", "--zone", 'x"; }; zone "evil'],
        ["--server", "127.0.0.1", "--alias", "a b.example.org"],
        ["--zone", "example.org"],
        ["--secondary", "ns2.example.org=nowhere"],
        ["--secondary", 'a"b.example.org=192.0.2.1'],
        ["--server", "127.0.0.1", "--here"],
        ["--server", "127.0.0.1", "--key-file", "/nowhere"],
        ["--server", "127.0.0.1", "--key-file", str(door.config)],
        ["--wildcard-of", "nobody"],
    ):
        ran = door.run("dns", "setup", *argv, "--address", "192.0.2.1")
        assert ran.status == 2, (argv, ran)
    assert door.run("dns", "show").status == 4


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_page(world: World, language: str) -> None:
    door = world.door
    fields: dict[str, Any] = {
        "mode": "elsewhere",
        "server": "127.0.0.1",
        "port": str(world.server.port),
        "key": _KEY,
        "secret": _OTHER,
        "addresses": "192.0.2.1\n2001:db8::1",
    }
    with Visitor(door, language) as ada:
        ada.sign_in("ada")
        ada.get("/admin/dns")
        page = ada.submit("/admin/dns", ("do", "try"), **fields)
        assert "BADSIG" in page.text and door.http.get("/v1/dns").status_code == 404
        page = ada.submit("/admin/dns", ("do", "store"), expect=422, **{**fields, "server": "nowhere", "ttl": "soon"})
        fields["secret"] = world.server.secret
        page = ada.submit("/admin/dns", ("do", "try"), **{**fields, "ttl": "300"})
        assert ("All is in order." if language == "en" else "Tout est en ordre.") in page.text
        page = ada.submit("/admin/dns", ("do", "store"))
        until(lambda: world.dig(DOMAIN) == ["192.0.2.1"])
        assert world.server.secret not in ada.answer.text
        page = ada.submit("/admin/dns/compare", ("do", "check"))
        assert DOMAIN in page.text
        ada.submit("/admin/dns/compare", ("do", "sync"))
        ada.get("/admin/dns")
        # The password in the form is not the secret, and storing it again keeps that.
        ada.submit("/admin/dns", ("do", "store"))
        assert door.http.get("/v1/dns").json()["ok"]
        ada.submit("/admin/dns", ("do", "drop"))
    assert door.http.get("/v1/dns").status_code == 404 and world.dig(DOMAIN) == []


def test_budgets_of_authorities(world: World) -> None:
    """On the page in both languages, on the command line and over HTTP; nobody is asked for it."""
    door = world.door
    found = tuple(Authority(name, f"https://{name}.example.com/dir") for name in ("first", "second"))
    door.services._put_setting("acme", AcmeSettings(found, automatic=False))

    def budgets() -> dict[str, dict[str, int]]:
        return {each["name"]: each["budget"] for each in door.http.get("/v1/acme").json()["authorities"]}

    try:
        for language, word, week in (("en", "Its budget", 60), ("fr", "Son budget", 70)):
            with Visitor(door, language) as ada:
                ada.sign_in("ada")
                page = ada.get("/admin/certificates")
                assert page.text.count(word) == 2
                (token,) = {value for form in page.forms for key, value in form["fields"] if key == "csrf"}
                form = next(each for each in page.forms if ("do", "budget") in each["buttons"])
                fields = {**dict(form["fields"]), "do": "budget", "domain_week": str(week), "csrf": token}
                assert fields["authority"] == "first" and fields["same_week"] == "5"
                assert ada.ask("POST", "/admin/certificates", data=fields).status_code == 200
                assert budgets()["first"] == {"domain_week": week, "same_week": 5, "failures_hour": 5}
                fields["domain_week"] = "many"
                assert ada.ask("POST", "/admin/certificates", data=fields).status_code == 422
        done = door.run("acme", "budget", "second", "--per-week", "0", "--failures", "9")
        assert done.status == 0, done
        assert budgets()["second"] == {"domain_week": 0, "same_week": 5, "failures_hour": 9}
        assert budgets()["first"]["domain_week"] == 70
        assert door.run("acme", "budget", "second").status == 2
        assert door.run("acme", "budget", "third", "--failures", "1").status == 2
        for wrong in ({"second": {"domain_week": -1}}, {"second": {"weeks": 1}}, {"second": {"same_week": "x"}}):
            assert door.http.patch("/v1/acme", json={"budgets": wrong}).status_code == 422, wrong
        assert budgets()["second"]["domain_week"] == 0
    finally:
        door.services._put_setting("acme", None)
