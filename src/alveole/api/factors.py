"""Routes of the second factor: setting one up, giving it, and of whom it is required."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.admit import cookie
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body
from alveole.api.entrance import Whose, entered
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people import views as people_views
from alveole.people.passkeys import Place
from alveole.people.rights import Right
from alveole.services.doors import Entered
from alveole.services.factors import SecondFactorPolicy

router = APIRouter(prefix="/v1", tags=["entrance"], route_class=LateRoute)
_SETS = {"Set-Cookie": "The session's fresh secret, when this let it in."}


def _site(request: Request) -> Place:
    """The origin of the page; that it is ours, the gate has checked."""
    return Place(request.headers.get("origin", ""))


def _added(request: Request, made: tuple[people_views.FactorAdded, Entered | None]) -> Response:
    document, session = made
    seconds = request.app.state.settings.accounts.session_seconds
    return json(document, 201, {"Set-Cookie": cookie(session.secret, seconds)} if session else None)


# --- giving it ------------------------------------------------------------------------------------
@router.post(
    "/session/code",
    **described(
        "Give a code as the second factor",
        people_views.SignedIn,
        body=ask.GiveCode,
        errors=(409, 422, 429),
        headers=_SETS,
    ),
)
@does(Right.SELF_ENTER)
async def give_code(
    request: Request, caller: Caller, wanted: Annotated[ask.GiveCode, Depends(body(ask.GiveCode))]
) -> Response:
    """Of an authenticator, or a recovery code. Each is good once."""
    return entered(request, await run_in_threadpool(services(request).give_code, caller, wanted.code))


@router.post(
    "/session/passkey-options", **described("Ask for a passkey's challenge", media="application/json", errors=(409,))
)
@does(Right.SELF_ENTER)
async def passkey_options(request: Request, caller: Caller) -> Response:
    """Options for `navigator.credentials.get`."""
    return json(await run_in_threadpool(services(request).passkey_options, caller, _site(request)))


@router.post(
    "/session/passkey",
    **described(
        "Give a passkey as the second factor",
        people_views.SignedIn,
        body=ask.GivePasskey,
        errors=(409, 422, 429),
        headers=_SETS,
    ),
)
@does(Right.SELF_ENTER)
async def give_passkey(
    request: Request, caller: Caller, wanted: Annotated[ask.GivePasskey, Depends(body(ask.GivePasskey))]
) -> Response:
    found = await run_in_threadpool(services(request).give_passkey, caller, wanted.credential, _site(request))
    return entered(request, found)


# --- setting up -----------------------------------------------------------------------------------
@router.get("/factors", **described("List second factors", list[people_views.FactorView], errors=(404, 409)))
@does(Right.ACCOUNT_LOOK)
async def list_factors(request: Request, caller: Caller, account: Whose = None) -> Response:
    return json(await run_in_threadpool(services(request).list_factors, caller, account))


@router.delete(
    "/factors/{factor}", **described("Remove a second factor; `all` removes all", status=204, errors=(404, 409))
)
@does(Right.ACCOUNT_KEYS)
async def remove_factor(request: Request, caller: Caller, factor: str, account: Whose = None) -> Response:
    await run_in_threadpool(services(request).remove_factor, caller, factor, account)
    return Response(status_code=204)


@router.post(
    "/factors/totp", **described("Make a secret for an authenticator", people_views.TotpView, status=201, errors=(409,))
)
@does(Right.SELF_ENTER)
async def new_totp(request: Request, caller: Caller) -> Response:
    """Also for who must set one up before they are in. It counts once it is confirmed with a code."""
    return json(await run_in_threadpool(services(request).new_totp, caller), 201)


@router.post(
    "/factors/totp/confirm",
    **described(
        "Confirm an authenticator with a code",
        people_views.FactorAdded,
        status=201,
        body=ask.ConfirmTotp,
        errors=(409, 422, 429),
        headers=_SETS,
    ),
)
@does(Right.SELF_ENTER)
async def confirm_totp(
    request: Request, caller: Caller, wanted: Annotated[ask.ConfirmTotp, Depends(body(ask.ConfirmTotp))]
) -> Response:
    """With the first factor come recovery codes, shown this once."""
    return _added(request, await run_in_threadpool(services(request).confirm_totp, caller, wanted))


@router.post(
    "/factors/passkey-options",
    **described("Ask for the options of a new passkey", media="application/json", errors=(409,)),
)
@does(Right.SELF_ENTER)
async def new_passkey(request: Request, caller: Caller) -> Response:
    """Options for `navigator.credentials.create`."""
    return json(await run_in_threadpool(services(request).new_passkey, caller, _site(request)))


@router.post(
    "/factors/passkey",
    **described(
        "Add a passkey", people_views.FactorAdded, status=201, body=ask.AddPasskey, errors=(409, 422), headers=_SETS
    ),
)
@does(Right.SELF_ENTER)
async def add_passkey(
    request: Request, caller: Caller, wanted: Annotated[ask.AddPasskey, Depends(body(ask.AddPasskey))]
) -> Response:
    return _added(request, await run_in_threadpool(services(request).add_passkey, caller, wanted, _site(request)))


@router.post("/factors/recovery-codes", **described("Make fresh recovery codes", errors=(409,)))
@does(Right.ACCOUNT_KEYS)
async def new_recovery_codes(request: Request, caller: Caller) -> Response:
    """Ten, shown this once; those before are worth nothing any more."""
    return json(await run_in_threadpool(services(request).new_recovery_codes, caller))


# --- of whom --------------------------------------------------------------------------------------
@router.get("/second-factor", **described("Show of which roles a second factor is required", SecondFactorPolicy))
@does(Right.SETTINGS_CHANGE)
async def policy(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).second_factor_policy, caller))


@router.put(
    "/second-factor",
    **described("Require a second factor of roles", SecondFactorPolicy, body=ask.RequireSecondFactor, errors=(422,)),
)
@does(Right.SETTINGS_CHANGE)
async def require(
    request: Request, caller: Caller, wanted: Annotated[ask.RequireSecondFactor, Depends(body(ask.RequireSecondFactor))]
) -> Response:
    """From the next sign-in on: who has none sets one up before anything else."""
    return json(await run_in_threadpool(services(request).require_second_factor, caller, wanted))
