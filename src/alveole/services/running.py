"""One program of an operation: started inside of a site, read to its end, within its limits of time and output."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import threading
import time
from collections.abc import Callable, Sequence

from alveole.agent import protocol
from alveole.errors import AlveoleError
from alveole.masking import mask
from alveole.ports import Program
from alveole.remote.distant import Distant
from alveole.text import clean

_BLOCK = 32 * 1024
_LOOK_SECONDS = 0.2
#: After the program has ended, for what it printed last; a child in the background may hold the output for ever.
_DRAIN_SECONDS = 1.0
#: For one that was killed.
_LAST_SECONDS = 5.0


class Running:
    """``run`` in a thread of its own; the rest from any."""

    def __init__(
        self,
        site: str,
        request: protocol.Exec | Distant,
        stdin: bytes,
        secrets: Sequence[str],
        seconds: int,
        output_bytes: int,
    ) -> None:
        """``secrets``: what of its output is never shown, whatever it prints."""
        self.site = site
        self._stdin = stdin
        self._secrets = secrets
        self.problem = ""
        self.cut = False
        self._request = request
        self._seconds = seconds
        self._most = output_bytes
        self._pieces: list[str] = []
        self._bytes = 0
        self._cancelled = ""
        self._lock = threading.Lock()

    def text(self) -> str:
        """What it has printed so far; nothing in it that a page or a terminal would obey."""
        with self._lock:
            printed = "".join(self._pieces)
        return mask("\n".join(clean(line) for line in printed.split("\n")), self._secrets)

    def cancel(self, why: str) -> None:
        self._cancelled = why

    def run(self, start: Callable[[protocol.Exec | Distant], Program]) -> int | None:
        """Its exit status; ``None`` with :attr:`problem` when there is none. Never raises."""
        try:
            program = start(self._request)
        except AlveoleError as error:
            self.problem = str(error)
            return None
        status: list[int] = []
        ended = threading.Event()

        def wait() -> None:
            with contextlib.suppress(AlveoleError, OSError):
                status.append(program.wait())
            ended.set()

        waiting = threading.Thread(target=wait, name="operation-end", daemon=True)
        waiting.start()
        try:
            self._answer(program.fds[0])
            self._read(program.fds[1:], ended)
            if not ended.is_set():
                with contextlib.suppress(AlveoleError, OSError):
                    program.kill(9)
                ended.wait(_LAST_SECONDS)
        finally:
            # What it started may live on in the background; the agent ends that too.
            with contextlib.suppress(AlveoleError, OSError):
                program.hang_up()
            for fd in set(program.fds):
                with contextlib.suppress(OSError):
                    os.close(fd)
        if not status and not self.problem:
            self.problem = "how it ended is not known"
        return status[0] if status else None

    def _answer(self, fd: int) -> None:
        """Secrets on its standard input, then the end of it, keeping the number taken until all is closed."""
        os.set_blocking(fd, False)
        with contextlib.suppress(OSError):
            os.write(fd, self._stdin)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, fd, inheritable=False)
        os.close(null)

    def _read(self, fds: tuple[int, ...], ended: threading.Event) -> None:
        until = time.monotonic() + self._seconds
        last: float | None = None
        with selectors.DefaultSelector() as selector:
            for fd in fds:
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ, codecs.getincrementaldecoder("utf-8")("replace"))
            while True:
                now = time.monotonic()
                if ended.is_set() and last is None:
                    last = now + _DRAIN_SECONDS
                if (last is not None and (now >= last or not selector.get_map())) or self._stopped(now, until, last):
                    return
                if not selector.get_map():
                    ended.wait(_LOOK_SECONDS)
                    continue
                for key, _ in selector.select(_LOOK_SECONDS):
                    if not self._take(key.fd, key.data):
                        selector.unregister(key.fd)

    def _stopped(self, now: float, until: float, last: float | None) -> bool:
        if self.cut:
            self.problem = f"it printed more than {self._most} bytes and was ended"
        elif last is not None:
            return False
        elif self._cancelled:
            self.problem = self._cancelled
        elif now >= until:
            self.problem = f"it took longer than {self._seconds} s and was ended"
        return bool(self.problem)

    def _take(self, fd: int, decoder: codecs.IncrementalDecoder) -> bool:
        """Read once; false at the end of that output."""
        try:
            block = os.read(fd, _BLOCK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        room = self._most - self._bytes
        self.cut = self.cut or len(block) > room
        with self._lock:
            self._pieces.append(decoder.decode(block[:room], final=not block))
        self._bytes += min(len(block), room)
        return bool(block)
