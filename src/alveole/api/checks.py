"""Routes of a site's checks: scenarios, their secrets, running them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import views
from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people.rights import Right
from alveole.requests import checks as ask
from alveole.scenarios.model import CheckDraft, CheckView, Report, Scenario

router = APIRouter(prefix="/v1", tags=["checks"], route_class=LateRoute)


@router.post(
    "/checks/lint",
    **described("Look through a scenario; nothing is kept", Scenario, body=ask.CheckText, errors=(422,)),
)
@does(Right.CATALOGUE_LOOK)
async def lint_check(
    request: Request,
    caller: Caller,
    wanted: Annotated[ask.CheckText, Depends(body(ask.CheckText))],
) -> Response:
    return json(await run_in_threadpool(services(request).lint_check, caller, wanted))


@router.get("/sites/{site}/checks", **described("List the scenarios of a site", list[views.CheckState], errors=(404,)))
@does(Right.SITE_LOOK)
async def list_checks(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).list_checks, caller, site))


@router.post(
    "/sites/{site}/checks/run",
    **described("Run scenarios now", list[Report], body=ask.RunChecks, errors=(404, 422)),
)
@does(Right.SITE_CHECKS)
async def run_checks(
    request: Request,
    caller: Caller,
    site: str,
    wanted: Annotated[ask.RunChecks, Depends(body(ask.RunChecks))],
) -> Response:
    """Answers when all of them have ended, each within its `timeout`."""
    return json(await streams.in_waiting(services(request).run_checks, caller, site, wanted))


@router.post(
    "/sites/{site}/checks/record",
    **described(
        "Make a scenario of a visit; nothing is kept",
        CheckDraft,
        body=ask.RecordCheck,
        errors=(404, 409, 422),
    ),
)
@does(Right.SITE_CHECKS)
async def record_check(
    request: Request,
    caller: Caller,
    site: str,
    wanted: Annotated[ask.RecordCheck, Depends(body(ask.RecordCheck))],
) -> Response:
    """Of what the proxy has seen of it: addresses, statuses, and the page before. What somebody typed is nowhere there:
    `unfilled` names it, to be filled in."""
    return json(await streams.in_waiting(services(request).record_check, caller, site, wanted))


@router.get(
    "/sites/{site}/checks/{check}",
    **described("Show a scenario with its text and its last runs", CheckView, errors=(404,)),
)
@does(Right.SITE_CHECKS)
async def show_check(request: Request, caller: Caller, site: str, check: str) -> Response:
    return json(await run_in_threadpool(services(request).show_check, caller, site, check))


@router.put(
    "/sites/{site}/checks/{check}",
    **described("Add a scenario, or put another in its place", CheckView, body=ask.CheckText, errors=(404, 422)),
)
@does(Right.SITE_CHANGE)
async def put_check(
    request: Request,
    caller: Caller,
    site: str,
    check: str,
    wanted: Annotated[ask.CheckText, Depends(body(ask.CheckText))],
) -> Response:
    return json(await run_in_threadpool(services(request).put_check, caller, site, check, wanted))


@router.delete("/sites/{site}/checks/{check}", **described("Remove a scenario", status=204, errors=(404,)))
@does(Right.SITE_CHANGE)
async def drop_check(request: Request, caller: Caller, site: str, check: str) -> Response:
    await run_in_threadpool(services(request).drop_check, caller, site, check)
    return Response(status_code=204)


@router.get(
    "/sites/{site}/check-secrets", **described("List the names of a site's secrets for scenarios", errors=(404,))
)
@does(Right.SITE_CHECKS)
async def list_check_secrets(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).list_check_secrets, caller, site))


@router.put(
    "/sites/{site}/check-secrets/{secret}",
    **described("Keep a secret for a site's scenarios", status=204, body=ask.CheckSecret, errors=(404, 422)),
)
@does(Right.SITE_CHANGE)
async def put_check_secret(
    request: Request,
    caller: Caller,
    site: str,
    secret: str,
    wanted: Annotated[ask.CheckSecret, Depends(body(ask.CheckSecret))],
) -> Response:
    """It is shown to nobody again."""
    await run_in_threadpool(services(request).put_check_secret, caller, site, secret, wanted)
    return Response(status_code=204)


@router.delete(
    "/sites/{site}/check-secrets/{secret}",
    **described("Remove a secret of a site's scenarios", status=204, errors=(404,)),
)
@does(Right.SITE_CHANGE)
async def drop_check_secret(request: Request, caller: Caller, site: str, secret: str) -> Response:
    await run_in_threadpool(services(request).drop_check_secret, caller, site, secret)
    return Response(status_code=204)
