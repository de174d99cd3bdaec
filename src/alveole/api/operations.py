"""Routes of a site's operations (named commands), their runs, and the programs that run in it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.people.rights import Right
from alveole.requests import operations as want
from alveole.views.operations import OperationView, ProgramsView, RunView

router = APIRouter(prefix="/v1", tags=["operations"], route_class=LateRoute)
Adding = Annotated[want.AddOperation, Depends(body(want.AddOperation))]


@router.get(
    "/sites/{site}/operations",
    **described("List the operations of a site", list[OperationView], errors=(404,)),
)
@does(Right.SITE_OPERATE)
async def list_operations(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).list_operations, caller, site))


@router.put(
    "/sites/{site}/operations/{operation}",
    **described("Declare an operation of a site", OperationView, body=want.AddOperation, errors=(404, 409, 422)),
)
@does(Right.SITE_CHANGE)
async def add_operation(request: Request, caller: Caller, site: str, operation: str, wanted: Adding) -> Response:
    """An argument vector with typed arguments; it runs as the site's own user, never by a shell."""
    return json(await run_in_threadpool(services(request).add_operation, caller, operation, wanted, site=site))


@router.delete(
    "/sites/{site}/operations/{operation}", **described("Remove an operation of a site", status=204, errors=(404,))
)
@does(Right.SITE_CHANGE)
async def drop_operation(request: Request, caller: Caller, site: str, operation: str) -> Response:
    await run_in_threadpool(services(request).drop_operation, caller, operation, site=site)
    return Response(status_code=204)


@router.put(
    "/apps/{app}/operations/{operation}",
    **described(
        "Declare an operation of every environment of an application",
        OperationView,
        body=want.AddOperation,
        errors=(404, 409, 422),
    ),
)
@does(Right.APP_CHANGE)
async def add_app_operation(request: Request, caller: Caller, app: str, operation: str, wanted: Adding) -> Response:
    return json(await run_in_threadpool(services(request).add_operation, caller, operation, wanted, app=app))


@router.delete(
    "/apps/{app}/operations/{operation}",
    **described("Remove an operation of an application", status=204, errors=(404,)),
)
@does(Right.APP_CHANGE)
async def drop_app_operation(request: Request, caller: Caller, app: str, operation: str) -> Response:
    await run_in_threadpool(services(request).drop_operation, caller, operation, app=app)
    return Response(status_code=204)


@router.post(
    "/sites/{site}/operations/{operation}/run",
    **described("Run an operation", RunView, status=201, body=want.RunOperation, errors=(404, 409, 422, 507)),
)
@does(Right.SITE_OPERATE)
async def run_operation(
    request: Request,
    caller: Caller,
    site: str,
    operation: str,
    wanted: Annotated[want.RunOperation, Depends(body(want.RunOperation))],
) -> Response:
    """Answers as soon as it has begun; `GET …/operation-runs/ID` tells what it prints, and how it ended."""
    return json(await run_in_threadpool(services(request).run_operation, caller, site, operation, wanted), 201)


@router.get(
    "/sites/{site}/operation-runs", **described("List the last runs of operations", list[RunView], errors=(404,))
)
@does(Right.SITE_OPERATE)
async def list_runs(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).list_runs, caller, site))


@router.get(
    "/sites/{site}/operation-runs/{run}", **described("Show a run with what it has printed", RunView, errors=(404,))
)
@does(Right.SITE_OPERATE)
async def show_run(request: Request, caller: Caller, site: str, run: str) -> Response:
    return json(await run_in_threadpool(services(request).show_run, caller, site, run))


@router.delete("/sites/{site}/operation-runs/{run}", **described("End a run now", RunView, errors=(404,)))
@does(Right.SITE_OPERATE)
async def cancel_run(request: Request, caller: Caller, site: str, run: str) -> Response:
    """What it has printed stays."""
    return json(await run_in_threadpool(services(request).cancel_run, caller, site, run))


@router.get(
    "/sites/{site}/programs", **described("List the programs that run in a site", ProgramsView, errors=(404, 409))
)
@does(Right.SITE_OPERATE)
async def list_programs(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).list_programs, caller, site))


@router.post(
    "/sites/{site}/programs/{pid}/signal",
    **described("Ask a program to end, or end it", status=204, body=want.SignalProgram, errors=(404, 409, 422)),
)
@does(Right.SITE_OPERATE)
async def signal_program(
    request: Request,
    caller: Caller,
    site: str,
    pid: int,
    wanted: Annotated[want.SignalProgram, Depends(body(want.SignalProgram))],
) -> Response:
    await run_in_threadpool(services(request).signal_program, caller, site, pid, wanted)
    return Response(status_code=204)


@router.post("/sites/{site}/processes/{process}/restart", **accepted("Start one process of a site anew"))
@does(Right.SITE_OPERATE)
async def restart_process(request: Request, caller: Caller, key: Key, site: str, process: str) -> Response:
    return change_accepted(await run_in_threadpool(services(request).restart_process, caller, site, process, key=key))
