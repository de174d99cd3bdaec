"""How documents become answers. Encoded by msgspec: a list of a thousand sites must stay quick."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request
from starlette.responses import Response

from alveole.api.schema import JSON
from alveole.model.change import Change
from alveole.services import Services
from alveole.views import SiteView

_encoder = msgspec.json.Encoder()


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_encoder.encode(value), status_code=status, headers=headers, media_type=JSON)


def change_accepted(change: Change) -> Response:
    """202, with the address to follow."""
    return json(change, 202, {"Location": f"/v1/changes/{change.id}"})


def site_answer(site: SiteView) -> Response:
    return json(site, headers={"ETag": f'"{site.version}"'})
