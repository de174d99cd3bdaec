"""Routes of what goes from one machine to another: passports, and the machines that are driven from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, PlainTextResponse, Response

from alveole.api import streams
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.model.change import Change
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.remote import fleet
from alveole.services import Services

router = APIRouter(prefix="/v1", tags=["fleet"], route_class=LateRoute)
PASSPORT = "application/x-alveole-passport"


@router.get("/identity", **described("What another Alvéole must know of this one", fleet.IdentityView))
@does(Right.CATALOGUE_LOOK)
async def identity(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).identity, caller))


@router.post(
    "/sites/{site}/passports",
    **accepted("Write everything about a site into a file", body=fleet.ExportSite, errors=(507,)),
)
@does(Right.SITE_EXPORT)
async def export_site(
    request: Request,
    caller: Caller,
    key: Key,
    site: str,
    wanted: Annotated[fleet.ExportSite, Depends(body(fleet.ExportSite))],
) -> Response:
    """The change's `result` names the passport, which waits for a day. Only the platform `to` can open it."""
    return change_accepted(await run_in_threadpool(services(request).export_site, caller, site, wanted, key=key))


@router.get("/sites/{site}/passports/{passport}", **described("Fetch a passport", media=PASSPORT, errors=(404,)))
@does(Right.SITE_EXPORT)
async def passport(request: Request, caller: Caller, site: str, passport: str) -> Response:
    path = await run_in_threadpool(services(request).passport_file, caller, site, passport)
    return FileResponse(path, media_type=PASSPORT)


@router.post("/passports", **accepted("Make a site of a passport", body=fleet.ImportSite, errors=(507,)))
@does(Right.SITE_CREATE)
async def import_site(
    request: Request, caller: Caller, key: Key, wanted: Annotated[fleet.ImportSite, Depends(body(fleet.ImportSite))]
) -> Response:
    """One that is damaged, unsigned, sealed to another platform or by a signer who is not known is refused."""
    return change_accepted(await run_in_threadpool(services(request).import_site, caller, wanted, key=key))


@router.get("/signers", **described("List the platforms whose passports are taken", list[fleet.SignerView]))
@does(Right.PLATFORM_LOOK)
async def list_signers(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_signers, caller))


@router.put(
    "/signers/{signer}",
    **described("Take the passports of a platform", status=204, body=fleet.TrustSigner, errors=(422,)),
)
@does(Right.NODE_CHANGE)
async def trust_signer(
    request: Request,
    caller: Caller,
    signer: str,
    wanted: Annotated[fleet.TrustSigner, Depends(body(fleet.TrustSigner))],
) -> Response:
    await run_in_threadpool(services(request).trust_signer, caller, signer, wanted)
    return Response(status_code=204)


@router.delete("/signers/{signer}", **described("Take them no more", status=204, errors=(404,)))
@does(Right.NODE_CHANGE)
async def distrust_signer(request: Request, caller: Caller, signer: str) -> Response:
    await run_in_threadpool(services(request).distrust_signer, caller, signer)
    return Response(status_code=204)


# --- nodes --------------------------------------------------------------------------------------
@router.get("/nodes", **described("List the machines, this one first", list[fleet.NodeView]))
@does(Right.PLATFORM_LOOK)
async def list_nodes(request: Request, caller: Caller) -> Response:
    """What is told of the others is what they last said."""
    return json(await run_in_threadpool(services(request).list_nodes, caller))


@router.get("/node-key", **described("The line that lets this machine in elsewhere", media="text/plain"))
@does(Right.NODE_CHANGE)
async def node_key(request: Request, caller: Caller) -> Response:
    return PlainTextResponse(await run_in_threadpool(services(request).node_key, caller) + "\n")


@router.post(
    "/nodes/scan", **described("Show the host key of a machine", fleet.ScannedView, body=fleet.ScanNode, errors=(422,))
)
@does(Right.NODE_CHANGE)
async def scan_node(
    request: Request, caller: Caller, wanted: Annotated[fleet.ScanNode, Depends(body(fleet.ScanNode))]
) -> Response:
    return json(await streams.in_waiting(services(request).scan_node, caller, wanted))


@router.post(
    "/nodes",
    **described("Drive another machine from here", fleet.NodeView, status=201, body=fleet.AddNode, errors=(409, 422)),
)
@does(Right.NODE_CHANGE)
async def add_node(
    request: Request, caller: Caller, wanted: Annotated[fleet.AddNode, Depends(body(fleet.AddNode))]
) -> Response:
    """Refused when it shows another host key than the one of this fingerprint."""
    made = await streams.in_waiting(services(request).add_node, caller, wanted)
    return json(made, 201, {"Location": f"/v1/nodes/{made.name}"})


@router.post("/nodes/install", **accepted("Bring Alvéole to a machine, or another version", body=fleet.InstallNode))
@does(Right.NODE_CHANGE)
async def install_node(
    request: Request, caller: Caller, key: Key, wanted: Annotated[fleet.InstallNode, Depends(body(fleet.InstallNode))]
) -> Response:
    """By the installer of the checkout that was uploaded; again at any time."""
    return change_accepted(await streams.in_waiting(lambda: services(request).install_node(caller, wanted, key=key)))


@router.get("/nodes/{node}", **described("Ask a machine how it is", fleet.NodeView, errors=(404,)))
@does(Right.PLATFORM_LOOK)
async def show_node(request: Request, caller: Caller, node: str) -> Response:
    return json(await streams.in_waiting(services(request).show_node, caller, node))


@router.delete("/nodes/{node}", **described("Drive a machine no more", status=204, errors=(404, 409)))
@does(Right.NODE_CHANGE)
async def remove_node(
    request: Request,
    caller: Caller,
    node: str,
    lost: Annotated[bool, Query(description="It will not come back: copies left there are gone with it.")] = False,
) -> Response:
    """What runs there goes on by itself."""
    await streams.in_waiting(lambda: services(request).remove_node(caller, node, lost=lost))
    return Response(status_code=204)


@router.post(
    "/nodes/{node}/drain",
    **described("Bring the sites of a machine elsewhere", list[Change], body=fleet.DrainNode, errors=(404, 409)),
)
@does(Right.NODE_CHANGE)
async def drain_node(
    request: Request, caller: Caller, node: str, wanted: Annotated[fleet.DrainNode, Depends(body(fleet.DrainNode))]
) -> Response:
    """The changes that move them, one a site."""
    return json(await streams.in_waiting(drain(services(request), caller, node, wanted)))


def drain(services: Services, caller: Actor, node: str, wanted: fleet.DrainNode) -> Callable[[], tuple[Change, ...]]:
    return lambda: services.drain_node(caller, node, drain=wanted.drain)


@router.post("/sites/{site}/move", **accepted("Bring a site to another machine", body=fleet.MoveSite, errors=(507,)))
@does(Right.SITE_MOVE)
async def move_site(
    request: Request,
    caller: Caller,
    key: Key,
    site: str,
    wanted: Annotated[fleet.MoveSite, Depends(body(fleet.MoveSite))],
) -> Response:
    """With its data. Killed at any step it ends wholly here or wholly there."""
    return change_accepted(await run_in_threadpool(lambda: services(request).move_site(caller, site, wanted, key=key)))


@router.post("/sites/{site}/confirm-move", **accepted("Remove the copies that moves have left"))
@does(Right.SITE_MOVE)
async def confirm_move(request: Request, caller: Caller, key: Key, site: str) -> Response:
    return change_accepted(await run_in_threadpool(services(request).confirm_move, caller, site, key=key))
