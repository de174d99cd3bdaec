"""One thread that learns at once of every instance that ends."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable

log = logging.getLogger("alveole.native")

#: Called with the instance's name and its exit: (status, signal), each ``None`` when not known.
Handler = Callable[[str, int | None, int | None], None]
#: How often children that nobody waits for are looked for.
_SWEEP_SECONDS = 30.0


class Watch:
    """Watches the first process of each instance by its pidfd, which cannot mean another process."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._poll = select.epoll()
        self._names: dict[int, str] = {}
        self._fds: dict[str, int] = {}
        self._lock = threading.Lock()
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_r, select.EPOLLIN)
        self._thread: threading.Thread | None = None
        self._orphans: set[int] = set()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._thread:
            os.write(self._wake_w, b"x")
            self._thread.join()
            self._thread = None
        with self._lock:
            for fd in (*self._names, self._wake_r, self._wake_w):
                os.close(fd)
            self._names.clear()
            self._fds.clear()
        self._poll.close()

    def add(self, name: str, pidfd: int) -> None:
        """Take over ``pidfd``; the handler is called once when the process ends."""
        with self._lock:
            self._drop(name)
            self._names[pidfd] = name
            self._fds[name] = pidfd
            self._poll.register(pidfd, select.EPOLLIN)

    def remove(self, name: str) -> None:
        """Forget the instance: its end is no news. Idempotent."""
        with self._lock:
            self._drop(name)

    def watched(self, name: str) -> bool:
        with self._lock:
            return name in self._fds

    def _drop(self, name: str) -> None:
        fd = self._fds.pop(name, None)
        if fd is not None:
            del self._names[fd]
            self._poll.unregister(fd)
            os.close(fd)

    def _loop(self) -> None:
        while True:
            events = self._poll.poll(_SWEEP_SECONDS)
            if not events:
                self._sweep()
            for fd, _ in events:
                if fd == self._wake_r:
                    return
                self._ended(fd)

    def _ended(self, fd: int) -> None:
        with self._lock:
            name = self._names.get(fd)
            if name is None:
                return
            status, signal = reap(fd)
            self._drop(name)
        try:
            self._handler(name, status, signal)
        except Exception:
            log.exception("the end of %s could not be told", name)

    def _sweep(self) -> None:
        """Reap children that became ours because whoever started them ended.

        Only what is seen as ended twice, half a minute apart, so that nobody's wait is disturbed.
        """
        seen: set[int] = set()
        for task in os.scandir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"{task.path}/children") as children:  # noqa: PTH123  of every thread
                seen.update(int(pid) for pid in children.read().split() if _is_zombie(int(pid)))
        for pid in self._orphans & seen:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._orphans = seen


def reap(pidfd: int) -> tuple[int | None, int | None]:
    """Exit status and signal of an ended process: ``(None, None)`` when it is not a child of ours."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None, None
    if result is None:
        return None, None
    if result.si_code == os.CLD_EXITED:
        return result.si_status, None
    return None, result.si_status


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  of every child
            return file.read(512).rpartition(b") ")[2].startswith(b"Z")
    except OSError:
        return False
