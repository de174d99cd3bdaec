"""A new application: its programs and their answers, its environments in order with a plan each, what would be made.

Also: a site becomes an application, and an application gets one more environment.
"""

from __future__ import annotations

import secrets
import shlex
from urllib.parse import quote

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.catalogue.manifest import Category
from alveole.errors import AlveoleError, InvalidInput, Problem
from alveole.model.app import DEFAULT_ENVIRONMENTS, ENVIRONMENTS_MAX, Accept
from alveole.people.rights import Right
from alveole.views import modules as module_views
from alveole.views.apps import AppPreview
from alveole.web import questions
from alveole.web.new import machines
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute
from alveole.web.site import plan_options
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
ACCEPTS = {Accept.WAIT: N_("Versions wait to be accepted"), Accept.AT_ONCE: N_("Versions are accepted as they come")}


class Row(msgspec.Struct):
    """One environment of the form."""

    name: str
    plan: str
    node: str = ""


@router.get("/new/app")
@does(Right.CATALOGUE_LOOK)
def form_of(page: Asked, m: str = "") -> Response:
    return _form(page, Fields([("m", name) for name in m.split(",") if name]))


@router.post("/new/app")
@does(Right.APP_CREATE)
def create(page: Asked, form: Form) -> Response:
    """``do``: ``create`` begins it, ``preview`` says what would be made, all else only changes the form."""
    act = form("do", "ask")
    try:
        if act not in ("create", "preview"):
            return _form(page, form, rows=_arranged(form, act))
        wanted = _wanted(form)
        if act == "create":
            change = page.services.create_app(page.actor, wanted, key=f"page-{form('key')}"[:100])
            return page.go(f"/change/{change.id}")
        return _form(page, form, preview=page.services.preview_app(page.actor, wanted))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _form(page, form, errors=Errors(page.words, error.problems), status=error.http_status)


def _rows(form: Fields) -> list[Row]:
    names, plans, nodes = (
        tuple(value for key, value in form.pairs if key == wanted) for wanted in ("env", "env_plan", "env_node")
    )
    if len(nodes) != len(names):
        # Where there is one machine only, nobody was asked for it.
        nodes = ("",) * len(names)
    rows = [Row(name.strip(), plan, node) for name, plan, node in zip(names, plans, nodes, strict=False)]
    return rows or [Row(name, "") for name in DEFAULT_ENVIRONMENTS]


def _arranged(form: Fields, act: str) -> list[Row]:
    """The rows after ``add``, ``up-2``, ``down-2`` or ``drop-2``."""
    rows = _rows(form)
    verb, _, number = act.partition("-")
    at = int(number) if number.isascii() and number.isdigit() and int(number) < len(rows) else None
    if verb == "add" and len(rows) < ENVIRONMENTS_MAX:
        rows.append(Row("", ""))
    elif verb == "drop" and at is not None and len(rows) > 1:
        del rows[at]
    elif verb in ("up", "down") and at is not None:
        to = max(0, min(len(rows) - 1, at + (1 if verb == "down" else -1)))
        rows.insert(to, rows.pop(at))
    return rows


def _modules(form: Fields) -> tuple[str, ...]:
    added = (form("more"),) if form("more") else ()
    return tuple(name for name in dict.fromkeys((*form.all("m"), *added)) if form("do") != f"without-{name}")


def _wanted(form: Fields) -> ask.CreateApp:
    rows = _rows(form)
    problems = []
    port: int | None = None
    if text := form("port").strip():
        if text.isascii() and text.isdigit() and len(text) < 6:
            port = int(text)
        else:
            problems.append(Problem("port", f"{text[:20]!r} is not a port"))
    try:
        command = tuple(shlex.split(form("command")))
    except ValueError:
        command = ()
        problems.append(Problem("command", "has a quote that is not closed"))
    if problems:
        raise InvalidInput(problems=problems)
    accept = Accept(form("accept")) if form("accept") in tuple(Accept) else Accept.WAIT
    return ask.CreateApp(
        name=form("name").strip(),
        owner=form("owner") or None,
        environments=tuple(row.name for row in rows),
        plans={row.name: row.plan for row in rows if row.plan},
        nodes={row.name: row.node for row in rows if row.node},
        accept=accept,
        modules=_modules(form),
        answers=questions.answers(form),
        command=command,
        port=port,
    )


def _form(
    page: Page,
    form: Fields,
    *,
    rows: list[Row] | None = None,
    errors: Errors | None = None,
    preview: tuple[AppPreview, ...] = (),
    status: int = 200,
) -> Response:
    services, actor = page.services, page.actor
    found = errors or Errors(page.words)
    modules = _modules(form)
    groups: tuple[questions.Group, ...] = ()
    details: list[module_views.ModuleDetail] = []
    least = ""
    if modules:
        typed = questions.answers(form)
        details = [services.show_module(actor, name) for name in modules]
        wanted = ask.AskModules(modules=modules, answers=typed, name=form("name").strip(), content=True)
        asked = services.ask_modules(actor, wanted)
        groups = questions.groups(modules, asked.questions, found, typed)
        least = asked.plan
    catalogue = sorted(services.list_modules(actor), key=lambda each: (each.category != Category.CONTENT, each.name))
    return page.show(
        "new/app.html",
        status=status,
        form=form,
        rows=_rows(form) if rows is None else rows,
        most=ENVIRONMENTS_MAX,
        modules=modules,
        details=details,
        groups=groups,
        titles={each.name: page.words.text(each.title) for each in details},
        catalogue=[(each.name, page.words.text(each.title)) for each in catalogue if each.name not in modules],
        errors=found,
        preview=preview,
        key=form("key") or secrets.token_hex(16),
        least=least,
        plan_options=[("", page.t("as it needs")), *plan_options(page)],
        node_options=machines(page),
        accepts=[(str(key), page.t(text)) for key, text in ACCEPTS.items()],
        owner_options=[
            ("", page.t("mine")),
            *((f"team:{each.name}", each.title or each.name) for each in services.list_teams(actor)),
        ],
    )


# --- from a site, and one more environment ------------------------------------------------------
@router.get("/site/{site}/application")
@does(Right.SITE_GIVE)
def from_site_form(page: Asked, site: str) -> Response:
    return _from_site(page, site, Fields([("name", site), ("environment", "prod")]))


def _from_site(page: Page, site: str, form: Fields, errors: Errors | None = None, status: int = 200) -> Response:
    from alveole.web.site import show

    page.services.allow_site(page.actor, Right.SITE_GIVE, site)
    view = page.services.show_site(page.actor, site)
    of = page.services.apps.of_site(view.id)
    return show(
        page,
        "site/application.html",
        view,
        "settings",
        status=status,
        form=form,
        errors=errors or Errors(page.words),
        of=of[0].name if of is not None else "",
        accepts=[(str(key), page.t(text)) for key, text in ACCEPTS.items()],
    )


@router.post("/site/{site}/application")
@does(Right.SITE_GIVE)
def from_site(page: Asked, site: str, form: Form) -> Response:
    accept = Accept(form("accept")) if form("accept") in tuple(Accept) else Accept.WAIT
    wanted = ask.CreateApp(
        name=form("name").strip(), environments=(form("environment").strip(),), from_site=site, accept=accept
    )
    try:
        change = page.services.create_app(page.actor, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _from_site(page, site, form, Errors(page.words, error.problems), error.http_status)
    return page.go(f"/change/{change.id}")


@router.post("/app/{app}/environments")
@does(Right.APP_CHANGE)
def add_environment(page: Asked, app: str, form: Form) -> Response:
    wanted = ask.AddEnvironment(
        name=form("environment").strip(),
        before=form("before") or None,
        like=form("like") or None,
        node=form("node") or None,
    )
    try:
        change = page.services.add_environment(page.actor, app, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go(f"/app/{quote(app)}", page.refused(error), "danger")
    return page.go(f"/change/{change.id}")
