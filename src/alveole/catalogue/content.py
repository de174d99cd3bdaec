"""What a content looks like from outside: names and a few small texts, for :mod:`alveole.catalogue.detect`.

Read on the caller's machine from a directory or an archive. Nothing is unpacked, imported or run, no link is
followed, and what is read is bounded whatever the archive says of itself.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

import msgspec

from alveole.errors import InvalidInput

#: Levels that are looked at: the top and what its directories hold.
DEPTH = 2
MOST_NAMES = 2000
TEXT_BYTES = 64 * 1024
TEXTS_BYTES = 1024 * 1024
#: Members of an archive that are looked at, and bytes that are unpacked for that.
_MEMBERS, _UNPACKED = 50_000, 256 * 1024 * 1024
#: Files whose text says what to run.
TELLING = (
    "requirements.txt",
    "pyproject.toml",
    "package.json",
    "composer.json",
    "Gemfile",
    "Procfile",
    "config.ru",
    "*.py",
    "*/*.py",
)
#: Directories of dependencies, which say nothing about the application itself.
_SKIPPED = {"node_modules", "vendor", "venv", ".venv", ".git", "__pycache__", "tests", "test"}
_JAR_MANIFEST = "META-INF/MANIFEST.MF"


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``names``: paths relative to the top, a directory ends with ``/``. ``texts``: by such a path.

    Of a Java archive ``shop.jar`` the text ``shop.jar!`` is its manifest.
    """

    names: tuple[str, ...] = ()
    texts: dict[str, str] = {}

    @property
    def top(self) -> tuple[str, ...]:
        """Names at the top, directories with their slash."""
        return tuple(name for name in self.names if "/" not in name.rstrip("/"))


def look(place: Path) -> Seen:
    """Look at a directory or an archive; raises ``InvalidInput`` (field ``from``) when it cannot be read."""
    try:
        if place.is_dir():
            return _gathered(_of_directory(place), unwrap=False)
        if zipfile.is_zipfile(place):
            with zipfile.ZipFile(place) as archive:
                return _gathered(_of_zip(archive), unwrap=True)
        return _gathered(_of_tar(place), unwrap=True)
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"cannot look into {place}: {error}", field="from", hint="a directory, tar or zip"
        ) from error


#: A path (a directory ends with ``/``) and, for a file of interest, its first bytes.
Entry = tuple[str, bytes | None]


def _wanted(path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in TELLING)


def _interesting(path: str, size: int, wrapped: bool) -> bool:
    """Whether to read it; ``wrapped``: its first directory may yet turn out to be a wrapping only."""
    short = path.partition("/")[2] if wrapped else ""
    return size <= TEXT_BYTES and (_wanted(path) or bool(short and _wanted(short)))


def _gathered(entries: Iterable[Entry], *, unwrap: bool) -> Seen:
    names: dict[str, bytes | None] = {}
    left = TEXTS_BYTES
    for path, data in entries:
        if len(names) >= MOST_NAMES:
            break
        names.setdefault(path, None)
        if data is not None and len(data) <= left:
            left -= len(data)
            names[path] = data
    if unwrap:
        # An archive of one directory stands for what is in it (host.archive.unpack).
        tops = {path.partition("/")[0] for path in names}
        if len(tops) == 1 and all("/" in path for path in names):
            cut = len(tops.pop()) + 1
            names = {path[cut:]: data for path, data in names.items() if len(path) > cut}
    kept = {path: data for path, data in names.items() if path.rstrip("/").count("/") < DEPTH}
    texts = {path: data.decode("utf-8", "replace") for path, data in kept.items() if data is not None}
    return Seen(tuple(sorted(path for path in kept if not path.endswith("!"))), texts)


def _of_directory(place: Path) -> Iterator[Entry]:
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _of_open(top, "")
    finally:
        os.close(top)


def _of_open(parent: int, prefix: str) -> Iterator[Entry]:
    for name in sorted(os.listdir(parent)):
        path = prefix + name
        with contextlib.suppress(OSError):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield f"{path}/", None
                if not prefix and name not in _SKIPPED:
                    child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                    try:
                        yield from _of_open(child, f"{path}/")
                    finally:
                        os.close(child)
                continue
            jar = not prefix and name.endswith(".jar")
            if not stat.S_ISREG(status.st_mode) or not (jar or _interesting(path, status.st_size, False)):
                yield path, None
                continue
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            with os.fdopen(file, "rb") as opened:
                yield path, None if jar else opened.read(TEXT_BYTES)
                if jar:
                    yield from _jar(path, opened)


def _jar(path: str, file: IO[bytes]) -> Iterator[Entry]:
    unreadable = (zipfile.BadZipFile, KeyError, OSError, ValueError, NotImplementedError, RuntimeError)
    with contextlib.suppress(*unreadable), zipfile.ZipFile(file) as archive, archive.open(_JAR_MANIFEST) as manifest:
        yield f"{path}!", manifest.read(TEXT_BYTES)


def _of_zip(archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist()[:_MEMBERS]:
        path = info.filename
        if path.startswith("__MACOSX/"):
            continue
        if path.endswith("/") or not _interesting(path, info.file_size, True):
            yield from _with_parents(path, None)
        else:
            with archive.open(info) as file:
                yield from _with_parents(path, file.read(TEXT_BYTES))


def _of_tar(place: Path) -> Iterator[Entry]:
    with place.open("rb") as raw, _unpacked(raw) as stream:
        bounded = _Bounded(stream)
        with tarfile.open(fileobj=bounded, mode="r|") as archive:
            for count, member in enumerate(_members(archive, bounded)):
                if count >= _MEMBERS:
                    return
                path = member.name.removeprefix("./").lstrip("/")
                if path in ("", "."):
                    continue
                if member.isdir():
                    yield from _with_parents(f"{path.rstrip('/')}/", None)
                elif member.isfile() and _interesting(path, member.size, True):
                    file = archive.extractfile(member)
                    yield from _with_parents(path, file.read(TEXT_BYTES) if file else None)
                elif member.isfile() and path.endswith(".jar") and path.count("/") < DEPTH and member.size < _UNPACKED:
                    file = archive.extractfile(member)
                    yield from _with_parents(path, None)
                    yield from _jar(path, io.BytesIO(file.read() if file else b""))
                else:
                    yield from _with_parents(path, None)


def _members(archive: tarfile.TarFile, bounded: _Bounded) -> Iterator[tarfile.TarInfo]:
    try:
        yield from archive
    except tarfile.ReadError:
        # What was seen of a large archive is enough; the top lies mostly at its beginning.
        if not bounded.spent:
            raise


def _with_parents(path: str, data: bytes | None) -> Iterator[Entry]:
    parts = path.rstrip("/").split("/")
    for depth in range(1, min(len(parts), DEPTH + 1)):
        yield "/".join(parts[:depth]) + "/", None
    if len(parts) <= DEPTH + 1:
        yield path, data


@contextlib.contextmanager
def _unpacked(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    head = raw.read(4)
    raw.seek(0)
    if head[:2] == b"\x1f\x8b":
        import gzip

        with gzip.GzipFile(fileobj=raw) as stream:
            yield cast("IO[bytes]", stream)
    elif head == b"\x28\xb5\x2f\xfd":
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            yield stream
    else:
        yield raw


class _Bounded(io.RawIOBase):
    """A stream that ends after :data:`_UNPACKED` bytes, however little was packed for them."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._left = _UNPACKED

    @property
    def spent(self) -> bool:
        return self._left <= 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(min(self._left, size if size >= 0 else self._left))
        self._left -= len(data)
        return data
