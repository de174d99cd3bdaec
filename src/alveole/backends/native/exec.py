"""Start a program inside a running instance and hand its ends to whoever asked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import msgspec

from alveole.backends.base import Session
from alveole.backends.native.lower import ProcessConfig
from alveole.config import Settings
from alveole.errors import Temporary
from alveole.host import runtime

#: How long crun may take until the program runs.
_START_SECONDS = 10.0


def open_session(settings: Settings, crun: runtime.Crun, name: str, process: ProcessConfig) -> Session:
    """Start ``process`` inside the container ``name``; the caller owns the files of the session.

    Raises ``Temporary`` when it could not be started.
    """
    directory = settings.run / "exec" / f"{name}.{secrets.token_hex(6)}"
    directory.mkdir(mode=0o700, parents=True)
    try:
        description = directory / "process.json"
        fd = os.open(description, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(process))
        opened = _with_terminal if process.terminal else _with_pipes
        fds, running = opened(crun, name, directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return _session(directory, fds, running)


def _with_pipes(crun: runtime.Crun, name: str, directory: Path) -> tuple[tuple[int, ...], subprocess.Popen[bytes]]:
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for writing in (True, False, False):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            # The program may open /dev/stdout by its name, as whatever user it is.
            os.fchmod(reader, 0o666)
            ours.append(writer if writing else reader)
            theirs.append(reader if writing else writer)
        running = crun.exec(
            name,
            directory / "process.json",
            stdio=theirs,
            pid_file=directory / "pid",
            errors=directory / "log",
        )
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return tuple(ours), running


def _with_terminal(crun: runtime.Crun, name: str, directory: Path) -> tuple[tuple[int, ...], subprocess.Popen[bytes]]:
    console = directory / "console"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as door:
        door.bind(str(console))
        door.listen(1)
        running = crun.exec(
            name,
            directory / "process.json",
            console=console,
            pid_file=directory / "pid",
            errors=directory / "log",
        )
        door.settimeout(0.05)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                link, _ = door.accept()
                break
            except TimeoutError:
                if running.poll() is not None or time.monotonic() > deadline:
                    _end(running)
                    said = runtime.failure(directory / "log")
                    raise Temporary(f"the program could not be started: {said or 'no reason was given'}") from None
        with link:
            link.settimeout(_START_SECONDS)
            _, fds, _, _ = socket.recv_fds(link, 4096, 1)
        if not fds:
            _end(running)
            raise Temporary("crun sent no terminal")
        os.set_inheritable(fds[0], False)
        return (fds[0],), running


def _session(directory: Path, fds: tuple[int, ...], running: subprocess.Popen[bytes]) -> Session:
    lock = threading.Lock()
    cleaned = threading.Event()
    # The caller closes its files when it likes, and their numbers then mean others'.
    terminal = os.dup(fds[0]) if len(fds) == 1 else None

    def wait() -> int:
        status = running.wait()
        with lock:
            if not cleaned.is_set():
                cleaned.set()
                if terminal is not None:
                    os.close(terminal)
                shutil.rmtree(directory, ignore_errors=True)
        return 128 - status if status < 0 else status

    def resize(rows: int, columns: int) -> None:
        with lock, contextlib.suppress(OSError):
            if terminal is not None and not cleaned.is_set():
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def kill(number: int) -> None:
        # The program itself, not crun, which waits for it: its status then says how it ended.
        with contextlib.suppress(OSError, ValueError, ProcessLookupError):
            pidfd = os.pidfd_open(int((directory / "pid").read_text()))
            try:
                if running.poll() is None:
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)
        if number == signal.SIGKILL and running.poll() is None:
            # Whatever became of the program: nobody waits for crun any longer.
            running.kill()

    return Session(fds, wait, resize, kill)


def _end(running: subprocess.Popen[bytes]) -> None:
    running.kill()
    running.wait()
