"""A program inside of a site on another machine, as :class:`alveole.ports.Program`.

It is started by the API of that machine over the line; its frames (:mod:`alveole.api.exec`) become pipes here, so that
the SSH door, the pages and the API pass its bytes on as they do those of a program of this machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from alveole.agent.protocol import Changes, Visited
from alveole.errors import AlveoleError, InvalidInput, Problem, Temporary, from_code

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

STDIN, STDOUT, STDERR, CONTROL = range(4)
_BLOCK = 16 * 1024
#: Of one message of the machine: blocks of output, of an end and what it changed.
_MESSAGE_MAX = 1 << 20
#: Input that was sent and is not yet taken: while a thread waits to send, nobody must wait for it to read.
_WINDOW = 64 * 1024
#: Of the line that asks for it; the server takes 8,192 bytes (``websockets.http11.MAX_LINE_LENGTH``).
_TARGET_MAX = 8000
#: How long the machine may take to start it: a site that sleeps is woken first.
_OPEN_SECONDS = 60.0


class Distant(msgspec.Struct, frozen=True):
    """What is to be started on ``node``: path and query of a WebSocket of its API.

    ``one``: with a terminal, so that input and output share one open end.
    """

    node: str
    target: str
    one: bool = False


def reached(wanted: Distant) -> Distant:
    """The same. Raises ``InvalidInput`` for what is too long: what is asked for is one line of HTTP."""
    if len(wanted.target) > _TARGET_MAX:
        raise InvalidInput(
            f"this is too long for a site on {wanted.node}",
            field="argv",
            hint="ask for less at once, or put it in a file",
        )
    return wanted


class DistantProgram:
    """``connection`` leads to the API there and is this object's from now on. Raises what the machine refuses with."""

    def __init__(self, connection: socket.socket, wanted: Distant) -> None:
        self._node = wanted.node
        self._one = wanted.one
        self._socket = _open(connection, wanted)
        self._under_way = 0
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._visited: Visited | None = None
        self._error: AlveoleError | None = None
        self._given: dict[int, int] = {}
        if wanted.one:
            ours, theirs = socket.socketpair()
            self.fds: tuple[int, ...] = (theirs.detach(),)
            self._given[STDOUT] = os.dup(ours.fileno())
            inward = ours.detach()
        else:
            inward, stdin = os.pipe2(os.O_CLOEXEC)
            stdout, self._given[STDOUT] = os.pipe2(os.O_CLOEXEC)
            stderr, self._given[STDERR] = os.pipe2(os.O_CLOEXEC)
            self.fds = (stdin, stdout, stderr)
        threading.Thread(target=self._inward, args=(inward,), name="distant-in", daemon=True).start()
        threading.Thread(target=self._outward, name="distant-out", daemon=True).start()

    # --- as a program -------------------------------------------------------------------------
    def resize(self, rows: int, columns: int) -> None:
        self._say(resize=[rows, columns])

    def kill(self, signal: int) -> None:
        self._say(signal=signal)

    def wait(self) -> int:
        return self.ended().status

    def ended(self) -> Visited:
        """Block until it has ended. Raises ``Temporary`` when the way there was cut."""
        self._over.wait()
        if self._visited is None:
            raise self._error or Temporary(f"the way to {self._node} was cut", hint="see: alveole node check")
        return self._visited

    def hang_up(self) -> None:
        """Let it go: the machine there ends it."""
        if not self._over.is_set():
            # Not ``close``, which waits for an answer: whoever hangs up has somebody else waiting.
            with contextlib.suppress(OSError):
                self._socket.socket.shutdown(socket.SHUT_RDWR)

    # --- bytes --------------------------------------------------------------------------------
    def _say(self, **message: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed, OSError):
            self._socket.send(bytes([CONTROL]) + msgspec.json.encode(message))

    def _inward(self, fd: int) -> None:
        """What the caller gives to the program, until it closes its end."""
        from websockets.exceptions import ConnectionClosed

        try:
            with contextlib.suppress(ConnectionClosed, OSError):
                while block := os.read(fd, _BLOCK):
                    with self._changed:
                        self._changed.wait_for(lambda: self._under_way < _WINDOW or self._over.is_set())
                        self._under_way += len(block)
                    if self._over.is_set():
                        return
                    self._socket.send(bytes([STDIN]) + block)
            if not self._one:
                self._say(eof=True)
        finally:
            os.close(fd)

    def _outward(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            with contextlib.suppress(ConnectionClosed, OSError):
                while self._visited is None and self._error is None:
                    self._take(self._socket.recv())
        finally:
            self._done()

    def _take(self, message: str | bytes) -> None:
        if not isinstance(message, bytes) or not message:
            return
        stream, content = message[0], message[1:]
        if stream in self._given:
            self._give(stream, content)
        elif stream == CONTROL:
            said: dict[str, Any] = msgspec.json.decode(content)
            if "taken" in said:
                with self._changed:
                    self._under_way -= int(said["taken"])
                    self._changed.notify_all()
            if "problem" in said:
                self._error = _error(said["problem"])
            elif "exit" in said:
                changes = msgspec.convert(said.get("changes", {}), Changes)
                self._visited = Visited(int(said["exit"]), changes)

    def _give(self, stream: int, content: bytes) -> None:
        view = memoryview(content)
        while view:
            try:
                view = view[os.write(self._given[stream], view) :]
            except OSError:
                # The caller reads no more; the program goes on until the caller lets it go.
                return

    def _done(self) -> None:
        for stream, fd in self._given.items():
            with contextlib.suppress(OSError):
                if self._one:
                    with socket.socket(fileno=os.dup(fd)) as end:
                        end.shutdown(socket.SHUT_WR)
            self._given[stream] = -1
            os.close(fd)
        with self._changed:
            self._over.set()
            self._changed.notify_all()
        with contextlib.suppress(Exception):
            self._socket.close()


def _open(connection: socket.socket, wanted: Distant) -> ClientConnection:
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import unix_connect

    try:
        return unix_connect(
            sock=connection,
            uri=f"ws://alveole{wanted.target}",
            compression=None,
            max_size=_MESSAGE_MAX,
            ping_interval=None,
            open_timeout=_OPEN_SECONDS,
        )
    except InvalidStatus as error:
        connection.close()
        try:
            raise _error(msgspec.json.decode(error.response.body or b"")) from error
        except msgspec.DecodeError:
            raise Temporary(f"{wanted.node} did not open the session ({error.response.status_code})") from error
    except (InvalidHandshake, OSError, EOFError) as error:
        connection.close()
        raise Temporary(f"{wanted.node} did not open the session", hint="see: alveole node check") from error


def _error(document: Any) -> AlveoleError:
    """What a problem document of the machine says, as an error of ours."""
    try:
        problems = [
            Problem(str(each["field"]), str(each["message"]), str(each["hint"])) for each in document["problems"]
        ]
        return from_code(str(document["code"]), problems)
    except (KeyError, TypeError):
        return Temporary("the machine where the site lives gave no reason")
