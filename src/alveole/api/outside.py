"""Routes of where people come from besides local accounts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from alveole import requests as ask
from alveole import views
from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body, document
from alveole.api.gate import does
from alveole.api.schema import described
from alveole.people.ldap import LdapSettings
from alveole.people.rights import Right

router = APIRouter(prefix="/v1", tags=["outside"])


@router.get("/ldap", **described("Show the settings of the LDAP directory", LdapSettings, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def show_ldap(request: Request, caller: Caller) -> Response:
    """The password in it is `***`."""
    return json(await streams.in_waiting(services(request).show_ldap, caller))


@router.put(
    "/ldap", **described("Let people come from an LDAP directory", LdapSettings, body=LdapSettings, errors=(422,))
)
@does(Right.SETTINGS_CHANGE)
async def set_ldap(request: Request, caller: Caller, wanted: Annotated[dict[str, Any], Depends(document)]) -> Response:
    """All of the settings; `***` as the password keeps the one that is there. Try them first: `POST /v1/ldap/try`."""
    return json(await streams.in_waiting(services(request).set_ldap, caller, wanted))


@router.delete("/ldap", **described("Let nobody come from an LDAP directory any more", status=204, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def drop_ldap(request: Request, caller: Caller) -> Response:
    await streams.in_waiting(services(request).drop_ldap, caller)
    return Response(status_code=204)


@router.post(
    "/ldap/try",
    **described("Try to sign somebody in at every server", views.TrialView, body=ask.TryLdap, errors=(409, 422)),
)
@does(Right.SETTINGS_CHANGE)
async def try_ldap(
    request: Request, caller: Caller, wanted: Annotated[ask.TryLdap, Depends(body(ask.TryLdap))]
) -> Response:
    """With the settings given, or those that are stored. Says what came at each step; nothing is kept."""
    return json(await streams.in_waiting(services(request).try_ldap, caller, wanted))
