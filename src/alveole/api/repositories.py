"""Routes of where backups are kept, of the platform's own, and of what is in a backup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from alveole.api import streams
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.people.rights import Right
from alveole.requests.backups import PutRepository, RestoreFile
from alveole.views.backups import BackupKeyView, KeepingView, PreviewView, RepositoryView, SshKeyView, TreeView

router = APIRouter(prefix="/v1", tags=["backups"], route_class=LateRoute)
_CHUNK = 1 << 20
Opened = AbstractContextManager[tuple[int, int, str]]


@router.get("/repositories", **described("List the repositories of backups", list[RepositoryView]))
@does(Right.PLATFORM_LOOK)
async def list_repositories(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_repositories, caller))


@router.put(
    "/repositories/{repository}",
    **described("Add a repository of backups", RepositoryView, body=PutRepository, errors=(409, 422)),
)
@does(Right.SETTINGS_CHANGE)
async def put_repository(
    request: Request, caller: Caller, repository: str, wanted: Annotated[PutRepository, Depends(body(PutRepository))]
) -> Response:
    """It is reached at once, and made where it is not. Again: how it is reached from now on."""
    return json(await streams.in_waiting(services(request).put_repository, caller, repository, wanted))


@router.post(
    "/repositories/{repository}/key",
    **described("The key a repository signs in with by SFTP", SshKeyView, errors=(422,)),
)
@does(Right.SETTINGS_CHANGE)
async def new_repository_key(request: Request, caller: Caller, repository: str) -> Response:
    """The public half, made once; put it into `authorized_keys` there before the repository is added."""
    return json(await run_in_threadpool(services(request).new_repository_key, caller, repository))


@router.post(
    "/repositories/{repository}/check", **described("Reach a repository and compare it", RepositoryView, errors=(404,))
)
@does(Right.SETTINGS_CHANGE)
async def check_repository(request: Request, caller: Caller, repository: str) -> Response:
    return json(await streams.in_waiting(services(request).check_repository, caller, repository))


@router.post("/repositories/{repository}/use", **described("Have new backups go there", RepositoryView, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def use_repository(request: Request, caller: Caller, repository: str) -> Response:
    return json(await streams.in_waiting(services(request).use_repository, caller, repository))


@router.delete("/repositories/{repository}", **described("Forget a repository", status=204, errors=(404, 409)))
@does(Right.SETTINGS_CHANGE)
async def forget_repository(request: Request, caller: Caller, repository: str) -> Response:
    """What it holds stays there."""
    await run_in_threadpool(services(request).forget_repository, caller, repository)
    return Response(status_code=204)


@router.get("/keeping", **described("How well this machine could be made again", KeepingView))
@does(Right.PLATFORM_LOOK)
async def keeping(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).keeping, caller))


@router.post("/backup-key", **described("The key that all backups are sealed with", BackupKeyView))
@does(Right.PLATFORM_KEY)
async def export_backup_key(request: Request, caller: Caller) -> Response:
    """By POST, for it is journalled who had it."""
    return json(await run_in_threadpool(services(request).export_backup_key, caller))


@router.post("/platform-backups", **accepted("Save the platform itself"))
@does(Right.SETTINGS_CHANGE)
async def save_platform(request: Request, caller: Caller, key: Key) -> Response:
    """Database, settings, authority, sealed secrets and keys; the sites' own data are in their backups."""
    return change_accepted(await run_in_threadpool(services(request).save_platform, caller, key=key))


# --- what is in a backup ------------------------------------------------------------------------
@router.get("/backups/{backup}/tree", **described("List a directory of a backup", TreeView, errors=(404,)))
@does(Right.BACKUP_READ)
async def browse_backup(
    request: Request,
    caller: Caller,
    backup: str,
    path: Annotated[str, Query(description="Such as `volumes/data`; empty: the top.")] = "",
) -> Response:
    return json(await streams.in_waiting(services(request).browse_backup, caller, backup, path))


@router.get(
    "/backups/{backup}/archive",
    **described("Take a backup away", media="application/octet-stream", errors=(404, 507)),
)
@does(Right.BACKUP_READ)
async def fetch_backup(
    request: Request,
    caller: Caller,
    backup: str,
    path: Annotated[str, Query(description="One file of it; empty: all of it, as a tar.")] = "",
) -> Response:
    """All of it is read and compared before the first byte is sent."""
    opened = services(request).open_backup(caller, backup, path)
    return download(opened, await streams.in_waiting(opened.__enter__))


def download(opened: Opened, found: tuple[int, int, str]) -> Response:
    """An open file as an answer; it is closed when it was sent, or when nobody takes it any more."""
    fd, size, name = found

    def blocks() -> Iterator[bytes]:
        try:
            at = 0
            while data := os.pread(fd, _CHUNK, at):
                at += len(data)
                yield data
        finally:
            opened.__exit__(None, None, None)

    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    return StreamingResponse(blocks(), headers=headers, media_type="application/octet-stream")


@router.get(
    "/backups/{backup}/preview",
    **described("Compare a file of a backup with what is there now", PreviewView, errors=(404, 409, 422)),
)
@does(Right.BACKUP_READ)
async def preview_file(
    request: Request,
    caller: Caller,
    backup: str,
    path: Annotated[str, Query(description="As in `volumes/NAME/…` or `release/…`.")] = "",
) -> Response:
    """What putting it back would change."""
    return json(await streams.in_waiting(services(request).preview_file, caller, backup, path))


@router.post("/backups/{backup}/files", **accepted("Put one file of a backup back", body=RestoreFile, errors=(507,)))
@does(Right.BACKUP_RESTORE)
async def restore_file(
    request: Request,
    caller: Caller,
    key: Key,
    backup: str,
    wanted: Annotated[RestoreFile, Depends(body(RestoreFile))],
) -> Response:
    """A file of a volume, or a directory with all in it: what stands there now is replaced. A file of the content: a
    new release of the present one with that file as it was, live if the site says so of files (`on_files`)."""
    return change_accepted(await run_in_threadpool(services(request).restore_file, caller, backup, wanted, key=key))
