"""The digests of a base's files, written when it is made and compared later, by a confined child.

One record for each entry, ended by a NUL, in the order of a walk: kind (``d`` ``f`` ``l`` ``w`` ``o``),
mode, owner, group, size, digest of the content (of a link: of its target), path. ``w`` is the mark of an
overlay for "taken away". Times do not count: what a bit of rust changes keeps its time.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

from alveole.host.tree import Pace, Say, Walked, walk

_BUFFER = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NAMED = 10
#: ioprio_set(2): who "this process", class "idle": reads only when nobody else does.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}
_IDLE = 3 << 13


def _record(found: Walked, digest: str) -> bytes:
    info, mode = found.info, found.info.st_mode
    kind = "d" if stat.S_ISDIR(mode) else "f" if stat.S_ISREG(mode) else "l" if stat.S_ISLNK(mode) else "w"
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISLNK(mode)) and not stat.S_ISCHR(mode):
        kind = "o"
    size = info.st_size if kind in "fl" else 0
    head = f"{kind} {stat.S_IMODE(mode):o} {info.st_uid} {info.st_gid} {size} {digest} "
    return head.encode() + os.fsencode(found.path)


class _Reader:
    """Digests of files as they are on the disk: around the page cache where the file system lets us, so that
    neither damage hides behind it nor what sites keep there is pushed out."""

    def __init__(self, rate: int | None) -> None:
        self._buffer = mmap.mmap(-1, _BUFFER)
        self._rate = rate
        self._began = time.monotonic()
        self.done = 0

    def digest(self, found: Walked) -> str:
        mode = found.info.st_mode
        if stat.S_ISLNK(mode):
            return hashlib.sha256(os.fsencode(os.readlink(found.name, dir_fd=found.parent))).hexdigest()
        if not stat.S_ISREG(mode):
            return "-"
        try:
            fd = os.open(found.name, _READ | os.O_DIRECT, dir_fd=found.parent)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            fd = os.open(found.name, _READ, dir_fd=found.parent)
        try:
            return self._read(fd)
        finally:
            os.close(fd)

    def _read(self, fd: int) -> str:
        total = hashlib.sha256()
        offset = 0
        while True:
            try:
                count = os.preadv(fd, [self._buffer], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # No direct reading here after all.
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)
                continue
            total.update(memoryview(self._buffer)[:count])
            offset += count
            self._wait(count)
            if count < _BUFFER:
                return total.hexdigest()

    def _wait(self, count: int) -> None:
        # A file costs more than its bytes: a seek and a look.
        self.done += count + 4096
        if self._rate is not None:
            ahead = self.done / self._rate - (time.monotonic() - self._began)
            if ahead > 0.01:
                time.sleep(min(ahead, 1.0))


def write(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: write the manifest of the current directory into the open file ``fds[0]``.

    ``{"digest": sha256 of the manifest, "entries"}``.
    """
    total = hashlib.sha256()
    entries = 0
    reader = _Reader(None)
    with open(fds[0], "wb", closefd=False) as file:
        for found in walk("."):
            record = _record(found, reader.digest(found)) + b"\0"
            file.write(record)
            total.update(record)
            entries += 1
    os.fsync(fds[0])
    return {"digest": total.hexdigest(), "entries": entries}


def compare(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: compare the current directory with the manifest in ``fds[0]``, whose own digest is ``digest``.

    ``rate``: bytes read in a second at most, at the lowest priority. ``bytes``: how many there are, for the
    progress. ``{"damaged": the first of what differs, in words, "count", "entries", "bytes"}``.
    """
    rate = args.get("rate")
    if rate is not None:
        os.nice(19)
        number = _IOPRIO_SET.get(os.uname().machine)
        if number is not None:
            ctypes.CDLL(None).syscall(number, 1, 0, _IDLE)
    total = hashlib.sha256()
    with open(fds[0], "rb", closefd=False) as file:
        text = file.read()
    total.update(text)
    if total.hexdigest() != args["digest"]:
        return {"damaged": ["the list of its files is not as it was written"], "count": 1, "entries": 0, "bytes": 0}
    expected = _records(text)
    pace = Pace(say)
    reader = _Reader(rate)
    damaged: list[str] = []
    count = entries = 0
    for found in walk("."):
        entries += 1
        path = os.fsencode(found.path)
        before = expected.pop(path, None)
        try:
            now: bytes | None = _record(found, reader.digest(found)) if before is not None else None
        except OSError as error:
            now, told = b"", f"/{found.path} cannot be read: {error.strerror}"
        else:
            told = f"/{found.path} was added" if before is None else f"/{found.path} is not as it was made"
        if now != before or before is None:
            count += 1
            if count <= _NAMED:
                damaged.append(told)
        pace("comparing", reader.done, min(1.0, reader.done / max(1, args.get("bytes") or 1)))
    for path in sorted(expected):
        count += 1
        if len(damaged) < _NAMED:
            damaged.append(f"/{os.fsdecode(path)} is gone")
    return {"damaged": damaged, "count": count, "entries": entries, "bytes": reader.done}


def _records(text: bytes) -> dict[bytes, bytes]:
    return dict(_parts(text))


def _parts(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    for record in text.split(b"\0")[:-1]:
        yield record.split(b" ", 6)[6], record
