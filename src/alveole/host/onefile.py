"""Put one file or directory of an archive of ours back where it was, beside all that is there now.

Runs inside a confined child (see ``host.confine``) as root of the site's user namespace, whose whole world is the
volume. What comes back is made under a name of its own first, so that a death leaves what stood there.
"""

# Names here are relative to open directories, or bytes, by the hundred thousand.
# ruff: noqa: PTH101, PTH102, PTH104

from __future__ import annotations

import os
import stat
from typing import Any

from alveole.host.archive import member_path, restore_file, restore_other
from alveole.host.tar import Member, Stream, members
from alveole.host.tree import Rejected, Say, full, remove, sync

_FRESH = b".alveole-restoring"


def put_one(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: ``path`` of the members of the tar ``fds[0]`` below ``prefix``, with all in it, into the current directory.

    ``{"files": entries}``; on the disk when it returns. Directories above it that are gone are made as they were; one
    that is something else now, or a link, is refused. Raises ``Rejected``.
    """
    os.umask(0)
    fd, prefix, wanted = fds[0], os.fsencode(args["prefix"]), os.fsencode(args["path"])
    os.lseek(fd, 0, os.SEEK_SET)
    stream = Stream(fd, "")
    kinds: dict[bytes, str] = {}
    above: dict[bytes, Member] = {}
    times: list[tuple[bytes, Member]] = []
    parent = wanted.rpartition(b"/")[0]
    fresh = b"/".join(filter(None, (parent, _FRESH)))
    count = 0
    for member in members(stream):
        if not member.name.startswith(prefix) or member.name == prefix:
            stream.skip(member.size, member.shown)
            continue
        path = member_path(member, prefix, kinds)
        kinds[path] = member.kind
        if member.kind == "d" and wanted.startswith(path + b"/"):
            above[path] = member
        if path != wanted and not path.startswith(wanted + b"/"):
            stream.skip(member.size, member.shown)
            continue
        if not count:
            _make_way(parent, above)
            _clear(fresh)
        count += 1
        try:
            _make(fresh + path[len(wanted) :], member, prefix, wanted, fresh, stream, times)
        except OSError as error:
            _clear(fresh)
            raise full(error) or error from None
    if not count:
        raise Rejected(f"there is no {args['path'][:200]!r} in the backup", field="path", code="not-found")
    for path, member in reversed(times):
        os.chmod(path, member.mode & 0o3777)
        os.utime(path, (member.mtime, member.mtime))
    sync()
    if not _is_plain(wanted) or not _is_plain(fresh):
        # A rename replaces a file by a file at once; a directory has to be out of the way.
        _clear(wanted)
    os.rename(fresh, wanted)
    return {"files": count}


def _make(
    path: bytes,
    member: Member,
    prefix: bytes,
    wanted: bytes,
    fresh: bytes,
    stream: Stream,
    times: list[tuple[bytes, Member]],
) -> None:
    if member.kind == "f":
        restore_file(path, member, stream.parts(member.size, member.shown))
        return
    if member.kind == "h":
        target = member.link[len(prefix) :]
        if not target.startswith(wanted + b"/"):
            raise Rejected(
                f"{member.shown} is one file with another that is not asked for",
                field="path",
                hint="restore the directory that holds both",
                code="refused",
            )
        os.link(fresh + target[len(wanted) :], path, follow_symlinks=False)
        return
    restore_other(path, member)
    if member.kind == "d":
        times.append((path, member))


def _make_way(parent: bytes, above: dict[bytes, Member]) -> None:
    path = b""
    for part in filter(None, parent.split(b"/")):
        path = path + b"/" + part if path else part
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            os.mkdir(path, 0o755)
            if path in above:
                os.chown(path, above[path].uid, above[path].gid)
                os.chmod(path, above[path].mode & 0o3777)
            continue
        if not stat.S_ISDIR(mode):
            raise Rejected("a directory above it is something else now", field="path", code="refused")


def _is_plain(path: bytes) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def _clear(path: bytes) -> None:
    remove({"paths": [path]}, [], lambda _text, _share: None)
