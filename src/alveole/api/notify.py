"""Routes of notifications: channels, feeds, the mail server."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole.api import streams
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body, document
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.notices import ChannelView, MailServer, MessageView, ToldView
from alveole.people.rights import Right
from alveole.requests.channels import AddChannel, SetChannel

ATOM = "application/atom+xml"
router = APIRouter(prefix="/v1", tags=["notifications"], route_class=LateRoute)


@router.get("/channels", **described("List the channels that one may change", list[ChannelView]))
@does(Right.SELF_NOTIFY)
async def list_channels(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_channels, caller))


@router.post(
    "/channels",
    **described("Be told by mail, webhook or feed", ChannelView, status=201, body=AddChannel, errors=(404, 409, 422)),
)
@does(Right.SELF_NOTIFY)
async def add_channel(
    request: Request, caller: Caller, wanted: Annotated[AddChannel, Depends(body(AddChannel))]
) -> Response:
    """`secret` is only in this answer: what a webhook is signed with, or where the feed is."""
    return json(await run_in_threadpool(services(request).add_channel, caller, wanted), 201)


@router.delete("/channels/{channel}", **described("Remove a channel", status=204, errors=(404, 409)))
@does(Right.SELF_NOTIFY)
async def drop_channel(request: Request, caller: Caller, channel: str) -> Response:
    await run_in_threadpool(services(request).drop_channel, caller, channel)
    return Response(status_code=204)


@router.patch(
    "/channels/{channel}",
    **described("Change a channel", ChannelView, body=SetChannel, errors=(404, 409, 422)),
)
@does(Right.SELF_NOTIFY)
async def set_channel(
    request: Request, caller: Caller, channel: str, wanted: Annotated[SetChannel, Depends(body(SetChannel))]
) -> Response:
    return json(await run_in_threadpool(services(request).set_channel, caller, channel, wanted))


@router.get(
    "/channels/{channel}/messages",
    **described("List what was last to be told by a channel", list[MessageView], errors=(404, 409)),
)
@does(Right.SELF_NOTIFY)
async def list_messages(request: Request, caller: Caller, channel: str) -> Response:
    return json(await run_in_threadpool(services(request).list_messages, caller, channel))


@router.post("/channels/{channel}/test", **described("Tell a channel something made up", ToldView, errors=(404, 409)))
@does(Right.SELF_NOTIFY)
async def try_channel(request: Request, caller: Caller, channel: str) -> Response:
    return json(await streams.in_waiting(services(request).try_channel, caller, channel))


@router.get("/feeds/{feed}", **described("An Atom feed of what happened", media=ATOM, errors=(404,)))
@does(Right.OPEN)
async def feed(request: Request, feed: str) -> Response:
    """Whoever has its address may read it, as feed readers send no token."""
    return Response(await run_in_threadpool(services(request).feed, feed), media_type=ATOM)


@router.get("/mail", **described("Show the mail server", MailServer, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def show_mail(request: Request, caller: Caller) -> Response:
    """The password in it is `***`."""
    return json(await run_in_threadpool(services(request).show_mail, caller))


@router.put("/mail", **described("Send mail by this server", MailServer, body=MailServer, errors=(422,)))
@does(Right.SETTINGS_CHANGE)
async def set_mail(request: Request, caller: Caller, wanted: Annotated[dict[str, Any], Depends(document)]) -> Response:
    """`***` as the password keeps the one that is there."""
    return json(await run_in_threadpool(services(request).set_mail, caller, wanted))


@router.delete("/mail", **described("Send no mail any more", status=204, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def drop_mail(request: Request, caller: Caller) -> Response:
    await run_in_threadpool(services(request).drop_mail, caller)
    return Response(status_code=204)
