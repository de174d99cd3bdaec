"""The listening side: Unix sockets for root and for the edge, the TCP port for tokens, one uvicorn for all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from alveole.api.admit import UNIX
from alveole.config import Settings
from alveole.errors import Refused

log = logging.getLogger("alveole.api")
#: Request line and headers together; nginx's default is 32 KiB.
_HEAD_MAX = 32 * 1024
_CONNECTIONS_MAX = 1000
_BACKLOG = 512
#: How long a stop waits for requests under way. What follows a stream is cut then, and can be resumed.
_STOP_SECONDS = 2


def run(
    app: ASGIApp, settings: Settings, ready: Callable[[], None] | None = None, *, stop: threading.Event | None = None
) -> None:
    """Serve ``app`` until SIGTERM or SIGINT (or ``stop``); ``ready`` is called once both doors listen.

    Raises ``Refused`` when an address is taken by another program.
    """
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(_unix(settings.api_socket, 0o600)),
            stack.enter_context(_unix(settings.panel_socket, 0o666)),
            stack.enter_context(_tcp(settings.api.address, settings.api.port)),
        ]
        server = _Server(_config(app), ready, stop)
        server.run(sockets=listeners)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Http,
        ws=_WebSocket,
        # uvloop takes two megabytes for what is not felt here: control is waited for by few, and mostly waits itself.
        loop="asyncio",
        lifespan="off",
        log_config=None,
        # Below this it writes every WebSocket's address, and with it the arguments of exec, which may be secrets.
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        limit_concurrency=_CONNECTIONS_MAX,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_STOP_SECONDS,
        ws_max_size=1024 * 1024,
        ws_per_message_deflate=False,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None] | None, stop: threading.Event | None) -> None:
        super().__init__(config)
        self._ready = ready
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._ready is not None:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        if self._stop is not None and self._stop.is_set():
            self.should_exit = True
        return await super().on_tick(counter)


@contextlib.contextmanager
def _unix(path: Path, mode: int) -> Iterator[socket.socket]:
    """Listen at ``path``. At 0600 root passes anyway, and nobody else but our own user may connect; at 0666 everybody
    may, and who it is decides (:mod:`alveole.api.admit`): the edge's workers have a user of their own."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _answers(path):
            raise Refused(f"another Alvéole already listens at {path}", hint="give this instance its own paths.run")
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        mask = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        yield listener
        # Left in place, it refuses connections, which a client reads as "being started anew".
    finally:
        listener.close()


def _answers(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def _tcp(address: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            reason = "another program listens there" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise Refused(
                f"cannot listen at {address} port {port}: {reason}",
                field="api.port",
                hint="choose another api.port or api.address in the settings",
            ) from error
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        yield listener
    finally:
        listener.close()


def _peer(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """``("unix:<uid>", pid)`` of a peer on a Unix socket, by the kernel's word (SO_PEERCRED, unix(7))."""
    found = transport.get_extra_info("socket")
    if found is None or found.family != socket.AF_UNIX:
        return None
    # The loop gives a stand-in; a duplicate is a real socket.
    with contextlib.closing(socket.socket(fileno=os.dup(found.fileno()))) as real:
        size = struct.calcsize("3i")
        pid, uid, _gid = struct.unpack("3i", real.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    # A uid is unsigned; struct reads it signed.
    return (f"{UNIX}{uid & 0xFFFFFFFF}", pid)


class _Http(HttpToolsProtocol):
    """uvicorn's own, knowing the peer of a Unix socket, and with a ceiling on the head of a request."""

    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn gives no other
        super().connection_made(transport)
        self.client = _peer(transport) or self.client

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._weigh(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._weigh(len(name) + len(value))
        super().on_header(name, value)

    def _weigh(self, size: int) -> None:
        self._head += size
        if self._head > _HEAD_MAX:
            # Raised through the parser, which makes the protocol answer 400 and close.
            raise ValueError("the head of the request is too large")


class _WebSocket(WebSocketsSansIOProtocol):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.client = _peer(transport) or self.client
