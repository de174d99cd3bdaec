"""From a request to the :class:`~alveole.people.model.Actor` who makes it: the one place, for the API and the pages.

| the request brings | who it is |
|---|---|
| the Unix socket | root or control itself, by the kernel's word on the peer |
| ``Authorization: Bearer`` | the token's person, or the token itself |
| the cookie | the session's person; a request that changes something must come from a page of ours |

A request with a cookie that is not safe (RFC 9110 §9.2.1), or asks for a WebSocket, must have an ``Origin`` of this
very host, no ``Sec-Fetch-Site`` of another, and the session's CSRF token: in ``X-CSRF-Token``, as the field ``csrf``
of a form (the first one, where the form brings files), or as ``csrf.TOKEN`` among the protocols that a WebSocket asks
for. Never in an address, which proxies write down. The cookie is ``__Host-`` and ``SameSite=Strict`` besides
(threats 22, 23).
"""

from __future__ import annotations

import hmac
import os
import re
from http.cookies import CookieError, SimpleCookie
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from alveole.api import problems
from alveole.errors import Denied
from alveole.people.attempts import Attempts
from alveole.people.model import Actor, Role
from alveole.people.passwords import csrf_of

COOKIE = "__Host-alveole"
UNIX = "unix:"
"""``scope["client"]`` is ``("unix:<uid>", pid)`` for peers on the Unix socket; see ``server.py``."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Largest form that is read for its CSRF token.
_FORM_MAX = 1024 * 1024
_FORM = "application/x-www-form-urlencoded"
_FORM_OF_FILES = "multipart/form-data"
#: The first field of a form with files, as browsers write it (RFC 7578): its boundary, what it is, an empty line.
_FIRST_FIELD = re.compile(
    rb'\A--[^\r\n]{1,100}\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n([^\r\n]{1,200})\r\n'
)
_FIRST_MAX = 1024
#: What a WebSocket of a page asks for; the other protocol it names carries the token.
SOCKET = "alveole"
_SOCKET_TOKEN = "csrf."  # noqa: S105  a word before the secret, not the secret


class Doors(Protocol):
    """What is asked of the services."""

    attempts: Attempts

    def authenticate(self, token: str) -> Actor | None: ...
    def resume(self, secret: str) -> Actor | None: ...


class Admission:
    """``edge_uid``: the uid of the proxy's workers, whose word on the client's address is believed."""

    def __init__(self, doors: Doors, edge_uid: int | None = None) -> None:
        self._doors = doors
        self._edge_uid = edge_uid

    async def actor(self, scope: Scope, receive: Receive) -> tuple[Actor | None, Receive]:
        """Who asks; ``None`` when nobody says. Reads at most a small form, and gives what still gives its bytes.

        Raises ``Denied`` (403) for a page of elsewhere, ``Unauthenticated`` (401) for a wrong token,
        ``TooMany`` (429). A cookie that is not known any more is as none.
        """
        peer = str((scope.get("client") or ("", 0))[0])
        if peer.startswith(UNIX) and peer != f"{UNIX}{self._edge_uid}":
            return _peer(peer), receive
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if token.strip():
            if scheme.lower() != "bearer":
                raise problems.Unauthenticated("is not a bearer token", field="Authorization")
            return await self._token(token.strip(), client_address(scope, self._edge_uid)), receive
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE
        if unsafe:
            check_origin(headers)
        secret = session_of(headers)
        actor = await run_in_threadpool(self._doors.resume, secret) if secret else None
        if actor is not None and unsafe:
            if "origin" not in headers:
                raise Denied("a request with a cookie must say where it comes from", field="Origin")
            given, receive = await _csrf(scope, headers, receive)
            if not hmac.compare_digest(given.encode(), csrf_of(secret).encode()):
                raise Denied(
                    "the CSRF token is missing or not this session's", field="X-CSRF-Token", hint="load the page again"
                )
        return actor, receive

    async def _token(self, token: str, address: str) -> Actor:
        actor = await run_in_threadpool(self._doors.authenticate, token)
        if actor is None:
            # Only now: who guesses must not shut out a program with a good token at the same address.
            self._doors.attempts.check("", address, False)
            self._doors.attempts.failed("", address)
            raise problems.Unauthenticated("the token is not known or has expired", field="Authorization")
        return actor


def session_of(headers: Headers) -> str:
    """The session's secret in the cookie, or nothing."""
    return cookie_of(headers, COOKIE)


def cookie_of(headers: Headers, name: str) -> str:
    """The value of a cookie. Two of one name: somebody tosses them, and neither counts (threat 22)."""
    found = []
    for line in headers.getlist("cookie"):
        if re.search(rf"(?:^|[;\s]){re.escape(name)}=.*[;\s]{re.escape(name)}=", line):
            return ""
        try:
            jar = SimpleCookie(line)
        except CookieError:
            continue
        if name in jar:
            found.append(jar[name].value)
    return found[0] if len(found) == 1 and len(found[0]) < 200 else ""


def cookie(secret: str, seconds: int) -> str:
    """The value of ``Set-Cookie`` for a session; an empty ``secret`` takes it away."""
    age = seconds if secret else 0
    return f"{COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={age}"


def check_origin(headers: Headers) -> None:
    """Raise ``Denied`` for a request that a page of elsewhere made; programs send neither header."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Denied("a web page of another origin may not do this", field="Sec-Fetch-Site")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Denied("a web page of another origin may not do this", field="Origin")


def client_address(scope: Scope, edge_uid: int | None = None) -> str:
    """Where a request comes from: the peer, or what our own proxy says of it."""
    peer = str((scope.get("client") or ("", 0))[0])
    if edge_uid is not None and peer == f"{UNIX}{edge_uid}":
        return Headers(scope=scope).get("x-forwarded-for", "").rpartition(",")[2].strip()
    return peer


async def _csrf(scope: Scope, headers: Headers, receive: Receive) -> tuple[str, Receive]:
    if given := headers.get("x-csrf-token", ""):
        return given, receive
    if scope["type"] == "websocket":
        words = [word.strip() for word in headers.get("sec-websocket-protocol", "").split(",")]
        found = [word.removeprefix(_SOCKET_TOKEN) for word in words if word.startswith(_SOCKET_TOKEN)]
        return (found[0] if found else ""), receive
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_FORM, _FORM_OF_FILES):
        return "", receive
    held: list[Message] = []
    body, more = b"", True
    while more and (kind == _FORM or len(body) < _FIRST_MAX):
        message = await receive()
        if message["type"] != "http.request":
            return "", receive
        held.append(message)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if kind == _FORM and len(body) > _FORM_MAX:
            raise problems.TooLarge(f"is larger than {_FORM_MAX} bytes", field="body")
    told = iter(held)

    async def again() -> Message:
        return next(told, None) or await receive()

    if kind == _FORM:
        return _field(body), again
    first = _FIRST_FIELD.match(body)
    return (first[1].decode("latin-1") if first else ""), again


def _field(form: bytes) -> str:
    try:
        return parse_qs(form.decode("latin-1"), max_num_fields=10_000).get("csrf", [""])[0]
    except ValueError:
        return ""


def _peer(address: str) -> Actor:
    uid = address.removeprefix(UNIX)
    if uid == "0":
        return Actor("root", Role.ADMIN, "socket")
    if uid == str(os.geteuid()):
        # Control's own user can read and write the database anyway.
        return Actor("control", Role.ADMIN, "socket")
    raise Denied("only root may speak to Alvéole on this socket", hint="use sudo, or the TCP port with a token")
