"""Errors as RFC 9457 documents: every refusal of the API has this one form, with all its problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from alveole.errors import AlveoleError, Denied, InvalidInput, NotFound, Problem, Refused, Temporary
from alveole.people.attempts import TooMany

MEDIA_TYPE = "application/problem+json"
#: So many characters of a message, or of a hint, are told.
_MOST = 4000
_TITLES = {
    "invalid": "The request is wrong",
    "refused": "Refused",
    "denied": "Not allowed",
    "no-room": "No room",
    "not-found": "Not found",
    "temporary": "Not now; try again",
    "step-failed": "A step failed; try again",
    "error": "A fault of Alvéole",
}
_BY_STATUS: dict[int, type[AlveoleError]] = {
    400: InvalidInput,
    401: Denied,
    403: Denied,
    404: NotFound,
    405: InvalidInput,
    409: Refused,
    413: InvalidInput,
    429: Temporary,
    503: Temporary,
}


class ProblemDocument(msgspec.Struct, frozen=True):
    """What is wrong, all at once. ``code`` is the stable word for programs, ``hint`` says what to do."""

    type: str
    title: str
    status: int
    code: str
    problems: tuple[Problem, ...]


class TooLarge(InvalidInput):
    """More bytes than the ceiling of the settings lets through."""

    http_status = 413


class Unauthenticated(Denied):
    """No token, or one that is not known."""

    http_status = 401


def document(error: AlveoleError) -> ProblemDocument:
    return ProblemDocument(
        type=f"urn:alveole:problem:{error.code}",
        title=_TITLES.get(error.code, _TITLES["error"]),
        status=error.http_status,
        code=error.code,
        problems=tuple(map(_short, error.problems)),
    )


def _short(problem: Problem) -> Problem:
    """A message may repeat what was sent, and that may be megabytes."""
    if len(problem.message) <= _MOST and len(problem.hint) <= _MOST:
        return problem
    cut = {name: f"{text[:_MOST]}…" for name in ("message", "hint") if len(text := getattr(problem, name)) > _MOST}
    return msgspec.structs.replace(problem, **cut)


def headers(error: AlveoleError) -> dict[str, str]:
    found = {}
    if error.http_status == 401:
        found["WWW-Authenticate"] = 'Bearer realm="alveole"'
    if isinstance(error, Temporary):
        found["Retry-After"] = str(max(1, round(error.seconds))) if isinstance(error, TooMany) else "1"
    return found


def response(error: AlveoleError, more: Mapping[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(document(error)),
        status_code=error.http_status,
        headers={**headers(error), **(more or {})},
        media_type=MEDIA_TYPE,
    )


def from_http(status: int, message: str) -> AlveoleError:
    """The error for a status that the framework itself gave."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "error"
    error = _BY_STATUS.get(status, AlveoleError)(message or phrase)
    error.http_status = status
    return error


def shown(request: Request, error: AlveoleError, more: Mapping[str, str] | None = None) -> Response:
    """A page where a person looked for one and there are pages, else the document."""
    page: Callable[[Request, AlveoleError], Response] | None = getattr(request.app.state, "error_page", None)
    return page(request, error) if page is not None and for_people(request) else response(error, more)


def for_people(request: HTTPConnection) -> bool:
    """Whether a browser asks for a page and not a program for a document."""
    api = request.url.path.startswith("/v1/")
    return not api and "text/html" in request.headers.get("accept", "")


def install(app: FastAPI) -> None:
    """Give ``app`` handlers, so that nothing but problem documents comes out of it."""

    async def ours(_request: Request, error: Exception) -> Response:
        assert isinstance(error, AlveoleError)  # noqa: S101  registered for this class only
        return response(error)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  likewise
        message = str(error.detail)
        if error.status_code == 404:
            message = f"there is nothing at {request.url.path}"
        elif error.status_code == 405:
            message = f"{request.method} is not possible at {request.url.path}"
        return shown(request, from_http(error.status_code, message), error.headers)

    async def parameters(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  likewise
        return response(InvalidInput(problems=_parameter_problems(error.errors())))

    async def fault(request: Request, _error: Exception) -> Response:
        # The server logs the exception; nothing of it may reach a client.
        return shown(request, AlveoleError("a fault of Alvéole", hint="the log of control has its details"))

    app.add_exception_handler(AlveoleError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(Exception, fault)


def _parameter_problems(errors: Iterable[Mapping[str, object]]) -> list[Problem]:
    problems = []
    for error in errors:
        place = error.get("loc")
        parts = [str(part) for part in place] if isinstance(place, tuple | list) else []
        problems.append(Problem(".".join(parts[1:]) or "request", str(error.get("msg", "is wrong")).lower()))
    return problems
