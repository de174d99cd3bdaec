"""Style, scripts and symbols. Each has the digest of its content in its address, so a browser may keep it for ever."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.resources import files

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from alveole.api.gate import does
from alveole.errors import NotFound
from alveole.people.rights import Right

router = APIRouter(include_in_schema=False)
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
#: RFC 9111 §5.2.2.1; a year is what "for ever" is by custom.
_FOR_EVER = "public, max-age=31536000, immutable"


class Asset(msgspec.Struct, frozen=True):
    name: str
    media: str
    content: bytes
    packed: bytes
    digest: str

    @property
    def path(self) -> str:
        return f"/static/{self.digest}/{self.name}"


@cache
def assets() -> dict[str, Asset]:
    """Those of ours and those of others, by name. Read once: they change with the program only."""
    found = {}
    for folder in ("static", "vendor"):
        for file in (files("alveole") / "web" / folder).iterdir():
            media = _TYPES.get(file.name.rpartition(".")[2])
            if media is not None:
                content = file.read_bytes()
                digest = hashlib.sha256(content).hexdigest()[:16]
                packed = gzip.compress(content, 9, mtime=0)
                found[file.name] = Asset(file.name, f"{media}; charset=utf-8", content, packed, digest)
    return found


def path_of(name: str) -> str:
    """The address of an asset. Raises ``KeyError`` for one that is not there."""
    return assets()[name].path


@router.get("/static/{digest}/{name}")
@does(Right.OPEN)
async def static(request: Request, digest: str, name: str) -> Response:
    asset = assets().get(name)
    if asset is None or asset.digest != digest:
        raise NotFound(f"there is nothing at {request.url.path}")
    headers = {"Cache-Control": _FOR_EVER, "Vary": "Accept-Encoding"}
    content = asset.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        content = asset.packed
    return Response(content, headers=headers, media_type=asset.media)


@router.get("/favicon.ico")
@does(Right.OPEN)
async def favicon() -> Response:
    return Response(
        assets()["alveole.svg"].content, headers={"Cache-Control": "max-age=86400"}, media_type=_TYPES["svg"]
    )
