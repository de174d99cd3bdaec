"""Routes of a site's files: the working copy, what lasts, and what was published. The same verbs as the pages'."""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from alveole.api import uploads
from alveole.api.answers import json, services
from alveole.api.bodies import Caller, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import described
from alveole.errors import InvalidInput
from alveole.people.rights import Right
from alveole.requests import files as wanted
from alveole.services.files import Span
from alveole.views import files as file_views

router = APIRouter(prefix="/v1/sites/{site}/files", tags=["files"], route_class=LateRoute)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_ETAG = re.compile(r'"([0-9a-f]{64})"\Z')
_OCTETS = "application/octet-stream"
At = Annotated[
    str,
    Query(description="A path from the working copy on, or an absolute one of the container. Empty: the working copy."),
]


def _split(at: str) -> tuple[str, str]:
    """The folder and the name; of an absolute path the folder is absolute."""
    folder, name = posixpath.split(at.rstrip("/"))
    return folder, name


@router.get("", **described("List a folder", file_views.FolderView, errors=(404, 409, 422)))
@does(Right.SITE_FILES)
async def list_folder(request: Request, caller: Caller, site: str, at: At = "") -> Response:
    """Folders first, by name."""
    return json(await run_in_threadpool(services(request).list_folder, caller, site, at))


@router.get("/stat", **described("Show one file or folder", file_views.FileEntry, errors=(404, 409, 422)))
@does(Right.SITE_FILES)
async def show_file(request: Request, caller: Caller, site: str, at: At = "") -> Response:
    return json(await run_in_threadpool(services(request).show_file, caller, site, at))


_TAG = {"ETag": "Send it back in If-Match with a change."}


@router.get("/text", **described("Read a text", file_views.TextFileView, errors=(404, 409, 422), headers=_TAG))
@does(Right.SITE_FILES)
async def read_text(request: Request, caller: Caller, site: str, at: At = "") -> Response:
    """UTF-8 of at most 256 KiB; anything else is read as it is by `/content`."""
    found = await run_in_threadpool(services(request).read_text, caller, site, at)
    return json(found, headers={"ETag": f'"{found.etag}"'})


@router.put(
    "/text",
    **described(
        "Write a text",
        file_views.TextFileView,
        body=wanted.WriteText,
        errors=(404, 409, 412, 413, 422, 507),
        headers=_TAG,
    ),
)
@does(Right.SITE_FILES)
async def write_text(
    request: Request,
    caller: Caller,
    site: str,
    change: Annotated[wanted.WriteText, Depends(body(wanted.WriteText))],
    at: At = "",
    etag: Annotated[
        str | None,
        Header(alias="If-Match", description="The ETag that was read; 412 when it changed since. Absent: a new file."),
    ] = None,
) -> Response:
    seen = ""
    if etag is not None:
        if not (found := _ETAG.match(etag.strip())):
            raise InvalidInput(f"{etag[:80]!r} is not an ETag of a text", field="If-Match", hint="send it as it came")
        seen = found[1]
    done = await run_in_threadpool(services(request).write_text, caller, site, at, change.text, seen)
    return json(done, headers={"ETag": f'"{done.etag}"'})


def _content() -> dict[str, Any]:
    found = described("Read a file as it is, or a folder as a zip", media=_OCTETS, errors=(404, 409, 416, 422))
    parts = {
        "description": "The part that Range asked for.",
        "headers": {"Content-Range": {"description": "Which part of how much.", "schema": {"type": "string"}}},
        "content": {_OCTETS: {"schema": {"type": "string"}}},
    }
    found["openapi_extra"]["responses"]["206"] = parts
    return found


@router.get("/content", **_content())
@does(Right.SITE_FILES)
async def read_content(
    request: Request,
    caller: Caller,
    site: str,
    at: At = "",
    part: Annotated[
        str | None, Header(alias="Range", description="One part of a file, as bytes=0-1023, bytes=1024- or bytes=-512.")
    ] = None,
) -> Response:
    span = _span(part)
    found = await run_in_threadpool(services(request).download, caller, site, at, span)
    headers = {
        # Whatever a site's files hold: nothing of it runs under this name.
        "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.name, safe='')}",
    }
    status = 200
    if found.size is not None:
        headers["Accept-Ranges"] = "bytes"
        headers["Content-Length"] = str(found.size)
    if found.first is not None and found.size is not None:
        status = 206
        headers["Content-Range"] = f"bytes {found.first}-{found.first + found.size - 1}/{found.whole}"
    done = BackgroundTask(found.close)
    return StreamingResponse(found.pieces, status, headers=headers, media_type=_OCTETS, background=done)


def _span(text: str | None) -> Span | None:
    """RFC 9110 §14.1.2; of several parts, or another unit, the whole is what is answered (§14.2)."""
    found = _RANGE.match(text.strip()) if text is not None else None
    if found is None or not (found[1] or found[2]):
        return None
    first, last = (int(each) if each else None for each in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return Span(first, last)


@router.put(
    "/content",
    **described(
        "Store a file", file_views.FileEntry, body=bytes, errors=(404, 409, 413, 422, 507), answers="It is there."
    ),
)
@does(Right.SITE_FILES)
async def store_content(request: Request, caller: Caller, site: str, at: At = "") -> Response:
    """What was there is replaced, whole or not at all."""
    verbs = services(request)
    await run_in_threadpool(verbs.may_change_files, caller, site)
    folder, name = _split(at)
    if not name:
        raise InvalidInput("names no file", field="at")
    sent = await uploads.receive(request, caller, verbs, request.app.state.settings)
    await run_in_threadpool(verbs.put_files, caller, site, folder, sent.id, name)
    return json(await run_in_threadpool(verbs.show_file, caller, site, at))


@router.delete("", **described("Delete a file, or a folder with all in it", status=204, errors=(404, 409, 422)))
@does(Right.SITE_FILES)
async def delete_file(request: Request, caller: Caller, site: str, at: At = "") -> Response:
    folder, name = _split(at)
    await run_in_threadpool(services(request).delete_files, caller, site, folder, (name,))
    return Response(status_code=204)


@router.post(
    "/folders",
    **described("Make a folder", file_views.FileEntry, status=201, body=wanted.MakeFolder, errors=(404, 409, 422, 507)),
)
@does(Right.SITE_FILES)
async def make_folder(
    request: Request,
    caller: Caller,
    site: str,
    asked: Annotated[wanted.MakeFolder, Depends(body(wanted.MakeFolder))],
) -> Response:
    verbs = services(request)
    await run_in_threadpool(verbs.make_folder, caller, site, *_split(asked.at))
    return json(await run_in_threadpool(verbs.show_file, caller, site, asked.at), 201)


@router.post(
    "/rename",
    **described("Rename or move a file or folder", status=204, body=wanted.RenameFile, errors=(404, 409, 422, 507)),
)
@does(Right.SITE_FILES)
async def rename_file(
    request: Request,
    caller: Caller,
    site: str,
    asked: Annotated[wanted.RenameFile, Depends(body(wanted.RenameFile))],
) -> Response:
    await run_in_threadpool(services(request).move_file, caller, site, asked.at, asked.to)
    return Response(status_code=204)


@router.post(
    "/unpack",
    **described("Unpack an archive", file_views.Unpacked, body=wanted.UnpackFile, errors=(404, 409, 422, 507)),
)
@does(Right.SITE_FILES)
async def unpack_file(
    request: Request,
    caller: Caller,
    site: str,
    asked: Annotated[wanted.UnpackFile, Depends(body(wanted.UnpackFile))],
) -> Response:
    count = await run_in_threadpool(services(request).unpack_file, caller, site, *_split(asked.at))
    return json(file_views.Unpacked(files=count))
