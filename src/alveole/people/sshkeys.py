"""Public keys for SSH: which are taken, and what names one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct

import msgspec

from alveole.errors import InvalidInput

#: Bits of an RSA modulus at least: NIST SP 800-131A rev. 2, table 2. DSA is not taken at all (RFC 9142 §3.1).
LEAST_RSA_BITS = 2048
_CURVES = {f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)}
#: With a security key behind them (OpenSSH, PROTOCOL.u2f).
_HARDWARE = {"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"}
KINDS = ("ssh-ed25519", *sorted(_HARDWARE), *sorted(_CURVES), "ssh-rsa")
_HINT = "paste the line of a file like ~/.ssh/id_ed25519.pub; make one with: ssh-keygen -t ed25519"
_MOST = 16 * 1024


class PublicKey(msgspec.Struct, frozen=True):
    kind: str
    fingerprint: str
    """``SHA256:`` and the base64 of the digest of the key, as OpenSSH shows it."""
    comment: str


def parse(text: str, field: str = "key") -> PublicKey:
    """Read one line of a ``.pub`` file. Raises ``InvalidInput`` for what is none, and for what is too weak."""
    words = text.strip().split(None, 2)
    if "PRIVATE KEY" in text:
        raise InvalidInput("this is a private key: keep it to yourself", field=field, hint=_HINT)
    if len(text) > _MOST or len(words) < 2 or "\n" in text.strip():
        raise InvalidInput("is not one line with a public key", field=field, hint=_HINT)
    kind, encoded = words[0], words[1]
    if kind not in KINDS:
        raise InvalidInput(f"keys of the kind {kind[:60]!r} are not taken", field=field, hint=_HINT)
    try:
        blob = base64.b64decode(encoded, validate=True)
        _check(kind, blob, field)
    except (binascii.Error, ValueError, struct.error) as error:
        raise InvalidInput("the key is damaged", field=field, hint=_HINT) from error
    return PublicKey(kind, fingerprint(blob), words[2].strip() if len(words) > 2 else "")


def fingerprint(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _check(kind: str, blob: bytes, field: str) -> None:
    """Raise ``ValueError`` unless ``blob`` is a key of ``kind`` (RFC 4253 §6.6)."""
    name, rest = _string(blob)
    if name.decode("ascii", "replace") != kind:
        raise ValueError("another kind")
    if kind in _HARDWARE:
        return
    if kind == "ssh-rsa":
        _exponent, rest = _string(rest)
        modulus, _ = _string(rest)
        bits = int.from_bytes(modulus, "big").bit_length()
        if bits < LEAST_RSA_BITS:
            raise InvalidInput(f"an RSA key of {bits} bits is too short", field=field, hint=_HINT)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        load_ssh_public_key(kind.encode() + b" " + base64.b64encode(blob))
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


def _string(data: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack_from(">I", data)
    if len(data) < 4 + size:
        raise ValueError("cut")
    return data[4 : 4 + size], data[4 + size :]
