"""Routes of the zone that the names of sites are published in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body, document
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.dns.zone import DnsLeft, DnsSettings, DnsTrial, DnsView, TransferKey, TryDns
from alveole.people.rights import Right

router = APIRouter(prefix="/v1/dns", tags=["dns"], route_class=LateRoute)


@router.get("", **described("Show where names are published, and how they stand", DnsView, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def show_dns(request: Request, caller: Caller) -> Response:
    """The secrets in it are `***`."""
    return json(await streams.in_waiting(services(request).show_dns, caller))


@router.put("", **described("Publish the names of sites in a zone", DnsView, body=DnsSettings, errors=(409, 422, 503)))
@does(Right.SETTINGS_CHANGE)
async def set_dns(request: Request, caller: Caller, wanted: Annotated[dict[str, Any], Depends(document)]) -> Response:
    """All of the settings; `***` as a secret keeps the one that is there. `here` sets BIND up on this machine."""
    return json(await streams.in_waiting(services(request).set_dns, caller, wanted))


@router.delete("", **described("Publish no names any more, and undo what was set up", DnsLeft, errors=(404, 503)))
@does(Right.SETTINGS_CHANGE)
async def drop_dns(request: Request, caller: Caller) -> Response:
    return json(await streams.in_waiting(services(request).drop_dns, caller))


@router.post("/sync", **described("Compare every name with the zone now, and put it right", DnsView, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def sync_dns(request: Request, caller: Caller) -> Response:
    """It happens by itself too."""
    return json(await streams.in_waiting(services(request).sync_dns, caller))


@router.post("/check", **described("Compare names and secondaries with the zone", DnsTrial, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def check_dns(request: Request, caller: Caller) -> Response:
    """Changes nothing."""
    return json(await streams.in_waiting(services(request).check_dns, caller))


@router.post("/try", **described("Try to write into a zone", DnsTrial, body=TryDns, errors=(404, 409, 422)))
@does(Right.SETTINGS_CHANGE)
async def try_dns(request: Request, caller: Caller, wanted: Annotated[TryDns, Depends(body(TryDns))]) -> Response:
    """With the settings given, or those that are stored: a record is written, asked for and removed again."""
    return json(await streams.in_waiting(services(request).try_dns, caller, wanted.settings))


@router.get("/transfer-key", **described("Show the key that secondaries sign with", TransferKey, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def show_transfer_key(request: Request, caller: Caller) -> Response:
    """Who asks for it is journalled."""
    return json(await streams.in_waiting(services(request).show_transfer_key, caller))
