"""User namespaces: one uid range a site, and children that live inside it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict

from alveole.host import syscalls

RANGE = 65_536


def create(start: int, *, inside: int = 0, count: int = RANGE) -> int:
    """A new user namespace that maps ids ``inside``… to host ids ``start``…; gives an open file.

    The namespace lives as long as somebody holds the file or runs in it. Raises ``OSError``.
    """
    ready_r, ready_w = os.pipe()
    leave_r, leave_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        # Between fork and exit: only async-signal-safe work, other threads' locks may be held.
        try:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(ready_w, b"1")
            os.close(leave_w)
            os.read(leave_r, 1)
        finally:
            os._exit(0)
    try:
        os.close(ready_w)
        if os.read(ready_r, 1) != b"1":
            raise OSError("the kernel gave no user namespace")
        write_map(pid, start, inside=inside, count=count)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        # A byte and not just the end of the pipe: a child that another thread forked meanwhile holds a copy of
        # this end, and two such children would wait for each other's end for ever.
        with contextlib.suppress(BrokenPipeError):
            os.write(leave_w, b"1")
        for fd in (ready_r, leave_r, leave_w):
            os.close(fd)
        os.waitpid(pid, 0)


def write_map(pid: int, start: int, *, inside: int = 0, count: int = RANGE) -> None:
    """Map the ids of ``pid``'s new user namespace; once for each namespace."""
    for name in ("uid_map", "gid_map"):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"{inside} {start} {count}\n".encode())
        finally:
            os.close(fd)


class Kept:
    """User namespaces for id-maps, kept open for the next time: making one costs a fork.

    Thread-safe. At the most ``size`` files are held; whoever takes one gets a duplicate of its own.
    """

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._files: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, start: int) -> int:
        """A file of the namespace that maps the ids 0… to ``start``…; the caller closes it."""
        with self._lock:
            if start in self._files:
                self._files.move_to_end(start)
                return os.dup(self._files[start])
        fd = create(start)
        with self._lock:
            if start not in self._files:
                self._files[start] = os.dup(fd)
            while len(self._files) > self._size:
                os.close(self._files.popitem(last=False)[1])
        return fd

    def close(self) -> None:
        with self._lock:
            for fd in self._files.values():
                os.close(fd)
            self._files.clear()
