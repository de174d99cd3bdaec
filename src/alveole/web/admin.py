"""Administration: the machine, plans, bases, modules, the journal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput
from alveole.model.change import Change, ChangeState
from alveole.people.rights import Right
from alveole.requests.plans import CreatePlan, SetPlan
from alveole.web.changes import VERBS
from alveole.web.files import Files
from alveole.web.pages import HEADERS, Asked, Errors, Fields, Form, Page, PageRoute, query
from alveole.web.site import idle_seconds
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
MIB = 1 << 20
_SIZE = 100
#: Rows of an export; the journal is read a page at a time.
EXPORT_MAX = 50_000


def admin_tabs(page: Page) -> list[tuple[str, str]]:
    every = [
        ("machine", N_("Machine"), Right.PLATFORM_LOOK),
        ("figures", N_("Figures"), Right.PLATFORM_LOOK),
        ("traffic", N_("Traffic"), Right.PLATFORM_LOOK),
        ("reports", N_("Reports"), Right.PLATFORM_LOOK),
        ("servers", N_("Servers"), Right.PLATFORM_LOOK),
        ("plans", N_("Plans"), Right.PLATFORM_LOOK),
        ("bases", N_("Bases"), Right.PLATFORM_LOOK),
        ("certificates", N_("Certificates"), Right.PLATFORM_LOOK),
        ("backups", N_("Backups"), Right.PLATFORM_LOOK),
        ("modules", N_("Modules"), Right.PLATFORM_LOOK),
        ("accounts", N_("Accounts"), Right.ACCOUNT_CHANGE),
        ("teams", N_("Teams"), Right.ACCOUNT_CHANGE),
        ("dns", N_("Names (DNS)"), Right.SETTINGS_CHANGE),
        ("ldap", N_("Directory (LDAP)"), Right.SETTINGS_CHANGE),
        ("oidc", N_("Provider (OIDC)"), Right.SETTINGS_CHANGE),
        ("second-factor", N_("Second factor"), Right.SETTINGS_CHANGE),
        ("logs", N_("All logs"), Right.PLATFORM_LOGS),
        ("syslog", N_("Syslog"), Right.SETTINGS_CHANGE),
        ("journal", N_("Journal"), Right.SITE_LIST),
    ]
    return [(path, page.t(name)) for path, name, right in every if page.may(right)]


def show(page: Page, here: str, **more: Any) -> Response:
    return page.show(f"admin/{here}.html", tabs=admin_tabs(page), here=here, **more)


@router.get("/admin")
@does(Right.SITE_LIST)
def admin(page: Asked) -> Response:
    return page.go(f"/admin/{admin_tabs(page)[0][0]}")


@router.get("/admin/machine")
@does(Right.PLATFORM_LOOK)
def machine(page: Asked) -> Response:
    return show(page, "machine", status_of=page.services.status(page.actor), links=None)


@router.post("/admin/machine")
@does(Right.PLATFORM_LOOK)
def doctor(page: Asked) -> Response:
    """Everything tried, as ``alveole doctor`` does. It changes nothing; by POST, for it takes a while."""
    found = page.services.doctor(page.actor)
    return show(page, "machine", status_of=page.services.status(page.actor), links=found.links)


# --- plans ------------------------------------------------------------------------------------------
@router.get("/admin/plans")
@does(Right.CATALOGUE_LOOK)
def plans(page: Asked) -> Response:
    return _plans(page)


def _plans(page: Page, errors: Errors | None = None, form: Fields | None = None, status: int = 200) -> Response:
    return show(
        page,
        "plans",
        plans=page.services.list_plans(page.actor),
        errors=errors or Errors(page.words),
        form=form or Fields([]),
        status=status,
    )


@router.post("/admin/plans")
@does(Right.PLAN_CHANGE)
def create_plan(page: Asked, form: Form) -> Response:
    try:
        wanted = CreatePlan(
            name=form("name").strip(),
            cpu_millis=round(_number(form, "cpu", 1) * 1000),
            memory_bytes=round(_number(form, "memory", 256) * MIB),
            pids=round(_number(form, "pids", 128)),
            disk_bytes=round(_number(form, "disk", 0) * MIB) or None,
            internet=form("internet") == "yes",
            description=form("description").strip(),
            sleep_after=idle_seconds(form("sleep_after")) or 0,
        )
        page.services.create_plan(page.actor, wanted)
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _plans(page, Errors(page.words, error.problems), form, error.http_status)
    return page.go("/admin/plans", page.t("The plan is made."))


def _number(form: Fields, name: str, otherwise: float) -> float:
    text = form(name).strip().replace(",", ".")
    try:
        value = float(text) if text else otherwise
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise InvalidInput(f"{text[:20]!r} is not a number", field=name)
    return value


@router.post("/admin/plans/{plan}/sleep")
@does(Right.PLAN_CHANGE)
def set_plan(page: Asked, plan: str, form: Form) -> Response:
    try:
        page.services.set_plan(page.actor, plan, SetPlan(sleep_after=idle_seconds(form("after")) or 0))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go("/admin/plans", page.refused(error), "danger")
    return page.go("/admin/plans", page.t("The plan is changed."))


@router.post("/admin/plans/{plan}/delete")
@does(Right.PLAN_CHANGE)
def delete_plan(page: Asked, plan: str) -> Response:
    try:
        page.services.delete_plan(page.actor, plan)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go("/admin/plans", page.refused(error), "danger")
    return page.go("/admin/plans", page.t("The plan is gone."))


# --- bases ------------------------------------------------------------------------------------------
@router.get("/admin/bases")
@does(Right.CATALOGUE_LOOK)
def bases(page: Asked) -> Response:
    return show(page, "bases", bases=page.services.list_bases(page.actor))


@router.post("/admin/bases/import")
@does(Right.IMAGE_IMPORT)
def import_image(page: Asked, form: Files) -> Response:
    change = page.services.import_image(page.actor, ask.ImportImage(upload=form("upload")))
    return page.go(f"/change/{change.id}")


@router.post("/admin/bases/{verb}")
@does(Right.BASE_CHANGE)
def change_bases(page: Asked, verb: str, form: Form) -> Response:
    """``verify``, ``upgrade``, ``rollback``, ``prune``, ``delete``; with ``base`` only that one."""
    named = form.all("base")
    services, actor = page.services, page.actor
    try:
        if verb == "verify":
            change = services.verify_bases(actor, ask.NameBases(bases=named))
        elif verb == "upgrade":
            change = services.upgrade_bases(actor, ask.UpgradeBases(bases=named))
        elif verb == "prune":
            change = services.prune_bases(actor, ask.PruneBases())
        elif verb == "rollback":
            change = services.rollback_bases(actor, ask.RollbackBases(bases=named))
        elif verb == "delete":
            change = services.delete_base(actor, named[0] if named else "")
        else:
            raise InvalidInput(f"{verb!r} is nothing that can be done to bases", field="verb")
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return page.go("/admin/bases", page.refused(error), "danger")
    return page.go(f"/change/{change.id}")


@router.get("/admin/modules")
@does(Right.CATALOGUE_LOOK)
def modules(page: Asked) -> Response:
    sources = page.services.list_sources(page.actor)
    return show(page, "modules", modules=page.services.list_modules(page.actor), sources=sources)


# --- the journal --------------------------------------------------------------------------------------
@router.get("/admin/journal")
@does(Right.SITE_LIST)
def journal(page: Asked, site: str = "", state: str = "", before: str = "") -> Response:
    wanted = ask.ListChanges(site=site.strip() or None, state=state or None, before=before or None, limit=_SIZE)
    changes = page.services.list_changes(page.actor, wanted)
    older = query(site=site, state=state, before=changes[-1].id if changes else "")
    return show(
        page,
        "journal",
        changes=changes,
        size=_SIZE,
        older=older,
        site=site,
        state=state,
        states=tuple(ChangeState),
        verbs=VERBS,
        export=f"/admin/journal.csv{query(site=site, state=state)}",
    )


@router.get("/admin/journal.csv")
@does(Right.SITE_LIST)
def export(page: Asked, site: str = "", state: str = "") -> Response:
    """What the page lists, all of it, newest first, as RFC 4180 says."""
    headers = {**HEADERS, "Content-Disposition": 'attachment; filename="journal.csv"'}
    return StreamingResponse(_rows(page, site.strip(), state), headers=headers, media_type="text/csv; charset=utf-8")


def _rows(page: Page, site: str, state: str) -> Iterator[str]:
    yield _line("id", "started", "ended", "site", "verb", "actor", "via", "state", "reason", "problems")
    before: str | None = None
    told = 0
    while told < EXPORT_MAX:
        wanted = ask.ListChanges(site=site or None, state=state or None, before=before, limit=500)
        changes = page.services.list_changes(page.actor, wanted)
        for each in changes:
            yield _row(each)
        told += len(changes)
        if len(changes) < 500:
            return
        before = changes[-1].id


def _row(change: Change) -> str:
    def moment(at: float | None) -> str:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else ""

    return _line(
        change.id,
        moment(change.started_at),
        moment(change.ended_at),
        change.site_name or "",
        change.verb,
        change.actor,
        change.via.partition(":")[0],
        change.state,
        change.reason,
        "; ".join(map(str, change.problems)),
    )


def _line(*cells: str) -> str:
    out = io.StringIO()
    # A spreadsheet takes a text that begins so for a formula, and names and reasons are strangers' text.
    csv.writer(out).writerow([f"'{cell}" if cell[:1] in "=+-@\t\r" else cell for cell in cells])
    return out.getvalue()
