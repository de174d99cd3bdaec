"""Routes of the catalogue: modules, their questions, and where they come from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.people.rights import Right
from alveole.views import modules as module_views

router = APIRouter(prefix="/v1", tags=["modules"], route_class=LateRoute)


@router.get("/modules", **described("List the modules of the catalogue, by name", list[module_views.ModuleView]))
@does(Right.CATALOGUE_LOOK)
async def list_modules(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_modules, caller))


@router.post(
    "/modules/questions",
    **described(
        "Say what is still to be asked for a site of these modules",
        module_views.QuestionsView,
        body=ask.AskModules,
        errors=(422,),
    ),
)
@does(Right.CATALOGUE_LOOK)
async def ask_modules(
    request: Request, caller: Caller, wanted: Annotated[ask.AskModules, Depends(body(ask.AskModules))]
) -> Response:
    """Every question in the order of asking, with the default worked out from the answers given so far. Nothing
    is stored: send it again with each new answer, since what is asked next may hang on it."""
    return json(await run_in_threadpool(services(request).ask_modules, caller, wanted))


@router.post(
    "/modules/detect",
    **described(
        "Say which modules run a content, from the names of its files and a few small texts",
        module_views.DetectedView,
        body=ask.DetectModules,
        errors=(422,),
    ),
)
@does(Right.CATALOGUE_LOOK)
async def detect_modules(
    request: Request, caller: Caller, wanted: Annotated[ask.DetectModules, Depends(body(ask.DetectModules))]
) -> Response:
    """Nothing is run, imported or stored; what was looked for is told when nothing fits."""
    return json(await run_in_threadpool(services(request).detect_modules, caller, wanted))


@router.get("/modules/{module}", **described("Show a module", module_views.ModuleDetail, errors=(404,)))
@does(Right.CATALOGUE_LOOK)
async def show_module(request: Request, caller: Caller, module: str) -> Response:
    return json(await run_in_threadpool(services(request).show_module, caller, module))


@router.get("/module-sources", **described("List where modules come from besides", list[module_views.SourceView]))
@does(Right.CATALOGUE_LOOK)
async def list_sources(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_sources, caller))


@router.post(
    "/module-sources", **accepted("Add modules from elsewhere, pinned and signed", body=ask.AddSource, errors=(507,))
)
@does(Right.MODULE_CHANGE)
async def add_source(
    request: Request, caller: Caller, key: Key, wanted: Annotated[ask.AddSource, Depends(body(ask.AddSource))]
) -> Response:
    """A source of that name is replaced by this one once all of it was checked; else nothing is kept."""
    return change_accepted(await run_in_threadpool(services(request).add_source, caller, wanted, key=key))


@router.delete(
    "/module-sources/{source}",
    **described("Remove a source that no site has modules of", status=204, errors=(404, 409)),
)
@does(Right.MODULE_CHANGE)
async def remove_source(request: Request, caller: Caller, source: str) -> Response:
    await run_in_threadpool(services(request).remove_source, caller, source)
    return Response(status_code=204)
