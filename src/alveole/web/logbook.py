"""Log lines on pages: of one site, of all, and who visits a site."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput
from alveole.logbook.asking import SearchLogs
from alveole.logbook.model import Found, Source
from alveole.people.rights import Right
from alveole.services.analytics import Analytics
from alveole.web import admin
from alveole.web.pages import Asked, Errors, Page, PageRoute
from alveole.web.site import show
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
LINES = 500
SOURCES = {
    Source.OUT: N_("what it prints"),
    Source.ACCESS: N_("requests"),
    Source.ERROR: N_("failed requests"),
    Source.IN: N_("received by syslog"),
}
PLATFORM_SOURCES = {Source.OWN: N_("Alvéole itself"), Source.HOST: N_("the machine")}
LEVELS = {
    "": N_("all"),
    "err": N_("errors"),
    "warning": N_("warnings and graver"),
    "notice": N_("notices and graver"),
    "info": N_("all but traces"),
}
TABLES = {
    "pages": N_("Pages"),
    "not_found": N_("Addresses not found"),
    "statuses": N_("Statuses"),
    "referrers": N_("Where visitors come from"),
    "days": N_("Days"),
    "hours": N_("Hours of the day"),
    "files": N_("Files"),
    "addresses": N_("Networks of visitors"),
    "browsers": N_("Browsers"),
    "systems": N_("Systems"),
}
PERIODS = {"1d": N_("one day"), "7d": N_("seven days"), "30d": N_("thirty days"), "90d": N_("ninety days")}


def _searched(page: Page, wanted: SearchLogs) -> tuple[Found, Errors]:
    try:
        return page.services.search_logs(page.actor, wanted), Errors(page.words)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return Found((), complete=True), Errors(page.words, error.problems)


@router.get("/site/{site}/logs")
@does(Right.SITE_LOGS)
def logs(
    page: Asked, site: str, q: str = "", source: str = "out", level: str = "", since: str = "", until: str = ""
) -> Response:
    """The newest lines that fit; the page's script goes on with what comes."""
    view = page.services.show_site(page.actor, site)
    wanted = SearchLogs(site=site, source=source or None, level=level, grep=q, since=since, until=until, n=LINES)
    found, errors = _searched(page, wanted)
    asked = {"site": view.name, "source": source, "level": level}
    follow = "/v1/logs?follow=true&" + urlencode({key: text for key, text in asked.items() if text})
    return show(
        page,
        "site/logs.html",
        view,
        "logs",
        found=found,
        errors=errors,
        follow="" if until.strip() or errors.problems or view.node else follow,
        most=LINES,
        q=q,
        source=source,
        level=level,
        since=since,
        until=until,
        sources=[("", page.t("all of it")), *((str(each), page.t(text)) for each, text in SOURCES.items())],
        levels=[(each, page.t(text)) for each, text in LEVELS.items()],
        bytes=page.services.site_log_bytes(page.actor, site),
        bound=page.services.settings.logbook,
    )


@router.get("/admin/logs")
@does(Right.PLATFORM_LOGS)
def all_logs(
    page: Asked, q: str = "", source: str = "own", level: str = "", since: str = "", until: str = "", site: str = ""
) -> Response:
    """Lines of all sites, of Alvéole and of the machine, and the room they take."""
    wanted = SearchLogs(
        site=site.strip() or None, source=source or None, level=level, grep=q, since=since, until=until, n=LINES
    )
    try:
        found, errors = _searched(page, wanted)
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        found, errors = Found((), complete=True), Errors(page.words, error.problems)
    every = {**PLATFORM_SOURCES, **SOURCES}
    return admin.show(
        page,
        "logs",
        found=found,
        errors=errors,
        most=LINES,
        q=q,
        source=source,
        level=level,
        since=since,
        until=until,
        site_name=site,
        sources=[("", page.t("all of it")), *((str(each), page.t(text)) for each, text in every.items())],
        levels=[(each, page.t(text)) for each, text in LEVELS.items()],
        use=page.services.log_usage(page.actor),
    )


@router.get("/site/{site}/visitors")
@does(Right.SITE_LOGS)
def visitors(page: Asked, site: str, since: str = "7d") -> Response:
    """Who visits it, as goaccess counts."""
    view = page.services.show_site(page.actor, site)
    found: Analytics | None = None
    errors = Errors(page.words)
    try:
        if since not in PERIODS:
            raise InvalidInput(f"{since[:20]!r} is not one of the periods", field="since")
        found = page.services.analytics(page.actor, site, since)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        errors = Errors(page.words, error.problems)
    return show(
        page,
        "site/visitors.html",
        view,
        "visitors",
        found=found,
        errors=errors,
        since=since,
        periods=[(each, page.t(text)) for each, text in PERIODS.items()],
        tables=[(key, page.t(text)) for key, text in TABLES.items()],
        json=f"/v1/sites/{quote(view.name)}/analytics?{urlencode({'since': since})}",
    )
