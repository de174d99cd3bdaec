"""Passports: one signed file that says everything about a site, for another Alvéole to take it in.

::

    ALVEOLE-PASSPORT-1 LF
    4 bytes: length of the head · head (JSON) · 64 bytes: Ed25519 over the head
    pieces of ChaCha20-Poly1305, each 1 MiB of text and 16 bytes of tag, the last one shorter

The text of the pieces is 4 bytes of length, the :class:`Statement` (JSON), and the archive that the agent packed. It is
sealed to the platform that shall take it in: an X25519 key made for this one file agrees with that platform's, HKDF
(RFC 5869) makes the key of the pieces, and each nonce is the number of its piece and whether it is the last
(STREAM, Hoang et al. 2015), so that pieces cannot be cut off, moved or left out. The head is signed by the platform
that made the file and holds the digest of the whole text: nothing of it is used before that was compared.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec

from alveole import __version__, wholefile
from alveole.errors import AlveoleError, InvalidInput, Refused
from alveole.model.names import Digest, SiteName
from alveole.model.site import Backup

MAGIC = b"ALVEOLE-PASSPORT-1\n"
PIECE = 1024 * 1024
_TAG = 16
_SIGNATURE = 64
_HEAD_MAX = 64 * 1024
_STATEMENT_MAX = 8 * 1024 * 1024
_WORD = "alv1."
#: Stands for the key of a platform that was not asked yet.
EMPTY_KEY = _WORD + "A" * 86
_SIGNED = b"alveole passport head 1\0"
_HINT = "export the site again"

PublicKey = Annotated[str, msgspec.Meta(pattern=r"^alv1\.[A-Za-z0-9_-]{86}\Z")]
"""``alv1.`` and the base64url of an Ed25519 key and an X25519 key, 32 bytes each."""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What anybody may read. ``signer`` made it and ``to`` can open it; ``seal`` is the key made for this file."""

    format: int
    name: SiteName
    signer: PublicKey
    to: PublicKey
    seal: str
    made_at: float
    program: str
    """The version of Alvéole that wrote it."""
    text_bytes: int
    text: Digest
    """Of the whole text of the pieces."""


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What only the one it is for may read. ``manifest`` is the site's configuration with answers and secrets."""

    manifest: str
    promises: tuple[str, ...]
    """What was promised where it comes from, for people to compare."""
    backups: tuple[Backup, ...]
    """Those that stay where they were made."""
    archive: Digest
    archive_bytes: int
    since: str = ""
    """The archive of the first copy that this one brings up to date."""


class Identity:
    """The two private keys of a platform: one signs, one opens what is sealed to it."""

    def __init__(self, sign: bytes, seal: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self.sign = Ed25519PrivateKey.from_private_bytes(sign)
        self.seal = X25519PrivateKey.from_private_bytes(seal)
        both = self.sign.public_key().public_bytes_raw() + self.seal.public_key().public_bytes_raw()
        self.public = _WORD + base64.urlsafe_b64encode(both).decode().rstrip("=")

    @classmethod
    def load(cls, path: Path) -> Identity:
        """The identity in ``path``, made at the first use. Raises ``AlveoleError`` for a file that is damaged."""
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            # Two at once: the first one's stays.
            with contextlib.suppress(FileExistsError):
                wholefile.write(path, secrets.token_bytes(64), over=False)
            raw = path.read_bytes()
        if len(raw) != 64:
            raise AlveoleError(f"the platform's keys in {path} are damaged", hint="put the file back from a copy")
        return cls(raw[:32], raw[32:])


def fingerprint(key: str) -> str:
    """``SHA256:`` and base64, as ssh writes one. Raises ``InvalidInput`` for what is no public key."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(_raw(key)).digest()).decode().rstrip('=')}"


def _raw(key: str) -> bytes:
    try:
        msgspec.convert(key, PublicKey)
        return base64.urlsafe_b64decode(key.removeprefix(_WORD) + "==")
    except (ValueError, msgspec.ValidationError):
        raise InvalidInput("is not the key of a platform", field="key", hint="see there: alveole node key") from None


def _sealing_key(secret: bytes, seal: bytes, to: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return ChaCha20Poly1305(HKDF(SHA256(), 32, None, MAGIC + seal + to).derive(secret))


def _nonce(number: int, last: bool) -> bytes:
    return struct.pack(">3xQB", number, last)


def write(
    out: IO[bytes], identity: Identity, to: str, name: str, statement: Statement, archive: IO[bytes], now: float
) -> None:
    """Write the passport of a site whose packed ``archive`` is open at its beginning."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    said = msgspec.json.encode(statement)
    start = struct.pack(">I", len(said)) + said
    whole = hashlib.sha256(start)
    while data := archive.read(PIECE):
        whole.update(data)
    size = len(start) + archive.tell()
    archive.seek(0)
    once = X25519PrivateKey.generate()
    seal, target = once.public_key().public_bytes_raw(), _raw(to)[32:]
    head = msgspec.json.encode(
        Head(
            format=1,
            name=name,
            signer=identity.public,
            to=to,
            seal=base64.b64encode(seal).decode(),
            made_at=now,
            program=__version__,
            text_bytes=size,
            text=f"sha256:{whole.hexdigest()}",
        )
    )
    out.write(MAGIC + struct.pack(">I", len(head)) + head + identity.sign.sign(_SIGNED + head))
    key = _sealing_key(once.exchange(X25519PublicKey.from_public_bytes(target)), seal, target)
    number, held, left = 0, start, size
    while left > 0:
        while len(held) < min(PIECE, left):
            more = archive.read(PIECE)
            if not more:
                raise AlveoleError("the packed site became shorter while it was read")
            held += more
        piece, held = held[:PIECE], held[PIECE:]
        left -= len(piece)
        out.write(key.encrypt(_nonce(number, left == 0), piece, None))
        number += 1


def read_head(file: IO[bytes]) -> Head:
    """The head of the passport, after its signature was checked; whose it is, is for the caller to judge.

    Raises ``Refused`` for what is damaged, unsigned or no passport at all.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if file.read(len(MAGIC)) != MAGIC:
        raise Refused("is no passport of a site, or one of another version", field="upload", hint=_HINT)
    length = file.read(4)
    size = struct.unpack(">I", length)[0] if len(length) == 4 else 0
    raw = file.read(size) if 0 < size <= _HEAD_MAX else b""
    signature = file.read(_SIGNATURE)
    if not raw or len(raw) != size or len(signature) != _SIGNATURE:
        raise Refused("the passport is cut short", field="upload", hint=_HINT)
    try:
        head = msgspec.json.decode(raw, type=Head)
        Ed25519PublicKey.from_public_bytes(_raw(head.signer)[:32]).verify(signature, _SIGNED + raw)
    except (msgspec.DecodeError, InvalidInput, ValueError) as error:
        raise Refused(f"the head of the passport does not parse: {error}", field="upload", hint=_HINT) from None
    except InvalidSignature:
        raise Refused("the signature of the passport is not its signer's", field="upload", hint=_HINT) from None
    if head.format != 1:
        raise Refused(f"the passport has format {head.format}; this version reads 1", field="upload")
    return head


def open_text(file: IO[bytes], head: Head, identity: Identity, archive: IO[bytes]) -> Statement:
    """Open the pieces that follow the head: the statement is given, the archive written into ``archive``.

    Raises ``Refused`` for anything that is not exactly what was signed; what is in ``archive`` is worth nothing then.
    """
    whole, done = hashlib.sha256(), 0
    held = b""
    said: int | None = None
    statement: Statement | None = None
    for piece in _pieces(file, head, identity):
        whole.update(piece)
        done += len(piece)
        if statement is not None:
            archive.write(piece)
            continue
        held += piece
        if said is None and len(held) >= 4:
            said = struct.unpack(">I", held[:4])[0]
            if not 0 < said <= _STATEMENT_MAX:
                raise _damaged()
        if said is not None and len(held) >= 4 + said:
            try:
                statement = msgspec.json.decode(held[4 : 4 + said], type=Statement)
            except msgspec.DecodeError as error:
                raise Refused(f"what the passport says does not parse: {error}", field="upload") from None
            archive.write(held[4 + said :])
    if statement is None or done != head.text_bytes or f"sha256:{whole.hexdigest()}" != head.text:
        raise _damaged()
    archive.flush()
    return statement


def _pieces(file: IO[bytes], head: Head, identity: Identity) -> Iterator[bytes]:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        seal = base64.b64decode(head.seal, validate=True)
        secret = identity.seal.exchange(X25519PublicKey.from_public_bytes(seal))
    except ValueError:
        raise _damaged() from None
    key = _sealing_key(secret, seal, _raw(head.to)[32:])
    number, left = 0, head.text_bytes
    while left > 0:
        size = min(PIECE, left)
        left -= size
        try:
            yield key.decrypt(_nonce(number, left == 0), file.read(size + _TAG), None)
        except (InvalidTag, ValueError):
            raise _damaged() from None
        number += 1
    if file.read(1):
        raise _damaged()


def _damaged() -> Refused:
    return Refused("the passport is damaged: what it holds is not what was signed", field="upload", hint=_HINT)
