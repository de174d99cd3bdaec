"""Who may come in: the one middleware in front of every route.

Over the Unix socket the kernel says who the peer is; over TCP a bearer token does. There are no
cookies, so a browser holds nothing that another page could use; a request that a page made by
itself (``Origin`` without a token) is still refused by name.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alveole.api import problems
from alveole.errors import AlveoleError, Denied
from alveole.requests import Actor, Role

OPEN = frozenset({"/healthz", "/openapi.json"})
"""Paths that need no authentication: they tell nothing of any site."""
UNIX = "unix:"
"""``scope["client"]`` is ``("unix:<uid>", pid)`` for peers on the Unix socket; see ``server.py``."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
#: Wrong tokens an address may send in so many seconds. A token has 256 random bits: this is not what
#: keeps it from being guessed, it keeps guessing from costing us anything.
_WRONG_MAX = 20
_WRONG_SECONDS = 60.0
_WRONG_ADDRESSES = 4096


class Authenticator(Protocol):
    def authenticate(self, token: str) -> Actor | None: ...


class Gate:
    """Puts the authenticated :class:`~alveole.requests.Actor` into ``request.state.actor``, or answers."""

    def __init__(self, app: ASGIApp, services: Authenticator) -> None:
        self._app = app
        self._services = services
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if scope["path"] not in OPEN:
                scope.setdefault("state", {})["actor"] = await self._admit(scope)
        except AlveoleError as error:
            await refuse(error, scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    async def _admit(self, scope: Scope) -> Actor:
        address = str((scope.get("client") or ("", 0))[0])
        if address.startswith(UNIX):
            return _peer(address)
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        unsafe = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if not token and "origin" in headers and unsafe:
            raise Denied("a web page of another origin may not do this")
        if scheme.lower() != "bearer" or not token.strip():
            raise problems.Unauthenticated(
                "no token", field="Authorization", hint="send 'Authorization: Bearer TOKEN'; alveole token create"
            )
        self._throttle(address)
        actor = await run_in_threadpool(self._services.authenticate, token.strip())
        if actor is None:
            self._count(address)
            raise problems.Unauthenticated("the token is not known or has expired", field="Authorization")
        return actor

    def _throttle(self, address: str) -> None:
        since, count = self._wrong.get(address, (0.0, 0))
        if count >= _WRONG_MAX and time.monotonic() - since < _WRONG_SECONDS:
            raise problems.TooManyRequests("too many wrong tokens from this address", hint="wait a minute")

    def _count(self, address: str) -> None:
        now = time.monotonic()
        since, count = self._wrong.pop(address, (now, 0))
        self._wrong[address] = (since, count + 1) if now - since < _WRONG_SECONDS else (now, 1)
        while len(self._wrong) > _WRONG_ADDRESSES:
            self._wrong.popitem(last=False)


def _peer(address: str) -> Actor:
    uid = address.removeprefix(UNIX)
    if uid == "0":
        return Actor("root", Role.ADMIN, "socket")
    if uid == str(os.geteuid()):
        # Control's own user can read and write the database anyway.
        return Actor("control", Role.ADMIN, "socket")
    raise Denied("only root may speak to Alvéole on this socket", hint="use sudo, or the TCP port with a token")


async def refuse(error: AlveoleError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the problem document, also where a WebSocket was asked for."""
    if scope["type"] == "websocket":
        await receive()
    await problems.response(error)(scope, receive, send)
