"""Routes of people: accounts, teams, sharing, quotas."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people import views as people_views
from alveole.people.rights import Right

router = APIRouter(prefix="/v1", tags=["accounts"], route_class=LateRoute)


# --- accounts -------------------------------------------------------------------------------------
@router.get("/accounts", **described("List accounts, by name", list[people_views.PersonView]))
@does(Right.ACCOUNT_CHANGE)
async def list_accounts(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_accounts, caller))


@router.post(
    "/accounts",
    **described("Add a local account", people_views.PersonView, status=201, body=ask.AddAccount, errors=(409, 422)),
)
@does(Right.ACCOUNT_CHANGE)
async def add_account(
    request: Request, caller: Caller, wanted: Annotated[ask.AddAccount, Depends(body(ask.AddAccount))]
) -> Response:
    """Without a password the answer holds a `token`, shown this once, with which the person chooses one."""
    made = await run_in_threadpool(services(request).add_account, caller, wanted)
    return json(made, 201, {"Location": f"/v1/accounts/{made.name}"})


@router.get("/accounts/{account}", **described("Show an account", people_views.PersonView, errors=(404,)))
@does(Right.ACCOUNT_LOOK)
async def show_account(request: Request, caller: Caller, account: str) -> Response:
    """One's own, or any for who may change them."""
    return json(await run_in_threadpool(services(request).show_account, caller, account))


@router.patch(
    "/accounts/{account}",
    **described("Change an account", people_views.PersonView, body=ask.SetAccount, errors=(404, 409, 422)),
)
@does(Right.ACCOUNT_CHANGE)
async def set_account(
    request: Request, caller: Caller, account: str, wanted: Annotated[ask.SetAccount, Depends(body(ask.SetAccount))]
) -> Response:
    """What is absent stays as it is. `active: false` shuts the person out at once."""
    return json(await run_in_threadpool(services(request).set_account, caller, account, wanted))


@router.put(
    "/accounts/{account}/password",
    **described("Set the password of a local account", status=204, body=ask.SetPassword, errors=(404, 409, 422, 429)),
)
@does(Right.ACCOUNT_KEYS)
async def set_password(
    request: Request, caller: Caller, account: str, wanted: Annotated[ask.SetPassword, Depends(body(ask.SetPassword))]
) -> Response:
    """Every other session of theirs ends. One's own needs the `old` one."""
    await run_in_threadpool(services(request).set_password, caller, account, wanted)
    return Response(status_code=204)


@router.post(
    "/accounts/{account}/invitation",
    **described(
        "Make a token with which a person chooses a password",
        people_views.InvitationView,
        status=201,
        errors=(404, 409),
    ),
)
@does(Right.ACCOUNT_CHANGE)
async def invite(request: Request, caller: Caller, account: str) -> Response:
    return json(await run_in_threadpool(services(request).invite, caller, account), 201)


@router.delete("/accounts/{account}", **described("Remove an account", status=204, errors=(404, 409)))
@does(Right.ACCOUNT_CHANGE)
async def remove_account(request: Request, caller: Caller, account: str) -> Response:
    """Its sites stay, and belong to nobody until they are given to somebody."""
    await run_in_threadpool(services(request).remove_account, caller, account)
    return Response(status_code=204)


# --- teams ----------------------------------------------------------------------------------------
@router.get("/teams", **described("List the teams one belongs to; administrators: all", list[people_views.TeamView]))
@does(Right.SELF_LOOK)
async def list_teams(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_teams, caller))


@router.post(
    "/teams", **described("Add a team", people_views.TeamView, status=201, body=ask.AddTeam, errors=(409, 422))
)
@does(Right.ACCOUNT_CHANGE)
async def add_team(
    request: Request, caller: Caller, wanted: Annotated[ask.AddTeam, Depends(body(ask.AddTeam))]
) -> Response:
    made = await run_in_threadpool(services(request).add_team, caller, wanted)
    return json(made, 201, {"Location": f"/v1/teams/{made.name}"})


@router.get("/teams/{team}", **described("Show a team", people_views.TeamView, errors=(404,)))
@does(Right.TEAM_LOOK)
async def show_team(request: Request, caller: Caller, team: str) -> Response:
    return json(await run_in_threadpool(services(request).show_team, caller, team))


@router.patch("/teams/{team}", **described("Change a team", people_views.TeamView, body=ask.SetTeam, errors=(404, 422)))
@does(Right.ACCOUNT_CHANGE)
async def set_team(
    request: Request, caller: Caller, team: str, wanted: Annotated[ask.SetTeam, Depends(body(ask.SetTeam))]
) -> Response:
    return json(await run_in_threadpool(services(request).set_team, caller, team, wanted))


@router.delete("/teams/{team}", **described("Remove a team that has no site", status=204, errors=(404, 409)))
@does(Right.ACCOUNT_CHANGE)
async def remove_team(request: Request, caller: Caller, team: str) -> Response:
    await run_in_threadpool(services(request).remove_team, caller, team)
    return Response(status_code=204)


# --- sharing --------------------------------------------------------------------------------------
@router.get("/sites/{site}/sharing", **described("Show whose a site is", people_views.SharingView, errors=(404,)))
@does(Right.SITE_SHARE)
async def sharing(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).sharing, caller, site))


@router.put(
    "/sites/{site}/sharing",
    **described(
        "Share a site with a person or a team", people_views.SharingView, body=ask.ShareSite, errors=(404, 409, 422)
    ),
)
@does(Right.SITE_SHARE)
async def share_site(
    request: Request, caller: Caller, site: str, wanted: Annotated[ask.ShareSite, Depends(body(ask.ShareSite))]
) -> Response:
    """`look`, `change`, or `none` to end it. It never gives more than the role of who it is shared with."""
    return json(await run_in_threadpool(services(request).share_site, caller, site, wanted))


@router.put(
    "/sites/{site}/owner",
    **described(
        "Give a site to a person or a team", people_views.SharingView, body=ask.GiveSite, errors=(404, 409, 422, 507)
    ),
)
@does(Right.SITE_GIVE)
async def give_site(
    request: Request, caller: Caller, site: str, wanted: Annotated[ask.GiveSite, Depends(body(ask.GiveSite))]
) -> Response:
    """An owner gives it to themselves or a team of theirs; operators and administrators to anybody."""
    return json(await run_in_threadpool(services(request).give_site, caller, site, wanted))


# --- quotas ---------------------------------------------------------------------------------------
@router.get(
    "/quotas", **described("List the quotas that were set, and those of everybody", list[people_views.QuotaView])
)
@does(Right.ACCOUNT_CHANGE)
async def list_quotas(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_quotas, caller))


@router.get("/quota", **described("Show a quota and what is used of it", people_views.QuotaView, errors=(404, 409)))
@does(Right.QUOTA_LOOK)
async def quota(
    request: Request,
    caller: Caller,
    whom: Annotated[
        str | None, Query(description="A person, `team:NAME`, `each-person`, `each-team`; else one's own.")
    ] = None,
) -> Response:
    return json(await run_in_threadpool(services(request).quota, caller, whom))


@router.put("/quotas/{whom}", **described("Set a quota", people_views.QuotaView, body=ask.SetQuota, errors=(404, 422)))
@does(Right.ACCOUNT_CHANGE)
async def set_quota(
    request: Request, caller: Caller, whom: str, wanted: Annotated[ask.SetQuota, Depends(body(ask.SetQuota))]
) -> Response:
    """What is absent stays, `null` is no limit. What is over it stays too; nothing is added until it fits."""
    return json(await run_in_threadpool(services(request).set_quota, caller, whom, wanted))


@router.delete("/quotas/{whom}", **described("Let the quota of everybody hold again", status=204, errors=(404,)))
@does(Right.ACCOUNT_CHANGE)
async def drop_quota(request: Request, caller: Caller, whom: str) -> Response:
    await run_in_threadpool(services(request).drop_quota, caller, whom)
    return Response(status_code=204)
