"""Unpack an archive of modules: plain files and directories below one directory, under ceilings (threat 8).

What sites bring is unpacked by the agent as the site's own user; this is for control's own small archives.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from alveole.errors import Refused

MOST_PACKED = 32 * 1024 * 1024
MOST_BYTES = 64 * 1024 * 1024
MOST_FILES = 4_000
MOST_DEPTH = 12
_BLOCK = 64 * 1024


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than a ceiling, whatever it was unpacked from."""

    def __init__(self, inner: IO[bytes] | gzip.GzipFile, most: int) -> None:
        super().__init__()
        self._inner, self._left = inner, most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(min(size, _BLOCK) if size >= 0 else _BLOCK)
        self._left -= len(data)
        if self._left < 0:
            raise Refused(f"unpacked, it is larger than {MOST_BYTES >> 20} MiB", field="source")
        return data


def tree_of(archive: Path, kind: str, target: Path) -> None:
    """Unpack into the empty directory ``target``. ``kind``: ``tar``, else told by the first bytes (gzip, zip).

    Raises ``Refused`` for anything but files and directories with plain names, and beyond the ceilings.
    """
    with archive.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        try:
            if kind == "tar":
                _write(_tar(file), target)
            elif head[:2] == b"\x1f\x8b":
                with gzip.open(file) as inner:
                    _write(_tar(inner), target)
            elif head == b"PK\x03\x04":
                _write(_zip(file), target)
            else:
                raise Refused("it is neither a .tar.gz nor a .zip", field="source")
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
            raise Refused(f"the archive cannot be unpacked: {error}", field="source") from error


#: Name, whether it is a directory, whether it may be executed, its content.
_Entry = tuple[str, bool, bool, "IO[bytes] | None"]


def _tar(file: IO[bytes] | gzip.GzipFile) -> Iterator[_Entry]:
    # Twice what the files may hold: heads and padding of many small ones.
    with tarfile.open(fileobj=_Bounded(file, 2 * MOST_BYTES), mode="r|") as archive:
        for entry in archive:
            if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                raise Refused(f"{_said(entry.name)} is neither a file nor a directory", field="source")
            yield (
                entry.name,
                entry.isdir(),
                bool(entry.mode & 0o100),
                archive.extractfile(entry) if entry.isreg() else None,
            )


def _zip(file: IO[bytes]) -> Iterator[_Entry]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            kind = entry.external_attr >> 28
            # 0: made where there are no such kinds; 4 a directory, 8 a file (the mode's highest bits).
            if kind not in (0, 4, 8) or entry.flag_bits & 1:
                raise Refused(f"{_said(entry.filename)} is neither a file nor a directory", field="source")
            if entry.is_dir():
                yield entry.filename, True, True, None
            else:
                with archive.open(entry) as content:
                    yield entry.filename, False, bool((entry.external_attr >> 16) & 0o100), content


def _write(entries: Iterator[_Entry], target: Path) -> None:
    count = size = 0
    for name, directory, executable, content in entries:
        count += 1
        if count > MOST_FILES:
            raise Refused(f"it holds more than {MOST_FILES:,} files", field="source")
        parts = _parts(name)
        if not parts:
            continue
        path = target.joinpath(*parts)
        (path if directory else path.parent).mkdir(mode=0o755, parents=True, exist_ok=True)
        if directory or content is None:
            continue
        with path.open("xb") as out:
            while block := content.read(_BLOCK):
                size += len(block)
                if size > MOST_BYTES:
                    raise Refused(f"unpacked, it is larger than {MOST_BYTES >> 20} MiB", field="source")
                out.write(block)
        path.chmod(0o755 if executable else 0o644)


def _parts(name: str) -> tuple[str, ...]:
    if name.startswith("/") or "\\" in name or "\0" in name or not name.isprintable():
        raise Refused(f"{_said(name)} is not a plain name", field="source")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts or ".git" in parts or any(len(part) > 200 for part in parts) or len(parts) > MOST_DEPTH:
        raise Refused(f"{_said(name)} is not a plain name", field="source")
    return parts


def _said(name: str) -> str:
    return repr(name[:100])
