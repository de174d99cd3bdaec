"""The pages of past days: opening a backup beside the live site, coming in, closing it."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from alveole.api.gate import does
from alveole.errors import AlveoleError
from alveole.people.rights import Right
from alveole.requests.backups import OpenBackup
from alveole.web.pages import HEADERS, Asked, Form, PageRoute
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: How long a past day may stay open, as the page offers it.
LENGTHS = (("1h", N_("for an hour")), ("4h", N_("for four hours")), ("1d", N_("for a day")))
STATES = {"opening": N_("is being made"), "open": N_("can be seen"), "closing": N_("is being removed")}


@router.post("/backup/{backup}/open")
@does(Right.BACKUP_OPEN)
def open_backup(page: Asked, backup: str, form: Form) -> Response:
    try:
        wanted = OpenBackup(length=form("length", "1h"))
        change = page.services.open_backup_beside(page.actor, backup, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.back("/sites", page.refused(error), "danger")
    return page.go(f"/change/{change.id}")


@router.get("/past/{past}")
@does(Right.SITE_LOOK)
def past_day(page: Asked, past: str) -> Response:
    """Where the edge leads who came to the past day itself. A page, not a redirect: what somebody signed in for is sent
    on by a form, whose policy lets it lead to no other host."""
    return page.show("past.html", day=page.services.show_past_day(page.actor, past), states=_states(page))


@router.get("/past/{past}/enter")
@does(Right.SITE_LOOK)
def enter(page: Asked, past: str) -> Response:
    return RedirectResponse(page.services.enter_past_day(page.actor, past), 303, HEADERS)


@router.post("/past/{past}/close")
@does(Right.BACKUP_OPEN)
def close(page: Asked, past: str) -> Response:
    try:
        site = page.services.show_past_day(page.actor, past).site
        page.services.close_past_day(page.actor, past)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.back("/sites", page.refused(error), "danger")
    return page.back(f"/site/{quote(site)}/backups", page.t("It is being closed, with all that was written in it."))


def _states(page: Asked) -> dict[str, str]:
    return {key: page.t(text) for key, text in STATES.items()}
