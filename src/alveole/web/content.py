"""What a site holds: content and releases."""

from __future__ import annotations

import contextlib
import re

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput
from alveole.people.rights import Right
from alveole.web.files import Files
from alveole.web.pages import Asked, Errors, Page, PageRoute
from alveole.web.site import show

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")


# --- content and releases -------------------------------------------------------------------------
def _content(page: Page, site: str, errors: Errors | None = None, status: int = 200, note: str = "") -> Response:
    view = page.services.show_site(page.actor, site)
    found = errors or Errors(page.words)
    work = None
    if page.may(Right.SITE_FILES, view.id):
        # The page is worth showing without it: the agent may be away.
        with contextlib.suppress(AlveoleError):
            work = page.services.show_work(page.actor, site)
    return show(page, "site/content.html", view, "content", errors=found, status=status, note=note, work=work)


@router.get("/site/{site}/content")
@does(Right.SITE_LOOK)
def content(page: Asked, site: str) -> Response:
    return _content(page, site)


@router.post("/site/{site}/content")
@does(Right.SITE_RELEASE)
def publish(page: Asked, site: str, form: Files) -> Response:
    """New content from an upload, or with ``release`` a kept one again."""
    note = form("note").strip()[:200]
    try:
        if form("release"):
            wanted = ask.UpdateSite(release=form("release"))
        elif _UPLOAD.match(form("upload")):
            wanted = ask.UpdateSite(upload=form("upload"), note=note)
        else:
            raise InvalidInput("choose a file first", field="upload")
        change = page.services.update_site(page.actor, site, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _content(page, site, Errors(page.words, error.problems), error.http_status, note)
    return page.go(f"/change/{change.id}")
