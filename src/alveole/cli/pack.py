"""A directory as a stream of tar, for upload.

The order is fixed, owners are left out, and nothing is followed: directories and files are opened
relative to their parent with ``O_NOFOLLOW``, so that a link put in place meanwhile leads nowhere
(the caller is often root, the directory often somebody else's).
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from alveole.errors import InvalidInput

_BLOCK = 256 * 1024
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def directory(path: Path, skipped: Callable[[str], None] | None = None) -> Iterator[bytes]:
    """Blocks of a POSIX tar of what is in ``path``. ``skipped`` is told of what is no file, directory or link.

    Raises ``InvalidInput`` when the directory cannot be read or changes while it is.
    """
    try:
        # The directory that a person names may be a link; what is in it is not followed.
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", field="from") from error
    try:
        yield from _walk(top, "", skipped or (lambda _: None))
    except OSError as error:
        raise InvalidInput(f"cannot read {error.filename or path}: {error.strerror}", field="from") from error
    finally:
        os.close(top)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _walk(parent: int, prefix: str, skipped: Callable[[str], None]) -> Iterator[bytes]:
    for name in sorted(os.listdir(parent)):
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        entry = tarfile.TarInfo(prefix + name)
        entry.mode = stat.S_IMODE(status.st_mode)
        entry.mtime = int(status.st_mtime)
        if stat.S_ISLNK(status.st_mode):
            entry.type = tarfile.SYMTYPE
            entry.linkname = os.readlink(name, dir_fd=parent)
            yield _head(entry)
        elif stat.S_ISDIR(status.st_mode):
            entry.type = tarfile.DIRTYPE
            yield _head(entry)
            child = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
            try:
                yield from _walk(child, f"{prefix}{name}/", skipped)
            finally:
                os.close(child)
        elif stat.S_ISREG(status.st_mode):
            yield from _file(parent, name, entry)
        else:
            skipped(prefix + name)


def _file(parent: int, name: str, entry: tarfile.TarInfo) -> Iterator[bytes]:
    # O_NONBLOCK: a fifo put in place of the file must not hold us.
    file = os.open(name, _OPEN | os.O_NONBLOCK, dir_fd=parent)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"{entry.name} changed while it was read", field="from", hint="try again")
        entry.size = left = status.st_size
        yield _head(entry)
        while left > 0:
            block = os.read(file, min(left, _BLOCK))
            if not block:
                raise InvalidInput(f"{entry.name} became shorter while it was read", field="from", hint="try again")
            left -= len(block)
            yield block
        if rest := entry.size % tarfile.BLOCKSIZE:
            yield b"\0" * (tarfile.BLOCKSIZE - rest)
    finally:
        os.close(file)


def _head(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def file(path: Path) -> tuple[Iterator[bytes], int | None]:
    """The blocks of a regular file (or of a pipe) and its length where it has one."""
    try:
        opened = path.open("rb", buffering=0)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", field="from") from error
    status = os.fstat(opened.fileno())

    def blocks() -> Iterator[bytes]:
        with opened:
            left = status.st_size if stat.S_ISREG(status.st_mode) else None
            while left is None or left > 0:
                block = opened.read(_BLOCK if left is None else min(left, _BLOCK))
                if not block:
                    if left:
                        raise InvalidInput(f"{path} became shorter while it was read", field="from", hint="try again")
                    return
                if left is not None:
                    left -= len(block)
                yield block

    return blocks(), status.st_size if stat.S_ISREG(status.st_mode) else None
