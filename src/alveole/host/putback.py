"""Make a directory hold what an archive of ours says, and leave alone what does so already.

Runs inside a confined child (see ``host.confine``) as root of the site's user namespace. The directory is the
working copy of a site, an overlay over a release: only what differs from the release takes room, and counts as
changed, afterwards.
"""

# Names here are relative to open directories, or bytes, by the hundred thousand.
# ruff: noqa: PTH101, PTH104, PTH115

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any

from alveole.host.archive import member_path, restore_file, restore_other
from alveole.host.tar import Member, Stream, members
from alveole.host.tree import CHUNK, Pace, Rejected, Say, full, remove, sync, walk

#: What the name of the last file ends in until it has its own.
_LAST = b".alveole-restoring"


def put_back(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: the current directory becomes the members of the tar ``fds[0]`` below ``prefix``, and nothing else.

    Owners are ids inside the namespace, links may lead anywhere, setuid and setgid bits of files do not come back:
    as ``archive.restore``. The file ``last`` gets its name when all else is there. ``{"files": entries, "changed":
    those that were not so already}``; on the disk when it returns. Raises ``Rejected``.
    """
    os.umask(0)
    fd, prefix, last = fds[0], os.fsencode(args["prefix"]), os.fsencode(args.get("last", ""))
    os.lseek(fd, 0, os.SEEK_SET)
    length = max(1, os.fstat(fd).st_size)
    stream = Stream(fd, "")
    pace = Pace(say)
    kinds: dict[bytes, str] = {}
    directories: list[tuple[bytes, Member]] = []
    changed = 0
    for member in members(stream):
        if not member.name.startswith(prefix) or member.name == prefix:
            stream.skip(member.size, member.shown)
            continue
        path = member_path(member, prefix, kinds)
        if path == last and member.kind == "f":
            path += _LAST
        kinds[path] = member.kind
        try:
            if member.kind == "f":
                changed += _file(path, member, stream.parts(member.size, member.shown))
            elif member.kind == "h":
                target = member.link[len(prefix) :]
                if kinds.get(target) != "f":
                    raise Rejected(f"{member.shown} has no place in a backup", field="backup", code="refused")
                clear(path)
                os.link(target, path, follow_symlinks=False)
                changed += 1
            else:
                changed += _other(path, member)
                if member.kind == "d":
                    directories.append((path, member))
        except OSError as error:
            raise full(error) or error from None
        pace("unpacking the working copy", stream.consumed, min(1.0, stream.consumed / length))
    changed += remove_others(kinds)
    for path, member in reversed(directories):
        if stat.S_IMODE(os.lstat(path).st_mode) != member.mode & 0o3777:
            os.chmod(path, member.mode & 0o3777)
    if last + _LAST in kinds:
        sync()
        os.rename(last + _LAST, last)
    sync()
    return {"files": len(kinds), "changed": changed}


def entry(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def clear(path: bytes) -> None:
    remove({"paths": [path]}, [], lambda _text, _share: None)


def _file(path: bytes, member: Member, parts: Iterable[bytes]) -> bool:
    """Gives whether anything had to be written."""
    found = entry(path)
    mode = member.mode & 0o777
    alike = found is not None and stat.S_ISREG(found.st_mode) and found.st_size == member.size
    if not alike or (found is not None and found.st_nlink > 1):
        clear(path)
        restore_file(path, member, parts)
        return True
    changed = _write_difference(path, parts)
    info = os.lstat(path)
    if (info.st_uid, info.st_gid) != (member.uid, member.gid):
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
        changed = True
    if stat.S_IMODE(info.st_mode) != mode:
        os.chmod(path, mode)
        changed = True
    if changed:
        os.utime(path, (member.mtime, member.mtime))
    return changed


def _write_difference(path: bytes, parts: Iterable[bytes]) -> bool:
    reader = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    writer = -1
    at = 0
    try:
        for part in parts:
            # Opening for writing is what copies a file of the release up: not before something differs.
            if writer < 0 and _read(reader, at, len(part)) != part:
                writer = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if writer >= 0:
                done = 0
                while done < len(part):
                    done += os.pwrite(writer, part[done:], at + done)
            at += len(part)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    return writer >= 0


def _read(fd: int, at: int, count: int) -> bytes:
    found = b""
    while len(found) < count and (data := os.pread(fd, min(CHUNK, count - len(found)), at + len(found))):
        found += data
    return found


def _other(path: bytes, member: Member) -> bool:
    """A directory, a link or a pipe. Gives whether it was made."""
    found = entry(path)
    if found is not None:
        kind = {"d": stat.S_ISDIR, "l": stat.S_ISLNK, "p": stat.S_ISFIFO}.get(member.kind)
        if kind is not None and kind(found.st_mode) and (member.kind != "l" or os.readlink(path) == member.link):
            return False
        clear(path)
    restore_other(path, member)
    return True


def remove_others(kinds: dict[bytes, str]) -> int:
    gone: list[bytes] = []
    for found in walk("."):
        path = os.fsencode(found.path)
        if path not in kinds and not (gone and path.startswith(gone[-1] + b"/")):
            gone.append(path)
    for path in gone:
        clear(path)
    return len(gone)
