"""Routes of the journal: changes, waiting for one, and its events as they come."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from alveole import requests as ask
from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.errors import InvalidInput
from alveole.ledger import JournalView
from alveole.model.change import Change
from alveole.people.rights import Right

router = APIRouter(prefix="/v1/changes", tags=["changes"], route_class=LateRoute)
WAIT_MAX = 60.0
#: A wait holds a thread; it is cut in slices so that a stop of the server need not wait for it.
_SLICE = 1.0


@router.get("", **described("List changes, newest first, without their events", list[Change], errors=(404, 422)))
@does(Right.SITE_LIST)
async def list_changes(
    request: Request,
    caller: Caller,
    site: Annotated[str | None, Query(description="Only those of this site (name or id).")] = None,
    state: Annotated[str | None, Query(description="waiting, running, done or failed.")] = None,
    before: Annotated[str | None, Query(description="Id of a change: only older ones.")] = None,
    limit: Annotated[int, Query(description="At most so many, 1 to 1000.")] = 50,
) -> Response:
    if not 1 <= limit <= 1000:
        raise InvalidInput(f"{limit} is outside 1..1000", field="limit")
    wanted = ask.ListChanges(site=site, state=state, before=before, limit=limit)
    return json(await run_in_threadpool(services(request).list_changes, caller, wanted))


@router.get(
    "/verify",
    **described("Compare every row of the journal with its chain, and the chain with the agent's anchors", JournalView),
)
@does(Right.JOURNAL_VERIFY)
async def verify_journal(request: Request, caller: Caller) -> Response:
    return json(await streams.in_waiting(services(request).verify_journal, caller))


@router.get("/{change}", **described("Show a change with its events", Change, errors=(404, 422)))
@does(Right.CHANGE_LOOK)
async def show_change(
    request: Request,
    caller: Caller,
    change: str,
    wait: Annotated[float, Query(description="Wait up to so many seconds (0 to 60) for it to end.")] = 0.0,
) -> Response:
    if not 0 <= wait <= WAIT_MAX:
        raise InvalidInput(f"{wait} is outside 0..{WAIT_MAX:.0f}", field="wait")
    until = time.monotonic() + wait
    found = await run_in_threadpool(services(request).show_change, caller, change)
    while found.ended_at is None and (left := until - time.monotonic()) > 0:
        if await request.is_disconnected():
            break
        found = await streams.in_waiting(services(request).wait, caller, change, min(left, _SLICE))
    return json(found)


@router.get(
    "/{change}/events",
    **described(
        "Follow a change as it goes (server-sent events)",
        media="text/event-stream",
        errors=(404,),
        answers=(
            "Events `event` (an Event), `progress` (an Event that is not kept; its share from 0 to 1 is in "
            "`seconds`) and last `change` (the ended Change). A comment every 15 s keeps the connection."
        ),
    ),
)
@does(Right.CHANGE_LOOK)
async def follow_change(request: Request, caller: Caller, change: str) -> Response:
    await run_in_threadpool(services(request).show_change, caller, change)
    events = streams.change_events(services(request), caller, change)
    return StreamingResponse(events, headers=streams.UNBUFFERED, media_type="text/event-stream")
