"""What is known of a base on disk, and its tree seen through the ids of the bases' own range.

``S/bases/<key>/root`` is the tree with the ids 0 to 65,535 as a distribution sees them; nothing
but root gets into ``S/bases``. ``base.json`` beside it is written last, so a tree without it was
never finished.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from alveole.agent.protocol import Image
from alveole.config import Settings
from alveole.errors import NotFound
from alveole.host import paths, syscalls, userns
from alveole.model.site import Base

#: The range of ids that no site has (numbers begin at 1): whoever unpacks or removes a base runs in it.
NUMBER = 0
#: So many trees at most make up a base: each is one more mount at every start of an instance, and one more directory
#: that the kernel looks into for a name.
DEPTH = 5


class BaseRecord(msgspec.Struct, frozen=True):
    """``base.json``: which base it is, when it was made (seconds since the epoch), what it takes on the disk."""

    base: Base
    made_at: float
    bytes: int
    files: int
    image: Image | None = None
    cwd: str = "/"
    """The image's working directory."""
    lower: str = ""
    """Key of the base that this one is a layer over; empty: it stands alone."""
    versions: str = ""
    """Digest of its packages and their versions, those of ``lower`` among them."""
    manifest: str = ""
    """sha256 of the file ``manifest`` beside it (``host.manifest``)."""
    lower_versions: str = ""
    """``versions`` of ``lower`` when the layer was made: over any other it makes no sense."""


_record: msgspec.json.Decoder[BaseRecord] = msgspec.json.Decoder(BaseRecord)


def read_record(settings: Settings, key: str) -> BaseRecord:
    """Raises ``NotFound`` for a base that is not there and ``ValueError`` for a damaged record."""
    try:
        data = paths.base_record(settings, key).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no base {key}", hint="it is built when a site needs it") from None
    return _record.decode(data)


def write_record(path: Path, record: BaseRecord) -> None:
    """Write and sync ``base.json`` in a directory that has no name yet."""
    with path.open("xb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())


def below(settings: Settings, record: BaseRecord) -> Iterator[BaseRecord]:
    """The records of what the base leans on, one after the other, down to the one that stands alone.

    Raises ``NotFound`` when one is not there, ``ValueError`` for one that is damaged.
    """
    for _ in range(DEPTH):
        if not record.lower:
            return
        record = read_record(settings, record.lower)
        yield record
    raise ValueError(f"more than {DEPTH} trees lie over each other")


def trees(settings: Settings, key: str) -> tuple[Path, ...]:
    """The trees that make up the base when they are laid over each other, the uppermost first.

    Raises ``NotFound`` when it or what it leans on is not there, ``ValueError`` for a damaged record.
    """
    found = [paths.base_root(settings, key)]
    if paths.base_record(settings, key).exists():
        record = read_record(settings, key)
        found += [paths.base_root(settings, each.base.key) for each in below(settings, record)]
    for tree in found:
        if not tree.is_dir():
            raise NotFound(f"the files of the base {tree.parent.name} are gone", hint="see: alveole base list")
    return tuple(found)


def find(found: Sequence[Path], path: str) -> Path:
    """Where ``path`` lies in the uppermost of the trees that has it; in the last when none has.

    What a layer has taken away is found as the mark of that, which is no file.
    """
    return next((tree / path for tree in found if os.path.lexists(tree / path)), found[-1] / path)


def directories(parents: Sequence[Path], name: str) -> tuple[Path, ...]:
    """The directories that make up ``name`` in ``parents`` laid over each other, the uppermost first.

    None when it is not a directory there: absent, taken away, a file or a link.
    """
    found: list[Path] = []
    for parent in parents:
        try:
            info = (parent / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(info.st_mode):
            break
        found.append(parent / name)
        try:
            if os.getxattr(parent / name, "trusted.overlay.opaque", follow_symlinks=False) == b"y":
                break
        except OSError:
            continue
    return tuple(found)


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
