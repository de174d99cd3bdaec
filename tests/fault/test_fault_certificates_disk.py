"""Fault: the disk is full while a certificate, its authority or a zone is written. Nothing is half there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "edge"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pure"))
from edgefixtures import site_id
from test_certs import make, pem_of

from alveole.actuators.certificates import CertificatesActuator
from alveole.actuators.nameserver import NameServers
from alveole.agent.certifying import CertificateSource, InstallCertificate, KeepChallenge, RequestCertificate
from alveole.agent.naming import NameHost, NameKey, SetUpNames
from alveole.config import Settings, parse
from alveole.errors import Temporary
from alveole.model.resource import Action, CertificateSpec, Kind, Outcome, ResourceId, Step, stamp
from zonekit import THERE, Bind

pytestmark = pytest.mark.root
NAME = "full.alv.test"


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 256 KB."""
    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "alv-full", str(place)], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
    finally:
        place.rmdir()


@pytest.fixture
def run() -> Iterator[Path]:
    """Paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="alv", dir="/tmp") as place:
        yield Path(place)


def fill(place: Path) -> Path:
    """Not one byte is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return ballast


def names(place: Path) -> set[str]:
    return {str(each.relative_to(place)) for each in place.rglob("*") if not each.is_dir()}


def settings_on(disk: Path, run: Path) -> Settings:
    paths = {"state": f"{disk}/s", "run": f"{run}/r"}
    return parse({"domain": "alv.test", "paths": paths, "users": {"edge": "www-data", "control": "nobody"}})


def certify(actuator: CertificatesActuator, name: str = NAME) -> Outcome:
    spec = CertificateSpec(name, wildcard=False)
    return actuator.apply(Step(ResourceId(Kind.CERTIFICATE, site_id(1), name), Action.CREATE, stamp(spec), spec))


def test_an_authority_and_a_certificate_of_our_own(disk: Path, run: Path) -> None:
    made = CertificatesActuator(settings_on(disk, run))
    (disk / "s").mkdir()
    ballast = fill(disk)
    done = certify(made)
    assert not done.done and done.temporary and "No space left" in done.message
    assert names(disk) == {"ballast"}
    ballast.unlink()
    assert certify(made).done
    before = names(disk)
    ballast = fill(disk)
    assert not certify(made, "other.alv.test").done
    assert names(disk) == before | {"ballast"}
    (seen,) = made.observe().found
    assert seen.id.name == NAME and seen.ready
    ballast.unlink()
    assert certify(made, "other.alv.test").done


def test_a_certificate_of_others(disk: Path, run: Path) -> None:
    """What was shown goes on to be shown; the order's key is kept, or is not there; and it is done again afterwards."""
    made = CertificatesActuator(settings_on(disk, run))
    assert certify(made).done
    signing, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    leaf = make(NAME, key, "somebody", signing, names=(NAME,))
    wanted = InstallCertificate((NAME,), CertificateSource.OWN, "somebody", leaf, key=pem_of(key))
    made.given.keep_challenge(KeepChallenge("t" * 20, "x"))
    before = names(disk)
    ballast = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        made.install(wanted)
    with pytest.raises(OSError, match="No space left"):
        made.given.request(RequestCertificate("oabcdefghijkl", (NAME,)))
    assert names(disk) == before | {"ballast"}
    (state,) = made.all()
    assert state.source is CertificateSource.INTERNAL and all(each.ready for each in made.observe().found)
    ballast.unlink()
    made.install(wanted)
    (state,) = made.all()
    assert state.source is CertificateSource.OWN
    assert "BEGIN CERTIFICATE REQUEST" in made.given.request(RequestCertificate("oabcdefghijkl", (NAME,)))


@pytest.mark.skipif(not THERE, reason="needs bind9, bind9-dnsutils and knot")
def test_a_zone_and_its_configuration(disk: Path, run: Path) -> None:
    """A zone file that was cut short would be taken for one of before, and served."""
    (disk / "bind").mkdir()
    bind = Bind(disk / "bind")
    settings = msgspec.structs.replace(
        settings_on(disk, run), nameserver=parse({"domain": "alv.test", "nameserver": bind.settings}).nameserver
    )
    key, other = (NameKey(each, "hmac-sha256", "c2VjcmV0LXNlY3JldC1zZWNyZXQ=") for each in ("k", "t"))
    # More than the last bit of a page, so that some of it would fit.
    hosts = tuple(NameHost(f"ns{each}.example.test", ("192.0.2.1",) * 32) for each in range(16))
    asked = SetUpNames("example.test", key, other, hosts, (), by_key=False, ttl=60, serial=7)
    before = {each: (disk / each).read_bytes() for each in names(disk)}
    ballast = fill(disk)
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - 4096)
    server = NameServers(settings)
    try:
        with pytest.raises(Temporary, match="No space left"):
            server.set_up(asked)
        ballast.unlink()
        assert {each: (disk / each).read_bytes() for each in names(disk)} == before
        assert server.set_up(asked).fresh
    finally:
        server.undo()
        bind.stop()
