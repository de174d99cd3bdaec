"""Routes of log lines: search, follow, room, and who visits a site."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.logbook.asking import SearchLogs
from alveole.logbook.model import LINES_MAX, Found, LogUse
from alveole.people.rights import Right
from alveole.services import Services
from alveole.services.analytics import Analytics

_POLL_SECONDS = 0.5
#: The machine's lines are brought in this often while somebody follows them.
_GATHER_SECONDS = 5.0
router = APIRouter(prefix="/v1", tags=["logs"], route_class=LateRoute)

Site = Annotated[str | None, Query(description="A site's name or id; without it, of all that the caller may see.")]
Source = Annotated[
    str | None, Query(description="out, access, error, in, own or host; several with commas. Default: all of them.")
]
Level = Annotated[
    str | None, Query(description="This grave or graver: emerg, alert, crit, err, warning, notice, info.")
]
Grep = Annotated[str | None, Query(description='Words that a line must hold, in any order; "so much" is one.')]
Moment = Annotated[str | None, Query(description="ISO 8601, an epoch, or an age like 10m, 2h, 3d.")]


@router.get("/logs", **described("Search log lines", Found, errors=(404, 409, 422)))
@does(Right.SITE_LIST)
async def search(
    request: Request,
    caller: Caller,
    site: Site = None,
    source: Source = None,
    level: Level = None,
    grep: Grep = None,
    since: Moment = None,
    until: Moment = None,
    n: Annotated[int, Query(description=f"The newest so many, 0 to {LINES_MAX}.")] = 500,
    follow: Annotated[bool, Query(description="In place of that what comes from now on, one document a line.")] = False,
) -> Response:
    """The newest lines that fit, oldest first. After 15 seconds it gives what it has: `complete` is false then, and
    `reached` says where to go on. With `follow` the answer is NDJSON, each line what is in `lines` otherwise."""
    wanted = SearchLogs(site=site, source=source, level=level, grep=grep, since=since, until=until, n=n)
    if follow:
        tails = await run_in_threadpool(services(request).follow_logs, caller, wanted)
        host = site is None and "host" in (source or "")
        return StreamingResponse(
            _lines(services(request), tails, host), headers=streams.UNBUFFERED, media_type="application/x-ndjson"
        )
    return json(await streams.in_waiting(services(request).search_logs, caller, wanted))


async def _lines(verbs: Services, tails: Any, host: bool) -> AsyncIterator[bytes]:
    gathered = time.monotonic()
    # The head goes out at once: who follows knows that it is heard.
    yield b""
    while True:
        if host and time.monotonic() - gathered > _GATHER_SECONDS:
            gathered = time.monotonic()
            await streams.in_waiting(verbs.gather_logs)
        if found := await streams.in_waiting(tails.poll):
            yield streams.ndjson(found)
        await asyncio.sleep(_POLL_SECONDS)


@router.get("/logs/usage", **described("What lines take on the disk", LogUse))
@does(Right.PLATFORM_LOOK)
async def usage(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).log_usage, caller))


@router.get(
    "/sites/{site}/analytics",
    **described("Count who visits a site", Analytics, errors=(404, 409, 422, 503)),
)
@does(Right.SITE_LOGS)
async def analytics(
    request: Request, caller: Caller, site: str, since: Moment = None, until: Moment = None
) -> Response:
    """The last seven days, unless it says otherwise, counted by goaccess. Addresses are told as networks and without
    what stands after the question mark, unless the settings say otherwise."""
    return json(await streams.in_waiting(services(request).analytics, caller, site, since or "", until or ""))
