"""Signatures of OpenPGP over what was sent (RFC 4880), verified by Debian's ``gpgv``.

``gpgv`` gets a keyring with the application's keys and nothing else: no home directory, no agent, no network, no
trust database. What it says is read from its status lines (GnuPG's doc/DETAILS), never from its words. Of keys only
as much is read here as is needed to name them and to refuse a private one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from alveole.errors import AlveoleError, InvalidInput, Problem, Refused

_KEY, _PRIVATE, _SIGNATURE = ("PGP PUBLIC KEY BLOCK", "PGP PRIVATE KEY BLOCK", "PGP SIGNATURE")
_KEY_MAX, _SIGNATURE_MAX = 128 * 1024, 16 * 1024
_SECONDS = 900.0
#: RFC 4880 §9.4: SHA-256, SHA-384, SHA-512, SHA-224. With the others a second file can be made for a signature.
_DIGESTS = {"8", "9", "10", "11"}
_MAKE = "gpg --armor --detach-sign ARCHIVE"
#: What speaks against a signature, by the status line, in the order in which it is told.
_AGAINST = {
    "BADSIG": ("the signature is not one of this archive", "sign it again"),
    "REVKEYSIG": ("the key that signed it has been revoked", "sign it with a key that holds"),
    "EXPKEYSIG": ("the key that signed it has expired", "give the key a new date and set it again, or sign anew"),
    "EXPSIG": ("the signature has expired", "sign it again"),
    "NO_PUBKEY": ("is signed with a key that is not set for this application", "alveole app set --signer KEY"),
    "ERRSIG": ("the signature cannot be verified", "sign it again"),
}


def is_key(text: str) -> bool:
    return "-----BEGIN PGP" in text and not is_signature(text)


def is_signature(text: str) -> bool:
    return f"-----BEGIN {_SIGNATURE}-----" in text


def key_of(text: str) -> str:
    """The armored text of one public key, as it is kept. Raises ``InvalidInput``."""
    if _PRIVATE in text:
        hint = "gpg --armor --export KEY gives the public one; whoever has seen this one can sign"
        raise InvalidInput("is a private key", field="signers", hint=hint)
    text = text.strip()
    fingerprint(text)
    return text


def fingerprint(text: str) -> str:
    """40 hexadecimal digits of the primary key (RFC 4880 §12.2). Raises ``InvalidInput``."""
    try:
        return _fingerprint(_dearmored(text, _KEY, _KEY_MAX))
    except (ValueError, IndexError):
        hint = "give what gpg --armor --export KEY prints"
        raise InvalidInput("is no public key of OpenPGP", field="signers", hint=hint) from None


def check(signature: str) -> tuple[Problem, ...]:
    """What is wrong with the text of a signature, before anything is compared with it."""
    try:
        _dearmored(signature, _SIGNATURE, _SIGNATURE_MAX)
    except ValueError:
        return (Problem("signature", "is no signature of OpenPGP", _MAKE),)
    return ()


def verify(file: BinaryIO, signature: str, keys: Sequence[str]) -> str:
    """``openpgp:FINGERPRINT`` of the key that signed ``file``, which is read to its end.

    Raises ``InvalidInput``, ``Refused`` for what does not hold, ``AlveoleError`` without ``gpgv``.
    """
    if problems := check(signature):
        raise InvalidInput(problems=problems)
    if not keys:
        raise Refused("is signed with OpenPGP, and no such key is set", field="signature", hint="--signer KEY")
    with tempfile.TemporaryDirectory(prefix="alveole-gpgv") as name:
        place = Path(name)
        (place / "keys").write_bytes(b"".join(_dearmored(each, _KEY, _KEY_MAX) for each in keys))
        (place / "signature").write_bytes(_dearmored(signature, _SIGNATURE, _SIGNATURE_MAX))
        argv = ("gpgv", "--homedir", name, "--status-fd", "1", "--keyring", str(place / "keys"))
        # What reads through a buffer may be elsewhere in the file than the file itself.
        os.lseek(file.fileno(), file.tell(), os.SEEK_SET)
        try:
            done = subprocess.run(
                (*argv, str(place / "signature"), "-"),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": name},
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise AlveoleError("gpgv is not there", field="signature", hint="apt-get install gpgv") from None
        except subprocess.TimeoutExpired:
            raise AlveoleError("gpgv did not end in time", field="signature", hint="send it again") from None
    return f"openpgp:{_judged(done.stdout.decode(errors='replace'), done.returncode)}"


def _judged(status: str, returned: int) -> str:
    """The fingerprint of the primary key; one signature that does not hold is enough to refuse."""
    lines = [line.split()[1:] for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    said = {words[0] for words in lines if words}
    for word, (message, hint) in _AGAINST.items():
        if word in said:
            raise Refused(message, field="signature", hint=hint)
    valid = [words for words in lines if words and words[0] == "VALIDSIG" and len(words) > 10]
    if returned != 0 or "GOODSIG" not in said or len(valid) != 1:
        raise Refused("holds no signature that can be verified", field="signature", hint=_MAKE)
    if valid[0][8] not in _DIGESTS:
        hint = f"{_MAKE} --digest-algo SHA512"
        raise Refused("is made with a digest that is too weak", field="signature", hint=hint)
    return valid[0][10]


def _dearmored(text: str, what: str, most: int) -> bytes:
    """The bytes in an armor (RFC 4880 §6.2). Raises ``ValueError``."""
    pattern = rf"\s*-----BEGIN {what}-----\r?\n(.*?)\r?\n\r?\n([A-Za-z0-9+/=\s]+?)-----END {what}-----\s*\Z"
    # An armor without headers begins with the empty line.
    found = re.match(
        pattern, text.replace(f"-----BEGIN {what}-----\n\n", f"-----BEGIN {what}-----\nX: \n\n"), re.DOTALL
    )
    if found is None or len(text) > most:
        raise ValueError("no armor")
    lines = found[2].split()
    if lines and re.fullmatch(r"=[A-Za-z0-9+/]{4}", lines[-1]):
        lines.pop()
    try:
        return base64.b64decode("".join(lines), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def _fingerprint(packets: bytes) -> str:
    tag, start, end = _packet(packets)
    body = packets[start:end]
    if tag != 6 or len(body) < 6 or body[0] != 4:
        raise ValueError("does not begin with a public key of version 4")
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()  # noqa: S324  what it is


def _packet(data: bytes) -> tuple[int, int, int]:
    """Tag, and where the body of the first packet begins and ends (RFC 4880 §4.2)."""
    first = data[0]
    if not first & 0x80:
        raise ValueError("no packet")
    if first & 0x40:
        length = data[1]
        if length < 192:
            return first & 0x3F, 2, 2 + length
        if length < 224:
            return first & 0x3F, 3, 3 + ((length - 192) << 8) + data[2] + 192
        raise ValueError("a key is longer than keys are")
    octets = {0: 1, 1: 2, 2: 4}[first & 3] if first & 3 != 3 else 0
    if not octets:
        raise ValueError("no length")
    return (first >> 2) & 0xF, 1 + octets, 1 + octets + int.from_bytes(data[1 : 1 + octets], "big")
