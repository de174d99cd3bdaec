"""Request bodies: decoded into the types of :mod:`alveole.requests`, with every problem at once.

Those types are the one declaration: the same structs give the OpenAPI schemas (``schema.py``).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Header, Request

from alveole.api.problems import TooLarge, Unauthenticated
from alveole.errors import InvalidInput, Problem
from alveole.people.model import Actor
from alveole.requests import Body

BODY_MAX = 4 * 1024 * 1024
"""Largest JSON body, in bytes; the longest legitimate one is an environment of many variables."""
_KEY = re.compile(r"^[\x21-\x7e]{1,128}\Z")
_ETAG = re.compile(r'^"(\d{1,18})"\Z')

Kind = TypeVar("Kind", bound=Body)


def decode(kind: type[Kind], content: bytes) -> Kind:
    """``content`` as ``kind``; raises ``InvalidInput`` that names every field of a wrong type or name."""
    try:
        raw = msgspec.json.decode(content or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"is not JSON: {error}", field="body") from error
    if not isinstance(raw, dict):
        raise InvalidInput("is not a JSON object", field="body")
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, value in raw.items():
        if name not in known:
            problems.append(Problem(name, "is not a field of this request", f"fields: {', '.join(sorted(known))}"))
            continue
        try:
            values[known[name].name] = msgspec.convert(value, known[name].type)
        except msgspec.ValidationError as error:
            problems.append(_problem(name, str(error)))
    problems.extend(Problem(name, "is missing") for name, field in known.items() if field.required and name not in raw)
    if problems:
        raise InvalidInput(problems=problems)
    return kind(**values)


async def document(request: Request) -> dict[str, Any]:
    """A dependency that reads any JSON object; what it holds is checked by the services."""
    try:
        raw = msgspec.json.decode(await content(request) or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"is not JSON: {error}", field="body") from error
    if not isinstance(raw, dict):
        raise InvalidInput("is not a JSON object", field="body")
    return raw


def body(kind: type[Kind]) -> Callable[[Request], Awaitable[Kind]]:
    """A dependency that reads the body as ``kind``."""

    async def read(request: Request) -> Kind:
        return decode(kind, await content(request))

    return read


async def content(request: Request) -> bytes:
    """The whole body; raises ``TooLarge`` before more than :data:`BODY_MAX` bytes are held."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MAX:
            raise TooLarge(f"is larger than {BODY_MAX} bytes", field="body")
        parts.append(part)
    return b"".join(parts)


def caller(request: Request) -> Actor:
    """The actor that the gate authenticated."""
    actor: Actor | None = request.state.actor
    if actor is None:
        raise Unauthenticated("nobody is signed in", field="Authorization")
    return actor


def idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Repeat a request with the same key and it takes effect once. 1 to 128 printable characters.",
        ),
    ] = None,
) -> str | None:
    if key is not None and not _KEY.match(key):
        raise InvalidInput("is not 1 to 128 printable ASCII characters", field="Idempotency-Key")
    return key


def if_match(
    etag: Annotated[
        str | None,
        Header(alias="If-Match", description="The ETag that was seen; 412 when the site has changed since."),
    ] = None,
) -> int | None:
    """The version that the caller saw; ``None`` when any will do."""
    if etag is None or etag.strip() == "*":
        return None
    if not (found := _ETAG.match(etag.strip())):
        raise InvalidInput(f"{etag!r} is not an ETag of a site", field="If-Match", hint='send it as it came, like "3"')
    return int(found[1])


Caller = Annotated[Actor, Depends(caller)]
Key = Annotated[str | None, Depends(idempotency_key)]
Version = Annotated[int | None, Depends(if_match)]


def _problem(name: str, message: str) -> Problem:
    """msgspec says "Expected `int`, got `str` - at `$.x[0]`": the place belongs to the field."""
    text, _, place = message.partition(" - at `$")
    field = name + place.rstrip("`") if place else name
    return Problem(field, text[:1].lower() + text[1:].replace("`", "'"))
