"""Bytes between an SSH client and a program inside a site.

The program's ends are open files that came from the agent; nothing of what passes is looked at, but for a push, whose
end is held back until the deployment has been told in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shlex
import signal as signals
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncssh
import msgspec

from alveole.agent.protocol import Answer, Done, Failed, Kill, Resize, Said, Started
from alveole.agent.wire import Wire
from alveole.config import Settings
from alveole.errors import AlveoleError, Temporary, from_code
from alveole.ssh.words import Deploy, Moved, Open

if TYPE_CHECKING:
    from asyncssh.channel import SSHServerChannel

log = logging.getLogger("alveole.ssh")
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
#: A pipe as large as an unprivileged process may make it (pipe(7)): fewer turns for the same bytes.
_PIPE_BYTES = 1 << 20
_BLOCK = 1 << 18
#: What a client has sent and the program has not yet taken; beyond, the client is told to wait.
_HELD = 1 << 20
_SHOWN = 900
_SIGNALS = {name: getattr(signals, f"SIG{name}") for name in ("HUP", "INT", "TERM", "KILL", "QUIT", "USR1", "USR2")}


def connect(settings: Settings) -> Wire:
    """A connection to control. Raises ``Temporary``."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.connect(str(settings.door_socket))
    except OSError as error:
        connection.close()
        raise Temporary("Alvéole is being started anew", hint="try again in a moment") from error
    return Wire(connection)


class Visitor(asyncssh.SSHServerSession[bytes]):
    """One session. ``ticket`` waits until somebody is in."""

    def __init__(self, settings: Settings, ticket: Callable[[], Any]) -> None:
        self._settings = settings
        self._ticket = ticket
        self._loop = asyncio.get_running_loop()
        self._chan: SSHServerChannel[bytes] | None = None
        self._command: str | None = None
        self._subsystem = ""
        self._size: tuple[int, int] | None = None
        self._wire: Wire | None = None
        self._inward = -1
        self._outward: dict[int, int] = {}
        self._closed: set[int] = set()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._begun = self._eof = False
        self._paused = False
        self._over = False
        self._status: int | None = None
        self._push: Push | None = None
        self.received = self.sent = 0

    @property
    def over(self) -> bool:
        return self._over

    # What the client asks for

    def connection_made(self, chan: SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Any) -> bool:
        self._size = (max(1, term_size[1]), max(1, term_size[0]))
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._tell(Resize(max(1, min(height, 10_000)), max(1, min(width, 10_000))))

    def signal_received(self, signal: str) -> None:
        if signal in _SIGNALS:
            self._tell(Kill(int(_SIGNALS[signal])))

    def break_received(self, msec: int) -> bool:
        self._tell(Kill(int(signals.SIGINT)))
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self._subsystem = subsystem
        return True

    def session_started(self) -> None:
        self._task = self._loop.create_task(self._begin())

    # Its beginning

    async def _begin(self) -> None:
        try:
            ticket = await self._ticket()
            wanted = Open(ticket, self._command, self._subsystem, self._size is not None)
            if self._subsystem == "" and is_push(self._command):
                self._push = Push(self, ticket)
            wire, fds = await asyncio.to_thread(self._open, wanted)
        except (AlveoleError, OSError) as error:
            self._refuse(str(error))
            return
        except msgspec.ValidationError:
            self._refuse("the command is too long")
            return
        self._wire = wire
        if self._over:
            self._end()
            for fd in fds:
                os.close(fd)
            return
        self._inward = fds[0]
        self._outward = {fds[0]: 0} if len(fds) == 1 else {fds[1]: 0, fds[2]: asyncssh.EXTENDED_DATA_STDERR}
        for fd in set(fds):
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        for fd in self._outward:
            self._loop.add_reader(fd, self._read, fd)
        if self._size is not None:
            self._tell(Resize(*self._size))
        threading.Thread(target=self._wait, args=(wire,), daemon=True).start()
        # What the client sent meanwhile.
        self._begun = True
        if self._held:
            self._loop.add_writer(self._inward, self._drain)
        elif self._eof:
            self._finish_input()

    def _open(self, wanted: Open) -> tuple[Wire, tuple[int, ...]]:
        wire = connect(self._settings)
        try:
            wire.send(wanted)
            answer = wire.receive(_answers)
            if isinstance(answer, Failed):
                raise from_code(answer.code, answer.problems)
            fds = tuple(wire.take_files())
            if not isinstance(answer, Started) or not fds:
                raise Temporary("the session was not opened")
            return wire, fds
        except BaseException:
            wire.close()
            raise

    def _refuse(self, message: str) -> None:
        if self._chan is not None and not self._over:
            self._chan.write_stderr(f"alveole: {plain(message)}\n".encode())
            self._chan.exit(1)

    # Inward

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.received += len(data)
        if self._over or (self._begun and self._inward < 0):
            return
        if self._begun and not self._held:
            data = data[self._put(data) :]
        if data:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._begun and len(self._held) == 1:
                self._loop.add_writer(self._inward, self._drain)
            if self._held_bytes > _HELD and not self._paused and self._chan is not None:
                self._paused = True
                self._chan.pause_reading()

    def _put(self, data: bytes) -> int:
        try:
            return os.write(self._inward, data)
        except BlockingIOError:
            return 0
        except OSError:
            # The program reads no more: what else comes is dropped.
            return len(data)

    def _drain(self) -> None:
        data = b"".join(self._held)
        done = self._put(data)
        self._held = [data[done:]] if done < len(data) else []
        self._held_bytes = len(data) - done
        if not self._held:
            self._loop.remove_writer(self._inward)
            if self._eof:
                self._finish_input()
        if self._paused and self._held_bytes < _HELD // 2 and self._chan is not None:
            self._paused = False
            self._chan.resume_reading()

    def eof_received(self) -> bool:
        self._eof = True
        if self._begun and not self._held:
            self._finish_input()
        # The other way stays open.
        return True

    def _finish_input(self) -> None:
        if self._inward >= 0 and self._inward not in self._outward:
            self._loop.remove_writer(self._inward)
            os.close(self._inward)
            self._inward = -1

    # Outward

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the terminal's other side is closed (pty(7))
        if not data:
            self._loop.remove_reader(fd)
            self._closed.add(fd)
            self._perhaps_end()
            return
        if self._push is not None and not self._outward[fd]:
            data = self._push.passed(data)
        self.write(data, self._outward[fd])

    def write(self, data: bytes, kind: int = 0) -> None:
        if self._chan is None or self._over or not data:
            return
        self.sent += len(data)
        if kind:
            self._chan.write(data, kind)
        else:
            self._chan.write(data)

    def pause_writing(self) -> None:
        for fd in self._outward:
            self._loop.remove_reader(fd)

    def resume_writing(self) -> None:
        for fd in self._outward:
            if fd not in self._closed and not self._over:
                self._loop.add_reader(fd, self._read, fd)

    # Its end

    def _wait(self, wire: Wire) -> None:
        """In a thread of its own: until control says how the program ended, or goes away."""
        status = 255
        try:
            answer = wire.receive(_answers)
            if isinstance(answer, Done):
                status = int(answer.result)
        except (AlveoleError, OSError, msgspec.DecodeError):
            pass
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended, status)

    def _ended(self, status: int) -> None:
        self._status = status
        # A child in the background may hold the output open for ever.
        self._loop.call_later(1.0, self._perhaps_end, True)
        self._perhaps_end()

    def _perhaps_end(self, late: bool = False) -> None:
        if self._status is None or self._over or (len(self._closed) < len(self._outward) and not late):
            return
        if self._push is not None and self._push.busy:
            return
        status = self._status
        if self._push is not None and self._push.failed and status == 0:
            status = 1
        if self._chan is not None:
            self._chan.exit(status if status < 256 else 255)
        self._end()

    def finished(self) -> None:
        """The deployment of a push is over."""
        self._perhaps_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._over and self._wire is None:
            return
        self._over = True
        for fd in {self._inward, *self._outward} - {-1}:
            with contextlib.suppress(OSError, ValueError):
                self._loop.remove_reader(fd)
                self._loop.remove_writer(fd)
            with contextlib.suppress(OSError):
                os.close(fd)
        self._inward, self._outward = -1, {}
        wire, self._wire = self._wire, None
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.send(Moved(self.received, self.sent))
                wire.socket.shutdown(socket.SHUT_RDWR)
            wire.socket.close()

    def _tell(self, order: Resize | Kill) -> None:
        if self._wire is not None:
            with contextlib.suppress(OSError):
                self._wire.send(order)


class Push:
    """Holds back the last packet of a push until it is deployed, and tells of it in the packets before.

    gitprotocol-pack(5): after the refs and a flush packet, ``receive-pack`` answers in packets whose first byte is
    the band, 2 being what the client prints as ``remote:``; a flush packet ends it.
    """

    def __init__(self, visitor: Visitor, ticket: str) -> None:
        self._visitor = visitor
        self._ticket = ticket
        self._rest = b""
        self._flushes = 0
        self._banded = False
        self.busy = False
        self.failed = False

    def passed(self, data: bytes) -> bytes:
        """What of the program's output goes on to the client now."""
        if self._flushes > 1:
            return data
        data = self._rest + data
        at = 0
        while len(data) - at >= 4 and self._flushes < 2:
            try:
                size = int(data[at : at + 4], 16)
            except ValueError:
                self._flushes = 9  # not git's words: let it all pass
                break
            if size == 0:
                self._flushes += 1
                if self._flushes == 2:
                    self._rest = b""
                    if not self._banded:
                        return data
                    self.busy = True
                    self._visitor._loop.create_task(self._deploy())
                    return data[:at]
                at += 4
                continue
            if len(data) - at < size:
                break
            if self._flushes == 1 and data[at + 4 : at + 5] in (b"\1", b"\2", b"\3"):
                self._banded = True
            at += max(size, 4)
        if self._flushes > 1:
            return data
        self._rest = data[at:]
        return data[:at]

    async def _deploy(self) -> None:
        try:
            await asyncio.to_thread(self._ask)
        except (AlveoleError, OSError, msgspec.DecodeError) as error:
            self.failed = True
            self._say(f"NOT deployed: {error}")
        self._visitor.write(b"0000")
        self.busy = False
        self._visitor.finished()

    def _ask(self) -> None:
        wire = connect(self._visitor._settings)
        try:
            wire.send(Deploy(self._ticket))
            while True:
                answer = wire.receive(_answers)
                if isinstance(answer, Said):
                    self._visitor._loop.call_soon_threadsafe(self._say, answer.text)
                elif isinstance(answer, Done):
                    return
                elif isinstance(answer, Failed):
                    raise from_code(answer.code, answer.problems)
                else:
                    raise Temporary("control went away; the deployment may go on")
        finally:
            wire.close()

    def _say(self, text: str) -> None:
        for line in text.splitlines():
            data = b"\2" + plain(line).encode()[:_SHOWN] + b"\n"
            self._visitor.write(f"{len(data) + 4:04x}".encode() + data)


def is_push(command: str | None) -> bool:
    try:
        words = shlex.split(command or "")
    except ValueError:
        return False
    return words[:1] == ["git-receive-pack"] or words[:2] == ["git", "receive-pack"]


def plain(text: str) -> str:
    """Without anything that acts on a terminal (threat 31)."""
    return "".join(char if char.isprintable() else " " for char in text)
