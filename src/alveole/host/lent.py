"""Directories of the machine that the settings let sites see: opened without following a link, mounted for an instance.

What a path leads to is decided once, by one openat2(2) from the root of the file system that refuses every link, and is
held by the open file: whoever renames or links afterwards changes nothing of what is mounted. What is mounted is a
clone of that one mount (no file system that lies below it), without set-user-id programs and devices.

Read-only, files keep the machine's owners, who are nobody in the container: a site reads what everybody may read.
Writable, the mount maps the directory's owner and group to the user of the site's program, and nobody else: what it
writes belongs to that owner, and of files of others it is not even a stranger, but an id that the kernel has no name
for, and can neither make nor take one (mount_setattr(2), "ID-mapped mounts").
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from alveole.config import Settings
from alveole.errors import Problem, StepFailed
from alveole.host import syscalls, userns
from alveole.model.lent import Shared

_SAFE = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV


def is_allowed(settings: Settings, source: str) -> bool:
    """Whether the settings name ``source`` or a directory above it."""
    return any(source == root or source.startswith(f"{root}/") for root in settings.sites.shared)


def open_source(settings: Settings, source: str) -> int:
    """The directory as a file that only names it (``O_PATH``). Raises ``StepFailed``."""
    if not is_allowed(settings, source):
        raise StepFailed(f"{source} is below none of the directories that the settings let sites see")
    try:
        return syscalls.open_plain(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        why = {errno.ELOOP: "a link is on the way to it", errno.ENOTDIR: "it is no directory"}
        raise StepFailed(
            f"{source} cannot be shared: {why.get(error.errno or 0, os.strerror(error.errno or 0))}"
        ) from None


def mount(settings: Settings, shared: Shared, target: Path, uid: int, gid: int) -> None:
    """Mount it on ``target``; ``uid`` and ``gid`` are the host's ids of who writes there. Raises ``StepFailed``."""
    fd = open_source(settings, shared.source)
    try:
        tree = _clone(fd, shared, uid, gid)
        try:
            target.mkdir(parents=True, exist_ok=True)
            syscalls.move_mount(tree, target)
        finally:
            os.close(tree)
    finally:
        os.close(fd)


def _clone(fd: int, shared: Shared, uid: int, gid: int) -> int:
    """A clone of the mount, belonging to nowhere yet, with all its limits set."""
    tree = syscalls.clone_mount(fd)
    try:
        if not shared.writable:
            syscalls.set_mount(tree, _SAFE | syscalls.MOUNT_ATTR_RDONLY)
            return tree
        owner = os.fstat(fd)
        if not owner.st_uid or not owner.st_gid:
            raise StepFailed(f"{shared.source} belongs to root: a site never writes as root", hint=_OWN)
        if stat.S_IMODE(owner.st_mode) & stat.S_IWUSR == 0:
            raise StepFailed(f"{shared.source} cannot be written to by its owner", hint="chmod u+w")
        space = userns.create(uid, inside=owner.st_uid, count=1, group=(owner.st_gid, gid))
        try:
            syscalls.set_mount(tree, _SAFE | syscalls.MOUNT_ATTR_IDMAP, space)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
                raise StepFailed(
                    f"{shared.source} lies on a file system whose owners cannot be mapped: it can only be read",
                    hint="share it with :ro",
                ) from None
            raise
        finally:
            os.close(space)
        return tree
    except OSError as error:
        os.close(tree)
        raise StepFailed(f"{shared.source} cannot be shared: {error.strerror}") from error
    except BaseException:
        os.close(tree)
        raise


_OWN = "give it an owner and a group of its own: chown USER:GROUP"


def check(settings: Settings, wanted: tuple[Shared, ...]) -> tuple[Problem, ...]:
    """What speaks against mounting these; everything but the last step is done and dropped again."""
    problems = []
    for each in wanted:
        try:
            fd = open_source(settings, each.source)
            try:
                os.close(_clone(fd, each, settings.uid_start(1), settings.uid_start(1)))
            finally:
                os.close(fd)
        except StepFailed as error:
            problems += [Problem("shared", problem.message, problem.hint) for problem in error.problems]
    return tuple(problems)
