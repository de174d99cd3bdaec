"""The other end of a line (:mod:`alveole.remote.lines`), where the user who comes by SSH is not root.

Started there by ``sudo`` as ``alveole node landing``. It makes two sockets that this one user reaches, says where they
are, and passes what comes through them on to the sockets that only root reaches::

    RUN/landings/XXXXXXXX/api   the API, as root on that machine sees it
    RUN/landings/XXXXXXXX/web   the front socket of the edge

It ends, and takes its sockets away, when its standard input does: that is the SSH connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from alveole.config import Settings
from alveole.errors import Refused, Temporary

_BLOCK = 256 * 1024
_BACKLOG = 512
#: How often it says something (seconds). What is sent has to be acknowledged: so the kernel finds out that the other
#: machine has gone without a word, after some 15 minutes (``tcp_retries2`` of tcp(7)), not two hours; then sshd ends.
_SIGN_SECONDS = 15.0


class Landing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one line that is printed: where the sockets are."""

    api: str
    web: str


def keep(settings: Settings) -> None:
    """Be the landing until standard input ends. Raises ``Refused`` outside of sudo, ``Temporary`` without Alvéole."""
    told = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not told.isdecimal():
        raise Refused("only sudo starts this, for the user whom another machine's Alvéole comes as")
    if not settings.run.is_dir():
        raise Temporary(f"Alvéole is not running (there is no {settings.run})", hint="start it, or --config FILE")
    # Two for each visitor at the same time; what a login leaves is often a thousand.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ends = {"api": settings.api_socket, "web": settings.run / "edge" / "front" / "http.sock"}
    with _place(settings.run / "landings") as place, contextlib.ExitStack() as stack:
        doors = []
        for name, target in ends.items():
            door = stack.enter_context(socket.socket(socket.AF_UNIX))
            door.bind(str(place / name))
            (place / name).chmod(0o600)
            os.chown(place / name, int(told), -1)
            door.listen(_BACKLOG)
            door.setblocking(False)
            doors.append((door, target))
        os.write(1, msgspec.json.encode(Landing(str(place / "api"), str(place / "web"))) + b"\n")
        asyncio.run(_serve(doors))


@contextlib.contextmanager
def _place(top: Path) -> Iterator[Path]:
    """A directory of one's own, which only root changes. Those whose process was killed are removed."""
    top.mkdir(exist_ok=True)
    # Whatever umask sudo hands on: the user has to get through.
    top.chmod(0o711)
    with _held(top):
        for old in top.iterdir():
            with contextlib.suppress(OSError), _held(old, wait=False):
                shutil.rmtree(old)
        place = Path(tempfile.mkdtemp(dir=top))
        stack = contextlib.ExitStack()
        stack.enter_context(_held(place))
    with stack:
        place.chmod(0o711)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _held(directory: Path, *, wait: bool = True) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


async def _serve(doors: list[tuple[socket.socket, Path]]) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, over.set)

    def listen_to_the_end() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, _BLOCK):
                pass
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set)

    # A daemon: a read cannot be called off.
    threading.Thread(target=listen_to_the_end, daemon=True).start()
    guards = [asyncio.create_task(_take(door, target)) for door, target in doors]
    while not over.is_set():
        try:
            await asyncio.wait_for(over.wait(), _SIGN_SECONDS)
        except TimeoutError:
            try:
                # Nobody reads standard error over there once the line is open.
                os.write(2, b"\n")
            except OSError:
                break
    for guard in guards:
        guard.cancel()


async def _take(door: socket.socket, target: Path) -> None:
    """Take connections; each is passed on by itself."""
    loop = asyncio.get_running_loop()
    under_way = set()
    while True:
        try:
            one, _ = await loop.sock_accept(door)
        except OSError:
            # Out of descriptors: those that are open come to their end.
            await asyncio.sleep(0.1)
            continue
        task = asyncio.create_task(_pass_on(one, target))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


async def _pass_on(one: socket.socket, target: Path) -> None:
    loop = asyncio.get_running_loop()
    with one, socket.socket(socket.AF_UNIX) as other:
        one.setblocking(False)
        other.setblocking(False)
        try:
            await loop.sock_connect(other, str(target))
        except OSError:
            return
        await asyncio.gather(_pour(one, other), _pour(other, one))


async def _pour(source: socket.socket, sink: socket.socket) -> None:
    """All that comes, then the end of it. What cannot be passed on ends both ways."""
    loop = asyncio.get_running_loop()
    try:
        while block := await loop.sock_recv(source, _BLOCK):
            await loop.sock_sendall(sink, block)
    except OSError:
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
    else:
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
