"""Reading a tar archive, plain or packed, strictly and with ceilings.

Our own reader because the standard library's ends silently at a damaged header, knows no ceilings
and, in Debian 12's Python 3.11.2, has no filters (PEP 706). Formats: POSIX.1-1988 ``ustar``,
POSIX.1-2001 ``pax`` (name, link, size and time; no sparse files) and GNU (long names). Runs inside
a confined child (see ``host.tree``).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from alveole.host.tree import BLOCK, CHUNK, Rejected, size_text

#: Below this much output the ratio between output and input says nothing.
RATIO_FREE = 16 * 1024 * 1024
#: Largest extended header; the kernel's longest path is 4,096 bytes.
_META_BYTES = 64 * 1024
#: Window of a zstd frame that is still unpacked: what ``zstd --ultra`` uses without ``--long``.
_ZSTD_WINDOW = 1 << 27
#: Four bytes of zstd may stand for 128 KiB (RLE blocks, RFC 8878 §3.1.1.2): what comes out of one piece is bounded.
_ZSTD_PIECE = 2048

FORMATS = ("tar", "tar.gz", "tar.zst", "zip")


def sniff(fd: int) -> str:
    """The format of the archive in ``fd`` by its first bytes; rewinds. Raises ``Rejected``."""
    head = os.pread(fd, 2 * BLOCK, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    if not head:
        raise Rejected("is empty", hint="the upload brought no byte")
    if head[:2] == b"\x1f\x8b":
        return "tar.gz"
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return "tar.zst"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[257:262] == b"ustar" or (len(head) == 2 * BLOCK and not any(head)):
        return "tar"
    if len(head) >= BLOCK and _checksum_fits(head[:BLOCK]):
        return "tar"
    raise Rejected("is not an archive we know", hint="send a .tar, .tar.gz, .tar.zst or .zip")


class Stream:
    """The unpacked bytes of an archive, read forwards once.

    ``packing`` is ``""``, ``gz`` or ``zst``. ``ratio`` bounds output against input (0: no bound).
    """

    def __init__(self, fd: int, packing: str, *, ratio: int = 0, length: int | None = None) -> None:
        self._fd = fd
        self._length = length
        self.consumed = 0
        self.given = 0
        self._ratio = ratio
        self._pull = {"": self._read, "gz": self._gzip().__next__, "zst": self._zstd().__next__}[packing]
        self._buffer = b""
        self._at = 0

    def _read(self, limit: int = CHUNK) -> bytes:
        if self._length is not None:
            limit = min(limit, self._length - self.consumed)
        data = os.read(self._fd, limit) if limit > 0 else b""
        self.consumed += len(data)
        return data

    def _gzip(self) -> Iterator[bytes]:
        while True:
            data = self._read()
            if not data or not data.strip(b"\0"):
                while True:
                    yield b""
            unpack = zlib.decompressobj(wbits=31)
            while True:
                try:
                    out = unpack.decompress(data, CHUNK)
                except zlib.error as error:
                    raise Rejected(f"is damaged: {error}", hint="send it again") from None
                if out:
                    yield out
                if unpack.eof:
                    data = unpack.unused_data
                    # A gzip file may have several members one after the other (RFC 1952 §2.2).
                    if not data.strip(b"\0"):
                        break
                    unpack = zlib.decompressobj(wbits=31)
                    continue
                data = unpack.unconsumed_tail or (b"" if out and len(out) == CHUNK else self._read())
                if not data and not out:
                    raise Rejected("is cut: the compressed data ends early", hint="send it again")

    def _zstd(self) -> Iterator[bytes]:
        import zstandard

        data = b""
        while True:
            data = data or self._read(_ZSTD_PIECE)
            if not data:
                while True:
                    yield b""
            unpack = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
            while True:
                try:
                    out = unpack.decompress(data)
                except zstandard.ZstdError as error:
                    raise Rejected(f"is damaged: {error}", hint="send it again") from None
                if out:
                    yield out
                if unpack.eof:
                    # Frames may follow one another (RFC 8878 §3.1).
                    data = unpack.unused_data
                    break
                data = self._read(_ZSTD_PIECE)
                if not data:
                    raise Rejected("is cut: the compressed data ends early", hint="send it again")

    def _more(self) -> bool:
        data = self._pull()
        self.given += len(data)
        self._buffer, self._at = data, 0
        if self._ratio and self.given > RATIO_FREE and self.given > self._ratio * max(1, self.consumed):
            raise Rejected(
                f"grows to more than {self._ratio} times its size",
                hint="the ceiling is content.ratio in the settings",
            )
        return bool(data)

    def parts(self, count: int, where: str = "") -> Iterator[bytes]:
        """The next ``count`` bytes in pieces. Raises ``Rejected`` when the archive ends first."""
        while count:
            if self._at == len(self._buffer) and not self._more():
                told = f"is cut: it ends early, inside {where}" if where else "is cut: it ends early"
                raise Rejected(told, hint="send it again")
            piece = self._buffer[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def take(self, count: int, where: str = "") -> bytes:
        end = self._at + count
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        return b"".join(self.parts(count, where))

    def skip(self, count: int, where: str = "") -> None:
        for _ in self.parts(count, where):
            pass

    def finish(self) -> None:
        """Read to the end, so that the checksums at the end are compared too."""
        while self._more():
            pass

    @property
    def position(self) -> int:
        """How many unpacked bytes were taken."""
        return self.given - len(self._buffer) + self._at

    def at_end(self) -> bool:
        return self._at == len(self._buffer) and not self._more()


class Member(NamedTuple):
    """One announced member. ``kind`` is ``f d l h`` (hard link) ``c b p``; names are as they stand, undecoded."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes

    @property
    def shown(self) -> str:
        return shown(self.name)


def shown(name: bytes | str) -> str:
    """A name for a message: quoted, without anything that could act on a terminal, and short."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    quoted = repr(text if len(text) <= 120 else f"{text[:100]}…{text[-15:]}")
    return quoted


_KINDS = {b"0": "f", b"\0": "f", b"7": "f", b"1": "h", b"2": "l", b"3": "c", b"4": "b", b"5": "d", b"6": "p"}
_FORBIDDEN = {
    b"S": "is a sparse file; make the archive without --sparse",
    b"M": "continues on another volume",
    b"D": "is an incremental dump",
}


def members(stream: Stream, *, strict: bool = True) -> Iterator[Member]:
    """The members of ``stream``. The caller reads ``size`` bytes of a file before it asks for the next.

    Each file's padding is read here. ``strict``: an archive without its end mark is cut (some
    makers of image layers leave it out). Raises ``Rejected``.
    """
    extra: dict[str, bytes] = {}
    while True:
        block = stream.take(BLOCK) if strict or not stream.at_end() else bytes(BLOCK)
        if not any(block):
            stream.finish()
            return
        if not _checksum_fits(block):
            raise Rejected("is damaged: the checksum of a header is wrong", hint="send it again")
        name, link = _text(block[:100]), _text(block[157:257])
        if block[257:263] == b"ustar\0" and (before := _text(block[345:500])):
            name = before + b"/" + name
        kind = block[156:157]
        size = _number(block[124:136], name)
        if kind in (b"L", b"K", b"x", b"g"):
            if size > _META_BYTES:
                raise Rejected(f"{shown(name)} has an extended header of {size_text(size)}")
            data = stream.take(size)
            stream.skip(-size % BLOCK)
            if kind in (b"L", b"K"):
                extra["path" if kind == b"L" else "linkpath"] = data.rstrip(b"\0")
                continue
            records = dict(_records(data))
            if kind == b"g":
                if records.keys() & {"path", "linkpath", "size"}:
                    raise Rejected("has a global header that names files")
                continue
            if any(key.startswith("GNU.sparse.") for key in records):
                raise Rejected(f"{shown(records.get('path', name))} is a sparse file", hint="pack without --sparse")
            extra.update(records)
            continue
        name, link = extra.get("path", name), extra.get("linkpath", link)
        try:
            size = int(extra["size"]) if "size" in extra else size
            mtime = int(float(extra["mtime"])) if "mtime" in extra else _number(block[136:148], name)
        except (ValueError, OverflowError):
            raise Rejected(f"{shown(name)} has a header that is not a number") from None
        extra = {}
        if kind in _FORBIDDEN or kind not in _KINDS or size < 0:
            why = _FORBIDDEN.get(kind, f"is of the unknown type {kind!r}")
            raise Rejected(f"{shown(name)} {why}")
        what = _KINDS[kind]
        # Before POSIX a directory was a file whose name ends with a slash.
        if what == "f" and name.endswith(b"/"):
            what = "d"
        if what != "f":
            size = 0 if what in "hlcbp" else size
        mode, uid, gid = (_number(block[at : at + 8], name) for at in (100, 108, 116))
        yield Member(name, what, mode & 0o7777, uid, gid, size if what == "f" else 0, max(0, mtime), link)
        if what == "f":
            stream.skip(-size % BLOCK)
        elif size:
            stream.skip(size + -size % BLOCK)


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes, name: bytes) -> int:
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big", signed=field[0] == 0xFF)
    text = field.strip(b" \0")
    try:
        value = int(text, 8) if text else 0
    except ValueError:
        raise Rejected(f"{shown(name)} has a header that is not a number") from None
    if value < 0:
        raise Rejected(f"{shown(name)} has a header that is not a number")
    return value


def _checksum_fits(block: bytes) -> bool:
    try:
        wanted = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    total = sum(rest)
    # Old tars summed signed bytes.
    return wanted == total or wanted == total - 256 * sum(byte > 127 for byte in rest)


def _records(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The ``length key=value`` records of a pax header."""
    while data:
        head, space, _ = data.partition(b" ")
        if not space or not head.isdigit() or not len(head) + 3 <= int(head) <= len(data):
            raise Rejected("is damaged: an extended header does not parse")
        record, data = data[len(head) + 1 : int(head)], data[int(head) :]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise Rejected("is damaged: an extended header does not parse")
        yield key.decode("utf-8", "backslashreplace"), value[:-1]
