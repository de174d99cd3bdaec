"""Trees of files as a confined child handles them: walk, measure, remove, pack, and name by digest.

Everything here runs inside a child of ``host.confine``: the current directory is the root of what
it may touch and it runs under ids of the site. A directory that the site swaps for a link at the
same moment can therefore at worst make the answer wrong, never reach anything else. Standard
library only: nothing can be imported any more once the child is confined.
"""

# Names here are relative to open directories, or bytes, by the hundred thousand.
# ruff: noqa: PTH108, PTH208

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from alveole.host.listing import Listing

Say = Callable[[str, float | None], None]

CHUNK = 256 * 1024
BLOCK = 512
#: Levels that are walked with one open file each; deeper trees are refused or moved up.
DEEPEST = 900
#: Where `remove` cuts a deep tree and goes on from the top.
_CUT = 64
#: How often in all a name may become another kind of file under the hands of a removal.
_CHANGES = 1000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OFFSET_0 = ctypes.c_int64(0)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Rejected(Exception):
    """What the child was given cannot be accepted. ``code`` is one of ``errors.BY_CODE``."""

    def __init__(self, message: str, *, field: str = "archive", hint: str = "", code: str = "invalid") -> None:
        super().__init__(message)
        self.message, self.field, self.hint, self.code = message, field, hint, code


class Pace:
    """Lets progress through at most a few times a second."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._next = time.monotonic() + 0.25

    def __call__(self, what: str, done: int, share: float | None = None) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.25
            self._say(f"{what}, {size_text(done)}", share)


def size_text(count: float) -> str:
    """``1536`` → ``1.5 KiB``; for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of ``data``; a full disk is a ``no-room`` rejection."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise full(error) or error from None


def full(error: OSError) -> Rejected | None:
    if error.errno in _FULL:
        return Rejected("the disk is full", field="disk", hint="free some space, or give a larger plan", code="no-room")
    return None


class TreeEntry(NamedTuple):
    """One line of a tree's digest: ``kind`` is ``d``, ``f``, ``x`` (a file that may be run) or ``l``."""

    kind: str
    size: int
    sha256: str


def tree_digest(entries: dict[str, TreeEntry], prefix: str = "") -> str:
    """The name of a tree: the same content gives the same digest whatever archive brought it.

    sha256 over one line for each entry below ``prefix``, sorted by the bytes of its path: kind,
    size, sha256 of the content (of a link: of its target), path. Owners and times do not count.
    """
    cut = len(prefix)
    lines = [
        (os.fsencode(path[cut:]), f"{entry.kind} {entry.size} {entry.sha256} ".encode())
        for path, entry in entries.items()
        if path.startswith(prefix) and len(path) > cut
    ]
    total = hashlib.sha256()
    for name, line in sorted(lines):
        total.update(line + name + b"\0")
    return f"sha256:{total.hexdigest()}"


class Walked(NamedTuple):
    """An entry met on a walk: ``parent`` is an open directory, ``path`` is relative to the start."""

    path: str
    name: str
    parent: int
    info: os.stat_result


def walk(start: str | int, deepest: int = DEEPEST) -> Iterator[Walked]:
    """Everything below ``start`` (a path or an open directory) in the order of names.

    A directory comes before what it holds; no link is followed.
    What vanishes in the meantime is left out. Raises ``Rejected`` below ``deepest`` levels.
    """
    top = os.open(start, _DIRECTORY) if isinstance(start, str) else os.dup(start)
    stack = [(top, "", _names(top))]
    try:
        while stack:
            parent, prefix, names = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(stack.pop()[0])
                continue
            try:
                info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                continue
            path = prefix + name
            yield Walked(path, name, parent, info)
            if not stat.S_ISDIR(info.st_mode):
                continue
            if len(stack) >= deepest:
                raise Rejected(f"{path[:200]!r}… lies deeper than {deepest} levels", field="files")
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=parent)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if error.errno == errno.ELOOP:
                    continue
                raise
            stack.append((fd, f"{path}/", _names(fd)))
    finally:
        for fd, _, _ in stack:
            os.close(fd)


def _names(where: int | str) -> Iterator[str]:
    return iter(sorted(os.listdir(where), key=os.fsencode))


def measure(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: what the trees ``paths`` take on disk, and how much would be packed.

    ``{"disk": bytes in blocks, "bytes": length of the files, "files": entries, "newest": the last time something was
    written, in seconds since the epoch}``; absent ones count nothing.
    """
    disk = length = files = 0
    newest = 0.0
    seen = set()
    for start in args["paths"]:
        try:
            disk += os.lstat(start).st_blocks * BLOCK
            for found in walk(start):
                info = found.info
                files += 1
                newest = max(newest, info.st_mtime)
                if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                    if (info.st_dev, info.st_ino) in seen:
                        continue
                    seen.add((info.st_dev, info.st_ino))
                disk += info.st_blocks * BLOCK
                length += info.st_size if stat.S_ISREG(info.st_mode) else 0
        except (FileNotFoundError, NotADirectoryError):
            continue
    return {"disk": disk, "bytes": length, "files": files, "newest": newest}


def remove(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: remove ``paths`` below the current directory (``None``: everything in it), whatever their depth."""
    paths: list[str] = os.listdir(".") if args.get("paths") is None else args["paths"]
    removed = 0
    serial = 0
    todo = list(paths)
    changed = 0
    while todo:
        path = todo.pop()
        stack: list[tuple[int, str]] = []
        try:
            try:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    os.unlink(path)
                    removed += 1
                    continue
                stack.append((_open_to_remove(path, None), path))
            except FileNotFoundError:
                continue
            except (NotADirectoryError, IsADirectoryError, PermissionError):
                # It may have become another kind of file between the look and the act.
                changed += 1
                if changed > _CHANGES:
                    raise
                todo.append(path)
                continue
            lists = [os.listdir(stack[0][0])]
            while stack:
                fd, name = stack[-1]
                if not lists[-1]:
                    lists.pop()
                    os.close(stack.pop()[0])
                    _quietly(os.rmdir, name, stack[-1][0] if stack else None)
                    removed += 1
                    continue
                entry = lists[-1].pop()
                try:
                    os.unlink(entry, dir_fd=fd)
                    removed += 1
                except FileNotFoundError:
                    continue
                except (IsADirectoryError, PermissionError):
                    if len(stack) >= _CUT:
                        # A tree of any depth is removed with few open files: the deep part goes to the top.
                        serial += 1
                        moved = f".removed.{os.getpid()}.{serial}"
                        with contextlib.suppress(FileNotFoundError):
                            os.rename(entry, moved, src_dir_fd=fd)
                            todo.append(moved)
                        continue
                    try:
                        stack.append((_open_to_remove(entry, fd), entry))
                    except (FileNotFoundError, NotADirectoryError):
                        continue
                    lists.append(os.listdir(stack[-1][0]))
        finally:
            for fd, _ in stack:
                os.close(fd)
    return {"removed": removed}


def _open_to_remove(name: str, parent: int | None) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)


def _quietly(call: Callable[..., None], name: str, parent: int | None) -> None:
    try:
        call(name, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        # Somebody still writes into it: the caller sees that it is there and tries again.


def digest(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: the digest of the tree ``path`` as it lies on the disk (see :func:`tree_digest`)."""
    entries = entries_of(args["path"])
    total = sum(entry.size for entry in entries.values() if entry.kind in "fx")
    return {"digest": tree_digest(entries), "bytes": total, "files": sum(e.kind != "d" for e in entries.values())}


def entries_of(path: str) -> dict[str, TreeEntry]:
    """Every entry of a tree, read whole. Raises ``Rejected`` for what no release holds."""
    entries: dict[str, TreeEntry] = {}
    for found in walk(path):
        mode = found.info.st_mode
        if stat.S_ISDIR(mode):
            entries[found.path] = TreeEntry("d", 0, "")
        elif stat.S_ISLNK(mode):
            entries[found.path] = link_entry(os.readlink(found.name, dir_fd=found.parent))
        elif stat.S_ISREG(mode):
            fd = os.open(found.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=found.parent)
            try:
                whole = hashlib.sha256()
                while data := os.read(fd, CHUNK):
                    whole.update(data)
            finally:
                os.close(fd)
            entries[found.path] = TreeEntry("x" if mode & 0o100 else "f", found.info.st_size, whole.hexdigest())
        else:
            raise Rejected(f"{found.path!r} is neither a file, a directory nor a link", field="files")
    return entries


def link_entry(target: str) -> TreeEntry:
    raw = os.fsencode(target)
    return TreeEntry("l", len(raw), hashlib.sha256(raw).hexdigest())


def _octal(value: int, width: int) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    # GNU's base-256 numbers, for sizes of 8 GiB and more.
    return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(width - 1, "big", signed=value < 0)


def tar_header(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
) -> bytes:
    """The blocks that announce one member: GNU tar, long names as members ``L`` and ``K`` before it."""
    before = b"".join(
        tar_header(b"././@LongLink", flag, size=len(text) + 1) + padded(text + b"\0")
        for flag, text in ((b"K", link), (b"L", name))
        if len(text) > 100
    )
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(mode & 0o7777, 8),
            _octal(uid, 8),
            _octal(gid, 8),
            _octal(size, 12),
            _octal(mtime, 12),
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            b"ustar  \0",
            bytes(247),
        )
    )
    return before + block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    """``data`` filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


#: Ends an archive.
TAR_END = bytes(2 * BLOCK)


def pack(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: append the tree ``path`` to the open file ``fds[0]`` as members named ``prefix``…

    Owners are ids inside the child's user namespace, so that an archive does not depend on the
    uid range of the site. Sockets and devices are left out; so are extended attributes. The end
    of the archive is written by the caller. Raises ``Rejected`` (``no-room``) on a full disk.

    ``listing`` is of a first copy, made while the tree is written to: ``write`` it to the end of ``fds[1]``, or
    ``read`` it from there and pack only what is not as it was then. The names of what is go into one more member,
    ``kept``.
    """
    out, prefix = fds[0], os.fsencode(args["prefix"])
    listing = Listing(args.get("listing", ""), fds[1] if len(fds) > 1 else -1)
    pace = Pace(say)
    expected = max(1, args.get("bytes") or 1)
    links: dict[tuple[int, int], bytes] = {}
    files = written = 0
    try:
        top = os.lstat(args["path"])
    except FileNotFoundError:
        return {"files": 0, "bytes": 0}
    if prefix:
        write_all(out, tar_header(prefix.rstrip(b"/") + b"/", b"5", **_meta(top)))
    for found in walk(args["path"]):
        info, name = found.info, prefix + os.fsencode(found.path)
        files += 1
        if stat.S_ISREG(info.st_mode):
            key = (info.st_dev, info.st_ino)
            if info.st_nlink > 1 and key in links:
                write_all(out, tar_header(name, b"1", link=links[key], **_meta(info)))
                continue
            links[key] = name
            try:
                fd = os.open(found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=found.parent)
            except OSError as error:
                # It was removed, or a link took its place, since it was looked at.
                if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                    continue
                raise
            try:
                if listing.is_same(fd, name):
                    continue
                info = os.fstat(fd)
                if stat.S_ISREG(info.st_mode):
                    write_all(out, tar_header(name, b"0", size=info.st_size, **_meta(info)))
                    _pack_file(out, fd, info.st_size)
                    written += info.st_size
            finally:
                os.close(fd)
        elif stat.S_ISDIR(info.st_mode):
            write_all(out, tar_header(name + b"/", b"5", **_meta(info)))
        elif stat.S_ISLNK(info.st_mode):
            try:
                target = os.fsencode(os.readlink(found.name, dir_fd=found.parent))
            except OSError:
                continue
            write_all(out, tar_header(name, b"2", link=target, **_meta(info)))
        elif stat.S_ISFIFO(info.st_mode):
            write_all(out, tar_header(name, b"6", **_meta(info)))
        pace("packing", written, min(1.0, written / expected))
    if listing.use == "write":
        write_all(fds[1], listing.end())
    elif text := listing.end():
        write_all(out, tar_header(os.fsencode(args["kept"]), b"0", size=len(text)) + padded(text))
    return {"files": files, "bytes": written}


def _meta(info: os.stat_result) -> dict[str, Any]:
    return {"mode": info.st_mode & 0o7777, "uid": info.st_uid, "gid": info.st_gid, "mtime": max(0, int(info.st_mtime))}


def _pack_file(out: int, fd: int, size: int) -> None:
    left = size
    while left and (data := os.read(fd, min(CHUNK, left))):
        write_all(out, data)
        left -= len(data)
    # A file cut while it is read keeps the length its header promised.
    while left:
        part = min(CHUNK, left)
        write_all(out, bytes(part))
        left -= part
    write_all(out, bytes(-size % BLOCK))


def sync_files(paths: Iterable[str]) -> None:
    """These few files and directories are on the disk when this returns. Raises ``OSError``.

    On a machine that writes a lot, the ``syncfs`` of :func:`sync` waits for all of that: measured 50 ms to
    2 s against 1 ms. For more than a few files it is the other way round: 500 take 7 ms against 45.
    """
    from alveole.host import syscalls

    fds = [os.open(path, os.O_RDONLY | os.O_NOFOLLOW) for path in paths]
    try:
        # All are on their way before the first wait, so that one commit of the journal does for all.
        for fd in fds:
            syscalls._libc.sync_file_range(fd, _OFFSET_0, _OFFSET_0, 2)
        for fd in fds:
            os.fsync(fd)
    finally:
        for fd in fds:
            os.close(fd)


def sync(paths: Iterable[str] = (".",)) -> None:
    """Everything of the file system of ``paths`` is on the disk when this returns. Raises ``OSError``."""
    from alveole.host import syscalls

    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if syscalls._libc.syncfs(fd) != 0:
                raise OSError(errno.EIO, "syncfs")
        finally:
            os.close(fd)
