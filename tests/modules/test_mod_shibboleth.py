"""Shibboleth: a whole login by SAML between two sites: an identity provider (pysaml2), a PHP page behind Apache."""

from __future__ import annotations

import datetime
import html
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from modkit import Browser, ModuleSite, ModuleSites, Page, base_of

from instance import Instance
from instancekit import directory

PAGE = """<?php
header('Content-Type: application/json');
$wanted = ['uid', 'mail', 'displayName', 'REMOTE_USER', 'Shib-Identity-Provider'];
echo json_encode(array_intersect_key($_SERVER, array_flip($wanted)));
"""


def keys() -> tuple[str, str]:
    """A private key and its certificate, in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


class Provider:
    """The identity provider: a site of its own."""

    def __init__(self, alveole: Instance, name: str) -> None:
        self.alveole, self.name = alveole, name
        self.url = f"https://{name}.localhost:{alveole.https}"
        self.key, self.certificate = keys()
        with tempfile.TemporaryDirectory(prefix="modkit") as place:
            words = ("--base", "debian", "--packages", "python3-pysaml2,xmlsec1", "--port", "8000", "--plan", "medium")
            command = "/usr/bin/python3 /site/current/samlidp.py"
            content = str(directory(Path(place), self.files()))
            more = ("--env", f"SAMLIDP_URL={self.url}", "--command", command, "--from", content)
            with base_of(alveole, name, [*words, *more]):
                alveole.cli("site", "create", name, *words, *more, seconds=1500.0)
        self.browser = Browser(alveole, name)

    def files(self, **more: str) -> dict[str, str]:
        program = Path(__file__).with_name("samlidp.py").read_text()
        return {"samlidp.py": program, "key.pem": self.key, "cert.pem": self.certificate, **more}

    def know(self, metadata: str) -> None:
        """Take the service provider in."""
        with tempfile.TemporaryDirectory(prefix="modkit") as place:
            content = directory(Path(place), self.files(**{"sp.xml": metadata}))
            self.alveole.cli("site", "update", self.name, "--from", str(content))


@pytest.fixture
def provider(alveole: Instance) -> Iterator[Provider]:
    made = Provider(alveole, "idp")
    yield made
    alveole.destroy(made.name)


def login(it: ModuleSite, provider: Provider, path: str, *, right: bool = True) -> Page:
    """Ask for ``path`` as a browser would, through the identity provider and back."""
    person = it.new_browser()
    away = person.get(path, status=302, follow=False).headers["Location"]
    assert away.startswith(f"{provider.url}/sso?SAMLRequest="), away
    asked = provider.browser.get("/sso?" + urlsplit(away).query)
    form = {**asked.fields("SAMLRequest"), "password": "soup" if right else "wrong"}
    back = provider.browser.post("/sso", form, status=None)
    if back.status != 200:
        return back
    target = html.unescape(back.find(r'<form[^>]*action="([^"]+)"'))
    assert target == f"https://{it.name}.localhost:{it.alveole.https}/Shibboleth.sso/SAML2/POST"
    return person.post(urlsplit(target).path, back.fields("SAMLResponse"), headers={"Origin": provider.url})


def known(page: Page) -> dict[str, str]:
    """What the page was told of the person."""
    return {name: value for name, value in dict(page.json).items() if value}


def bare(it: ModuleSite, line: str) -> str:
    """The status line that a request without any header gets, over TLS by the site's name."""
    with (
        socket.create_connection(("127.0.0.1", it.alveole.https), timeout=20) as raw,
        it.alveole.trust().wrap_socket(raw, server_hostname=f"{it.name}.localhost") as link,
    ):
        link.sendall(f"{line}\r\n\r\n".encode())
        return link.recv(65536).decode(errors="replace").split("\r\n")[0]


def check(it: ModuleSite, provider: Provider) -> None:
    page = login(it, provider, "/private/?a=1")
    assert page.path == "/private/?a=1"
    assert page.json == {
        "uid": "anna",
        "mail": "anna@example.org",
        "displayName": "Anna d'Été",
        "REMOTE_USER": "anna",
        "Shib-Identity-Provider": f"{provider.url}/idp",
    }
    assert it.get("/").json["uid"] == "anna", "elsewhere the person is known as well"
    it.new_browser()
    assert known(it.get("/")) == {}, "who is not logged in is nobody"
    it.get("/private/", status=302, follow=False)
    forged = it.get("/", headers={"uid": "root", "Shib-Identity-Provider": "x", "REMOTE_USER": "root"})
    for line in ("GET /private/ HTTP/1.0", f"GET https://{it.name}.localhost/private/ HTTP/1.0"):
        assert "200" not in bare(it, line), "the question whether the site is ready is no way around the login"
    assert known(forged) == {}, "no header of a visitor becomes an attribute"


def test_login(site: ModuleSites, provider: Provider) -> None:
    metadata = provider.browser.get("/metadata").text
    assert "Signature" in metadata
    certificate = " ".join(provider.certificate.split("\n"))
    it = site(
        "shibboleth",
        "apache",
        "php",
        stem="sp",
        content={"index.php": PAGE, "private/index.php": PAGE, "idp-metadata.xml": metadata},
        options=("--plan", "medium"),
        idp=f"{provider.url}/idp",
        signed=True,
        certificate=certificate,
        paths="/private",
    )
    mine = it.get("/Shibboleth.sso/Metadata").text
    assert f'entityID="https://{it.name}.localhost:{it.alveole.https}/shibboleth"' in mine
    assert set(re.findall(r'Location="(\w+)://', mine)) == {"https"}
    provider.know(mine)
    check(it, provider)
    assert login(it, provider, "/private/", right=False).status == 403
    it.restart()
    check(it, provider)
    saved = it.backup()
    it.destroy()
    it.restore(saved)
    assert re.findall(r"X509Certificate>([^<]+)<", it.get("/Shibboleth.sso/Metadata").text) == re.findall(
        r"X509Certificate>([^<]+)<", mine
    ), "the same keys: the identity provider still knows the site"
    check(it, provider)


def test_metadata_that_somebody_changed_is_refused(site: ModuleSites, provider: Provider) -> None:
    metadata = provider.browser.get("/metadata").text.replace("/sso", "/evil")
    it = site(
        "shibboleth",
        "apache",
        "php",
        stem="sp",
        content={"index.php": PAGE, "idp-metadata.xml": metadata},
        options=("--plan", "medium"),
        idp=f"{provider.url}/idp",
        signed=True,
        certificate=" ".join(provider.certificate.split("\n")),
    )
    page = it.get("/", status=None, follow=False)
    assert "evil" not in (page.headers["Location"] or "") and page.status != 200
