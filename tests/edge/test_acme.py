"""Certificates by ACME: a real authority that comes to look at the real edge, and refuses where it may."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pure"))
from acmekit import EAB, ROOT, Pebble, Platform, pebble
from edgefixtures import World, world

from alveole import requests as ask
from alveole.agent.certifying import DropCertificate, KeepChallenge
from alveole.errors import InvalidInput, Refused, Temporary
from alveole.host import paths
from alveole.issuing import pointing, rows
from alveole.issuing.rows import Order
from alveole.people.model import Actor, Role
from alveole.views import certificates as cv
from dnskit import ZONE, NameServer, name_server
from instancekit import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/usr/bin/pebble").exists(), reason="needs pebble"),
    pytest.mark.skipif(not Path("/usr/sbin/named").exists(), reason="needs named (package bind9)"),
]
#: Where control, or the agent, dies on the way to one certificate.
STEPS = (
    "given.requested",
    "certifying.ordered",
    "certifying.challenged",
    "certifying.signed",
    "given.linked",
    "certifying.installed",
)


@pytest.fixture(scope="module")
def zone() -> Iterator[NameServer]:
    with name_server(keyed=True) as made:
        yield made


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def authority(edge: World, zone: NameServer) -> Iterator[Pebble]:
    with pebble(edge.http, zone.address, environment={"PEBBLE_WFE_NONCEREJECT": "30"}) as made:
        yield made


@pytest.fixture(scope="module")
def platform(edge: World, zone: NameServer, authority: Pebble) -> Iterator[Platform]:
    """With one authority, which is only asked when a test asks for something."""
    made = Platform(edge, zone)
    try:
        made.services.set_acme(ROOT, cv.SetAcme(automatic=False))
        made.add(authority)
        yield made
    finally:
        made.close()


def own_chain(names: tuple[str, ...], days: tuple[int, int] = (-10, 80)) -> tuple[str, str, str]:
    """An authority, and a key and a certificate of it."""
    from test_certs import make, pem_of

    signing, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    leaf = make(names[0], key, "somebody", signing, names=names, days=days)
    return make("somebody", signing, authority=True), pem_of(key), leaf


def order_of(platform: Platform, name: str) -> Order:
    with platform.services.store.read() as connection:
        (found,) = [each for each in rows.every(connection) if name in each.names]
    return found


def put(platform: Platform, order: Order, **changed: object) -> None:
    with platform.services.store.write() as transaction:
        rows.put(transaction.connection, msgspec.structs.replace(order, **changed))


def forget(platform: Platform, *names: str) -> None:
    """So that the engine does not come back to them in the midst of another test."""
    for name in names:
        with platform.services.store.write() as transaction:
            rows.drop(transaction.connection, order_of(platform, name).id)


def workers(edge: World) -> list[str]:
    master = edge.edge.master()
    return Path(f"/proc/{master}/task/{master}/children").read_text().split()


def round_of(platform: Platform) -> None:
    """One round of the engine, whose own may be at work."""
    certifier = platform.services.certifier
    until(lambda: not certifier._busy.locked(), 60)
    certifier.round()


def test_a_name_gets_its_certificate_over_http(platform: Platform, authority: Pebble, edge: World) -> None:
    """Our own authority's is shown until the other is there; nonces that are refused are asked for again; nothing is
    reloaded, and a connection that is open stays so."""
    name = f"www.{ZONE}"
    platform.own(name)
    platform.at(name)
    assert platform.shown(name).source == "internal"
    before, master = workers(edge), edge.edge.master()
    context = ssl.create_default_context(cadata=edge.certificates.authority_pem())
    with context.wrap_socket(socket.create_connection(("127.0.0.1", edge.https), 60), server_hostname=name) as open_one:
        platform.done(platform.issue(name))
        found = platform.shown(name)
        assert (found.source, found.by, found.hindrance) == ("acme", "pebble", "")
        assert found.names == (name,) and "PRIVATE" not in found.chain
        assert ("DNS", name) in platform.chain(name, authority.root())["subjectAltName"]
        # Begun under the old certificate, and going on.
        open_one.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        assert open_one.recv(12) == b"HTTP/1.1 404"
    assert (workers(edge), edge.edge.master()) == (before, master)
    order = order_of(platform, name)
    life = found.expires_at - found.issued_at
    assert found.issued_at + life * 0.6 < order.renew_at < found.issued_at + life * 0.67
    assert order.url == "" and order.next_at <= order.renew_at
    challenges = paths.edge(platform.settings) / "acme" / ".well-known" / "acme-challenge"
    assert list(challenges.iterdir()) == []
    assert list((paths.certificates(platform.settings) / "given" / "orders").iterdir()) == []
    (file,) = {each.readlink() for each in paths.edge_certificates(platform.settings).iterdir() if name in each.name}
    assert file.stat().st_mode & 0o777 == 0o640
    (spent,) = platform.services.show_acme(ROOT).authorities[0].spent
    assert (spent.domain, spent.issued, spent.most) == (ZONE, 1, 50)


def test_the_challenge_is_answered_for_every_name(platform: Platform, edge: World) -> None:
    """Also where a name leads to HTTPS only, to a site that is stopped, or nowhere."""
    from alveole.model.resource import RouteTarget

    token = "a" * 43
    edge.route(70, "strict.example.test", https_only=True)
    edge.route(71, "stopped.example.test", target=RouteTarget.STOPPED)
    edge.certificates.given.keep_challenge(KeepChallenge(token, "b" * 43))
    for name in ("strict.example.test", "stopped.example.test", "nowhere.example.test"):
        answer = edge.ask(name, f"/.well-known/acme-challenge/{token}")
        assert (answer.status, answer.body) == (200, f"{token}.{'b' * 43}".encode()), name
    assert edge.ask("strict.example.test", "/.well-known/acme-challenge/other").status == 404


def test_a_name_that_leads_elsewhere_is_not_asked_for(platform: Platform, authority: Pebble) -> None:
    """Nobody's budget is spent in vain, and nothing inside is connected to (threat 18)."""
    absent, inside = f"absent.{ZONE}", f"inside.{ZONE}"
    for name in (absent, inside):
        platform.own(name)
    platform.at(inside, "10.255.255.1")
    asked = authority.log().count("new-order") + authority.log().count("/order-plz")
    assert "has no address" in platform.failed(platform.issue(absent))
    assert "which is inside" in platform.failed(platform.issue(inside))
    assert authority.log().count("new-order") + authority.log().count("/order-plz") == asked
    order = order_of(platform, absent)
    assert order.attempts == 1 and order.next_at > time.time() and "has no address" in order.problem
    assert platform.shown(absent).source == "internal"
    forget(platform, absent, inside)


def test_name_servers_that_refuse_are_told_in_few_words(zone: NameServer) -> None:
    with pytest.raises(Temporary) as told:
        pointing.addresses("www.another.net", (zone.address,), 20.0)
    assert str(told.value) == f"name: the name servers do not say: 127.0.0.1@{zone.port}: REFUSED"


def test_what_an_authority_does_not_believe(platform: Platform) -> None:
    """Fault 9: a validation that is refused is counted, and the budget holds before the authority would."""
    name = f"refused.{ZONE}"
    platform.own(name)
    platform.services.set_acme(ROOT, cv.SetAcme(look=False))
    try:
        for _ in range(5):
            assert "was not convinced" in platform.failed(platform.issue(name))
        assert "5 of 5 failed validations" in platform.failed(platform.issue(name))
        assert order_of(platform, name).next_at > time.time() + 1000
        with platform.services.store.read() as connection:
            spent = [each for each in rows.spent(connection, 0.0) if each.kind == "failed" and each.domain == name]
        assert len(spent) == 5
    finally:
        forget(platform, name)
        platform.services.set_acme(ROOT, cv.SetAcme(look=True))


def test_what_is_due_is_renewed_by_itself(platform: Platform) -> None:
    """Fault 9: and journalled; where it fails the old one serves, and it is tried again later and later."""
    name = f"renewed.{ZONE}"
    platform.own(name)
    platform.at(name)
    platform.done(platform.issue(name))
    before = platform.shown(name)
    platform.at(name, "")
    put(platform, order_of(platform, name), renew_at=1.0, next_at=1.0)
    round_of(platform)
    failed = order_of(platform, name)
    assert failed.attempts == 1 and platform.shown(name).chain == before.chain
    platform.at(name)
    put(platform, failed, next_at=1.0)
    round_of(platform)
    after = platform.shown(name)
    assert after.chain != before.chain and after.attempts == 0
    changes = platform.services.list_changes(ROOT, ask.ListChanges())
    mine = [(str(each.state), each.actor) for each in changes if each.verb == "renew-certificate"]
    assert mine == [("done", "reconciler"), ("failed", "reconciler")]


def test_the_next_authority_when_a_budget_is_used(platform: Platform, edge: World, zone: NameServer) -> None:
    """The first binds its orders to an account of its own, and gives one certificate a week."""
    first, second = f"one.{ZONE}", f"two.{ZONE}"
    for name in (first, second):
        platform.own(name)
        platform.at(name)
    with pebble(edge.http, zone.address, bound=True) as bound:
        with pytest.raises(Exception, match="binds orders to an account"):
            platform.add(bound, "bound", budget={"domain_week": 1})
        platform.add(bound, "bound", budget={"domain_week": 1}, eab_kid=EAB[0], eab_key=EAB[1])
        try:
            platform.services.set_acme(ROOT, cv.SetAcme(order=("bound", "pebble")))
            platform.done(platform.issue(first))
            told = platform.done(platform.issue(second))
            assert (platform.shown(first).by, platform.shown(second).by) == ("bound", "pebble")
            assert any("1 of 1 certificates of this week" in each.text for each in told.events)
            assert platform.services.try_authority(ROOT, "bound").ok
            bound_view = platform.services.show_acme(ROOT).authorities[0]
            assert bound_view.eab_key == "***" and bound_view.account
        finally:
            platform.services.remove_authority(ROOT, "bound")


def test_a_wildcard_over_dns(platform: Platform, authority: Pebble) -> None:
    """By itself once a zone can be written to: one certificate for the main domain and every site below it."""
    platform.add_zone()
    platform.site("blog")
    name = f"blog.{ZONE}"
    try:
        platform.services.set_acme(ROOT, cv.SetAcme(automatic=True))
        until(lambda: platform.shown(name).source == "acme", 90, lambda: str(platform.shown(name)))
        assert platform.shown(name).names == (ZONE, f"*.{ZONE}")
        names = platform.chain(name, authority.root())["subjectAltName"]
        assert set(names) == {("DNS", ZONE), ("DNS", f"*.{ZONE}")}
        until(lambda: order_of(platform, ZONE).expires_at > 0, 30)
        assert platform.updates.ask(f"_acme-challenge.{ZONE}", "TXT").values == ()
        # One that is taken back is followed by another, without waiting for the hour's look.
        until(lambda: order_of(platform, ZONE).expires_at > 0, 30)
        with pytest.raises(Refused, match=f"{name} shares the certificate of"):
            platform.services.remove_certificate(ROOT, name)
        assert platform.shown(name).source == "acme"
        platform.services.remove_certificate(ROOT, f"*.{ZONE}")
        assert platform.shown(name).source == "internal"
        until(lambda: platform.shown(name).source == "acme", 90, lambda: str(platform.shown(name)))
        # One whose link was lost, the main domain's own name being left with it, comes back likewise.
        until(lambda: order_of(platform, ZONE).expires_at > 0, 30)
        platform.agent.call(DropCertificate((f"*.{ZONE}",)))
        assert platform.shown(name).source == "internal"
        platform.services.certifier.poke()
        until(lambda: platform.shown(name).source == "acme", 90, lambda: str(platform.shown(name)))
        # A site that comes later has it from its first moment on.
        platform.site("later")
        assert platform.shown(f"later.{ZONE}").source == "acme"
        # The next one for one of them is the next one for all: no certificate of its own besides.
        before = platform.shown(f"later.{ZONE}").chain
        platform.done(platform.issue(name, renew=True))
        assert platform.shown(f"later.{ZONE}").chain != before
        assert platform.shown(name).names == (ZONE, f"*.{ZONE}")
        # Whoever has one site alone spends nothing of what all of them have.
        site = platform.services.show_site(ROOT, "blog").id
        owner = Actor("ci", Role.ADMIN, "token:ci", sites=frozenset({str(site)}))
        with pytest.raises(Refused, match=f"{name} shares the certificate of"):
            platform.services.issue_certificate(owner, name, cv.IssueCertificate(renew=True), "blog")
        # What was ordered for one of them alone goes, and the one for all is shown as before. No round may be about to
        # make or drop any order meanwhile.
        platform.services.set_acme(ROOT, cv.SetAcme(automatic=False))
        later = time.time() + 3600
        alone = Order("o-alone", (name,), str(site), asked=True, next_at=later, expires_at=later)
        with platform.services.store.write() as transaction:
            rows.put(transaction.connection, alone)
        platform.services.remove_certificate(ROOT, name)
        assert platform.shown(name).names == (ZONE, f"*.{ZONE}")
        with platform.services.store.read() as connection:
            assert all(name not in each.names for each in rows.every(connection))
    finally:
        platform.services.set_acme(ROOT, cv.SetAcme(automatic=False))
        platform.services.remove_zone(ROOT, ZONE)
        platform.services.remove_certificate(ROOT, f"*.{ZONE}")


def test_every_name_below_a_site(platform: Platform, authority: Pebble) -> None:
    """Its own certificate, proven by DNS at the name above; and none by HTTP, which could not prove it."""
    platform.site("wide")
    name = f"*.wide.{ZONE}"
    platform.done(platform.services.set_site(ROOT, "wide", ask.SetSite(add_domains=(name,))))
    assert platform.shown(name).source == "internal"
    assert "no authority that is set up" in platform.failed(platform.issue(name))
    platform.add_zone()
    try:
        platform.done(platform.issue(name))
        assert (platform.shown(name).source, platform.shown(name).names) == ("acme", (name,))
        seen = platform.chain(f"any.wide.{ZONE}", authority.root())
        assert seen["subjectAltName"] == (("DNS", name),)
        assert platform.updates.ask(f"_acme-challenge.wide.{ZONE}", "TXT").values == ()
        # The name itself is not below itself.
        assert platform.shown(f"wide.{ZONE}").source == "internal"
        platform.services.remove_certificate(ROOT, name, "wide")
        assert platform.shown(name).source == "internal"
    finally:
        platform.services.remove_zone(ROOT, ZONE)


def test_an_authority_that_was_made_anew(platform: Platform, edge: World, zone: NameServer) -> None:
    """It knows no account any more: it is told so by trying, and gives another to the same key."""
    name = f"anew.{ZONE}"
    platform.own(name)
    platform.at(name)
    with pebble(edge.http, zone.address) as first:
        platform.add(first, "anew")
    account = platform.services.show_acme(ROOT).authorities[-1].account
    try:
        platform.services.set_acme(ROOT, cv.SetAcme(order=("anew", "pebble")))
        refused = platform.services.try_authority(ROOT, "anew")
        assert not refused.ok and "Connection refused" in refused.said and "Pool" not in refused.said
        with pebble(edge.http, zone.address, instead_of=first):
            tried = platform.services.try_authority(ROOT, "anew")
            assert tried.ok and f"it did not know {account} any more" in tried.said
            assert platform.services.show_acme(ROOT).authorities[0].account not in ("", account)
        with pebble(edge.http, zone.address, instead_of=first):
            platform.done(platform.issue(name))
            assert platform.shown(name).by == "anew"
    finally:
        platform.services.remove_authority(ROOT, "anew")
        forget(platform, name)


@pytest.mark.turn
def test_killed_at_every_step(platform: Platform, authority: Pebble) -> None:
    """Fault 3: SIGKILL wherever something was just stored. One order, one certificate, no key left behind."""
    name = f"killed.{ZONE}"
    platform.own(name)
    platform.at(name)
    issued = authority.log().count("Issued certificate serial")
    raw = msgspec.json.encode(platform.settings).decode()
    argv = [sys.executable, str(Path(__file__).parent / "acmedriver.py"), raw, name]
    # The engine of this process stands still meanwhile.
    with platform.services.certifier._busy:
        for step in STEPS:
            environment = {**os.environ, "ALVEOLE_FAILPOINT": step}
            done = subprocess.run(argv, env=environment, capture_output=True, timeout=180)
            assert done.returncode == -signal.SIGKILL, (step, done.stdout[-500:], done.stderr[-2000:])
        done = subprocess.run(argv, capture_output=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["change"] == "done", found
    assert platform.shown(name).source == "acme"
    assert authority.log().count("Issued certificate serial") == issued + 1
    key = f"{order_of(platform, name).id}.key"
    assert not (paths.certificates(platform.settings) / "given" / "orders" / key).exists()


@pytest.mark.turn
def test_a_slow_authority_is_gone_on_with(platform: Platform, edge: World, zone: NameServer) -> None:
    name = f"slow.{ZONE}"
    platform.own(name)
    platform.at(name)
    slow = {"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "9"}
    with pebble(edge.http, zone.address, environment=slow) as made:
        platform.add(made, "slow", seconds=5)
        try:
            platform.services.set_acme(ROOT, cv.SetAcme(order=("slow", "pebble")))
            if "not done within 5 s" in str(ended := platform.services.wait(ROOT, platform.issue(name).id, 120)):
                order = order_of(platform, name)
                assert order.url and order.authority == "slow", ended
                ended = platform.services.wait(ROOT, platform.issue(name).id, 120)
            for _ in range(3):
                if str(ended.state) == "done":
                    break
                ended = platform.services.wait(ROOT, platform.issue(name).id, 120)
            assert platform.shown(name).by == "slow"
        finally:
            platform.services.remove_authority(ROOT, "slow")


def test_an_own_certificate_goes_first(platform: Platform, edge: World) -> None:
    """For the names of the site alone that it is for; everything wrong with another is said at once."""
    platform.site("club")
    name, other = f"club.{ZONE}", f"www.{ZONE}"
    root, key, chain = own_chain((name, other))
    with pytest.raises(InvalidInput) as raised:
        bad = cv.UploadCertificate(chain=own_chain(("x.fr",), days=(-90, -1))[2], key="none")
        platform.services.upload_certificate(ROOT, bad, "club")
    assert [each.field for each in raised.value.problems] == ["key", "chain", "chain"]
    wanted = cv.UploadCertificate(chain=chain, key=key)
    assert key.splitlines()[1] not in repr(wanted)
    taken = platform.services.upload_certificate(ROOT, wanted, "club")
    assert taken.names == (name,) and "does not know" in taken.notes[0]
    assert platform.shown(name).source == "own" and platform.shown(other).source == "acme"
    assert ("DNS", name) in platform.chain(name, root)["subjectAltName"]
    with pytest.raises(Refused, match="of somebody's own"):
        platform.issue(name, renew=True)
    found = platform.services.list_certificates(ROOT, "club")
    assert [(each.name, each.source) for each in found] == [(name, "own")]
    platform.services.remove_certificate(ROOT, name, "club")
    # At once, and not when the loop comes round: no name is ever without one.
    assert platform.shown(name).source == "internal"
    assert platform.chain(name, edge.certificates.authority_pem())


def test_an_own_wildcard_goes_before_what_was_issued_for_one_name(platform: Platform, edge: World) -> None:
    name = f"alone.{ZONE}"
    platform.own(name)
    platform.at(name)
    platform.done(platform.issue(name))
    assert platform.shown(name).source == "acme"
    _root, key, chain = own_chain((f"*.{ZONE}",))
    before = (workers(edge), edge.edge.master())
    taken = platform.services.upload_certificate(ROOT, cv.UploadCertificate(chain=chain, key=key))
    assert name in taken.names and platform.shown(name).source == "own"
    platform.services.remove_certificate(ROOT, f"*.{ZONE}")
    assert platform.shown(name).source == "internal" and (workers(edge), edge.edge.master()) == before


def test_one_that_ends_soon_is_told_of_once(platform: Platform) -> None:
    """In the journal, and so to who is told of failures; and by ``doctor`` until there is another."""
    platform.site("old")
    _root, key, chain = own_chain((f"old.{ZONE}",), days=(-80, 10))
    platform.services.upload_certificate(ROOT, cv.UploadCertificate(chain=chain, key=key), "old")

    def told() -> list[str]:
        changes = platform.services.list_changes(ROOT, ask.ListChanges())
        return [str(each.problems[0]) for each in changes if each.verb == "certificate-warning"]

    until(lambda: bool(told()), 60)
    round_of(platform)
    (once,) = told()
    assert "the certificate ends in 9 days" in once and f"old.{ZONE}" in once
    (link,) = [each for each in platform.services.doctor(ROOT).links if each.name == "certificates"]
    assert not link.ok and f"old.{ZONE}: the certificate ends in 9 days" in link.came
    # The rule of incidents looks at what the edge shows, by whomever it was issued.
    shown = platform.shown(f"old.{ZONE}")
    looked = {each.id.name: each.detail for each in platform.world.certificates.observe().found}
    assert looked[f"old.{ZONE}"] == {"issued": shown.issued_at, "expires": shown.expires_at}
    platform.services.remove_certificate(ROOT, f"old.{ZONE}", "old")
