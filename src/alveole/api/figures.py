"""Routes of figures: tables over a span of time."""

from __future__ import annotations

from enum import StrEnum

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import views
from alveole.api.answers import json, services
from alveole.api.bodies import Caller
from alveole.api.gate import does
from alveole.api.schema import described
from alveole.people.rights import Right

router = APIRouter(tags=["figures"])


class Span(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


@router.get(
    "/v1/figures",
    **described("What the machine used and the edge served, over a span of time", views.FigureView, errors=(404, 422)),
)
@does(Right.PLATFORM_LOOK)
async def of_machine(request: Request, caller: Caller, span: Span = Span.DAY, peaks: bool = False) -> Response:
    """The same columns as of a site. `peaks`: the highest value of each row's time instead of the average."""
    found = await run_in_threadpool(services(request).show_figures, caller, None, str(span), peaks=peaks)
    return json(found)


@router.get(
    "/v1/sites/{site}/figures",
    **described("What a site used and served, over a span of time", views.FigureView, errors=(404, 422)),
)
@does(Right.SITE_LOOK)
async def of_site(request: Request, caller: Caller, site: str, span: Span = Span.DAY, peaks: bool = False) -> Response:
    """`null` is what is not known: before the site was made, or while nobody looked."""
    found = await run_in_threadpool(services(request).show_figures, caller, site, str(span), peaks=peaks)
    return json(found)
