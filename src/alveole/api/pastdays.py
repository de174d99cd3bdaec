"""Routes of past days: a backup shown as a site beside the live one, for a while."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.people.rights import Right
from alveole.requests.backups import OpenBackup
from alveole.views.backups import PastDayView

router = APIRouter(prefix="/v1", tags=["backups"], route_class=LateRoute)


@router.post(
    "/backups/{backup}/open", **accepted("Show a backup beside the live site", body=OpenBackup, errors=(422, 507))
)
@does(Right.BACKUP_OPEN)
async def open_backup_beside(
    request: Request, caller: Caller, key: Key, backup: str, wanted: Annotated[OpenBackup, Depends(body(OpenBackup))]
) -> Response:
    """A copy of the site as it was, at a name of its own; who is signed in at the pages and may look at the site sees
    it. Nothing written there reaches the live site, and all of it goes with the copy. Its id (`past`) and `address`
    are in the change's `result`."""
    found = services(request).open_backup_beside
    return change_accepted(await run_in_threadpool(found, caller, backup, wanted, key=key))


@router.get("/past-days", **described("List the past days that are open", list[PastDayView], errors=(404,)))
@does(Right.SITE_LIST)
async def list_past_days(
    request: Request,
    caller: Caller,
    site: Annotated[str | None, Query(description="Only those of this site, also of a destroyed one.")] = None,
) -> Response:
    return json(await run_in_threadpool(services(request).list_past_days, caller, site))


@router.delete("/past-days/{past}", **accepted("Close a past day"))
@does(Right.BACKUP_OPEN)
async def close_past_day(request: Request, caller: Caller, key: Key, past: str) -> Response:
    """By its id or its name, `past-1a2b3c4d`. What was written in it is gone with it."""
    return change_accepted(await run_in_threadpool(services(request).close_past_day, caller, past, key=key))
