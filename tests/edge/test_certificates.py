"""The internal authority and what it issues, checked by OpenSSL through a real handshake and by eye."""

from __future__ import annotations

import os
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

sys.path.insert(0, str(Path(__file__).parent))
from edgefixtures import World, site_id, world

from alveole.actuators import certificates as module
from alveole.actuators.certificates import CertificatesActuator
from alveole.config import parse
from alveole.host import paths
from alveole.model.resource import Action, CertificateSpec, Kind, ResourceId, Step, stamp

pytestmark = pytest.mark.root


@pytest.fixture
def edge() -> Iterator[World]:
    with world() as made:
        made.certify(0, "alv.test", scope="platform")
        yield made


def repair(edge: World, resource: ResourceId, wildcard: bool = False) -> None:
    spec = CertificateSpec(resource.name, wildcard)
    done = edge.certificates.apply(Step(resource, Action.REPAIR, stamp(spec), spec))
    assert done.done, done


def test_all_names_are_served_what_clients_accept(edge: World) -> None:
    edge.site(1, "one.alv.test")
    edge.certify(1, "one.alv.test", wildcard=True)
    edge.site(2, "www.example.org")
    edge.certify(2, "www.example.org")
    for host in ("one.alv.test", "www.example.org"):
        assert edge.ask(host, tls=True).status == 200
    files = sorted(file.name for file in paths.certificates(edge.settings).iterdir())
    assert files == ["alv.test.pem", "www.example.org.pem"]
    found = {seen.id.name: seen for seen in edge.certificates.observe().found}
    assert {seen.id.scope for seen in found.values()} == {"platform", site_id(1), site_id(2)}
    assert all(seen.ready for seen in found.values())
    assert [seen.id.name for seen in edge.certificates.observe({site_id(2)}).found] == ["www.example.org"]


def test_what_is_issued(edge: World) -> None:
    content = paths.certificate(edge.settings, "alv.test").read_bytes()
    leaf, authority = x509.load_pem_x509_certificates(content)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["alv.test", "*.alv.test"]
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 366
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    leaf.verify_directly_issued_by(authority)
    key = paths.authority(edge.settings) / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE KEY" not in edge.certificates.authority_pem().encode()


def test_the_authority_is_made_once(edge: World) -> None:
    before = edge.certificates.authority_pem()
    edge.certify(3, "three.example.org")
    assert CertificatesActuator(edge.settings).authority_pem() == before


def test_below_a_top_level_domain_each_name_has_its_own() -> None:
    """OpenSSL takes no ``*.localhost``: a wildcard would be refused by clients."""
    with world() as made:
        settings = parse(
            {
                "domain": "localhost",
                "paths": {"state": made.settings.paths.state, "run": made.settings.paths.run},
                "users": {"edge": "www-data", "control": "nobody"},
            }
        )
        made.certificates = CertificatesActuator(settings)
        made.certify(0, "localhost", scope="platform")
        made.site(1, "demo.localhost")
        made.certify(1, "demo.localhost", wildcard=True)
        assert made.ask("demo.localhost", tls=True).status == 200
        names = x509.load_pem_x509_certificates(paths.certificate(settings, "localhost").read_bytes())[0]
        addresses = names.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(one) for one in addresses.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.8, 0.99])
def test_flipped_bytes_are_noticed_and_set_aside(edge: World, share: float) -> None:
    """Fault 14: a damaged certificate is noticed, named, set aside, made anew and never served."""
    edge.site(2, "www.example.org")
    resource = edge.certify(2, "www.example.org")
    file = paths.certificate(edge.settings, "www.example.org")
    assert edge.certificates.observe({site_id(2)}).found[0].ready
    content = bytearray(file.read_bytes())
    times = file.stat()
    content[int(len(content) * share)] ^= 0x04
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    (seen,) = edge.certificates.observe({site_id(2)}).found
    assert not seen.ready
    assert seen.defects[0].code == "damaged"
    assert "www.example.org" in seen.defects[0].cause
    repair(edge, resource)
    assert edge.certificates.observe({site_id(2)}).found[0].ready
    assert edge.ask("www.example.org", tls=True).status == 200
    aside = file.with_suffix(".damaged")
    assert aside.read_bytes() == bytes(content)
    assert aside.stat().st_mode & 0o777 == 0o600


def test_a_damaged_authority_is_named_and_not_replaced(edge: World) -> None:
    """Fault 14: clients trust it, so making another one is a person's decision; the rest is served on."""
    edge.site(1, "one.alv.test")
    edge.certify(1, "one.alv.test", wildcard=True)
    trust = edge.context()
    key = paths.authority(edge.settings) / "key.pem"
    whole = key.read_bytes()
    key.write_bytes(whole[:60] + b"AAAA" + whole[64:])
    spec = CertificateSpec("new.example.org", False)
    resource = ResourceId(Kind.CERTIFICATE, site_id(9), "new.example.org")
    done = edge.certificates.apply(Step(resource, Action.CREATE, stamp(spec), spec))
    assert not done.done
    assert str(key.parent) in done.message
    assert "PRIVATE" not in done.message
    assert key.read_bytes() != whole
    edge.context = lambda: trust
    assert edge.ask("one.alv.test", tls=True).status == 200


def test_two_thirds_of_a_life_are_enough(edge: World, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = edge.certify(2, "www.example.org")
    file = paths.certificate(edge.settings, "www.example.org")
    before = file.read_bytes()
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 238 * 86_400)
    assert edge.certificates.observe({site_id(2)}).found[0].ready
    monkeypatch.setattr(module.time, "time", lambda: now + 248 * 86_400)
    (seen,) = edge.certificates.observe({site_id(2)}).found
    assert [defect.code for defect in seen.defects] == ["expiring"]
    repair(edge, resource)
    assert file.read_bytes() != before
    assert edge.certificates.observe({site_id(2)}).found[0].ready


def test_lost_links_come_back_and_the_same_certificate_is_used(edge: World) -> None:
    """A reboot empties the run directory; what was issued is kept."""
    edge.site(2, "www.example.org")
    resource = edge.certify(2, "www.example.org")
    before = paths.certificate(edge.settings, "www.example.org").read_bytes()
    link = paths.edge_certificates(edge.settings) / "www.example.org.pem"
    link.unlink()
    (seen,) = edge.certificates.observe({site_id(2)}).found
    assert seen.defects[0].code == "link-missing"
    repair(edge, resource)
    (paths.edge(edge.settings) / "owners" / "www.example.org").unlink()
    assert edge.certificates.observe({site_id(2)}).found == ()
    repair(edge, resource)
    assert paths.certificate(edge.settings, "www.example.org").read_bytes() == before
    assert edge.ask("www.example.org", tls=True).status == 200


def test_a_deleted_one_is_gone_and_no_handshake_finds_it(edge: World) -> None:
    edge.site(2, "www.example.org")
    resource = edge.certify(2, "www.example.org")
    stranger = ResourceId(Kind.CERTIFICATE, site_id(3), "www.example.org")
    assert edge.certificates.apply(Step(stranger, Action.DELETE)).done
    assert edge.ask("www.example.org", tls=True).status == 200
    for _ in range(2):
        assert edge.certificates.apply(Step(resource, Action.DELETE)).done
    assert not paths.certificate(edge.settings, "www.example.org").exists()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.ask("www.example.org", tls=True)


def test_the_wildcard_outlives_the_sites_that_used_it(edge: World) -> None:
    resource = edge.certify(1, "one.alv.test", wildcard=True)
    assert edge.certificates.apply(Step(resource, Action.DELETE)).done
    assert paths.certificate(edge.settings, "alv.test").exists()


@pytest.mark.parametrize("name", ["../x", "*.alv.test", "", "a b", "x\n", "-x.test"])
def test_what_is_no_domain_is_refused(edge: World, name: str) -> None:
    spec = CertificateSpec(name, False)
    step = Step(ResourceId(Kind.CERTIFICATE, site_id(1), name), Action.CREATE, "0" * 32, spec)
    done = edge.certificates.apply(step)
    assert not done.done and not done.temporary


def test_looking_at_ten_thousand_is_cheap_and_needs_no_cryptography(edge: World) -> None:
    owners = paths.edge(edge.settings) / "owners"
    links = paths.edge_certificates(edge.settings)
    files = paths.certificates(edge.settings)
    for number in range(10_000):
        name = f"n{number}.alv.test"
        (links / f"{name}.pem").symlink_to(files / "alv.test.pem")
        (owners / name).symlink_to(f"scope={site_id(number)} stamp={'0' * 32} file=alv.test.pem")
    begun = time.process_time()
    assert len(edge.certificates.observe().found) == 10_001
    assert time.process_time() - begun < 1.0
    program = "import sys, alveole.actuators.certificates; sys.exit('cryptography' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
