"""What a program inside a site printed, read to its end by control."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from alveole.agent.protocol import Visited
from alveole.ports import Program

_PIECE = 1 << 18
#: Bytes of what a program complains of; people are shown less.
_COMPLAINT = 4096
#: How long its end may go unnoticed where a child lives on and holds its files.
_LOOK_SECONDS = 0.2


class Printed(NamedTuple):
    status: int
    #: Standard output, as far as it was kept.
    text: bytes
    #: The beginning of standard error.
    complaint: str


def read_out(
    program: Program, *, feed: bytes = b"", most: int = 0, take: Callable[[bytes], None] | None = None
) -> Printed:
    """Let a program run to its end with ``feed`` as its input, and close its files.

    Of its output the first ``most`` bytes are kept; with ``take`` each piece is given to that instead. What ``take``
    raises ends the program. Raises ``AlveoleError`` when it was cut.
    """
    kept, complaint = bytearray(), bytearray()

    def keep(piece: bytes) -> None:
        kept.extend(piece[: most - len(kept)])

    def complain(piece: bytes) -> None:
        complaint.extend(piece[: _COMPLAINT - len(complaint)])

    ended: Future[Visited] = Future()

    def wait() -> None:
        try:
            ended.set_result(program.ended())
        except BaseException as error:
            ended.set_exception(error)

    try:
        threading.Thread(target=wait, name="printed-end", daemon=True).start()
        _carry(program.fds, feed, take or keep, complain, ended)
        status = ended.result().status
    finally:
        program.hang_up()
        # This thread alone has read them: no other one can meet somebody else's file under their numbers.
        for fd in program.fds:
            with contextlib.suppress(OSError):
                os.close(fd)
    return Printed(status, bytes(kept), complaint.decode("utf-8", "replace").strip())


def _carry(
    fds: tuple[int, ...],
    feed: bytes,
    take: Callable[[bytes], None],
    complain: Callable[[bytes], None],
    ended: Future[Visited],
) -> None:
    stdin, stdout, stderr = fds
    rest = memoryview(feed)
    for fd in fds:
        os.set_blocking(fd, False)
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ, take)
        selector.register(stderr, selectors.EVENT_READ, complain)
        if rest:
            selector.register(stdin, selectors.EVENT_WRITE)
        else:
            _end_input(stdin)
        while selector.get_map() and not ended.done():
            for key, _ in selector.select(_LOOK_SECONDS):
                if key.fd != stdin:
                    if piece := os.read(key.fd, _PIECE):
                        key.data(piece)
                    else:
                        selector.unregister(key.fd)
                    continue
                with contextlib.suppress(BrokenPipeError):
                    rest = rest[os.write(stdin, rest) :]
                    if rest:
                        continue
                selector.unregister(stdin)
                _end_input(stdin)
    _drain(stdout, take)
    _drain(stderr, complain)


def _drain(fd: int, take: Callable[[bytes], None]) -> None:
    """What a program that has ended left in its pipe; not what a child prints that lives on and holds it."""
    left = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    with contextlib.suppress(BlockingIOError):
        while left > 0 and (piece := os.read(fd, left)):
            take(piece)
            left -= len(piece)


def _end_input(fd: int) -> None:
    """The end of the program's input, keeping the number taken until all is closed."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, fd, inheritable=False)
    os.close(null)
