"""Routes of where people come from besides local accounts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from alveole import requests as ask
from alveole.api import streams
from alveole.api.admit import cookie, cookie_of
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body, document
from alveole.api.entrance import COOKIE_SET, place_of
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people import views as people_views
from alveole.people.ldap import LdapSettings
from alveole.people.oidc import OidcSettings
from alveole.people.rights import Right

_BINDER = "__Host-alveole-oidc"
_ONWARD = '<!DOCTYPE html><html lang="en"><meta http-equiv="refresh" content="0;url=/"><title>Alvéole</title></html>'
router = APIRouter(prefix="/v1", tags=["outside"], route_class=LateRoute)


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
    **described("Try to sign somebody in at every server", people_views.TrialView, body=ask.TryLdap, errors=(409, 422)),
)
@does(Right.SETTINGS_CHANGE)
async def try_ldap(
    request: Request, caller: Caller, wanted: Annotated[ask.TryLdap, Depends(body(ask.TryLdap))]
) -> Response:
    """With the settings given, or those that are stored. Says what came at each step; nothing is kept."""
    return json(await streams.in_waiting(services(request).try_ldap, caller, wanted))


@router.get("/oidc", **described("Show the settings of the OIDC provider", OidcSettings, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def show_oidc(request: Request, caller: Caller) -> Response:
    """The secret in it is `***`."""
    return json(await streams.in_waiting(services(request).show_oidc, caller))


@router.put(
    "/oidc", **described("Let people come from an OIDC provider", OidcSettings, body=OidcSettings, errors=(422,))
)
@does(Right.SETTINGS_CHANGE)
async def set_oidc(request: Request, caller: Caller, wanted: Annotated[dict[str, Any], Depends(document)]) -> Response:
    """All of the settings; `***` as the secret keeps the one that is there."""
    return json(await streams.in_waiting(services(request).set_oidc, caller, wanted))


@router.delete("/oidc", **described("Let nobody come from an OIDC provider any more", status=204, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def drop_oidc(request: Request, caller: Caller) -> Response:
    await streams.in_waiting(services(request).drop_oidc, caller)
    return Response(status_code=204)


@router.post(
    "/oidc/try",
    **described("Try an OIDC provider", people_views.TrialView, body=OidcSettings, errors=(422,)),
)
@does(Right.SETTINGS_CHANGE)
async def try_oidc(request: Request, caller: Caller, wanted: Annotated[dict[str, Any], Depends(document)]) -> Response:
    """All of the settings. Says what came at each step; nothing is kept, and nobody is signed in."""
    return json(await streams.in_waiting(services(request).try_oidc, caller, wanted))


@router.get(
    "/oidc/start",
    **described("Go to the OIDC provider to sign in", status=303, errors=(404, 429), headers={"Location": "There."}),
)
@does(Right.OPEN)
async def start_oidc(request: Request) -> Response:
    begun = await streams.in_waiting(services(request).begin_oidc, place_of(request))
    # Lax: the way back begins at the provider, and a strict cookie would stay at home.
    kept = f"{_BINDER}={begun.binder}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"
    return Response(status_code=303, headers={"Location": begun.address, "Set-Cookie": kept})


@router.get(
    "/oidc/callback",
    **described("Come back from the OIDC provider", media="text/html", errors=(404, 429), headers=COOKIE_SET),
)
@does(Right.OPEN)
async def end_oidc(
    request: Request,
    state: Annotated[str, Query(description="As it was given to the provider.")] = "",
    code: Annotated[str, Query(description="What the provider gives for one use.")] = "",
) -> Response:
    """A page that leads on: the strict cookie would not be sent along on a redirect that began elsewhere."""
    binder = cookie_of(request.headers, _BINDER)
    found = await streams.in_waiting(services(request).end_oidc, state, binder, code, place_of(request))
    answer = Response(_ONWARD, media_type="text/html; charset=utf-8")
    seconds = request.app.state.settings.accounts.session_seconds
    answer.headers.append("Set-Cookie", cookie(found.secret, seconds))
    answer.headers.append("Set-Cookie", f"{_BINDER}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
    return answer
