"""What is said of a certificate that somebody brings: everything at once, and nothing that quotes the key."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from alveole.trust.certs import covers, examine

NOW = datetime.datetime.now(datetime.UTC)
NOTHING = Path(os.devnull)


def pem_of(key: Any, password: bytes = b"") -> str:
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed).decode())


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make(
    subject: str,
    key: Any,
    issuer: str = "",
    signing: Any = None,
    *,
    names: tuple[str, ...] = (),
    authority: bool = False,
    days: tuple[int, int] = (-10, 80),
    tells: bool = False,
    client: bool = False,
) -> str:
    built = (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(name_of(issuer or subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=days[0]))
        .not_valid_after(NOW + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), False)
    if client:
        built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    if tells:
        where = x509.UniformResourceIdentifier("http://ca.test/issuer.der")
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)
        built = built.add_extension(x509.AuthorityInformationAccess([access]), False)
    made = built.sign(signing or key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


ROOT, MIDDLE, KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
ROOT_PEM = make("root", ROOT, authority=True)
MIDDLE_PEM = make("middle", MIDDLE, "root", ROOT, authority=True)
LEAF_PEM = make("leaf", KEY, "middle", MIDDLE, names=("www.club.fr", "*.club.fr"), tells=True)


def told(chain: str, key: str = "", wanted: tuple[str, ...] = (), roots: Path = NOTHING) -> str:
    return "; ".join(
        f"{each.field} {each}" for each in examine(chain, key or pem_of(KEY), wanted, roots=roots).problems
    )


def test_a_good_one_in_any_order(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_text(ROOT_PEM)
    for parts in ((LEAF_PEM, MIDDLE_PEM), (MIDDLE_PEM, LEAF_PEM), (ROOT_PEM, MIDDLE_PEM, LEAF_PEM)):
        found = examine("".join(parts), pem_of(KEY), ("www.club.fr",), roots=roots)
        assert found.problems == () and found.notes == ()
        # As it is sent: the certificate first, and no root.
        assert found.chain == LEAF_PEM + MIDDLE_PEM
        assert found.names == ("www.club.fr", "*.club.fr") and found.issuer == "middle"
        assert 79 * 86_400 < found.expires_at - NOW.timestamp() <= 80 * 86_400


def test_what_is_missing_and_what_nobody_knows() -> None:
    assert "which has issued it, is missing" in told(LEAF_PEM)
    found = examine(LEAF_PEM + MIDDLE_PEM, pem_of(KEY), roots=NOTHING)
    assert found.problems == () and "does not know root" in found.notes[0]
    own = make("own", KEY, names=("a.lan",))
    assert "signed by itself" in examine(own, pem_of(KEY), roots=NOTHING).notes[0]


def test_everything_at_once() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    bad = make("bad", other, "middle", MIDDLE, names=("x.fr",), days=(-20, -5), client=True)
    found = told(bad + MIDDLE_PEM, pem_of(KEY), ("www.club.fr",))
    for words in ("key is not the key", "not for servers", "has expired", "for none of www.club.fr"):
        assert words in found.replace(": ", " ") or words in found, (words, found)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (lambda: "nonsense", "is no private key"),
        (lambda: pem_of(KEY, b"secret"), "passphrase"),
        (lambda: pem_of(ed25519.Ed25519PrivateKey.generate()), "of a kind"),
        (lambda: pem_of(rsa.generate_private_key(65537, 1024)), "1024 bits"),  # noqa: S505  weak, so that it is refused
    ],
)
def test_keys(key: Any, words: str) -> None:
    text = key()
    found = told(LEAF_PEM + MIDDLE_PEM, text)
    assert words in found
    assert not any(line in found for line in text.splitlines()[1:-1])


def test_certificates_that_are_none() -> None:
    assert "there is no certificate" in told("nothing")
    assert "11 certificates" in told(LEAF_PEM * 11)
    assert "names no domain" in told(make("plain", KEY))
    assert "not valid before" in told(make("early", KEY, names=("a.fr",), days=(2, 9)))
    assert "is an authority's" in told(make("authority", KEY, names=("a.fr",), authority=True))
    assert "middle, which has issued it, has expired" in told(
        LEAF_PEM + make("middle", MIDDLE, "root", ROOT, authority=True, days=(-20, -1))
    )


@pytest.mark.parametrize(
    ("pattern", "name", "good"),
    [
        ("a.fr", "a.fr", True),
        ("*.a.fr", "b.a.fr", True),
        ("*.a.fr", "a.fr", False),
        ("*.a.fr", "c.b.a.fr", False),
        ("*.a.fr", "*.a.fr", True),
        ("*.a.fr", "*.b.a.fr", False),
    ],
)
def test_what_a_wildcard_covers(pattern: str, name: str, good: bool) -> None:
    assert covers(pattern, name) is good
