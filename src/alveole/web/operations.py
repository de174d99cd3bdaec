"""A site's operations by button: its programs, and named commands with their arguments and what they print."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput, Temporary
from alveole.model.operation import ArgumentType, Least
from alveole.people.rights import Right
from alveole.requests import operations as want
from alveole.views.operations import OperationView, RunView
from alveole.web.pages import HEADERS, Asked, Errors, Fields, Form, Page, PageRoute
from alveole.web.site import show
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
LEASTS = {
    Least.CHANGE: N_("whoever may change the site"),
    Least.OWN: N_("its owner"),
    Least.OPERATOR: N_("operators and administrators"),
    Least.ADMINISTRATOR: N_("administrators"),
}
EXAMPLE = """\
title = "Clear the cache"
argv = ["/usr/bin/rm", "-rf", "--", "${folder}"]
seconds = 60
confirm = true

[[argument]]
name = "folder"
type = "path"
below = "/data/cache"
title = "Folder"
"""


@router.get("/site/{site}/operations")
@does(Right.SITE_OPERATE)
def operations(page: Asked, site: str, seen: str = "") -> Response:
    """With ``seen`` only the programs, and nothing when they are as they were."""
    return _list(page, site, seen=seen)


def _list(
    page: Page,
    site: str,
    *,
    seen: str = "",
    operation: str = "",
    form: Fields | None = None,
    errors: Errors | None = None,
    add_errors: Errors | None = None,
    status: int = 200,
) -> Response:
    services, actor = page.services, page.actor
    services.allow_site(actor, Right.SITE_OPERATE, site)
    view = services.show_site(actor, site)
    problem = ""
    programs = None
    operations: Sequence[OperationView] | None = None
    try:
        operations = () if seen else services.list_operations(actor, site)
        programs = services.list_programs(actor, site)
    except AlveoleError as error:
        problem = page.refused(error)
    shown = [
        (each.pid, each.name, each.state, each.memory_bytes >> 20, round(each.cpu_seconds))
        for each in (programs.programs if programs else ())
    ]
    digest = hashlib.sha256(f"{page.words.code}{shown}{problem}".encode()).hexdigest()[:16]
    if page.partial and seen == digest:
        return Response(status_code=204, headers=HEADERS)
    template = "part/programs.html" if page.partial and seen else "site/operations.html"
    none = Errors(page.words)
    return show(
        page,
        template,
        view,
        "operations",
        status=status,
        programs=programs.programs if programs else (),
        problem=problem,
        digest=digest,
        processes=[each.name for each in view.processes] if len(view.processes) > 1 else [],
        operations=operations,
        runs=() if seen else services.list_runs(actor, site),
        leasts=LEASTS,
        at=operation,
        form=form or Fields([("declaration", EXAMPLE)]),
        errors=errors or none,
        add_errors=add_errors or none,
    )


@router.post("/site/{site}/operations/run/{operation}")
@does(Right.SITE_OPERATE)
def run(page: Asked, site: str, operation: str, form: Form) -> Response:
    services, actor = page.services, page.actor
    found = next((each for each in services.list_operations(actor, site) if each.name == operation), None)
    try:
        wanted = want.RunOperation(arguments=_arguments(found, form) if found is not None else {})
        begun = services.run_operation(actor, site, operation, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        errors = Errors(page.words, error.problems)
        return _list(page, site, operation=operation, form=form, errors=errors, status=error.http_status)
    return page.go(f"/site/{quote(site)}/operations/runs/{begun.id}")


def _arguments(operation: OperationView, form: Fields) -> dict[str, str | int | bool]:
    found: dict[str, str | int | bool] = {}
    for each in operation.arguments:
        value = form(f"a.{each.name}")
        if each.type is ArgumentType.BOOLEAN:
            found[each.name] = value == "yes"
        elif value:
            found[each.name] = value
    return found


@router.get("/site/{site}/operations/runs/{run}")
@does(Right.SITE_OPERATE)
def run_page(page: Asked, site: str, run: str, seen: str = "") -> Response:
    found = page.services.show_run(page.actor, site, run)
    digest = hashlib.sha256(msgspec.json.encode(found)).hexdigest()[:16]
    if page.partial and seen == digest:
        return Response(status_code=204, headers=HEADERS)
    view = page.services.show_site(page.actor, site)
    template = "part/operation-run.html" if page.partial and seen else "site/operation-run.html"
    return show(page, template, view, "operations", run=found, digest=digest, title=_title(page, site, found))


def _title(page: Page, site: str, run: RunView) -> str:
    # What it printed is told also while the machine that knows its title is away.
    with contextlib.suppress(Temporary):
        found = page.services.list_operations(page.actor, site)
        return next((page.words.text(each.title) for each in found if each.name == run.name), run.name)
    return run.name


@router.post("/site/{site}/operations/runs/{run}/end")
@does(Right.SITE_OPERATE)
def end(page: Asked, site: str, run: str) -> Response:
    page.services.cancel_run(page.actor, site, run)
    return page.go(f"/site/{quote(site)}/operations/runs/{quote(run)}")


# --- declared by people -------------------------------------------------------------------------
@router.post("/site/{site}/operations/declare")
@does(Right.SITE_CHANGE)
def declare(page: Asked, site: str, form: Form) -> Response:
    """A declaration is the text of a file, as ``alveole op add`` takes it."""
    name = form("name").strip()
    try:
        page.services.allow_site(page.actor, Right.SITE_CHANGE, site)
        page.services.add_operation(page.actor, name, _declaration(form("declaration")), site=site)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        errors = Errors(page.words, error.problems)
        return _list(page, site, form=form, add_errors=errors, status=error.http_status)
    return page.go(f"/site/{quote(site)}/operations", page.t("The operation {name} is declared.", name=name))


def _declaration(text: str) -> want.AddOperation:
    import tomllib

    from alveole.api.bodies import decode

    try:
        raw = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"is not TOML: {error}", field="declaration") from None
    if "argument" in raw:
        raw["arguments"] = raw.pop("argument")
    try:
        return decode(want.AddOperation, msgspec.json.encode(raw))
    except (TypeError, msgspec.EncodeError) as error:
        raise InvalidInput(f"holds what no declaration has: {error}", field="declaration") from None


@router.post("/site/{site}/operations/drop/{operation}")
@does(Right.SITE_CHANGE)
def drop(page: Asked, site: str, operation: str) -> Response:
    page.services.drop_operation(page.actor, operation, site=site)
    return page.go(f"/site/{quote(site)}/operations", page.t("The operation {name} is gone.", name=operation))


# --- programs -----------------------------------------------------------------------------------
@router.post("/site/{site}/operations/signal")
@does(Right.SITE_OPERATE)
def signal(page: Asked, site: str, form: Form) -> Response:
    pid, started = (_number(form(name)) for name in ("pid", "started"))
    wanted = want.SignalProgram(started=started, signal=form("do"))
    try:
        page.services.signal_program(page.actor, site, pid, wanted)
    except AlveoleError as error:
        if error.http_status == 403 or (error.http_status == 404 and page.services.store.site(site) is None):
            raise
        page.services.allow_site(page.actor, Right.SITE_OPERATE, site)
        return page.go(f"/site/{quote(site)}/operations", page.refused(error), "danger")
    return page.go(f"/site/{quote(site)}/operations", page.t("The signal was sent."))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


@router.post("/site/{site}/operations/restart")
@does(Right.SITE_OPERATE)
def restart(page: Asked, site: str, form: Form) -> Response:
    try:
        change = page.services.restart_process(page.actor, site, form("process"))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        page.services.allow_site(page.actor, Right.SITE_OPERATE, site)
        return page.go(f"/site/{quote(site)}/operations", page.refused(error), "danger")
    return page.go(f"/change/{change.id}")
