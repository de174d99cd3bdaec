"""A site's checks: how each stands, its text, running it and seeing each step, what failed, secrets."""

from __future__ import annotations

import hashlib
import re
import time
from urllib.parse import quote

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.entrance import place_of
from alveole.api.gate import does
from alveole.errors import AlveoleError, Problem
from alveole.people.rights import Right
from alveole.requests import checks as check_requests
from alveole.scenarios.model import CheckDraft, CheckRun, Going
from alveole.services.recording import RECORDING_SECONDS
from alveole.web.files import Files
from alveole.web.pages import HEADERS, Asked, Errors, Fields, Form, Page, PageRoute
from alveole.web.site import show
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: Seconds since the epoch, as a page writes them.
_MOMENT = re.compile(r"\d{1,12}(?:\.\d{1,3})?\Z")
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")
#: What a new scenario begins with.
EXAMPLE = """\
title: The front page
every: 5m
steps:
  - request: GET /
    expect:
      text: Welcome
"""
USES = {
    "hand": N_("by hand"),
    "monitor": N_("watching"),
    "gate": N_("before the switch"),
    "verify": N_("after the switch"),
}


@router.get("/site/{site}/checks")
@does(Right.SITE_LOOK)
def checks(page: Asked, site: str) -> Response:
    return _list(page, site)


def _list(
    page: Page, site: str, errors: Errors | None = None, form: Fields | None = None, status: int = 200
) -> Response:
    services, actor = page.services, page.actor
    states = services.list_checks(actor, site)
    view = services.show_site(actor, site)
    near = page.may(Right.SITE_CHECKS, view.id)
    failed = [services.show_check(actor, site, each.name) for each in states if near and each.ok is False]
    return show(
        page,
        "site/checks.html",
        view,
        "checks",
        status=status,
        states=states,
        evidence={each.name: _last_failure(each.runs) for each in failed},
        secrets=services.list_check_secrets(actor, site) if near else (),
        errors=errors or Errors(page.words),
        form=form or Fields([]),
        uses=USES,
    )


def _last_failure(runs: tuple[CheckRun, ...]) -> CheckRun | None:
    return next((each for each in runs if not each.ok and each.report is not None), None)


# --- text ---------------------------------------------------------------------------------------
@router.get("/site/{site}/checks/new")
@does(Right.SITE_CHANGE)
def new(page: Asked, site: str) -> Response:
    page.services.allow_site(page.actor, Right.SITE_CHANGE, site)
    return _new(page, site, Fields([("text", EXAMPLE)]))


def _new(
    page: Page,
    site: str,
    form: Fields,
    *,
    errors: Errors | None = None,
    status: int = 200,
    going: Going | None = None,
    draft: CheckDraft | None = None,
) -> Response:
    view = page.services.show_site(page.actor, site)
    more = {"errors": errors or Errors(page.words), "form": form, "going": going, "draft": draft}
    return show(page, "site/new-check.html", view, "checks", status=status, digest="", **more)


@router.post("/site/{site}/checks/new")
@does(Right.SITE_CHANGE)
def add(page: Asked, site: str, form: Form) -> Response:
    """``do=try`` runs the text and keeps nothing of it."""
    page.services.allow_site(page.actor, Right.SITE_CHANGE, site)
    text = form("text").replace("\r\n", "\n")
    try:
        if form("do") == "try":
            return _new(page, site, form, going=_begin(page, site, text))
        page.services.put_check(page.actor, site, form("name").strip(), check_requests.CheckText(text=text, fresh=True))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _new(page, site, form, errors=_placed(page, error), status=error.http_status)
    return page.go(f"/site/{quote(site)}/check/{quote(form('name').strip())}", page.t("The check is kept."))


def _begin(page: Page, site: str, text: str) -> Going:
    return page.services.begin_checks(page.actor, site, check_requests.RunChecks(text=text))


def _placed(page: Page, error: AlveoleError) -> Errors:
    """All that is wrong with the text stands below it, each with its place in it."""
    own = ("", "check", "name", "text")
    found = (
        each if each.field in own else Problem("text", f"[{each.field}] {page.words.said(each.message)}", each.hint)
        for each in error.problems
    )
    return Errors(page.words, tuple(found))


@router.post("/site/{site}/checks/record")
@does(Right.SITE_CHANGE)
def record(page: Asked, site: str, form: Files) -> Response:
    """A recording of a browser becomes a text to look through; nothing is kept yet."""
    services, actor = page.services, page.actor
    services.allow_site(actor, Right.SITE_CHANGE, site)
    try:
        if not _UPLOAD.match(form("upload")):
            errors = Errors(page.words, (Problem("upload", "choose a file first"),))
            return _list(page, site, errors, form, 422)
        draft = services.draft_check(actor, site, form("upload"))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _list(page, site, Errors(page.words, error.problems), form, error.http_status)
    name = re.sub(r"[^a-z0-9]+", "-", form("filename").rpartition(".")[0].lower()).strip("-")[:40]
    return _new(page, site, Fields([("name", name or "recorded"), ("text", draft.text)]), draft=draft)


@router.get("/site/{site}/checks/recording")
@does(Right.SITE_CHECKS)
def recording(page: Asked, site: str, since: str = "") -> Response:
    """The moment it began stands in the address: the page may be loaded again, and nothing is held for it here."""
    page.services.allow_site(page.actor, Right.SITE_CHANGE, site)
    if not _MOMENT.match(since):
        return page.go(f"/site/{quote(site)}/checks/recording?since={time.time():.2f}")
    return _recording(page, site, since)


def _recording(page: Page, site: str, since: str, errors: Errors | None = None, status: int = 200) -> Response:
    view = page.services.show_site(page.actor, site)
    more = {"since": since, "began": float(since), "minutes": round(RECORDING_SECONDS / 60)}
    return show(page, "site/recording.html", view, "checks", status=status, errors=errors or Errors(page.words), **more)


@router.post("/site/{site}/checks/recording")
@does(Right.SITE_CHECKS)
def stop_recording(page: Asked, site: str, form: Form) -> Response:
    """What this browser has done on the site since then becomes a text to look through; nothing is kept yet."""
    services, actor = page.services, page.actor
    services.allow_site(actor, Right.SITE_CHANGE, site)
    since = form("since") if _MOMENT.match(form("since")) else "0"
    place = place_of(page.request)
    try:
        wanted = check_requests.RecordCheck(since=float(since), address=place.address, agent=place.agent)
        draft = services.record_check(actor, site, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _recording(page, site, since, Errors(page.words, error.problems), error.http_status)
    return _new(page, site, Fields([("name", "recorded"), ("text", draft.text)]), draft=draft)


@router.get("/site/{site}/check/{check}")
@does(Right.SITE_CHECKS)
def check(page: Asked, site: str, check: str) -> Response:
    return _one(page, site, check)


def _one(
    page: Page,
    site: str,
    name: str,
    *,
    text: str | None = None,
    errors: Errors | None = None,
    status: int = 200,
    going: Going | None = None,
) -> Response:
    found = page.services.show_check(page.actor, site, name)
    view = page.services.show_site(page.actor, site)
    return show(
        page,
        "site/check.html",
        view,
        "checks",
        status=status,
        check=found,
        text=found.text if text is None else text,
        failure=_last_failure(found.runs) if found.state.ok is False else None,
        errors=errors or Errors(page.words),
        going=going,
        digest="",
        uses=USES,
    )


@router.post("/site/{site}/check/{check}")
@does(Right.SITE_CHANGE)
def change(page: Asked, site: str, check: str, form: Form) -> Response:
    services, actor = page.services, page.actor
    services.allow_site(actor, Right.SITE_CHANGE, site)
    text = form("text").replace("\r\n", "\n")
    services.show_check(actor, site, check)
    try:
        if form("do") == "try":
            return _one(page, site, check, text=text, going=_begin(page, site, text))
        services.put_check(actor, site, check, check_requests.CheckText(text=text))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _one(page, site, check, text=text, errors=_placed(page, error), status=error.http_status)
    return page.go(f"/site/{quote(site)}/check/{quote(check)}", page.t("The check is kept."))


@router.post("/site/{site}/check/{check}/remove")
@does(Right.SITE_CHANGE)
def remove(page: Asked, site: str, check: str) -> Response:
    page.services.drop_check(page.actor, site, check)
    return page.go(f"/site/{quote(site)}/checks", page.t("The check {name} is gone.", name=check))


# --- running ------------------------------------------------------------------------------------
@router.post("/site/{site}/checks/run")
@does(Right.SITE_CHECKS)
def run(page: Asked, site: str, form: Form) -> Response:
    try:
        going = page.services.begin_checks(page.actor, site, check_requests.RunChecks(names=form.all("check")))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go(f"/site/{quote(site)}/checks", page.refused(error), "danger")
    return page.go(f"/site/{quote(site)}/checks/run/{going.id}")


@router.get("/site/{site}/checks/run/{run}")
@does(Right.SITE_CHECKS)
def going(page: Asked, site: str, run: str, seen: str = "") -> Response:
    """With ``seen`` only what moves, and nothing when it is as it was."""
    found = page.services.show_going(page.actor, site, run)
    digest = hashlib.sha256(msgspec.json.encode(found)).hexdigest()[:16]
    if page.partial and seen == digest:
        return Response(status_code=204, headers=HEADERS)
    view = page.services.show_site(page.actor, site)
    template = "part/going.html" if page.partial and seen else "site/going.html"
    return show(page, template, view, "checks", going=found, digest=digest)


# --- secrets ------------------------------------------------------------------------------------
@router.post("/site/{site}/checks/secrets")
@does(Right.SITE_CHANGE)
def add_secret(page: Asked, site: str, form: Form) -> Response:
    name = form("secret").strip()
    try:
        page.services.put_check_secret(page.actor, site, name, check_requests.CheckSecret(value=form("value")))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _list(page, site, Errors(page.words, error.problems), form, error.http_status)
    return page.go(f"/site/{quote(site)}/checks#secrets", page.t("The secret {name} is kept.", name=name))


@router.post("/site/{site}/checks/secrets/{secret}/remove")
@does(Right.SITE_CHANGE)
def drop_secret(page: Asked, site: str, secret: str) -> Response:
    page.services.drop_check_secret(page.actor, site, secret)
    return page.go(f"/site/{quote(site)}/checks#secrets", page.t("The secret {name} is gone.", name=secret))
