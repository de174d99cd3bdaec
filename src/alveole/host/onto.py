"""Bring the first copy of a tree, which was made while that was written to, to what it is now.

Runs inside a confined child (see ``host.confine``) as root of the site's user namespace. What differs lies in an
archive of ours; the names of the files that are as they were follow as one more member.
"""

# Names here are relative to open directories, or bytes, by the hundred thousand.
# ruff: noqa: PTH101, PTH102, PTH211

from __future__ import annotations

import os
import stat
from typing import Any

from alveole.host.archive import member_path, restore_file
from alveole.host.putback import clear, entry, remove_others
from alveole.host.tar import Member, Stream, members
from alveole.host.tree import Pace, Rejected, Say, full, sync


def bring(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: the current directory becomes the members of the tar ``fds[0]`` below ``prefix`` and the files that its
    members below ``kept`` name (each name ends in a zero byte), and nothing else.

    As ``archive.restore`` otherwise. ``{"files": entries that came, "kept": those that stayed}``; on the disk when it
    returns. May be cut and done again. Raises ``Rejected``, also when a file that is to stay is not there.
    """
    os.umask(0)
    fd, prefix, kept = fds[0], os.fsencode(args["prefix"]), os.fsencode(args["kept"])
    os.lseek(fd, 0, os.SEEK_SET)
    length = max(1, os.fstat(fd).st_size)
    stream = Stream(fd, "")
    pace = Pace(say)
    kinds: dict[bytes, str] = {}
    directories: list[tuple[bytes, Member]] = []
    came = stayed = 0
    for member in members(stream):
        if member.name.startswith(kept):
            for name in stream.take(member.size).split(b"\0")[:-1]:
                info = entry(name)
                if info is None or not stat.S_ISREG(info.st_mode):
                    raise Rejected("what comes does not fit the first copy", field="upload", code="refused")
                kinds[name] = "f"
                stayed += 1
            continue
        if not member.name.startswith(prefix) or member.name == prefix:
            stream.skip(member.size, member.shown)
            continue
        path = member_path(member, prefix, kinds)
        kinds[path] = member.kind
        came += 1
        try:
            _put(path, member, prefix, kinds, stream)
        except OSError as error:
            raise full(error) or error from None
        if member.kind == "d":
            directories.append((path, member))
        pace("bringing the volumes up to date", stream.consumed, min(1.0, stream.consumed / length))
    remove_others(kinds)
    for path, member in reversed(directories):
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
        os.chmod(path, member.mode & 0o3777)
        os.utime(path, (member.mtime, member.mtime))
    sync()
    return {"files": came, "kept": stayed}


def _put(path: bytes, member: Member, prefix: bytes, kinds: dict[bytes, str], stream: Stream) -> None:
    there = entry(path)
    if member.kind == "d":
        if there is None or not stat.S_ISDIR(there.st_mode):
            clear(path)
            os.mkdir(path, 0o700)
        return
    if there is not None:
        clear(path)
    if member.kind == "f":
        restore_file(path, member, stream.parts(member.size, member.shown))
    elif member.kind == "h" and kinds.get(member.link[len(prefix) :]) == "f":
        os.link(member.link[len(prefix) :], path, follow_symlinks=False)
    elif member.kind == "l":
        os.symlink(member.link, path)
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
    elif member.kind == "p":
        os.mkfifo(path, 0o600)
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
        os.chmod(path, member.mode & 0o777)
    else:
        raise Rejected(f"{member.shown} has no place in a backup", field="backup", code="refused")
