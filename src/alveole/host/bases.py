"""What is known of a base on disk, and its tree seen through the ids of the bases' own range.

``S/bases/<key>/root`` is the tree with the ids 0 to 65,535 as a distribution sees them; nothing
but root gets into ``S/bases``. ``base.json`` beside it is written last, so a tree without it was
never finished.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from alveole.agent.protocol import Image
from alveole.config import Settings
from alveole.errors import NotFound
from alveole.host import paths, syscalls, userns
from alveole.model.site import Base

#: The range of ids that no site has (numbers begin at 1): whoever unpacks or removes a base runs in it.
NUMBER = 0


class Record(msgspec.Struct, frozen=True):
    """``base.json``: which base it is, when it was made (seconds since the epoch), what it takes on the disk."""

    base: Base
    made_at: float
    bytes: int
    files: int
    image: Image | None = None
    cwd: str = "/"
    """The image's working directory."""


_record: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def read_record(settings: Settings, key: str) -> Record:
    """Raises ``NotFound`` for a base that is not there and ``ValueError`` for a damaged record."""
    try:
        data = paths.base_record(settings, key).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no base {key}", hint="it is built when a site needs it") from None
    return _record.decode(data)


def write_record(path: Path, record: Record) -> None:
    """Write and sync ``base.json`` in a directory that has no name yet."""
    with path.open("xb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def mapped_tree(settings: Settings, tree: Path) -> Iterator[int]:
    """An open directory: ``tree`` as root of the bases' range sees it, its id 0 being that of the disk.

    The mount behind it is in no mount table and ends with the file. Raises ``OSError`` when the
    file system of the state directory has no id-mapped mounts (mount_setattr(2)).
    """
    space = userns.create(settings.uid_start(NUMBER))
    try:
        flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
        fd = syscalls._check(
            syscalls._libc.syscall(syscalls._OPEN_TREE, syscalls.AT_FDCWD, os.fsencode(tree), flags), "open_tree"
        )
        try:
            attributes = syscalls.MOUNT_ATTR_IDMAP | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
            wanted = struct.pack("QQQQ", attributes, 0, 0, space)
            syscalls._check(
                syscalls._libc.syscall(syscalls._MOUNT_SETATTR, fd, b"", syscalls.AT_EMPTY_PATH, wanted, len(wanted)),
                "mount_setattr",
            )
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(space)
