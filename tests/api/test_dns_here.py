"""The zone on this machine: BIND set up for it, a secondary that fetches it, and names that follow their sites."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from doorkit import Door

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alveole.actuators.nameserver import NameServers
from alveole.agent.naming import NameHost, NameKey, NamesServed, SetUpNames, UndoNames
from alveole.config import parse
from alveole.errors import Refused, Temporary
from alveole.issuing import pointing
from alveole.issuing.model import AcmeSettings, OwnZone
from alveole.issuing.rows import Order
from alveole.services import naming
from alveole.services.certifying import Certifier
from zonekit import THERE, Bind, Knot, bind, dig, gone, knot, log_of, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(not THERE, reason="needs bind9, bind9-dnsutils and knot")]
DOMAIN = "example.test"
INSTALLER = Path(__file__).resolve().parents[2] / "scripts/installer"
FOUR, SIX = ["192.0.2.1", "192.0.2.2"], ["2001:db8::1"]


class World:
    """Control with a real name server behind it; sites are the fake agent's."""

    def __init__(self, place: Path, server: Bind) -> None:
        self.server = server
        self.door = Door(place, domain=DOMAIN, nameserver=server.settings)
        actuator = NameServers(self.door.settings)

        def naming(request: SetUpNames | UndoNames) -> NamesServed | None:
            return actuator.set_up(request) if isinstance(request, SetUpNames) else actuator.undo()

        self.door.agent.naming = naming

    def dig(self, name: str, kind: str = "A") -> list[str]:
        return dig(self.server.port, name, kind)

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.door.http.get("/v1/dns").json()
        return found

    def names(self) -> dict[str, str]:
        return {each["name"]: each["state"] for each in self.shown()["names"]}

    def changes(self, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.door.http.get("/v1/changes", params={"limit": "1000", **query}).json()
        return found

    def destroy(self, *sites: str) -> None:
        for site in sites:
            self.door.ended(self.door.http.post(f"/v1/sites/{site}/stop"))
            self.door.ended(self.door.http.delete(f"/v1/sites/{site}", params={"confirm": site}))

    def set(self, **more: Any) -> dict[str, Any]:
        settings = {"addresses": [*FOUR, *SIX], "secret": "***", "transfer_secret": "***", **more}
        answer = self.door.http.put("/v1/dns", json=settings)
        assert answer.status_code == 200, answer.text
        # A server that was too slow for one message is asked again.
        until(lambda: self.shown()["ok"])
        return self.shown()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    with bind() as server:
        made = World(place, server)
        try:
            made.set()
            yield made
        finally:
            made.door.close()
            shutil.rmtree(place)
    assert not made.door.agent.violations


def test_bind_is_set_up_and_holds_the_zone(world: World) -> None:
    server = world.server
    assert world.dig(DOMAIN, "NS") == [f"ns1.{DOMAIN}."]
    assert world.dig(f"ns1.{DOMAIN}") == FOUR and world.dig(f"ns1.{DOMAIN}", "AAAA") == SIX
    assert world.dig(DOMAIN) == FOUR and world.dig(f"panel.{DOMAIN}", "AAAA") == SIX
    shown = world.shown()
    assert shown["ok"] and shown["settings"]["secret"] == "***" and shown["settings"]["transfer_secret"] == "***"
    assert f"ns1.{DOMAIN}. AAAA {SIX[0]}" in shown["delegation"]
    written = (server.place / "alveole.conf").read_text()
    assert (server.place / "alveole.conf").stat().st_mode & 0o777 == 0o640
    secret = world.door.services.naming.dns.secret
    assert secret in written and secret not in world.door.http.get("/v1/changes").text
    pid = server.pid()
    before = (server.place / "named.conf.local").read_text()
    # Again: the same, with the same keys, and nothing is started anew.
    world.set()
    assert server.pid() == pid and (server.place / "alveole.conf").read_text() == written
    assert (server.place / "named.conf.local").read_text() == before


def test_names_follow_the_life_of_a_site(world: World) -> None:
    door = world.door
    door.site("blog")
    until(lambda: world.dig(f"blog.{DOMAIN}") == FOUR and world.dig(f"blog.{DOMAIN}", "AAAA") == SIX)
    door.ended(door.http.patch("/v1/sites/blog", json={"add_domains": [f"www.shop.{DOMAIN}", "shop.example.org"]}))
    until(lambda: world.dig(f"www.shop.{DOMAIN}") == FOUR)
    # What is not of the zone is nobody's business here.
    assert "shop.example.org" not in world.names()
    door.ended(door.http.post("/v1/sites/blog/stop"))
    door.services.naming.sync(by_hand=True)
    assert world.dig(f"blog.{DOMAIN}") == FOUR
    door.ended(door.http.post("/v1/sites/blog/rename", json={"name": "journal"}))
    until(lambda: world.dig(f"journal.{DOMAIN}") == FOUR and not world.dig(f"blog.{DOMAIN}"))
    door.ended(door.http.patch("/v1/sites/journal", json={"remove_domains": [f"www.shop.{DOMAIN}"]}))
    until(lambda: not world.dig(f"www.shop.{DOMAIN}"))
    why = door.http.get("/v1/sites/journal/why").json()
    assert next(each for each in why["links"] if each["name"] == "name")["ok"], why
    door.ended(door.http.delete("/v1/sites/journal", params={"confirm": "journal"}))
    until(lambda: not world.dig(f"journal.{DOMAIN}", "AAAA") and f"journal.{DOMAIN}" not in world.names())
    told = until(
        lambda: [each for each in world.changes() if each["verb"] == "publish-names" and "is removed" in each["reason"]]
    )
    assert told


def test_what_is_deleted_by_hand_comes_back(world: World) -> None:
    """Fault: drift in the zone is put right, and the journal says what it was."""
    door = world.door
    door.site("drift")
    name = f"drift.{DOMAIN}"
    until(lambda: world.names().get(name) == "published")
    hand = door.services.naming.updates(door.services.naming.dns)
    hand.remove(name, "A")
    hand.replace(name, "AAAA", 60, ["2001:db8::bad"])
    until(lambda: world.dig(name) == FOUR and world.dig(name, "AAAA") == SIX)

    def cause() -> bool:
        # Noticed together or one by one.
        told = " ".join(each["reason"] for each in world.changes(site="drift") if each["verb"] == "repair")
        return f"{name}: A was removed" in told and "AAAA was changed to 2001:db8::bad" in told

    until(cause)
    # Under a wildcard of somebody's the name still answers, and is missing all the same.
    hand.replace(f"*.{DOMAIN}", "A", 60, ["192.0.2.99"])
    hand.remove(name, "A")
    until(lambda: world.dig(name) == FOUR)
    hand.remove(f"*.{DOMAIN}", "A")
    world.destroy("drift")
    until(lambda: not world.dig(name))


def test_nobody_elses_record_is_touched(world: World) -> None:
    """Threat 27: a name that somebody else's record holds is told, and neither written over nor removed."""
    door = world.door
    hand = door.services.naming.updates(door.services.naming.dns)
    name, other = f"taken.{DOMAIN}", f"same.{DOMAIN}"
    hand.replace(name, "CNAME", 60, ["elsewhere.example.org"])
    hand.replace(other, "A", 60, FOUR)
    hand.replace(other, "AAAA", 60, SIX)
    hand.replace(f"text.{DOMAIN}", "TXT", 60, ["not ours"])
    for site in ("taken", "same", "text"):
        door.site(site)
    until(lambda: world.names().get(name) == "held" and world.names().get(other) == "theirs")
    assert world.dig(name, "CNAME") == ["elsewhere.example.org."]
    until(lambda: any(each["state"] == "failed" and name in each["reason"] for each in world.changes(site="taken")))
    held = next(each for each in _checked(world)["links"] if each["name"] == "names")
    assert not held["ok"] and "take that record out" in held["cure"]
    why = door.http.get("/v1/sites/taken/why").json()
    assert any("elsewhere.example.org" in each for each in why["waiting"])
    assert not next(each for each in why["links"] if each["name"] == "name")["ok"]
    assert any(not each["ok"] and name in each["came"] for each in door.http.get("/v1/doctor").json()["links"])
    # Once it is let go, the site has it; and what is beside ours stays when ours goes.
    hand.remove(name, "CNAME")
    until(lambda: world.dig(name) == FOUR)
    world.destroy("taken", "same", "text")
    until(lambda: not {name, other, f"text.{DOMAIN}"} & world.names().keys())
    assert world.dig(name) == [] and world.dig(other) == FOUR
    assert world.dig(f"text.{DOMAIN}", "TXT") == ['"not ours"'] and world.dig(f"text.{DOMAIN}") == []


def test_aliases_wildcards_and_other_addresses(world: World) -> None:
    door = world.door
    door.site("wide")
    shown = world.set(alias=f"host.{DOMAIN}", wildcards=["wide"])
    assert shown["settings"]["wildcards"] == ["wide"]
    assert world.dig(f"wide.{DOMAIN}", "CNAME") == [f"host.{DOMAIN}."]
    assert world.dig(f"any.wide.{DOMAIN}", "CNAME") == [f"host.{DOMAIN}."]
    # At the top of a zone there can be no alias.
    assert world.dig(DOMAIN) == FOUR
    # Nothing is at that name: all is as it was written, and no name leads anywhere, which is told.
    said = {each["name"]: each for each in _checked(world)["links"]}
    assert said["names"]["ok"] and not said["alias"]["ok"] and said["alias"]["came"] == f"host.{DOMAIN} has no address"
    link = next(each for each in door.http.get("/v1/sites/wide/why").json()["links"] if each["name"] == "name")
    assert not link["ok"] and f"host.{DOMAIN} has no address" in link["came"] and "--alias" in link["cure"]
    world.set(alias=f"ns1.{DOMAIN}", wildcards=["wide"])
    said = {each["name"]: each for each in _checked(world)["links"]}
    assert said["alias"]["ok"] and said["alias"]["came"] == ", ".join([*FOUR, *SIX])
    world.set(addresses=["192.0.2.9"], wildcard=True)
    assert world.dig(f"wide.{DOMAIN}") == ["192.0.2.9"] and world.dig(f"wide.{DOMAIN}", "AAAA") == []
    assert world.dig(f"any.{DOMAIN}") == ["192.0.2.9"] and world.dig(f"ns1.{DOMAIN}") == ["192.0.2.9"]
    world.set()
    assert world.dig(f"any.{DOMAIN}") == [] and world.dig(f"any.wide.{DOMAIN}") == []
    answer = door.http.put("/v1/dns", json={"wildcards": ["nobody"], "addresses": ["::", "fe80::1%lo"], "ttl": 1})
    assert answer.status_code == 422 and {each["field"] for each in answer.json()["problems"]} == {
        "wildcards",
        "addresses",
        "ttl",
    }


def test_a_secondary_fetches_the_zone_and_is_told(world: World) -> None:
    """A real Knot: it transfers with the key, whole and then by steps, within moments of each change."""
    door = world.door
    key = door.http.get("/v1/dns/transfer-key").json()
    with knot(DOMAIN, key["name"], key["secret"], primary=world.server.port) as second:
        secondaries = [{"address": f"127.0.0.1:{second.port}", "name": f"ns2.{DOMAIN}"}]
        world.set(secondaries=secondaries, transfer_by_key=True)
        assert world.dig(DOMAIN, "NS") == [f"ns1.{DOMAIN}.", f"ns2.{DOMAIN}."]
        assert world.dig(f"ns2.{DOMAIN}") == ["127.0.0.1"]
        until(lambda: dig(second.port, DOMAIN) == FOUR)
        door.site("far")
        until(lambda: dig(second.port, f"far.{DOMAIN}", "AAAA") == SIX)
        until(lambda: _checked(world)["ok"])
        _transferred(second)
        _challenged(world, second)
        # Nobody without the key.
        assert world.dig(DOMAIN, "AXFR") == []
    said = _checked(world)
    assert not said["ok"] and any("secondary" in each["name"] and not each["ok"] for each in said["links"])
    world.set()
    assert world.dig(DOMAIN, "NS") == [f"ns1.{DOMAIN}."] and world.dig(f"ns2.{DOMAIN}") == []


def _checked(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.door.http.post("/v1/dns/check").json()
    return found


def _told_to_look(world: World, own: OwnZone) -> None:
    """An authority is told only once its records are there to be found, and stay."""
    told: list[str] = []
    dialogue: Any = SimpleNamespace(prove=lambda url, _pending: told.append(url))
    pending: Any = (SimpleNamespace(kind="dns-01", name=DOMAIN, value="proof"),)
    settings = AcmeSettings(zones=(own,))

    def prove(stopped: bool) -> None:
        certifier: Any = SimpleNamespace(_stop=threading.Event(), _agent=world.door.agent)
        if stopped:
            certifier._stop.set()
        authority: Any = SimpleNamespace(name="somebody")
        Certifier._prove(certifier, dialogue, authority, Order("o", (DOMAIN,)), pending, settings, lambda _text: None)

    with pytest.raises(Temporary, match="control is ending"):
        prove(stopped=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointing, "fetched", lambda zone, _pause: zone.secondaries)
        with pytest.raises(Temporary, match=f"has not fetched {DOMAIN} yet"):
            prove(stopped=False)
    assert told == []
    prove(stopped=False)
    assert len(told) == 1 and world.dig(f"_acme-challenge.{DOMAIN}", "TXT") == []


def _transferred(second: Knot) -> None:
    """It has fetched it, and fetched what changed."""
    for word in ("AXFR, incoming", "IXFR, incoming", "notify, incoming"):
        until(lambda word=word: word in log_of(second.place))


def _challenged(world: World, second: Knot) -> None:
    """Challenges of ACME go into the zone too, and are there at the secondary when an authority is told to look."""
    (own,) = world.door.services._acme().zones
    assert isinstance(own, OwnZone) and own.secondaries == (f"127.0.0.1:{second.port}",)
    for word in ("one", "two", "three"):
        own.updates().replace(f"_acme-challenge.{DOMAIN}", "TXT", 60, [word])
        assert pointing.fetched(own, time.sleep) == ()
        assert dig(second.port, f"_acme-challenge.{DOMAIN}", "TXT") == [f'"{word}"']
    own.updates().remove(f"_acme-challenge.{DOMAIN}", "TXT")
    _told_to_look(world, own)
    # One that does not answer is not waited for; the zone goes with the names, and not by itself.
    assert pointing.fetched(msgspec.structs.replace(own, secondaries=("127.0.0.1:1",)), lambda _seconds: False) == ()
    shown = world.door.http.get("/v1/acme").json()["zones"]
    assert [(each["zone"], each["published"]) for each in shown] == [(DOMAIN, True)]
    answer = world.door.http.delete(f"/v1/acme/zones/{DOMAIN}")
    assert answer.status_code == 409 and "names are published" in answer.text


def test_every_name_below_a_site_is_published(world: World) -> None:
    """With the site, under its new name too, and until it is destroyed."""
    door = world.door
    door.site("many")
    change = door.http.post("/v1/sites/many/domains", json={"domain": f"*.many.{DOMAIN}"}).json()["change"]
    until(lambda: door.http.get(f"/v1/changes/{change}").json()["state"] == "done")
    until(lambda: world.dig(f"any.many.{DOMAIN}") == FOUR)
    links = {each["name"]: each for each in door.http.get("/v1/sites/many/why").json()["links"]}
    assert links["name"]["ok"] and links[f"name *.many.{DOMAIN}"]["ok"]
    door.ended(door.http.post("/v1/sites/many/rename", json={"name": "more"}))
    until(lambda: world.dig(f"any.more.{DOMAIN}") == FOUR and world.dig(f"any.many.{DOMAIN}") == [])
    world.destroy("more")
    until(lambda: world.dig(f"any.more.{DOMAIN}") == [])


def test_the_machines_addresses_are_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, at the rhythm of the loop: DHCP gave another one, the provider another prefix."""
    found = ["192.0.2.50", "2001:db8:a::1"]
    monkeypatch.setattr(naming, "detected", lambda _settings: tuple(found))
    shown = world.set(addresses=[])
    assert shown["settings"]["follow"] and shown["addresses"] == found
    assert world.dig(f"ns1.{DOMAIN}") == ["192.0.2.50"] and world.dig(f"ns1.{DOMAIN}", "AAAA") == ["2001:db8:a::1"]
    found[:] = ["192.0.2.51", "2001:db8:b::1"]
    until(lambda: world.dig(f"ns1.{DOMAIN}") == ["192.0.2.51"])
    until(lambda: world.dig(DOMAIN, "AAAA") == ["2001:db8:b::1"])
    until(lambda: [each for each in world.changes() if each["verb"] == "follow-addresses" and each["state"] == "done"])
    # An interface that is down for a moment empties nothing, and control remembers what it has published.
    found[:] = []
    world.door.services.naming.sync(by_hand=True)
    assert world.dig(f"ns1.{DOMAIN}") == ["192.0.2.51"]
    world.door.stop()
    world.door.start()
    assert world.shown()["addresses"] == ["192.0.2.51", "2001:db8:b::1"]
    # Those that are given are not followed.
    found[:] = ["192.0.2.52"]
    assert not world.set()["settings"]["follow"]
    world.door.services.naming.sync(by_hand=True)
    assert world.dig(f"ns1.{DOMAIN}") == FOUR


def test_a_name_server_that_is_down(world: World) -> None:
    """Fault 10: sites go on, what waits is said, and it is made good by itself once the server is back."""
    door, server = world.door, world.server
    server.stop()
    door.site("later")
    until(lambda: not world.shown()["ok"] and world.shown()["problem"])
    shown = world.shown()
    assert shown["next_at"] > shown["since"] and "cannot be asked" in shown["problem"]
    assert door.http.get("/v1/sites/later").json()["state"] == "running"
    why = door.http.get("/v1/sites/later/why").json()
    assert any("wait for the name server" in each for each in why["waiting"])
    assert any(each["name"] == "name server" and not each["ok"] for each in door.http.get("/v1/doctor").json()["links"])
    until(lambda: any("takes no changes" in each["reason"] for each in world.changes(state="failed")))
    server.start()
    door.services.naming.sync(by_hand=True)
    until(lambda: world.dig(f"later.{DOMAIN}") == FOUR and world.shown()["ok"])


def test_control_that_is_killed_knows_what_is_its_own(world: World) -> None:
    """Fault: killed after the zone was written and before that was noted, it takes what is there for its own."""
    door = world.door
    name = f"cut.{DOMAIN}"
    naming = door.services.naming
    keep = naming.keep

    def cut(done: Any) -> None:
        if any(row is not None and row.state == "published" and row.name == name for row in done.values()):
            raise Temporary("killed")
        keep(done)

    naming.keep = cut
    try:
        door.site("cut")
        until(lambda: world.dig(name) == FOUR)
    finally:
        naming.keep = keep
    door.stop()
    door.start()
    until(lambda: world.names().get(name) == "published")
    world.destroy("cut")
    until(lambda: not world.dig(name))


def test_undone(world: World) -> None:
    """What was set up is gone, with the server that was started for it; again is no fault."""
    server = world.server
    if f"later.{DOMAIN}" not in world.names():
        world.door.site("later")
    until(lambda: world.names().get(f"later.{DOMAIN}") == "published")
    server_pid = server.pid()
    assert world.door.http.delete("/v1/dns").status_code == 200
    assert world.door.http.get("/v1/dns").status_code == 404
    assert not (server.place / "alveole.conf").exists()
    assert (server.place / "named.conf.local").read_text() == "// what the administrator has there\n"
    assert server_pid is not None
    until(lambda: gone(server_pid))
    assert not world.dig(DOMAIN, "NS")
    # And set up once more: the records of before are there, and still ours to change and to remove.
    world.set(addresses=["192.0.2.77"])
    until(lambda: world.dig(f"later.{DOMAIN}") == ["192.0.2.77"] == world.dig(f"ns1.{DOMAIN}"))
    assert world.names()[f"later.{DOMAIN}"] == "published"
    world.destroy("later")
    until(lambda: not world.dig(f"later.{DOMAIN}"))
    assert world.door.http.delete("/v1/dns").json() == {"left": []}


def test_a_zone_that_comes_back_here_is_still_ours(world: World) -> None:
    """From here to a Knot elsewhere and back, also by way of an undo: the names in the file of the zone that was kept
    follow the address and their sites, as if it had never been away."""
    door = world.door
    world.set()
    for site in ("stay", "left"):
        door.site(site)
    until(lambda: world.names().get(f"left.{DOMAIN}") == "published")
    for undo in (False, True):
        with knot(DOMAIN, "alveole-up") as other:
            if undo:
                with door.services.naming.standing_still():
                    # Killed right behind it: it is asked for again, with nothing left here that could be put by.
                    door.services._put_by(DOMAIN)
                assert door.http.delete("/v1/dns").status_code == 200
            place = {"mode": "elsewhere", "server": "127.0.0.1", "port": other.port}
            if not undo:
                # What was said to the server of before does not go along, nor is it in the way.
                secondaries = [{"address": "192.0.2.53", "name": ""}]
                world.set(secondaries=secondaries, transfer_by_key=True)
                tried = {**place, "addresses": FOUR, "secondaries": secondaries, "key": "alveole", "secret": "***"}
                answer = door.http.post("/v1/dns/try", json={"settings": tried}).json()
                assert not answer["ok"] and "alveole" not in answer["links"][-1]["came"], answer
            world.set(**place, key="alveole-up", secret=other.secret)
            until(lambda other=other: dig(other.port, f"stay.{DOMAIN}") == FOUR)
            if not undo:
                world.destroy("left")
            if undo:
                assert door.http.delete("/v1/dns").status_code == 200
            address = "192.0.2.78" if undo else "192.0.2.77"
            world.set(addresses=[address])
        until(lambda address=address: world.dig(f"stay.{DOMAIN}") == [address] == world.dig(DOMAIN))
        assert set(world.names().values()) == {"published"}
        # Destroyed while the zone was away.
        assert world.dig(f"left.{DOMAIN}") == []
    world.destroy("stay")
    until(lambda: not world.dig(f"stay.{DOMAIN}"))
    assert door.http.delete("/v1/dns").json() == {"left": []}


def test_another_instance_of_this_machine_leaves_it(world: World) -> None:
    """Its own zone would take the place of this one, and its --undo this one away."""
    server = world.server
    world.set()
    written = (server.place / "alveole.conf").read_text()
    second = NameServers(parse({"paths": {"state": "/var/lib/alveole-second"}, "nameserver": server.settings}))
    key = NameKey("alveole-second", "hmac-sha256", "c2Vjb25k")
    wanted = {"update": key, "transfer": key, "fetchers": (), "by_key": False, "ttl": 60, "serial": 1}
    with pytest.raises(Refused, match="another Alvéole"):
        second.set_up(SetUpNames(zone="second.test", hosts=(NameHost("ns1.second.test", ("::1",)),), **wanted))
    second.undo()
    _uninstall(world, "/var/lib/alveole-second")
    assert (server.place / "alveole.conf").read_text() == written and world.dig(DOMAIN, "NS")


def test_the_installer_takes_it_out_where_nothing_runs(world: World) -> None:
    """Keys and zone too; the server that was started for it is stopped."""
    world.set()
    server, pid = world.server, world.server.pid()
    assert pid is not None and world.dig(DOMAIN, "NS")
    _uninstall(world, world.door.settings.paths.state)
    until(lambda: gone(pid))
    left = {each.name for each in server.place.iterdir()}
    assert not [name for name in left if "alveole" in name], left
    assert (server.place / "named.conf.local").read_text() == "// what the administrator has there\n"
    assert world.door.http.delete("/v1/dns").json() == {"left": []}


def _uninstall(world: World, state: str) -> None:
    """What ``quickstart --undo`` does about BIND, and nothing else of it."""
    with tempfile.TemporaryDirectory(prefix="alvdns", dir="/tmp") as place:
        config = Path(place, "alveole.toml")
        values = {**world.server.settings, "state": state}
        written = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if key != "state")
        config.write_text(f"[paths]\nstate = {json.dumps(state)}\n[nameserver]\n{written}")
        act = "import sys; from pathlib import Path; import nameserver; from kit import Instance; "
        act += "nameserver.undo(one := Instance(Path(sys.argv[1]))); assert not [*nameserver.left(one)]"
        environment = {**os.environ, "PYTHONPATH": str(INSTALLER), "PYTHONDONTWRITEBYTECODE": "1"}
        argv = ["/usr/bin/python3", "-c", act, str(config)]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_configuration_that_bind_refuses_is_taken_back(world: World) -> None:
    """Fault: nothing of BIND's is left changed when it does not take it."""
    world.door.http.delete("/v1/dns")
    server = world.server
    local = server.place / "named.conf.local"
    text = local.read_text()
    local.write_text(f'{text}zone "{DOMAIN}" {{ type primary; file "other"; }};\n')
    try:
        answer = world.door.http.put("/v1/dns", json={"addresses": FOUR})
        assert answer.status_code == 409 and "already" in answer.text
        local.write_text(f"{text}nonsense;\n")
        answer = world.door.http.put("/v1/dns", json={"addresses": FOUR})
        assert answer.status_code == 409 and "BIND does not take it" in answer.text and "nonsense" in answer.text
        assert local.read_text() == f"{text}nonsense;\n" and not (server.place / "alveole.conf").exists()
        assert world.door.http.get("/v1/dns").status_code == 404
    finally:
        local.write_text(text)
