"""User namespaces: one uid range a site, and children that live inside it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import OrderedDict

from alveole.host import run
from alveole.host.syscalls import RANGE

_HOLDER = ("unshare", "--user", "--", "cat")


def create(start: int, *, inside: int = 0, count: int = RANGE, group: tuple[int, int] | None = None) -> int:
    """A new user namespace that maps ids ``inside``… to host ids ``start``…; gives an open file.

    ``group``: another pair of the first two, for groups.

    The namespace lives as long as somebody holds the file or runs in it. Raises ``OSError``.
    """
    # Programs and not a fork of this process: a child of a process with threads may find a lock held by a
    # thread that it does not have, and its parent waits for ever (seen once in some ten thousand).
    with run.start(_HOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        try:
            # cat gives the byte back as soon as it runs, and it runs in the new namespace.
            os.write(holder.stdin.fileno(), b"1")  # type: ignore[union-attr]  # it is a pipe
            if os.read(holder.stdout.fileno(), 1) != b"1":  # type: ignore[union-attr]  # it is a pipe
                raise OSError(f"the kernel gave no user namespace: {_told(holder)}")
            write_map(holder.pid, start, inside=inside, count=count, group=group)
            return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            holder.kill()


def _told(holder: subprocess.Popen[bytes]) -> str:
    return os.read(holder.stderr.fileno(), 1000).decode(errors="replace").strip() if holder.stderr else ""


def write_map(
    pid: int, start: int, *, inside: int = 0, count: int = RANGE, group: tuple[int, int] | None = None
) -> None:
    """Map the ids of ``pid``'s new user namespace; once for each namespace."""
    users = (inside, start)
    for name, (one, other) in (("uid_map", users), ("gid_map", group or users)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"{one} {other} {count}\n".encode())
        finally:
            os.close(fd)


class KeptNamespaces:
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
