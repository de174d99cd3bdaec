"""Routes of applications: their environments, what is sent to them, and bringing it from stage to stage."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.people.rights import Right
from alveole.views import apps as views

router = APIRouter(prefix="/v1/apps", tags=["apps"], route_class=LateRoute)
DRY = Query(description="Only say what would happen (200, DeployPlan).")


@router.get("", **described("List applications, by name", list[views.AppView]))
@does(Right.SITE_LIST)
async def list_apps(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_apps, caller))


@router.post(
    "",
    **accepted(
        "Create an application with its environments",
        body=ask.CreateApp,
        errors=(507,),
        instead=list[views.AppPreview],
    ),
)
@does(Right.APP_CREATE)
async def create_app(
    request: Request,
    caller: Caller,
    key: Key,
    wanted: Annotated[ask.CreateApp, Depends(body(ask.CreateApp))],
    dry_run: Annotated[bool, Query(description="Check everything and say what would be made (200).")] = False,
) -> Response:
    """Each environment becomes a site that stands still until a version is deployed there."""
    if dry_run:
        return json(await run_in_threadpool(services(request).preview_app, caller, wanted))
    return change_accepted(await run_in_threadpool(services(request).create_app, caller, wanted, key=key))


@router.get("/{app}", **described("Show an application: what is where", views.AppView, errors=(404,)))
@does(Right.APP_LOOK)
async def show_app(request: Request, caller: Caller, app: str) -> Response:
    return json(await run_in_threadpool(services(request).show_app, caller, app))


@router.patch("/{app}", **described("Set how versions come in", views.AppView, body=ask.SetApp, errors=(404, 422)))
@does(Right.APP_CHANGE)
async def set_app(
    request: Request, caller: Caller, app: str, wanted: Annotated[ask.SetApp, Depends(body(ask.SetApp))]
) -> Response:
    return json(await run_in_threadpool(services(request).set_app, caller, app, wanted))


@router.delete("/{app}", **accepted("Take an application apart; its environments go on as plain sites"))
@does(Right.APP_DESTROY)
async def destroy_app(
    request: Request,
    caller: Caller,
    key: Key,
    app: str,
    confirm: Annotated[str, Query(description="The application's name once more.")] = "",
) -> Response:
    """Its versions and its history go for good."""
    wanted = ask.DestroyApp(confirm=confirm)
    return change_accepted(await run_in_threadpool(services(request).destroy_app, caller, app, wanted, key=key))


@router.put(
    "/{app}/owner",
    **described("Give an application to somebody", views.AppView, body=ask.GiveApp, errors=(404, 409, 422, 507)),
)
@does(Right.APP_GIVE)
async def give_app(
    request: Request, caller: Caller, app: str, wanted: Annotated[ask.GiveApp, Depends(body(ask.GiveApp))]
) -> Response:
    """With the sites of its environments, which count in the new owner's quota."""
    return json(await run_in_threadpool(services(request).give_app, caller, app, wanted))


@router.get(
    "/{app}/history",
    **described("Every version that was brought into an environment", list[views.DeploymentView], errors=(404,)),
)
@does(Right.APP_LOOK)
async def app_history(
    request: Request,
    caller: Caller,
    app: str,
    environment: Annotated[str | None, Query(description="Only of this one.")] = None,
) -> Response:
    """Newest first. The whole log of each is in its change."""
    return json(await run_in_threadpool(services(request).app_history, caller, app, environment))


@router.get(
    "/{app}/compare",
    **described("Say what differs between two versions", views.VersionComparison, errors=(404, 409, 422)),
)
@does(Right.APP_LOOK)
async def compare_versions(
    request: Request,
    caller: Caller,
    app: str,
    one: Annotated[str, Query(description="The version to begin with.")],
    other: Annotated[str, Query(description="The version to compare it with.")],
    environment: Annotated[
        str | None, Query(description="Whose configuration and answers; left out: the last that had both.")
    ] = None,
) -> Response:
    """Files; and configuration, answers, base and names of variables, as an environment had them with each."""
    verb = services(request).compare_versions
    return json(await run_in_threadpool(verb, caller, app, one, other, environment))


# --- environments -------------------------------------------------------------------------------
@router.post("/{app}/environments", **accepted("Add an environment", body=ask.AddEnvironment, errors=(507,)))
@does(Right.APP_CHANGE)
async def add_environment(
    request: Request,
    caller: Caller,
    key: Key,
    app: str,
    wanted: Annotated[ask.AddEnvironment, Depends(body(ask.AddEnvironment))],
) -> Response:
    return change_accepted(await run_in_threadpool(services(request).add_environment, caller, app, wanted, key=key))


@router.patch(
    "/{app}/environments/{environment}",
    **described("Set what an environment asks for", views.AppView, body=ask.SetEnvironment, errors=(404, 422)),
)
@does(Right.APP_CHANGE)
async def set_environment(
    request: Request,
    caller: Caller,
    app: str,
    environment: str,
    wanted: Annotated[ask.SetEnvironment, Depends(body(ask.SetEnvironment))],
) -> Response:
    return json(await run_in_threadpool(services(request).set_environment, caller, app, environment, wanted))


@router.post(
    "/{app}/environments/{environment}/deliver",
    **accepted("Bring a version in, ready to be made live", body=ask.DeliverVersion, errors=(507,)),
)
@does(Right.APP_DELIVER)
async def deliver_version(
    request: Request,
    caller: Caller,
    key: Key,
    app: str,
    environment: str,
    wanted: Annotated[ask.DeliverVersion, Depends(body(ask.DeliverVersion))],
) -> Response:
    """What runs there is not touched. With `reason` an administrator passes the life cycle."""
    verb = services(request).deliver_version
    return change_accepted(await run_in_threadpool(verb, caller, app, environment, wanted, key=key))


@router.post(
    "/{app}/environments/{environment}/approve",
    **described("Approve what is delivered", views.AppView, body=ask.ApproveVersion, errors=(404, 409, 422)),
)
@does(Right.APP_APPROVE)
async def approve_version(
    request: Request,
    caller: Caller,
    app: str,
    environment: str,
    wanted: Annotated[ask.ApproveVersion, Depends(body(ask.ApproveVersion))],
) -> Response:
    return json(await run_in_threadpool(services(request).approve_version, caller, app, environment, wanted))


@router.post(
    "/{app}/environments/{environment}/deploy",
    **accepted("Make live what is delivered", body=ask.DeployVersion, errors=(507,)),
)
@does(Right.APP_DEPLOY)
async def deploy_version(
    request: Request,
    caller: Caller,
    key: Key,
    app: str,
    environment: str,
    wanted: Annotated[ask.DeployVersion, Depends(body(ask.DeployVersion))],
    dry_run: Annotated[bool, DRY] = False,
) -> Response:
    """The change fails, and the old version serves again, when the new one does not get ready or a check fails."""
    if dry_run:
        return json(await run_in_threadpool(services(request).preview_deploy, caller, app, environment, wanted))
    verb = services(request).deploy_version
    return change_accepted(await run_in_threadpool(verb, caller, app, environment, wanted, key=key))


@router.post(
    "/{app}/environments/{environment}/rollback",
    **accepted("Make a version live again that was", body=ask.RollBack, errors=(507,)),
)
@does(Right.APP_ROLLBACK)
async def roll_back(
    request: Request,
    caller: Caller,
    key: Key,
    app: str,
    environment: str,
    wanted: Annotated[ask.RollBack, Depends(body(ask.RollBack))],
    dry_run: Annotated[bool, DRY] = False,
) -> Response:
    """With the configuration and the answers that it had, and with `with_data` the data from before the present one."""
    if dry_run:
        return json(await run_in_threadpool(services(request).preview_roll_back, caller, app, environment, wanted))
    verb = services(request).roll_back
    return change_accepted(await run_in_threadpool(verb, caller, app, environment, wanted, key=key))


@router.post(
    "/{app}/environments/{environment}/synchronise",
    **accepted("Give an environment what another has", body=ask.Synchronise, errors=(507,)),
)
@does(Right.APP_SYNC)
async def synchronise(
    request: Request,
    caller: Caller,
    key: Key,
    app: str,
    environment: str,
    wanted: Annotated[ask.Synchronise, Depends(body(ask.Synchronise))],
    dry_run: Annotated[bool, Query(description="Only say what would be replaced (200, SyncPlan).")] = False,
) -> Response:
    """Content, data, or both. The data are masked by the application's rules before anybody can reach them; what they
    replace is saved first."""
    if dry_run:
        return json(await run_in_threadpool(services(request).preview_synchronise, caller, app, environment, wanted))
    verb = services(request).synchronise
    return change_accepted(await run_in_threadpool(verb, caller, app, environment, wanted, key=key))


# --- versions -----------------------------------------------------------------------------------
@router.get("/{app}/versions", **described("List versions, newest first", list[views.VersionView], errors=(404,)))
@does(Right.APP_LOOK)
async def list_versions(request: Request, caller: Caller, app: str) -> Response:
    return json(await run_in_threadpool(services(request).list_versions, caller, app))


@router.post("/{app}/versions", **accepted("Send a version", body=ask.SendVersion, errors=(507,)))
@does(Right.VERSION_SEND)
async def send_version(
    request: Request,
    caller: Caller,
    key: Key,
    app: str,
    wanted: Annotated[ask.SendVersion, Depends(body(ask.SendVersion))],
) -> Response:
    """Of an archive that was uploaded before. A token whose scope is `upload.send` and `version.send` is enough."""
    return change_accepted(await run_in_threadpool(services(request).send_version, caller, app, wanted, key=key))


@router.get("/{app}/versions/{version}", **described("Show a version", views.VersionView, errors=(404,)))
@does(Right.APP_LOOK)
async def show_version(request: Request, caller: Caller, app: str, version: str) -> Response:
    return json(await run_in_threadpool(services(request).show_version, caller, app, version))


@router.post(
    "/{app}/versions/{version}/decision",
    **described("Accept or refuse a version", views.VersionView, body=ask.DecideVersion, errors=(404, 409, 422)),
)
@does(Right.VERSION_DECIDE)
async def decide_version(
    request: Request,
    caller: Caller,
    app: str,
    version: str,
    wanted: Annotated[ask.DecideVersion, Depends(body(ask.DecideVersion))],
) -> Response:
    return json(await run_in_threadpool(services(request).decide_version, caller, app, version, wanted))


@router.delete(
    "/{app}/versions/{version}",
    **described("Forget a version that is in no environment", status=204, errors=(404, 409)),
)
@does(Right.APP_CHANGE)
async def forget_version(request: Request, caller: Caller, app: str, version: str) -> Response:
    await run_in_threadpool(services(request).forget_version, caller, app, version)
    return Response(status_code=204)
