"""Files that are there wholly or not at all, whenever the disk is full or the power goes.

Each is written beside its place, put on the disk, and only then takes the place. What a write that fails has begun is
removed again; what a death in between leaves, hidden and readable by its owner alone, the next write removes. Several
threads and processes may write one path at once: they wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def writing(
    path: Path, *, mode: int = 0o600, owner: tuple[int, int] | None = None, synced: bool = True, over: bool = True
) -> Iterator[BinaryIO]:
    """A file to write, which becomes ``path`` when the block ends well.

    ``owner`` is a uid and a gid, -1 for "as it is"; nobody can read it who may not in the end. With ``synced`` the file
    and its name are on the disk then; without, a power cut may leave the one before. Without ``over`` one that is there
    stays, and ``FileExistsError`` is raised. Raises ``OSError``, also for a full disk.
    """
    # A name may be as long as a file's can be, so this does not contain it.
    beside = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.part")
    with os.fdopen(_begin(beside), "wb") as file:
        try:
            yield file
            file.flush()
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            if synced:
                os.fsync(file.fileno())
            if over:
                beside.replace(path)
            else:
                os.link(beside, path)
                beside.unlink()
        except BaseException:
            beside.unlink(missing_ok=True)
            # What stands in the buffer has no room at the end either.
            with contextlib.suppress(OSError):
                file.close()
            raise
    if synced:
        sync_directory(path.parent)


def write(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    synced: bool = True,
    over: bool = True,
) -> None:
    """``content`` becomes ``path``; see :func:`writing`."""
    with writing(path, mode=mode, owner=owner, synced=synced, over=over) as file:
        file.write(content)


def sync_directory(path: Path) -> None:
    """The names in ``path`` are on the disk when this returns. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _begin(beside: Path) -> int:
    """A new file, locked until it is closed: whoever else wants the name waits, or finds that its maker has died."""
    while True:
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            _clear(beside)
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        # Taken for a dead one's before it was locked.
        os.close(fd)


def _clear(beside: Path) -> None:
    """Wait until nobody writes what is there, and remove what nobody ever will, or what is a stranger's."""
    try:
        fd = os.open(beside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError:
        beside.unlink(missing_ok=True)  # a link, say
        return
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.lstat(beside)):
                beside.unlink()
    finally:
        os.close(fd)
