"""Routes of the machine and of Alvéole itself."""

from __future__ import annotations

from enum import StrEnum

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alveole import views
from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people.rights import Right

router = APIRouter(tags=["platform"], route_class=LateRoute)


class Proxy(StrEnum):
    NGINX = "nginx"
    APACHE = "apache"


@router.get("/healthz", **described("Whether the API answers", media="text/plain"))
@does(Right.OPEN)
async def healthz() -> Response:
    """Needs no token and tells nothing else; `GET /v1/status` tells more."""
    return PlainTextResponse("ok\n")


@router.get("/v1/status", **described("The state of the platform", views.StatusView))
@does(Right.PLATFORM_LOOK)
async def status(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).status, caller))


@router.get("/v1/doctor", **described("Look at the machine and the platform, each part really tried", views.DoctorView))
@does(Right.PLATFORM_LOOK)
async def doctor(request: Request, caller: Caller) -> Response:
    return json(await streams.in_waiting(services(request).doctor, caller))


@router.get("/v1/authority", **described("The internal authority's certificate (PEM)", media="application/x-pem-file"))
@does(Right.CATALOGUE_LOOK)
async def authority(request: Request, caller: Caller) -> Response:
    pem = await run_in_threadpool(services(request).authority, caller)
    return Response(pem, media_type="application/x-pem-file")


@router.get(
    "/v1/exports/{kind}",
    **described("Configuration for a proxy that already stands in front", views.Exported, errors=(422,)),
)
@does(Right.PLATFORM_LOOK)
async def export(request: Request, caller: Caller, kind: Proxy) -> Response:
    return json(await run_in_threadpool(services(request).export, caller, str(kind)))
