"""The pages of backups: those of a site, what is in one, and how a machine keeps them."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from msgspec import UNSET
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.api.repositories import download
from alveole.errors import AlveoleError, InvalidInput
from alveole.people.rights import Right
from alveole.policy.backups import Cause
from alveole.requests.backups import PinBackup, PutRepository, RestoreFile, SetPolicy, SetSitePolicy
from alveole.views import calendar as backup_calendar
from alveole.web.admin import show as show_admin
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute, query
from alveole.web.pastdays import LENGTHS
from alveole.web.pastdays import STATES as PAST_STATES
from alveole.web.site import show
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
CAUSES = {
    Cause.NIGHT: N_("each night"),
    Cause.DESTROY: N_("before it was destroyed"),
    Cause.DEPLOY: N_("before a deploy"),
    Cause.HAND: N_("by hand"),
}
#: Backups that are listed where no day and no month is asked for.
_NEWEST = 30
_WEEKDAYS = (N_("Mon"), N_("Tue"), N_("Wed"), N_("Thu"), N_("Fri"), N_("Sat"), N_("Sun"))
_NUMBERS = ("days", "weeks", "months")


# --- of a site --------------------------------------------------------------------------------------
@router.get("/site/{site}/backups")
@does(Right.SITE_LOOK)
def backups(page: Asked, site: str, month: str = "", day: str = "") -> Response:
    return _backups(page, site, month=month, day=day)


def _backups(
    page: Page, site: str, errors: Errors | None = None, status: int = 200, *, month: str = "", day: str = ""
) -> Response:
    view = page.services.show_site(page.actor, site)
    there = page.may(Right.BACKUP_LOOK, view.id)
    listed = page.services.list_backups(page.actor, site)
    # Of a month that is asked for all, else the newest: a list of hundreds is nobody's to read.
    chosen = [each for each in listed if backup_calendar.day_of(each.created_at).startswith(day or month)]
    shown = chosen if day or month else chosen[:_NEWEST]
    return show(
        page,
        "site/backups.html",
        view,
        "backups",
        status=status,
        backups=shown,
        newest=listed[0].id if listed else "",
        hidden=len(chosen) - len(shown),
        month=month,
        day=day,
        grid=_grid(page, site, month or day[:7]) if there else None,
        stand=page.services.site_backups(page.actor, site) if there else None,
        causes={str(key): page.t(text) for key, text in CAUSES.items()},
        past_days=page.services.list_past_days(page.actor, view.id),
        past_states={key: page.t(text) for key, text in PAST_STATES.items()},
        errors=errors or Errors(page.words),
    )


def _grid(page: Page, site: str, month: str) -> dict[str, Any]:
    """The calendar of a month: its weeks, what each day holds, and where the months beside it are."""
    found = page.services.backup_calendar(page.actor, site, month)
    before, after = backup_calendar.beside(found.month)
    now = backup_calendar.month_of(time.time())
    return {
        "name": page.words.month(found.month),
        "weeks": backup_calendar.weeks(found.month),
        "days": {each.date: each for each in found.days},
        "today": backup_calendar.day_of(time.time()),
        "before": before if found.first < found.month else "",
        "after": after if found.month < now else "",
        "weekdays": [page.t(each) for each in _WEEKDAYS],
    }


@router.post("/site/{site}/backups")
@does(Right.BACKUP_CREATE)
def create_backup(page: Asked, site: str) -> Response:
    return _do(page, site, lambda: page.services.create_backup(page.actor, ask.CreateBackup(site=site)))


@router.post("/site/{site}/backups/policy")
@does(Right.SITE_CHANGE)
def set_site_backups(page: Asked, site: str, form: Form) -> Response:
    try:
        numbers = {name: _number(form, name) for name in _NUMBERS}
        wanted = SetSitePolicy(nightly=_choice(form("nightly")), prove=_choice(form("prove")), **numbers)
        page.services.set_site_backups(page.actor, site, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _backups(page, site, Errors(page.words, error.problems), error.http_status)
    return page.go(f"/site/{quote(site)}/backups", page.t("It holds from now on."))


def _number(form: Fields, name: str) -> int | None:
    text = form(name).strip()
    if not text:
        return None
    if not text.isdigit():
        raise InvalidInput(f"{text[:20]!r} is not a number", field=name)
    return int(text)


def _choice(text: str) -> bool | None:
    return {"yes": True, "no": False}.get(text)


@router.post("/backup/{backup}/restore")
@does(Right.BACKUP_RESTORE)
def restore_backup(page: Asked, backup: str, form: Form) -> Response:
    wanted = ask.RestoreBackup(name=form("name").strip() or None, here=form("here") == "yes")
    return _do(page, "", lambda: page.services.restore_backup(page.actor, backup, wanted))


@router.post("/backup/{backup}/delete")
@does(Right.BACKUP_DELETE)
def delete_backup(page: Asked, backup: str) -> Response:
    return _do(page, "", lambda: page.services.delete_backup(page.actor, backup))


@router.post("/backup/{backup}/prove")
@does(Right.BACKUP_PROVE)
def prove_backup(page: Asked, backup: str) -> Response:
    return _do(page, "", lambda: page.services.prove_backup(page.actor, backup))


@router.post("/backup/{backup}/pin")
@does(Right.BACKUP_DELETE)
def pin_backup(page: Asked, backup: str, form: Form) -> Response:
    pinned = form("pinned") == "yes"
    try:
        page.services.pin_backup(page.actor, backup, PinBackup(pinned=pinned))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.back("/sites", page.refused(error), "danger")
    return page.back("/sites", page.t("It stays until it is deleted.") if pinned else page.t("It may go again."))


def _do(page: Page, site: str, begin: Any) -> Response:
    try:
        change = begin()
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.back(f"/site/{quote(site)}/backups" if site else "/sites", page.refused(error), "danger")
    return page.go(f"/change/{change.id}")


# --- what is in one ---------------------------------------------------------------------------------
@router.get("/backup/{backup}/files")
@does(Right.BACKUP_READ)
def files(page: Asked, backup: str, path: str = "") -> Response:
    tree = page.services.browse_backup(page.actor, backup, path)
    detail = page.services.show_backup(page.actor, backup)
    crumbs = [("", page.t("Backup"))]
    for part in filter(None, tree.path.split("/")):
        crumbs.append((f"{crumbs[-1][0]}/{part}".lstrip("/"), part))
    return page.show(
        "backup.html",
        detail=detail,
        tree=tree,
        crumbs=crumbs,
        query=query,
        below=f"{tree.path}/" if tree.path else "",
        is_volume=tree.path.startswith("volumes/"),
        compared=f"{tree.path}/".startswith(("volumes/", "release/")),
        lengths=[(value, page.t(text)) for value, text in LENGTHS],
    )


@router.get("/backup/{backup}/preview")
@does(Right.BACKUP_READ)
def preview(page: Asked, backup: str, path: str = "") -> Response:
    found = page.services.preview_file(page.actor, backup, path)
    return page.show(
        "backup-file.html",
        detail=page.services.show_backup(page.actor, backup),
        found=found,
        folder=query(path=found.path.rpartition("/")[0]),
    )


@router.get("/backup/{backup}/download")
@does(Right.BACKUP_READ)
def take_away(page: Asked, backup: str, path: str = "") -> Response:
    opened = page.services.open_backup(page.actor, backup, path)
    return download(opened, opened.__enter__())


@router.post("/backup/{backup}/files")
@does(Right.BACKUP_RESTORE)
def restore_file(page: Asked, backup: str, form: Form) -> Response:
    wanted = RestoreFile(path=form("path"))
    return _do(page, "", lambda: page.services.restore_file(page.actor, backup, wanted))


# --- of the machine ---------------------------------------------------------------------------------
@router.get("/admin/backups")
@does(Right.PLATFORM_LOOK)
def machine_backups(page: Asked) -> Response:
    return _machine(page)


def _machine(page: Page, errors: Errors | None = None, status: int = 200, key: str = "", sftp: str = "") -> Response:
    services, actor = page.services, page.actor
    try:
        repositories = services.list_repositories(actor)
    except AlveoleError:
        repositories = ()
    return show_admin(
        page,
        "backups",
        status=status,
        held=services.backup_policy(actor),
        repositories=repositories,
        places=[("", page.t("nowhere")), *((each.name, each.name) for each in repositories if not each.used)],
        keeping=services.keeping(actor),
        errors=errors or Errors(page.words),
        key=key,
        sftp=sftp,
    )


@router.post("/admin/backups")
@does(Right.SETTINGS_CHANGE)
def set_machine_backups(page: Asked, form: Form) -> Response:
    try:
        numbers = {name: _number(form, name) for name in (*_NUMBERS, "gone_days", "prove_days", "parallel")}
        given = {name: UNSET if value is None else value for name, value in numbers.items()}
        wanted = SetPolicy(
            nightly=form("nightly") == "yes",
            before_destroy=form("before_destroy") == "yes",
            prove=form("prove") == "yes",
            copy_to=form("copy_to"),
            hour=float(form("hour").replace(",", ".") or 1),
            window_hours=float(form("window_hours").replace(",", ".") or 4),
            **given,
        )
        page.services.set_backup_policy(page.actor, wanted)
    except ValueError:
        wrong = InvalidInput("is not a number of hours", field="hour")
        return _machine(page, Errors(page.words, wrong.problems), 422)
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _machine(page, Errors(page.words, error.problems), error.http_status)
    return page.go("/admin/backups", page.t("It holds from now on."))


@router.post("/admin/backups/add")
@does(Right.SETTINGS_CHANGE)
def add_repository(page: Asked, form: Form) -> Response:
    """``do``: ``add`` or ``key``."""
    return _repository(page, form)


@router.post("/admin/backups/repository")
@does(Right.SETTINGS_CHANGE)
def change_repository(page: Asked, form: Form) -> Response:
    """``do``: ``check``, ``use`` or ``forget``."""
    return _repository(page, form)


def _repository(page: Page, form: Fields) -> Response:
    services, actor, name = page.services, page.actor, form("name").strip()
    try:
        if form("do") == "key":
            return _machine(page, sftp=services.new_repository_key(actor, name).public_key)
        if form("do") == "check":
            services.check_repository(actor, name)
        elif form("do") == "use":
            services.use_repository(actor, name)
        elif form("do") == "forget":
            services.forget_repository(actor, name)
        else:
            values = {each: form(each).strip() for each in ("kind", "place", "host_key", "user", "secret", "region")}
            services.put_repository(actor, name, PutRepository(**values))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _machine(page, Errors(page.words, error.problems), error.http_status)
    return page.go("/admin/backups", page.t("It was reached, and holds what it should."))


@router.post("/admin/backups/key")
@does(Right.PLATFORM_KEY)
def export_key(page: Asked) -> Response:
    return _machine(page, key=page.services.export_backup_key(page.actor).key)


@router.post("/admin/backups/platform")
@does(Right.SETTINGS_CHANGE)
def save_platform(page: Asked) -> Response:
    return page.go(f"/change/{page.services.save_platform(page.actor).id}")
