"""Routes of everything that is not a site, a change or the machine: plans, bases, uploads."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import requests as ask
from alveole import views
from alveole.api import streams, uploads
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.people.rights import Right
from alveole.requests.plans import CreatePlan, SetPlan

router = APIRouter(prefix="/v1", route_class=LateRoute)


# --- plans --------------------------------------------------------------------------------------
@router.get("/plans", tags=["plans"], **described("List plans", list[views.PlanView]))
@does(Right.CATALOGUE_LOOK)
async def list_plans(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_plans, caller))


@router.get("/plans/{plan}", tags=["plans"], **described("Show a plan", views.PlanView, errors=(404,)))
@does(Right.CATALOGUE_LOOK)
async def show_plan(request: Request, caller: Caller, plan: str) -> Response:
    return json(await run_in_threadpool(services(request).show_plan, caller, plan))


@router.post(
    "/plans",
    tags=["plans"],
    **described("Create a plan", views.PlanView, status=201, body=CreatePlan, errors=(409, 422)),
)
@does(Right.PLAN_CHANGE)
async def create_plan(
    request: Request, caller: Caller, wanted: Annotated[CreatePlan, Depends(body(CreatePlan))]
) -> Response:
    made = await run_in_threadpool(services(request).create_plan, caller, wanted)
    return json(made, 201, {"Location": f"/v1/plans/{made.name}"})


@router.patch(
    "/plans/{plan}",
    tags=["plans"],
    **described("Say when sites of a plan sleep", views.PlanView, body=SetPlan, errors=(404, 422)),
)
@does(Right.PLAN_CHANGE)
async def set_plan(
    request: Request, caller: Caller, plan: str, wanted: Annotated[SetPlan, Depends(body(SetPlan))]
) -> Response:
    """Of those that are built in too. Limits never change: make another plan, and give it to the sites."""
    return json(await run_in_threadpool(services(request).set_plan, caller, plan, wanted))


@router.delete(
    "/plans/{plan}", tags=["plans"], **described("Delete a plan that no site has", status=204, errors=(404, 409))
)
@does(Right.PLAN_CHANGE)
async def delete_plan(request: Request, caller: Caller, plan: str) -> Response:
    await run_in_threadpool(services(request).delete_plan, caller, plan)
    return Response(status_code=204)


# --- bases and images ---------------------------------------------------------------------------
@router.get(
    "/bases", tags=["bases"], **described("List bases; images are those of the kind `oci`", list[views.BaseView])
)
@does(Right.CATALOGUE_LOOK)
async def list_bases(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_bases, caller))


@router.get("/bases/{base}", tags=["bases"], **described("Show a base", views.BaseView, errors=(404,)))
@does(Right.CATALOGUE_LOOK)
async def show_base(request: Request, caller: Caller, base: str) -> Response:
    """With every package it holds, and what an update would change by the lists that are here."""
    return json(await run_in_threadpool(services(request).show_base, caller, base))


@router.post("/bases/verify", tags=["bases"], **accepted("Compare the files of bases", body=ask.NameBases))
@does(Right.BASE_CHANGE)
async def verify_bases(
    request: Request, caller: Caller, key: Key, wanted: Annotated[ask.NameBases, Depends(body(ask.NameBases))]
) -> Response:
    """Every file with its digest. The change fails, and names the files, when one is not as it was made."""
    return change_accepted(await run_in_threadpool(services(request).verify_bases, caller, wanted, key=key))


@router.post(
    "/bases/upgrade",
    tags=["bases"],
    **accepted("Upgrade bases", body=ask.UpgradeBases, errors=(507,), instead=list[views.UpgradeView]),
)
@does(Right.BASE_CHANGE)
async def upgrade_bases(
    request: Request,
    caller: Caller,
    key: Key,
    wanted: Annotated[ask.UpgradeBases, Depends(body(ask.UpgradeBases))],
    dry_run: Annotated[bool, Query(description="Only say what would change (200, list of UpgradeView).")] = False,
) -> Response:
    """Make each base anew with all updates, try a copy of every site of it, and switch one site after the other.
    The first failure ends it, with that site and those after it on the old base."""
    if dry_run:
        return json(await streams.in_waiting(services(request).preview_upgrade, caller, wanted))
    return change_accepted(await run_in_threadpool(services(request).upgrade_bases, caller, wanted, key=key))


@router.post(
    "/bases/rollback",
    tags=["bases"],
    **accepted("Take sites back to their earlier base", body=ask.RollbackBases, instead=list[views.RollbackView]),
)
@does(Right.BASE_CHANGE)
async def rollback_bases(
    request: Request,
    caller: Caller,
    key: Key,
    wanted: Annotated[ask.RollbackBases, Depends(body(ask.RollbackBases))],
    dry_run: Annotated[bool, Query(description="Only say what would change (200, list of RollbackView).")] = False,
) -> Response:
    """To the base that each had before its last upgrade. Their data stays as it is. A site that does not get ready
    on it stays where it is, and the others go back all the same."""
    if dry_run:
        return json(await run_in_threadpool(services(request).preview_rollback, caller, wanted))
    return change_accepted(await run_in_threadpool(services(request).rollback_bases, caller, wanted, key=key))


@router.post(
    "/bases/prune",
    tags=["bases"],
    **accepted("Drop the bases that no site uses", body=ask.PruneBases, instead=list[views.BaseView]),
)
@does(Right.BASE_CHANGE)
async def prune_bases(
    request: Request,
    caller: Caller,
    key: Key,
    wanted: Annotated[ask.PruneBases, Depends(body(ask.PruneBases))],
    dry_run: Annotated[bool, Query(description="Only say which would go (200, list of BaseView).")] = False,
) -> Response:
    if dry_run:
        return json(await run_in_threadpool(services(request).preview_prune, caller, wanted))
    return change_accepted(await run_in_threadpool(services(request).prune_bases, caller, wanted, key=key))


@router.post("/images", tags=["bases"], **accepted("Import an OCI image", body=ask.ImportImage, errors=(507,)))
@does(Right.IMAGE_IMPORT)
async def import_image(
    request: Request, caller: Caller, key: Key, wanted: Annotated[ask.ImportImage, Depends(body(ask.ImportImage))]
) -> Response:
    """The upload is an OCI archive (a tar of an OCI layout). The base's key is in the change's `result.base`."""
    return change_accepted(await run_in_threadpool(services(request).import_image, caller, wanted, key=key))


@router.post(
    "/images/pull", tags=["bases"], **accepted("Fetch an image from a registry", body=ask.PullImage, errors=(507,))
)
@does(Right.IMAGE_PULL)
async def pull_image(
    request: Request, caller: Caller, key: Key, wanted: Annotated[ask.PullImage, Depends(body(ask.PullImage))]
) -> Response:
    """Only from registries that the settings of the machine name. The base's key is in the change's `result.base`."""
    return change_accepted(await run_in_threadpool(services(request).pull_image, caller, wanted, key=key))


@router.delete("/bases/{base}", tags=["bases"], **accepted("Delete a base that no site has"))
@does(Right.BASE_CHANGE)
async def delete_base(request: Request, caller: Caller, key: Key, base: str) -> Response:
    return change_accepted(await run_in_threadpool(services(request).delete_base, caller, base, key=key))


# --- uploads ------------------------------------------------------------------------------------
@router.post(
    "/uploads",
    tags=["uploads"],
    **described("Send an archive", uploads.Uploaded, status=201, body=bytes, errors=(413, 422, 507)),
)
@does(Right.UPLOAD)
async def upload(request: Request, caller: Caller) -> Response:
    """The raw bytes are the body, with or without a length. Name the `id` in the request that uses it;
    unused uploads go within a day, and so does one that is cut."""
    made = await uploads.receive(request, caller, services(request), request.app.state.settings)
    return json(made, 201)
