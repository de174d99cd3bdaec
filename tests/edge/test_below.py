"""All names right below one (``*.example.org``) at a real edge: who answers, with which certificate, and who never."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pure"))
from edgefixtures import World, site_id, world
from test_certs import make, pem_of

from alveole.actuators.routes import RoutesActuator
from alveole.agent.certifying import CertificateSource, InstallCertificate
from alveole.agent.chain import Inspector
from alveole.agent.protocol import Inspect
from alveole.host import paths
from alveole.model.resource import RouteTarget

pytestmark = pytest.mark.root
BELOW = "*.shop.alv.test"
CUSTOM = "*.custom.test"


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world() as made:
        made.certify(1, BELOW)
        made.certify(1, CUSTOM)
        made.site(1, BELOW, name="shop")
        made.route(1, CUSTOM)
        made.certify(2, "other.custom.test")
        made.site(2, "other.custom.test", name="other")
        made.route(3, "stopped.custom.test", target=RouteTarget.STOPPED)
        yield made


def shown(edge: World, name: str | None) -> tuple[str, ...]:
    """The names of the certificate that a handshake for ``name`` ends with; nothing: it does not end with one."""
    context = edge.context()
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", edge.https), 20) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=name) as tls:
                found = tls.getpeercert() or {}
        except (ssl.SSLError, ConnectionError):
            return ()
    return tuple(str(value) for _kind, value in found["subjectAltName"])


def test_every_name_below_is_answered_over_both(edge: World) -> None:
    for host in ("a.shop.alv.test", "xn--bcher-kva.shop.alv.test", "B.Custom.Test", "9.custom.test."):
        assert edge.ask(host).json["site"] == "shop"
        assert edge.ask(host).json["headers"]["host"] == host
    for host in ("a.shop.alv.test", "zz.custom.test"):
        assert edge.ask(host, tls=True).json["site"] == "shop"


def test_a_name_of_its_own_goes_first(edge: World) -> None:
    """Whatever its link says: that a site is stopped gives its name to nobody."""
    assert edge.ask("other.custom.test").json["site"] == "other"
    assert edge.ask("other.custom.test", tls=True).json["site"] == "other"
    assert shown(edge, "other.custom.test") == ("other.custom.test",)
    assert edge.ask("stopped.custom.test").status == 503
    assert edge.ask("stopped.custom.test", tls=True).status == 503


def test_it_is_one_label(edge: World) -> None:
    """As a certificate's star is (RFC 6125 §6.4.3); and the name itself is not below itself."""
    for host in ("a.b.shop.alv.test", "shop.alv.test", "custom.test", "a.alv.test", "alv.test", "test"):
        assert edge.ask(host).status == 404, host
        assert shown(edge, host) == (), host


HOSTILE = (
    *("*.custom.test", "*", "*.", "a*.custom.test", "..custom.test", ".custom.test", "a..custom.test"),
    *("a_b.custom.test", "../x.custom.test", "a/../b.custom.test", "%2e.custom.test", "a b.custom.test"),
    *("-a.custom.test", "x." + "a." * 130 + "custom.test", "a" * 64 + ".custom.test", "@.custom.test", "|.custom.test"),
)


@pytest.mark.parametrize("host", HOSTILE)
def test_hostile_names_reach_nothing(edge: World, host: str) -> None:
    """Threat: a name that is made up to become another part of a path, or to be the star itself."""
    answer = edge.raw(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
    assert answer.split(b" ", 2)[1] in (b"400", b"404"), answer[:100]


def test_hostile_server_names_end_the_handshake(edge: World) -> None:
    where = f"127.0.0.1:{edge.https}"
    for name in (
        "*.custom.test",
        "a_b.custom.test",
        "A.CUSTOM.TEST",
        "..",
        "a/../b.custom.test",
        "a.custom.test.",
        "*",
    ):
        argv = ["openssl", "s_client", "-connect", where, "-servername", name]
        said = subprocess.run(argv, input="", capture_output=True, text=True, timeout=60, check=False).stdout
        assert "no peer certificate available" in said, (name, said)
    assert shown(edge, None) == ()
    assert edge.ask("still.custom.test", tls=True).json["site"] == "shop"


def test_nobody_below_the_main_domain(edge: World) -> None:
    """Even where such a link and such a file are there, by whatever hand: those names are sites' or nobody's."""
    for place, ending in ((paths.routes(edge.settings), ""), (paths.edge_certificates(edge.settings), ".pem")):
        (place / f"*.alv.test{ending}").symlink_to(os.readlink(place / f"{BELOW}{ending}"))  # noqa: PTH115  the text
    assert edge.ask("free.alv.test").status == 404
    assert shown(edge, "free.alv.test") == ()
    above = edge.site(5, "*.test", name="above")
    assert edge.ask("alv.test").status == 404
    assert edge.ask("free.test").json["site"] == "above"
    edge.unroute(above)


def test_it_follows_its_site(edge: World) -> None:
    """A switch, a stop and an instance that was replaced in between are seen at the next request."""
    edge.site(6, "*.moving.test", name="old")
    assert edge.ask("a.moving.test").json["site"] == "old"
    edge.site(6, "*.moving.test", slot=1, name="new")
    assert edge.ask("a.moving.test").json["site"] == "new"
    edge.instances.close("old")
    link = edge.route(6, "*.moving.test", target=RouteTarget.STOPPED)
    assert edge.ask("a.moving.test").status == 503
    edge.unroute(link)
    assert edge.ask("a.moving.test").status == 404


def test_https_only_and_networks_hold_for_each(edge: World) -> None:
    edge.site(7, "*.secure.test", https_only=True, name="secure")
    answer = edge.ask("a.secure.test", "/x?y=1")
    assert answer.status == 308
    assert answer.headers["location"] == f"https://a.secure.test:{edge.https}/x?y=1"
    edge.site(8, "*.closed.test", deny=("127.0.0.0/8",), name="closed")
    assert edge.ask("a.closed.test").status == 403


def test_it_is_seen_and_repaired_as_every_route(edge: World) -> None:
    found = {each.id.name: each for each in RoutesActuator(edge.settings).observe((site_id(1),)).found}
    assert found[BELOW].ready and found[CUSTOM].ready
    seen = {each.id.name: each for each in edge.certificates.observe((site_id(1),)).found}
    assert seen[BELOW].ready and seen[BELOW].detail["expires"]
    states = {each.name: each for each in edge.certificates.all()}
    assert states[BELOW].names == (BELOW,)


def test_what_one_has_uploaded_is_not_shown_for_a_name_of_another(edge: World) -> None:
    """Threat: the owner of ``*.custom.test`` has its key, and must not be what visitors of another site meet."""
    signing, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    leaf = make("uploaded", key, "somebody", signing, names=(CUSTOM,))
    edge.certificates.install(InstallCertificate((CUSTOM,), CertificateSource.OWN, "somebody", leaf, key=pem_of(key)))
    states = {each.name: each for each in edge.certificates.all()}
    assert states[CUSTOM].source is CertificateSource.OWN
    assert states["other.custom.test"].source is CertificateSource.INTERNAL
    assert all(each.ready for each in edge.certificates.observe((site_id(2),)).found)
    # Untrusted by this client, so the handshake ends; the other's still holds.
    assert shown(edge, "new.custom.test") == ()
    assert shown(edge, "other.custom.test") == ("other.custom.test",)
    edge.certificates.given.drop((CUSTOM,))
    edge.certificates._point_all((CUSTOM,))
    assert shown(edge, "new.custom.test") == (CUSTOM,)


def test_why_names_what_is_broken(edge: World) -> None:
    asked = Inspect(site_id(1), 1, 0, "shop.alv.test", also=(BELOW, CUSTOM))

    def links() -> dict[str, tuple[bool, str, str]]:
        found = Inspector(edge.settings, lambda _s, _n: os.getpid(), edge.certificates.authority_pem).chain(asked)
        return {each.name: (each.ok, each.came, each.cure) for each in found}

    assert links()[f"name {BELOW}"][0] and "days" in links()[f"name {CUSTOM}"][1]
    link = paths.routes(edge.settings) / CUSTOM
    text = os.readlink(link)  # noqa: PTH115  Path would normalise the text
    link.unlink()
    try:
        assert links()[f"name {CUSTOM}"][:2] == (False, "there is none")
        assert links()[f"name {BELOW}"][0]
    finally:
        link.symlink_to(text)
    file = paths.edge_certificates(edge.settings) / f"{BELOW}.pem"
    text = os.readlink(file)  # noqa: PTH115  likewise
    file.unlink()
    try:
        ok, _came, cure = links()[f"name {BELOW}"]
        assert not ok and "issued again" in cure
    finally:
        file.symlink_to(text)
    assert links()[f"name {BELOW}"][0]


def test_a_damaged_certificate_ends_the_handshake_and_hurts_nobody(edge: World) -> None:
    edge.certify(9, "hurt.alv.test")
    file = edge.settings.state / "certs" / "hurt.alv.test.pem"
    good = file.read_bytes()
    for bad in (
        b"",
        b"-----BEGIN CERTIFICATE-----\nx\n",
        good[: len(good) // 2],
        good.replace(b"A", b"B", 40),
        b"\0" * 9,
    ):
        file.write_bytes(bad)
        assert shown(edge, "hurt.alv.test") == ()
        assert shown(edge, "a.custom.test") == (CUSTOM,)
    file.write_bytes(good)
    assert shown(edge, "hurt.alv.test") == ("hurt.alv.test",)


def test_more_certificates_than_are_remembered(edge: World) -> None:
    """The cache of a worker begins anew, and each name still has its own."""
    names = [f"n{number}.many.test" for number in range(70)]
    for number, name in enumerate(names):
        edge.certify(100 + number, name)
    for name in (*names, names[0]):
        assert shown(edge, name) == (name,)


def test_a_name_that_is_held_is_nobody_elses(edge: World) -> None:
    """Before a site can answer its name leads to a 503, and that takes the place of nothing."""
    held = edge.route(4, "soon.custom.test", target=RouteTarget.STARTING)
    assert edge.ask("soon.custom.test").status == 503
    edge.site(4, "soon.custom.test", name="soon")
    assert edge.ask("soon.custom.test").json["site"] == "soon"
    for number in (4, 5):
        edge.route(number, "soon.custom.test", target=RouteTarget.STARTING)
        assert edge.ask("soon.custom.test").json["site"] == "soon"
    edge.unroute(held)
    assert edge.ask("soon.custom.test").json["site"] == "shop"
