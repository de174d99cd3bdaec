"""Network namespaces, and the settings of the kernel that belong to one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

SYSCTL = Path("/proc/sys/net")
T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread of its own: the namespaces and cgroups that it enters end with it."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # handed to the caller
            failure.append(error)

    thread = threading.Thread(target=run, name="apart")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def read_sysctl(key: str) -> str:
    """The value of ``net.KEY`` (slashes for dots), stripped; empty when there is none."""
    try:
        return (SYSCTL / key).read_text().strip()
    except OSError:
        return ""


def write_sysctl(key: str, value: str) -> None:
    """Set ``net.KEY`` (slashes for dots) in the namespace of the calling thread."""
    (SYSCTL / key).write_text(f"{value}\n")


class Spare:
    """One namespace made ahead: making one takes a fifth to a half of all that ``plug`` does.

    (The kernel finds /proc/sys entries of many namespaces in one hash chain, so it grows with the sites.)
    """

    def __init__(self, make: Callable[[], int]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._closed = False

    def take(self) -> int:
        with self._lock:
            fd, self._fd = self._fd, None
        return fd if fd is not None else in_thread(self._make)

    def refill(self) -> None:
        threading.Thread(target=self._fill, name="spare-netns", daemon=True).start()

    def _fill(self) -> None:
        # A failure shows at the next ``take``, to somebody who can say what it was for.
        with self._lock, contextlib.suppress(OSError):
            if self._fd is None and not self._closed:
                self._fd = self._make()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
