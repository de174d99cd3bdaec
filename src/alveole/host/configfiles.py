"""Configuration files of a site as a confined child writes and reads them: root over the site's ids.

The current directory is ``/config`` of the container. Its owner, the container's root, may have put
anything there meanwhile: nothing is followed, and what is in the way of a wanted file goes.
"""

# Names here are relative to open directories.
# ruff: noqa: PTH106, PTH108

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from typing import Any

from alveole.host.tree import Rejected, Say, full, write_all

#: Longer files are no text that a person would compare.
LARGEST = 4 * 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: ``fds[0]`` holds JSON ``{"write": [{path, text, uid, mode}], "remove": [path]}``.

    Each file is replaced as a whole or not at all, with its owner and mode. Gives ``{"marks": {path: mark}}``
    of what was written (see :func:`mark`).
    """
    order = _order(fds[0])
    try:
        for entry in order["write"]:
            _write(entry)
    except OSError as error:
        raise full(error) or error from None
    for path in order["remove"]:
        _remove(path)
    return {"marks": {entry["path"]: mark(os.lstat(entry["path"])) for entry in order["write"]}}


def read(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: what lies at the paths in ``fds[0]``, into ``fds[1]``: JSON ``{path: state}``, without those that are gone.

    A state is ``{"sha256", "uid", "mode", "mark", "text"}``; ``sha256`` is empty for what is no plain
    file, and ``text`` is there only when ``texts`` was asked for and it is UTF-8.
    """
    found: dict[str, Any] = {}
    for path in _order(fds[0])["paths"]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found[path] = _read(path, bool(args.get("texts")))
    write_all(fds[1], json.dumps(found).encode())
    return {}


def mark(info: os.stat_result) -> list[int]:
    """What changes whenever a file does: nobody in a container can set the time of a change back."""
    return [info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def _order(fd: int) -> Any:
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return json.loads(b"".join(parts))


def _write(entry: dict[str, Any]) -> None:
    *directories, name = entry["path"].split("/")
    parent = os.open(".", _DIRECTORY)
    try:
        for directory in directories:
            parent = _into(parent, directory)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise Rejected(f"a directory is where {entry['path']} has to be", field="files", code="refused")
        new = f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=parent)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            write_all(fd, entry["text"].encode())
            os.fchown(fd, entry["uid"], entry["uid"])
            os.fchmod(fd, entry["mode"])
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        os.close(parent)


def _into(parent: int, name: str) -> int:
    """Open the directory ``name`` in ``parent`` (which is closed), made when there is none."""
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)
    finally:
        os.close(parent)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        os.unlink(path)
    while "/" in path:
        path = path.rpartition("/")[0]
        try:
            os.rmdir(path)
        except OSError:
            return


def _read(path: str, texts: bool) -> dict[str, Any]:
    info = os.lstat(path)
    state: dict[str, Any] = {"sha256": "", "uid": info.st_uid, "mode": stat.S_IMODE(info.st_mode), "mark": mark(info)}
    if not stat.S_ISREG(info.st_mode) or info.st_size > LARGEST:
        return state
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        data = file.read(LARGEST + 1)
    state["sha256"] = hashlib.sha256(data).hexdigest()
    if texts:
        with contextlib.suppress(UnicodeDecodeError):
            state["text"] = data.decode()
    return state
