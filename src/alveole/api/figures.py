"""Routes of figures: tables over a span of time, metrics, quality by month, reports."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole.api.answers import json, services
from alveole.api.bodies import Caller
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people.rights import Right
from alveole.views import figures as shown

router = APIRouter(tags=["figures"], route_class=LateRoute)
#: What ``alveole.figures.openmetrics`` says of itself; that module is loaded when somebody gathers.
METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Span(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


class Language(StrEnum):
    EN = "en"
    FR = "fr"


Over = Annotated[Span, Query(description="How far back.")]
Peaks = Annotated[bool, Query(description="The highest value of each row's time instead of the average.")]
Of = Annotated[Language, Query(description="Of what is written.")]
Points = Annotated[int, Query(ge=0, le=1500, description="At most so many rows; 0: as finely as they are kept.")]
Month = Annotated[str, Query(description="`YYYY-MM` (UTC); this one when none is named.")]


@router.get(
    "/v1/figures",
    **described("What the machine used and the edge served, over a span of time", shown.FigureView, errors=(404, 422)),
)
@does(Right.PLATFORM_LOOK)
async def of_machine(
    request: Request, caller: Caller, span: Over = Span.DAY, peaks: Peaks = False, points: Points = 0
) -> Response:
    """The same columns as of a site, and more."""
    verb = services(request).show_figures
    return json(await run_in_threadpool(verb, caller, None, str(span), peaks=peaks, points=points))


@router.get(
    "/v1/figures/interfaces", **described("Interfaces of the machine of which there are figures", shown.InterfaceList)
)
@does(Right.PLATFORM_LOOK)
async def interfaces(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_interfaces, caller))


@router.get(
    "/v1/figures/interfaces/{interface}",
    **described("What an interface of the machine carried, over a span of time", shown.FigureView, errors=(404, 422)),
)
@does(Right.PLATFORM_LOOK)
async def of_interface(
    request: Request, caller: Caller, interface: str, span: Over = Span.DAY, peaks: Peaks = False, points: Points = 0
) -> Response:
    verb = services(request).show_interface
    return json(await run_in_threadpool(verb, caller, interface, str(span), peaks=peaks, points=points))


@router.get(
    "/v1/figures/traffic",
    **described("What each site was asked and has sent, over a span of time", list[shown.TrafficView], errors=(422,)),
)
@does(Right.SITE_LIST)
async def traffic(request: Request, caller: Caller, span: Over = Span.DAY) -> Response:
    """Only sites that the caller may look at; most bytes first."""
    return json(await run_in_threadpool(services(request).list_traffic, caller, str(span)))


@router.get("/v1/figures/wall", **described("What a screen on the wall shows", shown.WallView))
@does(Right.METRICS_LOOK)
async def wall(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).wall, caller))


@router.get(
    "/v1/sites/{site}/figures",
    **described("What a site used and served, over a span of time", shown.FigureView, errors=(404, 422)),
)
@does(Right.SITE_LOOK)
async def of_site(
    request: Request, caller: Caller, site: str, span: Over = Span.DAY, peaks: Peaks = False, points: Points = 0
) -> Response:
    """`null` is what is not known: before the site was made, while it did not run, or while nobody looked."""
    verb = services(request).show_figures
    return json(await run_in_threadpool(verb, caller, site, str(span), peaks=peaks, points=points))


@router.get(
    "/metrics", **described("Everything that is counted, as OpenMetrics 1.0", media="application/openmetrics-text")
)
@does(Right.METRICS_LOOK)
async def metrics(request: Request, caller: Caller) -> Response:
    """A token with the scope `metrics.look` is enough, and so is the Unix socket."""
    text = await run_in_threadpool(services(request).metrics, caller)
    return Response(text.encode(), media_type=METRICS)


# --- by month ---------------------------------------------------------------------------------------
@router.get(
    "/v1/quality",
    **described("How good each site was in a month", list[shown.QualityView], errors=(422,)),
)
@does(Right.SITE_LIST)
async def quality(request: Request, caller: Caller, month: Month = "") -> Response:
    """Only sites that the caller may look at."""
    return json(await run_in_threadpool(services(request).list_quality, caller, month))


@router.get(
    "/v1/sites/{site}/quality", **described("How good a site was in a month", shown.QualityView, errors=(404, 422))
)
@does(Right.SITE_LOOK)
async def quality_of(request: Request, caller: Caller, site: str, month: Month = "") -> Response:
    return json(await run_in_threadpool(services(request).show_quality, caller, site, month))


@router.get("/v1/reports", **described("The months of which a report is kept", shown.ReportList))
@does(Right.PLATFORM_LOOK)
async def reports(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_reports, caller))


@router.get("/v1/reports/{month}", **described("The report of a month", shown.ReportView, errors=(404, 422)))
@does(Right.PLATFORM_LOOK)
async def report(request: Request, caller: Caller, month: str) -> Response:
    """One that is over is kept as it was made on the first of the next; of this month: as it stands now."""
    return json(await run_in_threadpool(services(request).show_report, caller, month))


@router.get(
    "/v1/reports/{month}/{kind}",
    **described("The report of a month as a file", media="application/octet-stream", errors=(404, 422)),
)
@does(Right.PLATFORM_LOOK)
async def report_file(request: Request, caller: Caller, month: str, kind: str, language: Of = Language.EN) -> Response:
    """`kind` is `html`, a page that needs nothing else, or `pdf`."""
    verb = services(request).report_file
    content, media = await run_in_threadpool(verb, caller, month, kind, str(language))
    return report_answer(content, media, f"{month}.{language}.{kind}")


def report_answer(content: bytes, media: str, name: str) -> Response:
    """As a file to keep: its style is its own, which no page of ours may have."""
    return Response(
        content, headers={"Content-Disposition": f'attachment; filename="alveole-{name}"'}, media_type=media
    )
