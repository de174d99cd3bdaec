"""System calls that Python 3.11 does not offer, each as a function that raises ``OSError``.

Numbers of the newer calls are the same on every architecture (Linux ``syscall_64.tbl`` from 424 on).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

#: Ids of a site, and of the user namespace over them.
RANGE = 65_536

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOSYMFOLLOW = 256
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_REMOUNT = 32
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_IDMAP = 0x0010_0000

# linux/inotify.h
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_ONLYDIR = 0x0100_0000
_IN_DONT_FOLLOW = 0x0200_0000

RESOLVE_NO_MAGICLINKS = 0x2
RESOLVE_NO_SYMLINKS = 0x4

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
PR_CAPBSET_DROP = 24

# The one number here that differs: arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h.
_PIVOT_ROOT = 155 if os.uname().machine == "x86_64" else 41
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_MOUNT_SETATTR = 442
_OPENAT2 = 437

Pathish = str | os.PathLike[str]


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _bytes(path: Pathish | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def inotify(directory: Pathish) -> int:
    """An open file that has something to read as soon as an entry is made in ``directory``. Follows no link."""
    fd: int = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
    try:
        flags = _IN_CREATE | _IN_MOVED_TO | _IN_DONT_FOLLOW | _IN_ONLYDIR
        _check(_libc.inotify_add_watch(fd, _bytes(directory), flags), f"watch {os.fspath(directory)}")
    except BaseException:
        os.close(fd)
        raise
    return fd


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own (``CLONE_NEWUSER`` and ``_NEWPID`` want one thread)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace behind ``fd``."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: Pathish | None, target: Pathish, kind: str | None = None, flags: int = 0, data: str = "") -> None:
    _check(
        _libc.mount(
            _bytes(source),
            _bytes(target),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        f"mount {target}",
    )


def umount(target: Pathish, flags: int = 0) -> None:
    _check(_libc.umount2(_bytes(target), flags), f"umount {target}")


def pivot_root(root: Pathish, old: Pathish) -> None:
    """Make the mount ``root`` the root of this mount namespace; the one before is then at ``old``."""
    _check(_libc.syscall(_PIVOT_ROOT, _bytes(root), _bytes(old)), "pivot_root")


def open_plain(path: Pathish, flags: int) -> int:
    """Open an absolute path on the way to which there is no symbolic link, nor at its end (``ELOOP``). openat2(2)."""
    how = struct.pack("QQQ", flags, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    return _check(_libc.syscall(_OPENAT2, AT_FDCWD, _bytes(path), how, len(how)), f"open {path}")


def clone_mount(fd: int) -> int:
    """The mount that holds the directory ``fd``, from there down and without others below: a file. open_tree(2)."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH
    return _check(_libc.syscall(_OPEN_TREE, fd, b"", flags), "open_tree")


def set_mount(tree: int, attributes: int, userns: int = 0) -> None:
    """Set ``MOUNT_ATTR_*`` of a cloned mount. mount_setattr(2)."""
    wanted = struct.pack("QQQQ", attributes, 0, 0, userns)
    _check(_libc.syscall(_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, wanted, len(wanted)), "mount_setattr")


def move_mount(tree: int, target: Pathish) -> None:
    """Put a cloned mount in its place. move_mount(2)."""
    _check(_libc.syscall(_MOVE_MOUNT, tree, b"", AT_FDCWD, _bytes(target), MOVE_MOUNT_F_EMPTY_PATH), f"mount {target}")


def mount_idmapped(source: Pathish, target: Pathish, userns: int, *, attributes: int = 0) -> None:
    """Bind ``source`` on ``target`` with its owners mapped by the user namespace ``userns`` (a file).

    On-disk id *i* appears as the host id that ``userns`` maps *i* to. ``attributes`` are
    ``MOUNT_ATTR_*``. See mount_setattr(2).
    """
    tree = _check(
        _libc.syscall(_OPEN_TREE, AT_FDCWD, _bytes(source), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC), f"open_tree {source}"
    )
    try:
        wanted = struct.pack("QQQQ", MOUNT_ATTR_IDMAP | attributes, 0, 0, userns)
        _check(_libc.syscall(_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, wanted, len(wanted)), f"mount_setattr {source}")
        _check(
            _libc.syscall(_MOVE_MOUNT, tree, b"", AT_FDCWD, _bytes(target), MOVE_MOUNT_F_EMPTY_PATH),
            f"move_mount {target}",
        )
    finally:
        os.close(tree)


def prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


@contextlib.contextmanager
def file_ids(id: int) -> Iterator[None]:
    """Inside, the calling thread's ids for files are ``id``, and it keeps its capabilities all the same.

    setfsuid(2) takes those that act on files away, and the permitted ones give them back.
    """
    _libc.setfsgid(id)
    _libc.setfsuid(id)
    try:
        header, data = struct.pack("Ii", 0x2008_0522, 0), ctypes.create_string_buffer(24)
        _check(_libc.capget(header, data), "capget")
        words = list(struct.unpack("6I", data.raw))
        words[0], words[3] = words[1], words[4]
        _check(_libc.capset(header, struct.pack("6I", *words)), "capset")
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def mount_points(under: Pathish) -> list[str]:
    """Every mount point at or below ``under`` in this mount namespace, deepest first.

    ``os.path.ismount`` is false for a bind mount on the same device; this looks at
    ``/proc/self/mountinfo``.
    """
    root = os.fspath(under).rstrip("/")
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:  # noqa: PTH123  pathlib is memory the helper does without
        lines = file.read().splitlines()
    for line in lines:
        point = line.split(" ", 5)[4].encode().decode("unicode_escape")
        if point == root or point.startswith(f"{root}/"):
            found.append(point)
    return found[::-1]
