"""Control's side of the agent's door: one typed call, one connection."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from alveole.agent.protocol import (
    RESULTS,
    Answer,
    Done,
    Exec,
    Failed,
    Kill,
    Request,
    Resize,
    Said,
    Started,
    Visit,
    Visited,
    Watch,
)
from alveole.agent.wire import Wire
from alveole.errors import AlveoleError, Temporary, from_code

_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


class ExecSession:
    """A program running inside a site. ``fds`` belong to the caller, who closes them."""

    def __init__(self, wire: Wire, fds: tuple[int, ...]) -> None:
        self._wire = wire
        self.fds = fds

    def resize(self, rows: int, columns: int) -> None:
        self._wire.send(Resize(rows, columns))

    def kill(self, signal: int) -> None:
        self._wire.send(Kill(signal))

    def wait(self) -> int:
        """Block until the program ends; its exit status. Raises ``AlveoleError``."""
        return self.ended().status

    def ended(self) -> Visited:
        """The same, with what a :class:`Visit` has changed."""
        try:
            result = _finish(self._wire, None)
        finally:
            self._wire.close()
        return Visited(result) if isinstance(result, int) else msgspec.convert(result, Visited)

    def hang_up(self) -> None:
        """Let the program go: the agent ends it, and who waits is told that it was cut."""
        with contextlib.suppress(OSError):
            self._wire.socket.shutdown(socket.SHUT_RDWR)


class AgentClient:
    """Calls to the agent behind ``socket_path``. Safe for several threads."""

    def __init__(self, socket_path: Path) -> None:
        self._path = str(socket_path)

    def call(
        self,
        request: Request,
        files: Sequence[int] = (),
        say: Callable[[str, float | None], None] | None = None,
    ) -> Any:
        """Carry out ``request`` and give its result, typed as ``protocol.RESULTS`` says.

        Raises the agent's own ``AlveoleError``, or ``Temporary`` when it is not there or went away.
        """
        wire = self._connect()
        try:
            self._send(wire, request, files)
            result = _finish(wire, say)
        except OSError as error:
            raise Temporary(f"the agent went away: {error.strerror}", hint="it is started again by itself") from error
        finally:
            wire.close()
        expected = RESULTS.get(type(request))
        return None if expected is None else msgspec.convert(result, expected)

    def exec(self, request: Exec | Visit) -> ExecSession:
        """Start a program inside a site; raises ``AlveoleError`` when it could not be started."""
        wire = self._connect()
        try:
            self._send(wire, request, ())
            first = wire.receive(_answers)
            if isinstance(first, Failed):
                raise from_code(first.code, first.problems)
            if not isinstance(first, Started):
                raise Temporary("the agent closed the connection")
            return ExecSession(wire, tuple(wire.take_files()))
        except BaseException:
            wire.close()
            raise

    def watch(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback(scope)`` from a thread of its own for every instance that ends.

        Reconnects by itself; after each connection the callback gets ``"*"``: look everywhere,
        something may have been missed. Gives a function that ends it. Never raises.
        """
        stopped = threading.Event()
        threading.Thread(target=self._watch, args=(callback, stopped), name="agent-watch", daemon=True).start()
        return stopped.set

    def _watch(self, callback: Callable[[str], None], stopped: threading.Event) -> None:
        while not stopped.is_set():
            with contextlib.suppress(AlveoleError, OSError):
                wire = self._connect()
                try:
                    self._send(wire, Watch(), ())
                    callback("*")
                    while not stopped.is_set() and isinstance(said := wire.receive(_answers), Said):
                        callback(said.scope)
                finally:
                    wire.close()
            stopped.wait(0.5)

    def _connect(self) -> Wire:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise Temporary(
                f"the agent does not answer: {os.strerror(error.errno or 0)}", hint="it is started again by itself"
            ) from error
        return Wire(connection)

    @staticmethod
    def _send(wire: Wire, request: Request, files: Sequence[int]) -> None:
        wire.send(request, files)


def _finish(wire: Wire, say: Callable[[str, float | None], None] | None) -> Any:
    while True:
        answer = wire.receive(_answers)
        if answer is None:
            raise Temporary("the agent went away before it had finished", hint="it is started again by itself")
        if isinstance(answer, Done):
            return answer.result
        if isinstance(answer, Failed):
            raise from_code(answer.code, answer.problems)
        if isinstance(answer, Said) and say is not None:
            say(answer.text, answer.share)
