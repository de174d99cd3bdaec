"""Routes of backups: making, listing, proving, giving back; how they are made and kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.people.rights import Right
from alveole.requests.backups import PinBackup, ProveBackup, SetPolicy, SetSitePolicy
from alveole.views.backups import BackupDetail, BackupView, CalendarView, PolicyView, SiteBackupsView

router = APIRouter(prefix="/v1", route_class=LateRoute)


@router.get("/backups", tags=["backups"], **described("List backups, newest first", list[BackupView], errors=(404,)))
@does(Right.SITE_LIST)
async def list_backups(
    request: Request,
    caller: Caller,
    site: Annotated[str | None, Query(description="Only those of this site, also of a destroyed one.")] = None,
) -> Response:
    return json(await run_in_threadpool(services(request).list_backups, caller, site))


@router.post("/backups", tags=["backups"], **accepted("Save a site", body=ask.CreateBackup, errors=(507,)))
@does(Right.BACKUP_CREATE)
async def create_backup(
    request: Request, caller: Caller, key: Key, wanted: Annotated[ask.CreateBackup, Depends(body(ask.CreateBackup))]
) -> Response:
    """Content, configuration and volumes, while the site runs. Its id is in the change's `result`."""
    return change_accepted(await run_in_threadpool(services(request).create_backup, caller, wanted, key=key))


@router.post(
    "/backups/{backup}/restore",
    tags=["backups"],
    **accepted("Give a backup back", body=ask.RestoreBackup, errors=(507,)),
)
@does(Right.BACKUP_RESTORE)
async def restore_backup(
    request: Request,
    caller: Caller,
    key: Key,
    backup: str,
    wanted: Annotated[ask.RestoreBackup, Depends(body(ask.RestoreBackup))],
) -> Response:
    """Into the site it was made of, or with `name` as a new one; the live one is untouched until the switch."""
    return change_accepted(await run_in_threadpool(services(request).restore_backup, caller, backup, wanted, key=key))


@router.delete("/backups/{backup}", tags=["backups"], **accepted("Delete a backup"))
@does(Right.BACKUP_DELETE)
async def delete_backup(request: Request, caller: Caller, key: Key, backup: str) -> Response:
    return change_accepted(await run_in_threadpool(services(request).delete_backup, caller, backup, key=key))


@router.get(
    "/backups/{backup}", tags=["backups"], **described("Show a backup and its proof", BackupDetail, errors=(404,))
)
@does(Right.BACKUP_LOOK)
async def show_backup(request: Request, caller: Caller, backup: str) -> Response:
    return json(await run_in_threadpool(services(request).show_backup, caller, backup))


@router.put(
    "/backups/{backup}/pinned",
    tags=["backups"],
    **described("Keep a backup for good, or no longer", BackupView, body=PinBackup, errors=(404,)),
)
@does(Right.BACKUP_DELETE)
async def pin_backup(
    request: Request, caller: Caller, backup: str, wanted: Annotated[PinBackup, Depends(body(PinBackup))]
) -> Response:
    return json(await run_in_threadpool(services(request).pin_backup, caller, backup, wanted))


@router.post("/backups/{backup}/prove", tags=["backups"], **accepted("Prove a backup", errors=(507,)))
@does(Right.BACKUP_PROVE)
async def prove_backup(request: Request, caller: Caller, key: Key, backup: str) -> Response:
    """It is given back into a scratch site that nobody reaches, whose checks and scenarios are asked. The change fails
    when it cannot be proved."""
    return change_accepted(await run_in_threadpool(services(request).prove_backup, caller, backup, key=key))


@router.post(
    "/backups/prove",
    tags=["backups"],
    **accepted("Prove the newest backup of a site", body=ProveBackup, errors=(507,)),
)
@does(Right.BACKUP_PROVE)
async def prove_site(
    request: Request, caller: Caller, key: Key, wanted: Annotated[ProveBackup, Depends(body(ProveBackup))]
) -> Response:
    return change_accepted(await run_in_threadpool(services(request).prove_site, caller, wanted, key=key))


@router.get("/backup-policy", tags=["backups"], **described("How backups are made and kept", PolicyView))
@does(Right.PLATFORM_LOOK)
async def backup_policy(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).backup_policy, caller))


@router.patch(
    "/backup-policy",
    tags=["backups"],
    **described("Change how backups are made and kept", PolicyView, body=SetPolicy, errors=(422,)),
)
@does(Right.SETTINGS_CHANGE)
async def set_backup_policy(
    request: Request, caller: Caller, wanted: Annotated[SetPolicy, Depends(body(SetPolicy))]
) -> Response:
    return json(await run_in_threadpool(services(request).set_backup_policy, caller, wanted))


@router.get(
    "/sites/{site}/backups", tags=["backups"], **described("How a site's backups stand", SiteBackupsView, errors=(404,))
)
@does(Right.BACKUP_LOOK)
async def site_backups(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).site_backups, caller, site))


@router.get(
    "/sites/{site}/backups/calendar",
    tags=["backups"],
    **described("A month of a site's backups", CalendarView, errors=(404, 422)),
)
@does(Right.BACKUP_LOOK)
async def backup_calendar(
    request: Request,
    caller: Caller,
    site: str,
    month: Annotated[str, Query(description="As `2026-11`; empty: this one.")] = "",
) -> Response:
    """By day, in the machine's own time: what was made, what of it is pinned and proved, what failed."""
    return json(await run_in_threadpool(services(request).backup_calendar, caller, site, month))


@router.patch(
    "/sites/{site}/backups",
    tags=["backups"],
    **described(
        "Change how one site's backups are made and kept", SiteBackupsView, body=SetSitePolicy, errors=(404, 422)
    ),
)
@does(Right.SITE_CHANGE)
async def set_site_backups(
    request: Request, caller: Caller, site: str, wanted: Annotated[SetSitePolicy, Depends(body(SetSitePolicy))]
) -> Response:
    return json(await run_in_threadpool(services(request).set_site_backups, caller, site, wanted))
