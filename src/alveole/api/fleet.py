"""Routes of what goes from one machine to another: passports, and the machines that are driven from here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from alveole import fleet
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.schema import accepted, described
from alveole.people.rights import Right

router = APIRouter(prefix="/v1", tags=["fleet"])
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
