"""A real ACME authority (Pebble), a real name server and a real edge, with control's own services between them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from edgefixtures import World, free_ports

from alveole import requests as ask
from alveole.actuators.certificates import CertificatesActuator, certifying, issue, make_authority
from alveole.agent import protocol
from alveole.agent.certifying import CERTIFYING
from alveole.backends.base import quiet
from alveole.config import Settings
from alveole.dns.rfc2136 import Key, Updates
from alveole.model.change import Change
from alveole.model.resource import Action, CertificateSpec, Kind, Outcome, ResourceId, Step, stamp
from alveole.people.model import Actor, Role
from alveole.services import Services
from alveole.testing import FakeAgent
from alveole.views import certificates as cv
from dnskit import KEY_NAME, ZONE, NameServer

ROOT = Actor("root", Role.ADMIN, "socket")
#: Of the only account that may order at a Pebble that binds accounts; the key is Pebble's own example.
EAB = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")


class Pebble:
    """An authority on loopback ports; ``trust``: whom to trust when it is asked; ``shown``: what it shows, with key."""

    def __init__(self, place: Path, port: int, management: int, trust: str, shown: bytes) -> None:
        self.place, self.port, self.management, self.trust, self.shown = place, port, management, trust, shown
        self.directory = f"https://localhost:{port}/dir"

    def root(self) -> str:
        """The certificate that it signs with, at the top."""
        context = ssl.create_default_context(cadata=self.trust)
        address = f"https://localhost:{self.management}/roots/0"
        with urllib.request.urlopen(address, context=context, timeout=30) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        return (self.place / "log").read_text()

    def settings(self, name: str, port: int, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "directory": self.directory,
            "certificates": self.trust,
            "private": True,
            "port": port,
            "seconds": 60,
            **more,
        }


@contextlib.contextmanager
def pebble(
    http_port: int,
    resolver: str,
    *,
    bound: bool = False,
    environment: dict[str, str] | None = None,
    instead_of: Pebble | None = None,
) -> Iterator[Pebble]:
    """Pebble answers when this is entered. It comes to look at ``http_port``, and asks ``resolver`` for names.

    ``instead_of``: where that one was, trusted as that one, and knowing nothing of what that one knew.
    """
    place = Path(tempfile.mkdtemp(prefix="alvpebble", dir="/tmp"))
    listen, management = (instead_of.port, instead_of.management) if instead_of else free_ports(2)
    if instead_of is None:
        key, certificate = make_authority("pebble")
        trust, whole = certificate.decode(), server_certificate(key, certificate)
    else:
        trust, whole = instead_of.trust, instead_of.shown
    (place / "server.pem").write_bytes(whole)
    raw: dict[str, Any] = {
        "listenAddress": f"127.0.0.1:{listen}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(place / "server.pem"),
        "privateKey": str(place / "server.pem"),
        "httpPort": http_port,
        "tlsPort": 1,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": bound,
    }
    if bound:
        raw["externalAccountMACKeys"] = dict([EAB])
    (place / "config.json").write_text(json.dumps({"pebble": raw}))
    wanted = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    with (place / "log").open("wb") as log:
        running = subprocess.Popen(
            ["/usr/bin/pebble", "-config", str(place / "config.json"), "-dnsserver", resolver, "-strict"],
            env={**wanted, **(environment or {})},
            stdout=log,
            stderr=log,
            cwd=place,
        )
    try:
        _until_it_listens(running, listen, place)
        yield Pebble(place, listen, management, trust, whole)
    finally:
        running.kill()
        running.wait()
        shutil.rmtree(place)


def server_certificate(key: bytes, certificate: bytes) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    signing: Any = load_pem_private_key(key, None)
    return issue("-", "localhost", (signing, x509.load_pem_x509_certificate(certificate), "0" * 16))


def _until_it_listens(running: subprocess.Popen[bytes], port: int, place: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError((place / "log").read_text()[-2000:])


class EdgeAgent(FakeAgent):
    """What is about certificates goes to the real actuator, and so to the real edge; the rest stays in memory."""

    def __init__(self, certificates: CertificatesActuator) -> None:
        super().__init__()
        self.certificates = certificates
        self.verbs = certifying(certificates)

    def _answer(self, request: protocol.Request, files: Sequence[int]) -> Any:
        if type(request) in CERTIFYING:
            return self.verbs[type(request)](request, [], quiet)
        return super()._answer(request, files)

    def _apply(self, step: Step) -> Outcome:
        if step.id.kind is Kind.CERTIFICATE:
            done = self.certificates.apply(step)
            assert done.done, done
        return super()._apply(step)


def settings_for(world: World, zone: NameServer) -> Settings:
    """Those of the edge, with the zone's name as the main domain and the zone's server to ask."""
    dns = msgspec.structs.replace(world.settings.dns, resolvers=(zone.address,), seconds=20.0)
    reconcile = msgspec.structs.replace(world.settings.reconcile, drift_seconds=0.3, drain_seconds=0.1)
    content = msgspec.structs.replace(world.settings.content, reserve_bytes=0)
    return msgspec.structs.replace(world.settings, domain=ZONE, dns=dns, reconcile=reconcile, content=content)


class Platform:
    """Control over a real edge. ``zone`` gives names; ``at`` puts one into it."""

    def __init__(self, world: World, zone: NameServer) -> None:
        self.world, self.zone = world, zone
        self.settings = settings_for(world, zone)
        world.certificates = CertificatesActuator(self.settings)
        (self.settings.state / "control").mkdir(parents=True, exist_ok=True)
        self.agent = EdgeAgent(world.certificates)
        self.services = Services.open(self.settings, self.agent)
        self.updates = Updates("127.0.0.1", zone.port, ZONE, Key(KEY_NAME, zone.secret))

    def close(self) -> None:
        self.services.close()

    def at(self, name: str, address: str = "127.0.0.1") -> None:
        self.updates.replace(name, "A", 1, (address,) if address else ())

    def own(self, name: str, scope: str = "platform") -> None:
        """A name with a certificate of our own authority."""
        spec = CertificateSpec(name, wildcard=False)
        resource = ResourceId(Kind.CERTIFICATE, scope, name)
        done = self.world.certificates.apply(Step(resource, Action.CREATE, stamp(spec), spec))
        assert done.done, done

    def site(self, name: str) -> str:
        view = self.services.new_upload(ROOT)
        Path(view.path).write_bytes(b"content")
        self.done(self.services.create_site(ROOT, ask.CreateSite(name=name, upload=view.id)))
        return str(self.services.show_site(ROOT, name).id)

    def add(self, authority: Pebble, name: str = "pebble", **more: Any) -> None:
        settings = authority.settings(name, self.world.http, **more)
        self.services.add_authority(ROOT, cv.AddAuthority(settings=settings, agree=True))

    def add_zone(self) -> None:
        raw = {"zone": ZONE, "server": "127.0.0.1", "port": self.zone.port, "key": KEY_NAME}
        self.services.put_zone(ROOT, raw | {"secret": self.zone.secret, "wait_seconds": 0})

    def issue(self, name: str, *, renew: bool = False) -> Change:
        wanted = cv.IssueCertificate(renew=renew)
        return self.services.issue_certificate(ROOT, name, wanted)

    def done(self, change: Change) -> Change:
        ended = self.services.wait(ROOT, change.id, 120)
        assert str(ended.state) == "done", (ended.problems, [each.text for each in ended.events])
        return ended

    def failed(self, change: Change) -> str:
        ended = self.services.wait(ROOT, change.id, 120)
        assert str(ended.state) == "failed", [each.text for each in ended.events]
        return "; ".join(map(str, ended.problems))

    def shown(self, name: str) -> cv.CertificateView:
        return self.services.show_certificate(ROOT, name)

    def chain(self, name: str, trust: str) -> dict[str, Any]:
        """What a handshake for ``name`` shows to somebody who trusts ``trust``."""
        context = ssl.create_default_context(cadata=trust)
        with (
            socket.create_connection(("127.0.0.1", self.world.https), 20) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            return dict(tls.getpeercert() or {})
