"""Whether a fresh instance answers: one small HTTP question, asked until it does.

An instance that ends while it is waited for is not waited for any longer.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from alveole.config import Settings
from alveole.host import instances, paths, syscalls
from alveole.model.resource import WorkloadSpec

#: From about twice what the question itself costs, growing, so that a quick start is seen at once
#: and a slow one costs no processor time.
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.1
#: What is made beside what is waited for is seldom more; whoever runs inside could make it without end.
NEWS_MOST = 50
#: One answer may take this long; an application may load itself at the first request.
ANSWER_SECONDS = 30.0
#: The rest of the first answer is read so long and so far.
REST_SECONDS, REST_BYTES = 0.25, 1 << 20
_STATUS = re.compile(rb"^HTTP/1\.[01] ([1-5]\d\d)")


class NotReady(Exception):
    """Why the instance is not ready, in words for people.

    ``ended``: its process is gone. ``tail``: the last lines it printed.
    """

    def __init__(self, message: str, *, ended: bool = False, tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.ended = ended
        self.tail = tail


def wait(settings: Settings, spec: WorkloadSpec, pidfd: int, cancelled: Callable[[], bool] = lambda: False) -> int:
    """Wait until the instance answers with a status under 500; gives that status.

    Raises :class:`NotReady` when it ends, or after ``spec.ready_seconds``.
    """
    deadline = time.monotonic() + spec.ready_seconds
    pause = FIRST_PAUSE
    last = "nothing listened"
    while True:
        try:
            status = ask(settings, spec, pidfd, min(ANSWER_SECONDS, max(0.05, deadline - time.monotonic())))
            if status < 500:
                return status
            last = f"{spec.health} was answered with {status}"
        except (OSError, ValueError) as error:
            last = _words(error)
        if cancelled():
            raise NotReady("the wait was cancelled")
        if instances.wait_end(pidfd, pause):
            raise NotReady("it ended before it answered", ended=True)
        if time.monotonic() >= deadline:
            raise NotReady(f"it did not answer within {spec.ready_seconds} s: {last}")
        pause = min(pause * 1.4, LONGEST_PAUSE)


def wait_until(done: Callable[[], bool], pidfd: int, seconds: float, where: Path) -> None:
    """Wait until ``done``, which an entry in the directory ``where`` will say.

    Raises :class:`NotReady` when the instance ends, or after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        try:
            news = syscalls.inotify(where)
            stack.callback(os.close, news)
        except OSError:
            # There are only so many on a machine: then it is looked now and then, as in any case.
            news = None
        pause = FIRST_PAUSE
        told = 0
        while not done():
            ready = _readable((pidfd,) if news is None else (pidfd, news), pause)
            if pidfd in ready:
                raise NotReady("it ended before everything was started", ended=True)
            if time.monotonic() >= deadline:
                raise NotReady(f"not everything was started within {seconds:g} s")
            if news is not None and news in ready:
                os.read(news, 65536)
                told += 1
            if told > NEWS_MOST:
                news = None
            pause = min(pause * 1.4, LONGEST_PAUSE)


def ask(settings: Settings, spec: WorkloadSpec, pidfd: int, seconds: float) -> int:
    """The status of one GET for the health path. Raises ``OSError`` or ``ValueError``."""
    address = target(settings, spec)
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
        link.settimeout(min(1.0, seconds))
        link.connect(address)
        request = (
            f"GET {spec.health} HTTP/1.1\r\nHost: {spec.hostname}\r\nUser-Agent: alveole\r\nConnection: close\r\n\r\n"
        )
        link.sendall(request.encode("ascii", "replace"))
        found = b""
        until = time.monotonic() + seconds
        while len(found) < 12:
            ready = _readable((link.fileno(), pidfd), until - time.monotonic())
            if link.fileno() not in ready:
                raise TimeoutError("it ended" if ready else "it took the connection and did not answer")
            part = link.recv(64)
            if not part:
                raise ValueError("it closed the connection without an answer")
            found += part
        status = _STATUS.match(found)
        if status is None:
            raise ValueError("what it answered is not HTTP")
        _take_rest(link)
        return int(status[1])


def _take_rest(link: socket.socket) -> None:
    """Read what else comes, within reason: closing before would make the application log a broken connection."""
    until = time.monotonic() + REST_SECONDS
    left = REST_BYTES
    while left > 0 and (seconds := until - time.monotonic()) > 0 and _readable((link.fileno(),), seconds):
        try:
            part = link.recv(65536)
        except OSError:
            return
        if not part:
            return
        left -= len(part)


def _readable(fds: tuple[int, ...], seconds: float) -> set[int]:
    # Not select(2): with many instances the files have numbers beyond its 1024.
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)}


def target(settings: Settings, spec: WorkloadSpec) -> str | tuple[str, int]:
    """Where the instance answers: the path of its socket, or address and port."""
    if spec.port is None:
        return str(paths.web_socket(settings, spec.site, spec.slot))
    return str(settings.addressing().instance(spec.number, spec.slot).own4), spec.port


def _words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it made no socket /run/alveole/web.sock"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listened"
    return str(error)
