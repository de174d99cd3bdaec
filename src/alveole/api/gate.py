"""The one middleware in front of every route: who comes in (:mod:`alveole.api.admit`), and what every answer has.

What somebody may do is not decided here but by the services, for every door alike. Here only this: without an actor
nothing is reached but the routes that are declared open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alveole.api import problems
from alveole.api.admit import SAFE, Admission
from alveole.errors import AlveoleError
from alveole.people.rights import Right

SIGN_IN = "/sign-in"
_SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def does(right: Right) -> Callable[[Any], Any]:
    """Declare what a route's function stands for. Put it under the router's own decorator."""

    def mark(function: Any) -> Any:
        function.right = right
        return function

    return mark


def declared(route: BaseRoute) -> Right | None:
    """The right that ``route`` declares; the framework's own document of the API is open."""
    if getattr(route, "path", "") == "/openapi.json":
        return Right.OPEN
    found: Right | None = getattr(getattr(route, "endpoint", None), "right", None)
    return found


def routes_of(app: Starlette) -> tuple[BaseRoute, ...]:
    """Every route of ``app``."""
    return tuple(app.routes)


def check_declared(routes: Iterable[BaseRoute]) -> None:
    """Raise ``RuntimeError`` that names the routes which declare no right: control does not start with one."""
    silent = [getattr(route, "path", str(route)) for route in routes if declared(route) is None]
    if silent:
        raise RuntimeError(f"routes without a right: {', '.join(silent)}")


class Gate:
    """Puts the :class:`~alveole.people.model.Actor` into ``request.state.actor``, or answers.

    ``routes`` gives those of the application; on open ones the actor may be ``None``.
    """

    def __init__(self, app: ASGIApp, admission: Admission, routes: Callable[[], Iterable[BaseRoute]]) -> None:
        self._app = app
        self._admission = admission
        self._routes = routes
        self._open: tuple[BaseRoute, ...] | None = None

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
            actor, receive = await self._admission.actor(scope, receive)
            if actor is None and not self._is_open(scope):
                if (answer := to_sign_in(scope)) is not None:
                    await answer(scope, receive, guarded)
                    return
                raise problems.Unauthenticated(
                    "no token", field="Authorization", hint="send 'Authorization: Bearer TOKEN'; alveole token create"
                )
            scope.setdefault("state", {})["actor"] = actor
        except AlveoleError as error:
            await refuse(error, scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _is_open(self, scope: Scope) -> bool:
        if self._open is None:
            self._open = tuple(route for route in self._routes() if declared(route) is Right.OPEN)
        return any(route.matches(scope)[0] is Match.FULL for route in self._open)


def to_sign_in(scope: Scope) -> Response | None:
    """Where a person is led who asked for a page and is not signed in, and from there back; ``None`` for a program."""
    if scope["type"] != "http":
        return None
    asked = HTTPConnection(scope)
    if asked.headers.get("hx-request") == "true":
        # A part of a page whose session has ended: htmx loads the whole page that this header names.
        current = urlsplit(asked.headers.get("hx-current-url", ""))
        back = quote(f"{current.path}?{current.query}" if current.query else current.path or "/", safe="")
        return Response(status_code=401, headers={"HX-Redirect": f"{SIGN_IN}?next={back}"})
    if scope["method"] not in SAFE or not problems.for_people(asked):
        return None
    back = asked.url.path + (f"?{asked.url.query}" if asked.url.query else "")
    return RedirectResponse(SIGN_IN if back == "/" else f"{SIGN_IN}?next={quote(back, safe='')}", 303)


async def refuse(error: AlveoleError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the problem document, also where a WebSocket was asked for."""
    if scope["type"] == "websocket":
        await receive()
        await problems.response(error)(scope, receive, send)
        return
    await problems.shown(Request(scope, receive), error)(scope, receive, send)
