"""Routes of coming in: signing in and out, invitations, sessions, tokens, and who one is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import requests as ask
from alveole import views
from alveole.api import streams
from alveole.api.admit import client_address, cookie, session_of
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people import views as people_views
from alveole.people.passwords import csrf_of
from alveole.people.rights import Right
from alveole.services.doors import Entered, Place

router = APIRouter(prefix="/v1", route_class=LateRoute)
Whose = Annotated[str | None, Query(description="An account; default: one's own.")]
COOKIE_SET = {"Set-Cookie": "The session; `__Host-`, Secure, HttpOnly, SameSite=Strict."}


def place_of(request: Request) -> Place:
    """From where a request comes, for the limits on attempts and the list of sessions."""
    edge: int | None = request.app.state.edge_uid
    return Place(client_address(request.scope, edge), request.headers.get("user-agent", ""))


def entered(request: Request, found: Entered) -> Response:
    """The answer to who has come in: the document, and the cookie."""
    document = services(request).signed_in(found)
    seconds = request.app.state.settings.accounts.session_seconds
    return json(document, 200, {"Set-Cookie": cookie(found.secret, seconds)})


# --- signing in -----------------------------------------------------------------------------------
@router.post(
    "/session",
    tags=["entrance"],
    **described("Sign in", people_views.SignedIn, body=ask.SignIn, errors=(422, 429), headers=COOKIE_SET),
)
@does(Right.OPEN)
async def sign_in(request: Request, wanted: Annotated[ask.SignIn, Depends(body(ask.SignIn))]) -> Response:
    """A wrong name, a wrong password and a disabled account have the same answer, as late."""
    return entered(request, await streams.in_waiting(services(request).sign_in, wanted, place_of(request)))


@router.get("/session", tags=["entrance"], **described("Who asks", people_views.WhoView))
@does(Right.SELF_ENTER)
async def who(request: Request, caller: Caller) -> Response:
    secret = session_of(request.headers)
    csrf = csrf_of(secret) if secret and caller.via.startswith("session:") else ""
    return json(await run_in_threadpool(services(request).who, caller, csrf))


@router.delete("/session", tags=["entrance"], **described("Sign out", status=204))
@does(Right.SELF_ENTER)
async def sign_out(request: Request, caller: Caller) -> Response:
    await run_in_threadpool(services(request).sign_out, caller)
    return Response(status_code=204, headers={"Set-Cookie": cookie("", 0), "Clear-Site-Data": '"cache", "storage"'})


@router.post(
    "/invitations/use",
    tags=["entrance"],
    **described(
        "Choose a password with a token, and be signed in",
        people_views.SignedIn,
        body=ask.UseInvitation,
        errors=(422, 429),
        headers=COOKIE_SET,
    ),
)
@does(Right.OPEN)
async def use_invitation(
    request: Request, wanted: Annotated[ask.UseInvitation, Depends(body(ask.UseInvitation))]
) -> Response:
    """The token of `alveole account first-token` makes the administrator `name`."""
    return entered(request, await run_in_threadpool(services(request).use_invitation, wanted, place_of(request)))


@router.post(
    "/first-token",
    tags=["entrance"],
    **described("Make the token of the first sign-in", people_views.InvitationView, status=201),
)
@does(Right.FIRST_TOKEN)
async def first_token(request: Request, caller: Caller) -> Response:
    """Only for root on the machine. An earlier one that was not used ends."""
    return json(await run_in_threadpool(services(request).first_token, caller), 201)


# --- sessions -------------------------------------------------------------------------------------
@router.get(
    "/sessions", tags=["entrance"], **described("List sessions", list[people_views.SessionView], errors=(404, 409))
)
@does(Right.ACCOUNT_LOOK)
async def list_sessions(request: Request, caller: Caller, account: Whose = None) -> Response:
    return json(await run_in_threadpool(services(request).list_sessions, caller, account))


@router.delete(
    "/sessions/{session}",
    tags=["entrance"],
    **described("End a session; `all` ends all of them", status=204, errors=(404, 409)),
)
@does(Right.ACCOUNT_KEYS)
async def end_session(request: Request, caller: Caller, session: str, account: Whose = None) -> Response:
    await run_in_threadpool(services(request).end_session, caller, session, account)
    return Response(status_code=204)


# --- tokens ---------------------------------------------------------------------------------------
@router.get("/tokens", tags=["tokens"], **described("List tokens", list[views.TokenView], errors=(404,)))
@does(Right.ACCOUNT_LOOK)
async def list_tokens(request: Request, caller: Caller, account: Whose = None) -> Response:
    """One's own; root's list holds everybody's and those of no person."""
    return json(await run_in_threadpool(services(request).list_tokens, caller, account))


@router.post(
    "/tokens",
    tags=["tokens"],
    **described("Create a token", views.TokenView, status=201, body=ask.CreateToken, errors=(409, 422)),
)
@does(Right.ACCOUNT_KEYS)
async def create_token(
    request: Request, caller: Caller, wanted: Annotated[ask.CreateToken, Depends(body(ask.CreateToken))]
) -> Response:
    """This answer alone holds the `secret`: only its hash is kept. With a `role` it is a token of no person."""
    return json(await run_in_threadpool(services(request).create_token, caller, wanted), 201)


@router.delete("/tokens/{token}", tags=["tokens"], **described("Delete a token", status=204, errors=(404,)))
@does(Right.ACCOUNT_KEYS)
async def delete_token(request: Request, caller: Caller, token: str) -> Response:
    await run_in_threadpool(services(request).delete_token, caller, token)
    return Response(status_code=204)
