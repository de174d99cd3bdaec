"""Take a tree that a build has left and make a release of it: what is in it is hostile until it is copied.

Runs inside a confined child (see ``host.confine``), under the site's own id. The tree is read through an open
directory, without following a link; what is written is as plain as what an upload leaves (``host.archive.Builder``),
but for links: a virtual environment points at the interpreter of the base, and links of a release are only ever
followed inside the container.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from alveole.host.archive import Builder, Ceilings, clean
from alveole.host.tar import shown
from alveole.host.tree import CHUNK, Rejected, Say, entries_of, sync, tree_digest, walk


def collect(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: copy the tree of the open directory ``fds[0]`` to the new directory ``tree``.

    Sockets, pipes and devices are left out. ``{"digest", "bytes", "files"}``; everything is on the
    disk when it returns. Raises ``Rejected``.
    """
    os.umask(0)
    ceilings = Ceilings(**args["ceilings"])
    builder = Builder("tree", ceilings, say, any_links=True)
    for found in walk(fds[0], ceilings.depth + 1):
        path = clean(os.fsencode(found.path), ceilings.depth)
        mode = found.info.st_mode
        if stat.S_ISDIR(mode):
            builder.directory(path)
        elif stat.S_ISLNK(mode):
            builder.symlink(path, os.readlink(os.fsencode(found.name), dir_fd=found.parent))
        elif stat.S_ISREG(mode):
            _file(builder, path, found.name, found.parent)
        builder.follow(None)
    if not builder.files:
        raise Rejected("the build left no files", field="build")
    sync()
    files = sum(entry.kind != "d" for entry in builder.entries.values())
    return {"digest": tree_digest(builder.entries), "bytes": builder.bytes, "files": files}


def _file(builder: Builder, path: str, name: str, parent: int) -> None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    except PermissionError:
        raise Rejected(f"{shown(path)} may not be read", field="build", hint="chmod it in the build") from None
    try:
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode):
            builder.file(path, bool(info.st_mode & 0o100), info.st_size, _parts(fd, info.st_size), int(info.st_mtime))
    finally:
        os.close(fd)


def _parts(fd: int, size: int) -> Iterator[bytes]:
    while size > 0 and (data := os.read(fd, min(CHUNK, size))):
        size -= len(data)
        yield data


def changes(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: what of the upper layer of an overlay was changed after ``since`` (seconds since the epoch).

    ``{"files", "bytes", "names"}``, at most ``names`` of these; what was deleted counts as a file without
    bytes (overlayfs(5): a whiteout is a device 0, 0).
    """
    files = size = 0
    names: list[str] = []
    for found in walk("."):
        info = found.info
        if info.st_ctime <= args["since"] or stat.S_ISDIR(info.st_mode):
            continue
        files += 1
        size += info.st_size if stat.S_ISREG(info.st_mode) else 0
        if len(names) < args["names"]:
            names.append(shown(found.path)[:200])
    return {"files": files, "bytes": size, "names": names}


def differences(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: how the files of the tree ``after`` differ from those of ``before`` (``None``: there were none).

    ``{"added", "changed", "removed", "names"}``; directories do not count.
    """
    old = entries_of(args["before"]) if args["before"] is not None else {}
    new = entries_of(args["after"])
    counts = {"added": 0, "changed": 0, "removed": 0}
    names: list[str] = []
    for path in sorted(old.keys() | new.keys()):
        one, other = old.get(path), new.get(path)
        if one == other or {each.kind for each in (one, other) if each is not None} == {"d"}:
            continue
        word = "added" if one is None else "removed" if other is None else "changed"
        counts[word] += 1
        if len(names) < args["names"]:
            names.append(
                {"added": "+", "removed": "-", "changed": "~"}[word] + path[:200].encode(errors="replace").decode()
            )
    return {**counts, "names": names}
