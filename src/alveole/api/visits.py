"""Routes of the SSH door: keys of people, and the working copies of sites."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import requests as ask
from alveole import views
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, Version, body
from alveole.api.entrance import Whose
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.people.rights import Right

router = APIRouter(prefix="/v1", tags=["ssh"], route_class=LateRoute)


# --- keys -----------------------------------------------------------------------------------------
@router.get("/keys", **described("List the public keys of an account", list[views.KeyView], errors=(404, 409)))
@does(Right.ACCOUNT_LOOK)
async def list_keys(request: Request, caller: Caller, account: Whose = None) -> Response:
    return json(await run_in_threadpool(services(request).list_keys, caller, account))


@router.post(
    "/keys",
    **described("Add a public key to an account", views.KeyView, status=201, body=ask.AddKey, errors=(404, 409, 422)),
)
@does(Right.ACCOUNT_KEYS)
async def add_key(
    request: Request, caller: Caller, wanted: Annotated[ask.AddKey, Depends(body(ask.AddKey))], account: Whose = None
) -> Response:
    """With it the person comes in by SSH. One key belongs to one person."""
    made = await run_in_threadpool(services(request).add_key, caller, wanted, account)
    return json(made, 201)


@router.delete("/keys/{key}", **described("Remove a public key", status=204, errors=(404, 409)))
@does(Right.ACCOUNT_KEYS)
async def remove_key(request: Request, caller: Caller, key: str, account: Whose = None) -> Response:
    await run_in_threadpool(services(request).remove_key, caller, key, account)
    return Response(status_code=204)


# --- working copies -------------------------------------------------------------------------------
@router.get("/sites/{site}/work", **described("Show a site's working copy", views.WorkView, errors=(404,)))
@does(Right.SITE_FILES)
async def show_work(request: Request, caller: Caller, site: str) -> Response:
    """What SFTP, scp and rsync see, and what was changed in it since it was published."""
    return json(await run_in_threadpool(services(request).show_work, caller, site))


@router.post(
    "/sites/{site}/work/publish",
    **accepted("Make a release of a site's working copy", body=ask.PublishWork, errors=(412, 507)),
)
@does(Right.SITE_RELEASE)
async def publish_work(
    request: Request,
    caller: Caller,
    key: Key,
    version: Version,
    site: str,
    wanted: Annotated[ask.PublishWork, Depends(body(ask.PublishWork))],
) -> Response:
    """It is built as an upload would be, and made live unless ``live`` is false."""
    return change_accepted(
        await run_in_threadpool(services(request).publish_work, caller, site, wanted, key=key, version=version)
    )


@router.delete(
    "/sites/{site}/work", **described("Forget what was changed in a site's working copy", status=204, errors=(404, 409))
)
@does(Right.SITE_FILES)
async def drop_work(request: Request, caller: Caller, site: str) -> Response:
    """The git repository stays. Refused while somebody works on it."""
    await run_in_threadpool(services(request).drop_work, caller, site)
    return Response(status_code=204)
