"""Routes of incidents, rules, silences and promises."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.errors import InvalidInput
from alveole.incidents.model import (
    AddSilence,
    Figure,
    IncidentDetail,
    IncidentReport,
    IncidentView,
    PromisesView,
    RuleChanges,
    RuleText,
    RuleView,
    Said,
    SilenceView,
    Tried,
    TryRule,
)
from alveole.people.rights import Right

router = APIRouter(prefix="/v1", tags=["incidents"], route_class=LateRoute)
SaidBody = Annotated[Said, Depends(body(Said))]


@router.get("/incidents", **described("List incidents, open ones first", list[IncidentView], errors=(404, 422)))
@does(Right.SITE_LIST)
async def list_incidents(
    request: Request,
    caller: Caller,
    state: Annotated[str, Query(description="open, closed or all.")] = "all",
    site: Annotated[str | None, Query(description="Only those that this site (name or id) has a part in.")] = None,
    before: Annotated[str | None, Query(description="Id of a closed incident: only older ones.")] = None,
    limit: Annotated[int, Query(description="At most so many closed ones, 1 to 200.")] = 50,
) -> Response:
    def ask() -> tuple[IncidentView, ...]:
        found = services(request)
        return found.list_incidents(caller, state=state, site=site, before=before, limit=limit)

    return json(await run_in_threadpool(ask))


@router.get("/incidents/{incident}", **described("Show an incident with its history", IncidentDetail, errors=(404,)))
@does(Right.INCIDENT_LOOK)
async def show_incident(request: Request, caller: Caller, incident: str) -> Response:
    return json(await run_in_threadpool(services(request).show_incident, caller, incident))


@router.get(
    "/incidents/{incident}/report",
    **described("What is to be learnt from an incident", IncidentReport, errors=(404, 422)),
)
@does(Right.INCIDENT_LOOK)
async def report_incident(
    request: Request,
    caller: Caller,
    incident: str,
    format: Annotated[str, Query(description="json, or html: a page that can be printed.")] = "json",
) -> Response:
    if format not in ("json", "html"):
        raise InvalidInput("is not json or html", field="format")
    if format == "html":
        return await run_in_threadpool(request.app.state.incident_report, request, incident)
    return json(await run_in_threadpool(services(request).report_incident, caller, incident))


@router.post(
    "/incidents/{incident}/ack",
    **described("Acknowledge: somebody looks after it", IncidentView, body=Said, errors=(404, 409, 422)),
)
@does(Right.INCIDENT_ACT)
async def acknowledge_incident(request: Request, caller: Caller, incident: str, said: SaidBody) -> Response:
    return json(await run_in_threadpool(services(request).acknowledge_incident, caller, incident, said))


@router.post("/incidents/{incident}/comment", **described("Comment", IncidentView, body=Said, errors=(404, 422)))
@does(Right.INCIDENT_ACT)
async def comment_incident(request: Request, caller: Caller, incident: str, said: SaidBody) -> Response:
    return json(await run_in_threadpool(services(request).comment_incident, caller, incident, said))


@router.post(
    "/incidents/{incident}/act",
    **described("Say what was done so that it does not come again", IncidentView, body=Said, errors=(404, 422)),
)
@does(Right.INCIDENT_ACT)
async def act_on_incident(request: Request, caller: Caller, incident: str, said: SaidBody) -> Response:
    def act() -> IncidentView:
        return services(request).comment_incident(caller, incident, said, action=True)

    return json(await run_in_threadpool(act))


@router.post("/incidents/{incident}/close", **described("Close it by hand", IncidentView, body=Said, errors=(404, 422)))
@does(Right.INCIDENT_ACT)
async def close_incident(request: Request, caller: Caller, incident: str, said: SaidBody) -> Response:
    """What is bad still is told anew only once it was well."""
    return json(await run_in_threadpool(services(request).close_incident, caller, incident, said))


@router.post(
    "/incidents/{incident}/reopen", **described("It is not over", IncidentView, body=Said, errors=(404, 409, 422))
)
@does(Right.INCIDENT_ACT)
async def reopen_incident(request: Request, caller: Caller, incident: str, said: SaidBody) -> Response:
    return json(await run_in_threadpool(services(request).reopen_incident, caller, incident, said))


# --- rules ----------------------------------------------------------------------------------------
@router.get("/rule-figures", **described("List what a rule can look at", list[Figure]))
@does(Right.PLATFORM_LOOK)
async def list_figures(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_figures, caller))


@router.get("/rules", **described("List the rules", list[RuleView]))
@does(Right.PLATFORM_LOOK)
async def list_rules(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_rules, caller))


@router.post("/rules/try", **described("What a rule would look at now", list[Tried], body=TryRule, errors=(404, 422)))
@does(Right.RULE_CHANGE)
async def try_rule(request: Request, caller: Caller, wanted: Annotated[TryRule, Depends(body(TryRule))]) -> Response:
    """Nothing is kept, and nobody is told."""
    return json(await streams.in_waiting(services(request).try_rule, caller, wanted))


@router.get("/rules/{rule}", **described("Show a rule", RuleView, errors=(404,)))
@does(Right.PLATFORM_LOOK)
async def show_rule(request: Request, caller: Caller, rule: str) -> Response:
    return json(await run_in_threadpool(services(request).show_rule, caller, rule))


@router.put("/rules/{rule}", **described("Make or replace a rule", RuleView, body=RuleText, errors=(409, 422)))
@does(Right.RULE_CHANGE)
async def put_rule(
    request: Request, caller: Caller, rule: str, wanted: Annotated[RuleText, Depends(body(RuleText))]
) -> Response:
    return json(await run_in_threadpool(services(request).put_rule, caller, rule, wanted))


@router.patch("/rules/{rule}", **described("Change words of a rule", RuleView, body=RuleChanges, errors=(404, 422)))
@does(Right.RULE_CHANGE)
async def change_rule(
    request: Request, caller: Caller, rule: str, wanted: Annotated[RuleChanges, Depends(body(RuleChanges))]
) -> Response:
    return json(await run_in_threadpool(services(request).change_rule, caller, rule, wanted))


@router.delete("/rules/{rule}", **described("Remove a rule", status=204, errors=(404, 409)))
@does(Right.RULE_CHANGE)
async def drop_rule(request: Request, caller: Caller, rule: str) -> Response:
    """A built-in rule gets the values back that it had in the beginning."""
    await run_in_threadpool(services(request).drop_rule, caller, rule)
    return Response(status_code=204)


# --- silences -------------------------------------------------------------------------------------
@router.get("/silences", **described("List silences", list[SilenceView]))
@does(Right.SITE_LIST)
async def list_silences(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_silences, caller))


@router.post(
    "/silences",
    **described(
        "Tell nobody for a while: of one rule, or of anything",
        SilenceView,
        status=201,
        body=AddSilence,
        errors=(409, 422),
    ),
)
@does(Right.RULE_CHANGE)
async def add_silence(
    request: Request, caller: Caller, wanted: Annotated[AddSilence, Depends(body(AddSilence))]
) -> Response:
    return json(await run_in_threadpool(services(request).add_silence, caller, None, wanted), 201)


@router.delete("/silences/{silence}", **described("End a silence", status=204, errors=(404,)))
@does(Right.SITE_LIST)
async def drop_silence(request: Request, caller: Caller, silence: str) -> Response:
    await run_in_threadpool(services(request).drop_silence, caller, silence)
    return Response(status_code=204)


@router.post(
    "/sites/{site}/silences",
    **described("Tell nobody of a site for a while", SilenceView, status=201, body=AddSilence, errors=(404, 409, 422)),
)
@does(Right.INCIDENT_ACT)
async def add_site_silence(
    request: Request, caller: Caller, site: str, wanted: Annotated[AddSilence, Depends(body(AddSilence))]
) -> Response:
    return json(await run_in_threadpool(services(request).add_silence, caller, site, wanted), 201)


# --- promises -------------------------------------------------------------------------------------
@router.get(
    "/sites/{site}/promises", **described("What is promised to a site, and how it is kept", PromisesView, errors=(404,))
)
@does(Right.SITE_LOOK)
async def site_promises(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).site_promises, caller, site))
