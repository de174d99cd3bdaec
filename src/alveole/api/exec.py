"""Programs inside a site over a WebSocket.

Binary frames, the first byte of each saying which stream it is: 0 stdin, 1 stdout (or the
terminal), 2 stderr, 3 control. A control frame holds one JSON object: from the client
``{"resize": [rows, columns]}``, ``{"eof": true}``, ``{"signal": 15}``; to the client
``{"started": true}``, ``{"taken": bytes}`` for input that the program took, and last
``{"exit": status}`` or ``{"problem": {…}}`` (a problem document). A client that cannot read while
it sends keeps at most 64 KiB of input that is not yet taken; else both sides could wait for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import APIRouter, Query, WebSocket
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from alveole import requests as ask
from alveole.agent import protocol
from alveole.api import problems
from alveole.api.gate import does
from alveole.api.streams import in_waiting
from alveole.errors import AlveoleError, InvalidInput
from alveole.people.rights import Right
from alveole.services import Services

router = APIRouter(prefix="/v1/sites", tags=["sites"])
STDIN, STDOUT, STDERR, CONTROL = range(4)
_BLOCK = 32 * 1024


class Session(Protocol):
    """A program started inside a site: see :class:`alveole.agent.client.ExecSession`."""

    fds: tuple[int, ...]

    def resize(self, rows: int, columns: int) -> None: ...
    def kill(self, signal: int) -> None: ...
    def wait(self) -> int: ...


Start = Callable[[protocol.Exec], Session]


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say in a control frame."""

    resize: tuple[int, int] | None = None
    eof: bool = False
    signal: int | None = None


_control = msgspec.json.Decoder(Control)


@router.websocket("/{site}/exec")
@does(Right.SITE_EXEC)
async def execute(
    socket: WebSocket,
    site: str,
    argv: Annotated[list[str] | None, Query()] = None,
    tty: Annotated[bool, Query()] = False,
    uid: Annotated[int | None, Query()] = None,
) -> None:
    services: Services = socket.app.state.services
    start: Start = socket.app.state.start
    grant = None
    status: int | None = None
    problem = "interrupted"
    try:
        if (actor := socket.state.actor) is None:
            raise problems.Unauthenticated("nobody is signed in", field="Authorization")
        if not argv:
            raise InvalidInput("no command", field="argv", hint="give at least a program")
        wanted = ask.ExecSite(argv=tuple(argv), tty=tty, uid=uid)
        grant = await run_in_threadpool(services.exec_site, actor, site, wanted)
        request = protocol.Exec(site=grant.site, slot=grant.slot, argv=grant.argv, tty=grant.tty, uid=grant.uid)
        session = await run_in_threadpool(start, request)
    except AlveoleError as error:
        if grant is not None:
            await run_in_threadpool(services.exec_ended, grant, None, str(error))
        await socket.send_denial_response(problems.response(error))
        return
    try:
        status = await _carry(socket, session, tty)
        problem = ""
        await _tell(socket, {"exit": status})
        await socket.close()
    except WebSocketDisconnect:
        problem = "the caller went away"
    except AlveoleError as error:
        problem = str(error)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await _tell(socket, {"problem": msgspec.to_builtins(problems.document(error))})
            await socket.close()
    finally:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            # The server stops: nothing that is awaited goes on.
            services.exec_ended(grant, status, problem)
        else:
            await run_in_threadpool(services.exec_ended, grant, status, problem)


async def _tell(socket: WebSocket, message: dict[str, Any]) -> None:
    await socket.send_bytes(bytes([CONTROL]) + msgspec.json.encode(message))


async def _carry(socket: WebSocket, session: Session, tty: bool) -> int:
    """Move bytes both ways until the program has ended and its output is read; its exit status."""
    fds = list(session.fds)
    inward = fds[0]
    outward = {STDOUT: fds[0]} if tty or len(fds) == 1 else {STDOUT: fds[1], STDERR: fds[2]}
    ended = asyncio.ensure_future(in_waiting(session.wait))
    listener: asyncio.Task[None] | None = None
    readers: list[asyncio.Task[None]] = []
    try:
        await socket.accept()
        await _tell(socket, {"started": True})
        readers = [asyncio.create_task(_outward(socket, stream, fd)) for stream, fd in outward.items()]
        listener = asyncio.create_task(_inward(socket, session, inward, tty or len(fds) == 1))
        done, _ = await asyncio.wait({ended, listener}, return_when=asyncio.FIRST_COMPLETED)
        if listener in done and ended not in done:
            # Raises WebSocketDisconnect: the program must not outlive its caller.
            listener.result()
        status = await ended
        # A child in the background may hold the output open for ever.
        await asyncio.wait(readers, timeout=1.0)
        return status
    finally:
        for task in (*readers, listener):
            if task is not None:
                task.cancel()
        if not ended.done():
            with contextlib.suppress(AlveoleError, OSError):
                await run_in_threadpool(session.kill, 9)
        for fd in set(fds):
            with contextlib.suppress(OSError):
                os.close(fd)


async def _outward(socket: WebSocket, stream: int, fd: int) -> None:
    os.set_blocking(fd, False)
    while True:
        try:
            block = os.read(fd, _BLOCK)
        except BlockingIOError:
            await _ready(fd, writing=False)
            continue
        except OSError:
            # EIO: the terminal's other side is closed (pty(7)), which is its end of file.
            return
        if not block:
            return
        await socket.send_bytes(bytes([stream]) + block)


async def _inward(socket: WebSocket, session: Session, fd: int, tty: bool) -> None:
    closed = False
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        frame: bytes = message.get("bytes") or b""
        if not frame:
            continue
        if frame[0] == STDIN:
            # What comes after the end of the input, or after the program closed it, is taken and dropped.
            closed = closed or not await _write(fd, frame[1:])
            await _tell(socket, {"taken": len(frame) - 1})
        elif frame[0] == CONTROL:
            with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
                said = _control.decode(frame[1:])
                if said.resize is not None:
                    rows, columns = (max(1, min(number, 10_000)) for number in said.resize)
                    await run_in_threadpool(session.resize, rows, columns)
                if said.signal is not None and 1 <= said.signal <= 64:
                    await run_in_threadpool(session.kill, said.signal)
                if said.eof and not closed and not tty:
                    closed = True
                    _hang_up(fd)


def _hang_up(fd: int) -> None:
    """End of the program's input, keeping the number taken until the session closes it."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)


async def _write(fd: int, block: bytes) -> bool:
    """Whether the program still reads."""
    os.set_blocking(fd, False)
    view = memoryview(block)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, writing=True)
        except OSError:
            return False
    return True


async def _ready(fd: int, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(fd, wake)
    try:
        await future
    finally:
        remove(fd)
