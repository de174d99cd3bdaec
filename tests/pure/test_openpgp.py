"""Signatures of OpenPGP: made by a real gpg, verified by a real gpgv."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alveole.errors import AlveoleError, InvalidInput, Refused
from alveole.trust import openpgp, signatures

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("gpg", "gpgv", "gpgconf"))), reason="needs gpg, gpgv and gpgconf"
)
THEN = ("--faked-system-time", "20200101T000000")


class Ring:
    """A home of gpg's own; nothing of it is left, no agent either."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "GNUPGHOME": str(home)}
        self.home = home
        self.archive = home / "archive"
        self.archive.write_bytes(b"content" * 1000)

    def gpg(self, *words: str, input: str = "") -> str:
        argv = ("gpg", "--batch", "--yes", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback", *words)
        done = subprocess.run(argv, env=self.environment, input=input, capture_output=True, text=True, check=True)
        return done.stdout

    def key(self, name: str, *words: str, kind: str = "ed25519", ends: str = "never") -> str:
        self.gpg(*words, "--quick-gen-key", f"{name} <{name}@test.invalid>", kind, "sign", ends)
        return self.public(name)

    def public(self, name: str) -> str:
        return self.gpg("--armor", "--export", f"{name}@test.invalid")

    def fingerprint(self, name: str) -> str:
        listed = self.gpg("--with-colons", "--list-keys", f"{name}@test.invalid").splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))

    def sign(self, name: str, *words: str) -> str:
        user = ("--local-user", f"{name}@test.invalid")
        return self.gpg(*words, *user, "--armor", "--output", "-", "--detach-sign", str(self.archive))

    def verify(self, signature: str, *keys: str) -> str:
        with self.archive.open("rb") as file:
            return signatures.verify(file, signature, tuple(map(signatures.line_of, keys)))


@pytest.fixture(scope="module")
def ring() -> Iterator[Ring]:
    with tempfile.TemporaryDirectory(prefix="pgp") as name:
        made = Ring(Path(name))
        try:
            made.key("ana")
            made.key("bo")
            yield made
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], env=made.environment, check=True)
            # Where the machine has a /run/user of ours; elsewhere there is nothing to remove.
            subprocess.run(["gpgconf", "--remove-socketdir"], env=made.environment, check=False)


def test_who_signed_is_said(ring: Ring) -> None:
    signature = ring.sign("bo")
    assert ring.verify(signature, ring.public("ana"), ring.public("bo")) == f"openpgp:{ring.fingerprint('bo')}"
    assert openpgp.fingerprint(ring.public("ana")) == ring.fingerprint("ana")
    assert not signatures.check(signature)


@pytest.mark.parametrize("kind", ["rsa2048", "nistp256"])
def test_other_kinds_of_keys(ring: Ring, kind: str) -> None:
    name = f"eve-{kind}"
    public = ring.key(name, kind=kind)
    assert ring.verify(ring.sign(name), public) == f"openpgp:{ring.fingerprint(name)}"


def test_a_wrong_key_is_refused(ring: Ring) -> None:
    """Threat 11: a version that somebody else signed does not come in."""
    with pytest.raises(Refused, match="not set for this application"):
        ring.verify(ring.sign("bo"), ring.public("ana"))
    with pytest.raises(Refused, match="no such key is set"):
        ring.verify(ring.sign("bo"))


def test_another_archive_is_refused(ring: Ring) -> None:
    signature = ring.sign("ana")
    with tempfile.TemporaryFile() as other:
        other.write(b"other content")
        other.seek(0)
        with pytest.raises(Refused, match="not one of this archive"):
            signatures.verify(other, signature, (ring.public("ana"),))


def test_keys_that_do_not_hold_any_more(ring: Ring) -> None:
    public = ring.key("old", *THEN, ends="1d")
    with pytest.raises(Refused, match="expired"):
        ring.verify(ring.sign("old", *THEN), public)
    ring.key("gone")
    signature = ring.sign("gone")
    certificate = (ring.home / "openpgp-revocs.d" / f"{ring.fingerprint('gone')}.rev").read_text()
    ring.gpg("--import", input=certificate.replace(":-----BEGIN", "-----BEGIN"))
    with pytest.raises(Refused, match="revoked"):
        ring.verify(signature, ring.public("gone"))


def test_a_weak_digest_is_refused(ring: Ring) -> None:
    public = ring.key("weak", kind="rsa2048")
    with pytest.raises(Refused, match="too weak"):
        ring.verify(ring.sign("weak", "--digest-algo", "SHA1"), public)


def test_what_is_no_key_and_no_signature(ring: Ring) -> None:
    secret = ring.gpg("--armor", "--export-secret-keys", "ana@test.invalid")
    for text, told in (
        (secret, "private key"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----", "no public key"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----", "no public key"),
        ("RWQ", "no public key of minisign"),
    ):
        with pytest.raises(InvalidInput, match=told):
            signatures.line_of(text)
    empty = "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"
    assert signatures.check("-----BEGIN PGP SIGNATURE-----") and not signatures.check(empty)
    with pytest.raises(AlveoleError):
        ring.verify(empty, ring.public("ana"))
