"""Routes of a site's domains: adding, claiming, proving, removing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people.rights import Right
from alveole.views.domains import AddDomain, DomainView

router = APIRouter(prefix="/v1/sites/{site}/domains", tags=["sites"], route_class=LateRoute)


@router.get(
    "", **described("List the domains of a site, live and waiting for their proof", list[DomainView], errors=(404,))
)
@does(Right.SITE_LOOK)
async def list_domains(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).list_domains, caller, site))


@router.post("", **described("Add or claim a domain", DomainView, body=AddDomain, errors=(404, 409, 412, 422)))
@does(Right.SITE_CHANGE)
async def add_domain(
    request: Request, caller: Caller, site: str, wanted: Annotated[AddDomain, Depends(body(AddDomain))]
) -> Response:
    """For administrators and operators it is live with the change that is named in the answer. For others it is
    `pending` until the TXT record in the answer is there."""
    return json(await run_in_threadpool(services(request).add_domain, caller, site, wanted))


@router.post("/{domain}/check", **described("Look for the proof of a domain now", DomainView, errors=(404,)))
@does(Right.SITE_CHANGE)
async def check_domain(request: Request, caller: Caller, site: str, domain: str) -> Response:
    """It is looked for by itself too, less and less often. Twice within a few seconds gives the answer of before."""
    return json(await streams.in_waiting(services(request).check_domain, caller, site, domain))


@router.delete("/{domain}", **described("Take a domain away, or a claim back", DomainView, errors=(404, 409, 412)))
@does(Right.SITE_CHANGE)
async def remove_domain(request: Request, caller: Caller, site: str, domain: str) -> Response:
    return json(await run_in_threadpool(services(request).remove_domain, caller, site, domain))
