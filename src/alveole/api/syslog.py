"""Routes of syslog: what is sent and taken in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body, document
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.people.rights import Right
from alveole.services.syslog import SetSyslog, SyslogTrial, SyslogView, TrySyslog

router = APIRouter(prefix="/v1", tags=["logs"], route_class=LateRoute)


@router.get("/syslog", **described("Show what is sent and taken in by syslog", SyslogView))
@does(Right.SETTINGS_CHANGE)
async def show_syslog(request: Request, caller: Caller) -> Response:
    """What holds now, and how it goes. A certificate that was given as PEM is `***`."""
    return json(await streams.in_waiting(services(request).show_syslog, caller))


@router.put(
    "/syslog", **described("Send lines, and take them in, by syslog", SyslogView, body=SetSyslog, errors=(422,))
)
@does(Right.SETTINGS_CHANGE)
async def set_syslog(
    request: Request, caller: Caller, wanted: Annotated[dict[str, Any], Depends(document)]
) -> Response:
    """Each section whole; `null`: as the settings file says. `***` as the certificate keeps the one that is there. It
    holds some seconds later. Try it first: `POST /v1/syslog/try`."""
    return json(await streams.in_waiting(services(request).set_syslog, caller, wanted))


@router.delete("/syslog", **described("Go back to what the settings file says of syslog", SyslogView, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def drop_syslog(request: Request, caller: Caller) -> Response:
    return json(await streams.in_waiting(services(request).drop_syslog, caller))


@router.post(
    "/syslog/try",
    **described("Try a syslog server and what is listened at", SyslogTrial, body=TrySyslog, errors=(422,)),
)
@does(Right.SETTINGS_CHANGE)
async def try_syslog(
    request: Request, caller: Caller, wanted: Annotated[TrySyslog, Depends(body(TrySyslog))]
) -> Response:
    """With the settings given, or those that hold. The server gets one message; nothing is kept."""
    return json(await streams.in_waiting(services(request).try_syslog, caller, wanted.settings))
