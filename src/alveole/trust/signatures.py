"""Signatures of minisign over what was sent. The format: https://jedisct1.github.io/minisign/#signature-format.
Keys and signatures of OpenPGP are told apart here and go to :mod:`alveole.trust.openpgp`.

Ed25519 itself is that of ``cryptography``; here is only the little that is around it. Signatures of the old kind,
over the whole file instead of its BLAKE2b digest, are refused: they would need all of it in memory.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import BinaryIO, NamedTuple

from alveole.errors import InvalidInput, Problem, Refused
from alveole.trust import openpgp

_CHUNK = 1 << 20
_UNTRUSTED, _TRUSTED = "untrusted comment: ", "trusted comment: "
_MAX = 4096


class Key(NamedTuple):
    id: bytes
    public: bytes


def key_of(text: str) -> Key:
    """A public key, as its whole file or its one line of base64. Raises ``InvalidInput``."""
    lines = [line.strip() for line in text.strip().splitlines() if not line.startswith(_UNTRUSTED)]
    try:
        raw = base64.b64decode(lines[0], validate=True) if len(lines) == 1 else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 42 or raw[:2] != b"Ed":
        raise InvalidInput("is no public key of minisign", field="signers", hint="give the line that begins with RW")
    return Key(raw[2:10], raw[10:])


def line_of(text: str) -> str:
    """What is kept of a key: one line, or the armor of OpenPGP. Raises ``InvalidInput``."""
    if openpgp.is_key(text):
        return openpgp.key_of(text)
    key = key_of(text)
    return base64.b64encode(b"Ed" + key.id + key.public).decode()


def check(signature: str) -> tuple[Problem, ...]:
    """What is wrong with the text of a signature, before anything is compared with it."""
    if openpgp.is_signature(signature):
        return openpgp.check(signature)
    try:
        _parts(signature)
    except InvalidInput as error:
        return error.problems
    return ()


def verify(file: BinaryIO, signature: str, keys: tuple[str, ...]) -> str:
    """The line of ``keys`` that signed ``file``, or ``openpgp:FINGERPRINT``; it is read to its end.

    Raises ``InvalidInput``, ``Refused``.
    """
    if openpgp.is_signature(signature):
        return openpgp.verify(file, signature, [each for each in keys if openpgp.is_key(each)])
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    id, own, comment, whole = _parts(signature)
    known = {key_of(line).id: line for line in keys if not openpgp.is_key(line)}
    if id not in known:
        raise Refused("is signed with a key that is not set for this application", field="signature")
    line = known[id]
    hasher = hashlib.blake2b()
    while data := file.read(_CHUNK):
        hasher.update(data)
    public = Ed25519PublicKey.from_public_bytes(key_of(line).public)
    try:
        public.verify(own, hasher.digest())
        public.verify(whole, own + comment)
    except InvalidSignature:
        raise Refused("the signature is not one of this archive", field="signature", hint="sign it again") from None
    return line


def _parts(signature: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Key id, signature of the file, trusted comment, signature of both."""
    lines = signature.strip().splitlines() if len(signature) <= _MAX else []
    well = len(lines) == 4 and lines[0].startswith(_UNTRUSTED) and lines[2].startswith(_TRUSTED)
    try:
        if not well:
            raise ValueError("not four lines of a signature")
        raw, whole = base64.b64decode(lines[1], validate=True), base64.b64decode(lines[3], validate=True)
        if len(raw) != 74 or len(whole) != 64:
            raise ValueError("not the length of a signature")
    except (binascii.Error, ValueError):
        raise InvalidInput("is no signature of minisign", field="signature", hint="minisign -S -m ARCHIVE") from None
    if raw[:2] != b"ED":
        raise InvalidInput("is a signature of the old kind", field="signature", hint="minisign -S -H -m ARCHIVE")
    return raw[2:10], raw[10:], lines[2].removeprefix(_TRUSTED).encode(), whole
