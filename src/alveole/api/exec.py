"""Programs inside a site over a WebSocket: one that is named, and the console of the pages.

Binary frames, the first byte of each saying which stream it is: 0 stdin, 1 stdout (or the
terminal), 2 stderr, 3 control. A control frame holds one JSON object: from the client
``{"resize": [rows, columns]}``, ``{"eof": true}``, ``{"signal": 15}``; to the client
``{"started": true}``, ``{"taken": bytes}`` for input that the program took, and last
``{"exit": status}`` (with ``changes`` where files of a working copy were changed) or
``{"problem": {…}}`` (a problem document). A client that cannot read while it sends keeps at
most 64 KiB of input that is not yet taken; else both sides could wait for ever.

Whether the caller may still come in, and still may what they do, is asked again every two seconds: signing out or
being shut out ends a program as it ends a page.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, WebSocket
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from alveole import requests as ask
from alveole.agent import protocol
from alveole.api import admit, problems
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.streams import in_waiting
from alveole.errors import AlveoleError, InvalidInput, Refused, Temporary
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.ports import Program
from alveole.remote.distant import Distant
from alveole.services import Services
from alveole.services.visits import Visiting

router = APIRouter(prefix="/v1/sites", tags=["sites"], route_class=LateRoute)
STDIN, STDOUT, STDERR, CONTROL = range(4)
_BLOCK = 32 * 1024


#: Two seconds, not less: it is one look into the database for each open program.
_AGAIN_SECONDS = 2.0
#: A console in which nothing is typed for so long is left over in a window that nobody looks at.
_IDLE_SECONDS = 1800.0
#: How long a program that is killed may take to be gone, so that the journal can tell what it changed.
_LAST_SECONDS = 3.0
_GONE = "the caller went away"

Start = Callable[[protocol.Exec | protocol.Visit | Distant], Program]


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say in a control frame."""

    resize: tuple[int, int] | None = None
    eof: bool = False
    signal: int | None = None


_control = msgspec.json.Decoder(Control)
_visit = msgspec.json.Decoder(ask.Visit)


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
    problem = "interrupted"
    try:
        if (actor := socket.state.actor) is None:
            raise problems.Unauthenticated("nobody is signed in", field="Authorization")
        if not argv:
            raise InvalidInput("no command", field="argv", hint="give at least a program")
        wanted = ask.ExecSite(argv=tuple(argv), tty=tty, uid=uid)
        grant = await run_in_threadpool(services.exec_site, actor, site, wanted)
        session = await run_in_threadpool(start, services.exec_request(grant))
    except AlveoleError as error:
        if grant is not None:
            await run_in_threadpool(services.exec_ended, grant, None, str(error))
        await socket.send_denial_response(problems.response(error))
        return
    carried = _Carried(socket, session, tty)
    try:
        problem = await carried.through(_Again(socket, services, Right.SITE_EXEC, grant.site))
    finally:
        await _told(services.exec_ended, grant, carried.status, problem)


@router.websocket("/{site}/console")
@does(Right.SITE_CONSOLE)
async def console(socket: WebSocket, site: str) -> None:
    """A shell with a terminal: in the site where it runs, else over its working copy. As by SSH."""
    services: Services = socket.app.state.services
    start: Start = socket.app.state.start
    visiting: Visiting | None = None
    actor = socket.state.actor
    try:
        if actor is None:
            raise problems.Unauthenticated("nobody is signed in", field="Authorization")
        place = admit.client_address(socket.scope, socket.app.state.edge_uid)
        visiting = await run_in_threadpool(services.console, actor, site, place)
        session = await run_in_threadpool(start, visiting.request)
    except AlveoleError as error:
        if visiting is not None:
            await run_in_threadpool(services.visit_ended, actor, visiting, None, problem=str(error))
        await socket.send_denial_response(problems.response(error))
        return
    carried = _Carried(socket, session, True)
    problem = "interrupted"
    try:
        again = _Again(socket, services, Right.SITE_CONSOLE, visiting.site, carried.idle)
        problem = await carried.through(again)
        # Closing the window is how a console ends.
        problem = "" if problem == _GONE else problem
    finally:
        end = partial(services.visit_ended, received=carried.received, sent=carried.sent, problem=problem)
        await _told(end, actor, visiting, carried.ended)


@router.websocket("/{site}/visit")
@does(Right.NODE_CHANGE)
async def visit(socket: WebSocket, site: str, wanted: Annotated[str, Query()] = "{}") -> None:
    """What the SSH door, the console or the file manager of the machine that drives this one wants started."""
    services: Services = socket.app.state.services
    start: Start = socket.app.state.start
    visiting: Visiting | None = None
    actor = socket.state.actor
    try:
        if actor is None:
            raise problems.Unauthenticated("nobody is signed in", field="Authorization")
        request = _wanted(wanted)
        visiting = await run_in_threadpool(services.visit_from, actor, site, request)
        session = await run_in_threadpool(start, visiting.request)
    except AlveoleError as error:
        if visiting is not None and visiting.change:
            await run_in_threadpool(services.visit_ended, actor, visiting, None, problem=str(error))
        await socket.send_denial_response(problems.response(error))
        return
    carried = _Carried(socket, session, request.tty)
    problem = "interrupted"
    try:
        problem = await carried.through(_Again(socket, services, Right.NODE_CHANGE))
    finally:
        if visiting.change:
            end = partial(services.visit_ended, received=carried.received, sent=carried.sent, problem=problem)
            await _told(end, actor, visiting, carried.ended)


def _wanted(text: str) -> ask.Visit:
    try:
        return _visit.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"is no visit: {error}", field="wanted") from None


async def _told(end: Callable[..., None], *args: Any) -> None:
    if (task := asyncio.current_task()) is not None and task.cancelling():
        # The server stops: nothing that is awaited goes on.
        end(*args)
    else:
        await run_in_threadpool(end, *args)


class _Again:
    """Waits until the caller may no longer do what they do, and raises why."""

    def __init__(
        self,
        socket: WebSocket,
        services: Services,
        right: Right,
        site: str | None = None,
        idle: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._socket = socket
        self._services = services
        self._right = right
        self._site = site
        self._idle = idle

    async def over(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            if self._idle() > _IDLE_SECONDS:
                raise Refused("nothing was typed for half an hour")
            with contextlib.suppress(Temporary):
                await run_in_threadpool(self._look)

    def _look(self) -> None:
        actor: Actor = self._socket.state.actor
        headers = self._socket.headers
        if actor.via.startswith("session:"):
            found = self._services.resume(admit.session_of(headers))
        elif actor.via.startswith("token:"):
            found = self._services.authenticate(headers.get("authorization", "").partition(" ")[2].strip())
        else:
            found = actor
        if found is None:
            raise problems.Unauthenticated("you are signed out")
        if self._site is not None:
            self._services.allow_site(found, self._right, self._site)


async def _tell(socket: WebSocket, message: dict[str, Any]) -> None:
    await socket.send_bytes(bytes([CONTROL]) + msgspec.json.encode(message))


class _Carried:
    """Bytes both ways between a caller and a program until it has ended and its output is read."""

    def __init__(self, socket: WebSocket, session: Program, tty: bool) -> None:
        self._socket = socket
        self._session = session
        self._one = tty or len(session.fds) == 1
        self._typed_at = time.monotonic()
        self.ended: protocol.Visited | None = None
        self.received = self.sent = 0

    @property
    def status(self) -> int | None:
        return self.ended.status if self.ended is not None else None

    def idle(self) -> float:
        """Seconds since something was typed."""
        return time.monotonic() - self._typed_at

    async def through(self, again: _Again) -> str:
        """Until its end; gives what cut it short, in words, or nothing."""
        try:
            status = await self._carry(again)
            last: dict[str, Any] = {"exit": status}
            if self.ended is not None and self.ended.changes.files:
                last["changes"] = msgspec.to_builtins(self.ended.changes)
            await _tell(self._socket, last)
            await self._socket.close()
            return ""
        except WebSocketDisconnect:
            return _GONE
        except AlveoleError as error:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await _tell(self._socket, {"problem": msgspec.to_builtins(problems.document(error))})
                await self._socket.close()
            return str(error)

    async def _carry(self, again: _Again) -> int:
        fds = list(self._session.fds)
        outward = {STDOUT: fds[0]} if self._one else {STDOUT: fds[1], STDERR: fds[2]}
        ended = asyncio.ensure_future(in_waiting(self._session.ended))
        others: list[asyncio.Task[None]] = []
        readers: list[asyncio.Task[None]] = []
        try:
            asked = self._socket.headers.get("sec-websocket-protocol", "").replace(" ", "").split(",")
            await self._socket.accept(admit.SOCKET if admit.SOCKET in asked else None)
            await _tell(self._socket, {"started": True})
            readers = [asyncio.create_task(self._outward(stream, fd)) for stream, fd in outward.items()]
            others = [asyncio.create_task(self._inward(fds[0])), asyncio.create_task(again.over())]
            done, _ = await asyncio.wait({ended, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                if task in done and ended not in done:
                    # Raises why: the program must not outlive its caller.
                    task.result()
            self.ended = await ended
            # A child in the background may hold the output open for ever.
            await asyncio.wait(readers, timeout=1.0)
            return self.ended.status
        finally:
            for each in (*readers, *others):
                each.cancel()
            # Never looked at when the program is cut: it is told by then.
            ended.add_done_callback(lambda future: future.cancelled() or future.exception())
            try:
                if not ended.done():
                    with contextlib.suppress(AlveoleError, OSError):
                        await run_in_threadpool(self._session.kill, 9)
                    await asyncio.wait({ended}, timeout=_LAST_SECONDS)
                if ended.done() and not ended.cancelled() and ended.exception() is None:
                    self.ended = ended.result()
            finally:
                # What it started may live on in the background; the agent ends that too.
                self._session.hang_up()
                for fd in set(fds):
                    with contextlib.suppress(OSError):
                        os.close(fd)

    async def _outward(self, stream: int, fd: int) -> None:
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
            await self._socket.send_bytes(bytes([stream]) + block)
            self.sent += len(block)

    async def _inward(self, fd: int) -> None:
        closed = False
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            frame: bytes = message.get("bytes") or b""
            if not frame:
                continue
            if frame[0] == STDIN:
                self._typed_at = time.monotonic()
                self.received += len(frame) - 1
                # What comes after the end of the input, or after the program closed it, is taken and dropped.
                closed = closed or not await _write(fd, frame[1:])
                await _tell(self._socket, {"taken": len(frame) - 1})
            elif frame[0] == CONTROL:
                closed = await self._control(frame[1:], fd, closed)

    async def _control(self, text: bytes, fd: int, closed: bool) -> bool:
        with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
            said = _control.decode(text)
            if said.resize is not None:
                rows, columns = (max(1, min(number, 10_000)) for number in said.resize)
                await run_in_threadpool(self._session.resize, rows, columns)
            if said.signal is not None and 1 <= said.signal <= 64:
                await run_in_threadpool(self._session.kill, said.signal)
            if said.eof and not closed and not self._one:
                _hang_up(fd)
                return True
        return closed


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
