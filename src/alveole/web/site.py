"""The pages of one site: overview, settings, journal, why, destroying."""

from __future__ import annotations

import difflib
import hashlib
from typing import Any
from urllib.parse import quote

import msgspec
from fastapi import APIRouter
from msgspec import UNSET
from starlette.responses import Response

from alveole import requests as ask
from alveole import views
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput
from alveole.model.site import Answer, Arrival, WokenBy
from alveole.people.rights import Right
from alveole.text import read_span, span
from alveole.views import modules as module_views
from alveole.views.domains import AddDomain
from alveole.web import questions
from alveole.web.changes import VERBS
from alveole.web.pages import HEADERS, Asked, Errors, Fields, Form, Page, PageRoute
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
ARRIVALS = {Arrival.WAIT: N_("it waits for the button"), Arrival.LIVE: N_("it goes live by itself")}
WOKEN_BY = {
    WokenBy.PEOPLE: N_("visits of people"),
    WokenBy.EVERYBODY: N_("every request, of crawlers and monitoring too"),
}
_LENT = ("published", "shared", "persistent")
LEVELS = {"look": N_("may look"), "change": N_("may change it")}


def tabs(page: Page, site: views.SiteView) -> list[tuple[str, str]]:
    """Path and name of the pages of a site that the caller may open."""
    every = [
        ("", N_("Overview"), Right.SITE_LOOK),
        ("content", N_("Content"), Right.SITE_LOOK),
        ("files", N_("Files"), Right.SITE_FILES),
        ("settings", N_("Settings"), Right.SITE_CHANGE),
        ("logs", N_("Logs"), Right.SITE_LOGS),
        ("visitors", N_("Visitors"), Right.SITE_LOGS),
        ("figures", N_("Figures"), Right.SITE_LOOK),
        ("operations", N_("Operations"), Right.SITE_OPERATE),
        ("console", N_("Console"), Right.SITE_CONSOLE),
        ("checks", N_("Checks"), Right.SITE_LOOK),
        ("promises", N_("Promises"), Right.SITE_LOOK),
        ("backups", N_("Backups"), Right.BACKUP_LOOK),
        ("journal", N_("Journal"), Right.CHANGE_LOOK),
        ("why", N_("Why"), Right.SITE_LOOK),
    ]
    return [(path, page.t(name)) for path, name, right in every if page.may(right, site.id)]


def show(page: Page, template: str, site: views.SiteView, here: str, **more: Any) -> Response:
    return page.show(template, site=site, tabs=tabs(page, site), here=here, own=f"/site/{quote(site.name)}", **more)


@router.get("/site/{site}")
@does(Right.SITE_LOOK)
def overview(page: Asked, site: str, seen: str = "") -> Response:
    """With ``seen`` only what changes, and nothing when it is as it was: focus and selection stay where they are."""
    view = page.services.show_site(page.actor, site)
    # Without what ticks and is not on the page.
    shown = msgspec.structs.replace(
        view, memory_bytes=view.memory_bytes >> 20, cpu_seconds=round(view.cpu_seconds), process_states=()
    )
    troubles = page.services.count_incidents_by_site(page.actor).get(view.id, 0)
    digest = hashlib.sha256(f"{page.words.code}{shown}{troubles}".encode()).hexdigest()[:16]
    if page.partial and seen == digest:
        return Response(status_code=204, headers=HEADERS)
    template = "part/overview.html" if page.partial and seen else "site/overview.html"
    return show(page, template, view, "", digest=digest, troubles=troubles, has_nodes=page.services.has_nodes())


@router.get("/site/{site}/why")
@does(Right.SITE_LOOK)
def why(page: Asked, site: str) -> Response:
    found = page.services.why(page.actor, site)
    return show(page, "site/why.html", found.site, "why", why=found, verbs=VERBS)


@router.get("/site/{site}/journal")
@does(Right.SITE_LOOK)
def journal(page: Asked, site: str, before: str = "") -> Response:
    view = page.services.show_site(page.actor, site)
    wanted = ask.ListChanges(site=site, before=before or None, limit=50)
    changes = page.services.list_changes(page.actor, wanted)
    return show(page, "site/journal.html", view, "journal", changes=changes, size=50, verbs=VERBS)


# --- settings -------------------------------------------------------------------------------------
def _settings(
    page: Page,
    site: str,
    *,
    errors: dict[str, Errors] | None = None,
    status: int = 200,
    typed: dict[str, object] | None = None,
    given: dict[str, Answer] | None = None,
    plan: module_views.ConfigurePlan | None = None,
    difference: list[str] | None = None,
) -> Response:
    services, actor = page.services, page.actor
    services.allow_site(actor, Right.SITE_CHANGE, site)
    view = services.show_site(actor, site, show_env=_sees_secrets(page, site))
    found = errors or {}
    none = Errors(page.words)
    groups: tuple[questions.Group, ...] = ()
    if view.application is not None:
        asked = services.site_questions(actor, site, given or {})
        answer_errors = found.get("answers") or Errors(page.words, asked.problems if given else ())
        groups = questions.groups(view.application.asked, asked.questions, answer_errors, dict(given or {}))
    shown = {**lines_of(view), **(typed or as_typed(view))}
    sharing = services.sharing(actor, site) if page.may(Right.SITE_SHARE, view.id) else None
    return show(
        page,
        "site/settings.html",
        view,
        "settings",
        status=status,
        groups=groups,
        answer_errors=found.get("answers", none),
        set_errors=found.get("set", none),
        rename_errors=found.get("rename", none),
        share_errors=found.get("share", none),
        lend_errors=found.get("lend", none),
        domain_errors=found.get("domain", none),
        domains=services.list_domains(actor, site),
        typed=shown,
        lent_typed=shown,
        lent_ports=services.settings.sites.ports,
        lent_roots=services.settings.sites.shared,
        plan_options=plan_options(page),
        plan=plan,
        difference=difference,
        sharing=sharing,
        levels=LEVELS,
        woken_by=[(str(each), page.t(text)) for each, text in WOKEN_BY.items()],
        arrivals=[(str(each), page.t(text)) for each, text in ARRIVALS.items()],
    )


def _sees_secrets(page: Page, site: str) -> bool:
    stored = page.services.store.site(site)
    return stored is not None and page.may(Right.SITE_SECRETS, stored.site.id)


def plan_options(page: Page) -> list[tuple[str, str]]:
    """The plans with what they allow, for a list to choose from."""
    w = page.words
    return [
        (
            plan.name,
            f"{plan.name} \u2013 {w.size(plan.limits.memory_bytes)}, {w.number(plan.limits.cpu_millis / 1000, 2)} cpu, "
            + (w.size(plan.limits.disk_bytes) if plan.limits.disk_bytes is not None else page.t("disk without limit")),
        )
        for plan in page.services.list_plans(page.actor)
    ]


def lines_of(view: views.SiteView) -> dict[str, object]:
    """What of the machine is lent to the site, and whether what it writes lasts, as the lines of their form."""
    return {
        "published": "\n".join(map(str, view.published)),
        "shared": "\n".join(map(str, view.shared)),
        "persistent": "yes" if view.persistent else "no",
    }


def as_typed(view: views.SiteView) -> dict[str, object]:
    """The fields of the form of settings, from the site as it is."""
    return {
        "plan": view.plan,
        "domains": "\n".join(view.domains),
        "path": view.path or "",
        "https_only": view.https_only,
        "sleep_after": "" if view.sleep.set is None else span(view.sleep.set),
        "woken_by": str(view.sleep.woken_by),
        "on_push": str(view.on_push),
        "on_files": str(view.on_files),
        "allow": "\n".join(view.access.allow),
        "deny": "\n".join(view.access.deny),
        "env": "\n".join(f"{key}={value}" for key, value in sorted(view.env.items())),
    }


@router.get("/site/{site}/settings")
@does(Right.SITE_CHANGE)
def settings(page: Asked, site: str) -> Response:
    return _settings(page, site)


@router.post("/site/{site}/settings")
@does(Right.SITE_CHANGE)
def change_settings(page: Asked, site: str, form: Form) -> Response:
    """First the difference is shown; with ``do=apply`` it is made."""
    view = page.services.show_site(page.actor, site, show_env=True)
    typed: dict[str, object] = {key: form(key).replace("\r\n", "\n").strip() for key in as_typed(view)}
    typed["https_only"] = form("https_only") == "yes"
    difference = [line for key, old in as_typed(view).items() for line in _changed(key, str(old), str(typed[key]))]
    if form("do") != "apply" or not difference:
        return _settings(page, site, typed=typed, difference=difference)
    try:
        version = int(form("version")) if form("version").isdigit() else None
        change = page.services.set_site(page.actor, site, _wanted(view, typed), version=version)
    except AlveoleError as error:
        return _settings(
            page, site, errors={"set": Errors(page.words, error.problems)}, status=error.http_status, typed=typed
        )
    return page.go(f"/change/{change.id}")


def _changed(field: str, old: str, new: str) -> list[str]:
    if old == new:
        return []
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return [f"{line[0]} {field}: {line[1:]}" for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def idle_seconds(text: str) -> int | None:
    """``30m``, ``never``; ``None`` for nothing. Raises ``InvalidInput``."""
    text = text.replace(" ", "").lower()
    try:
        return read_span(text) if text else None
    except ValueError as error:
        raise InvalidInput(str(error), field="sleep_after", hint="write it like 30m, 12h or never") from None


def _wanted(view: views.SiteView, typed: dict[str, object]) -> ask.SetSite:
    """Only what is another than it was."""
    old = as_typed(view)

    def of(key: str) -> str | None:
        return str(typed[key]) if typed[key] != old[key] else None

    def words(key: str) -> tuple[str, ...] | msgspec.UnsetType:
        text = of(key)
        return UNSET if text is None else tuple(text.replace(",", " ").split())

    def arrival(key: str) -> Arrival | msgspec.UnsetType:
        text = of(key)
        return Arrival(text) if text in tuple(Arrival) else UNSET

    after = of("sleep_after")
    woken_by = of("woken_by")
    env: dict[str, str | None] | msgspec.UnsetType = UNSET
    if (text := of("env")) is not None:
        pairs = dict(line.partition("=")[::2] for line in text.splitlines() if line.strip())
        env = {**dict.fromkeys(view.env, None), **{key.strip(): value for key, value in pairs.items()}}
    path = of("path")
    plan = of("plan")
    return ask.SetSite(
        plan=UNSET if plan is None else plan,
        domains=words("domains"),
        path=UNSET if path is None else path or None,
        allow=words("allow"),
        deny=words("deny"),
        https_only=UNSET if typed["https_only"] == old["https_only"] else bool(typed["https_only"]),
        sleep_after=UNSET if after is None else idle_seconds(after),
        woken_by=WokenBy(woken_by) if woken_by in tuple(WokenBy) else UNSET,
        on_push=arrival("on_push"),
        on_files=arrival("on_files"),
        env=env,
    )


@router.post("/site/{site}/answers")
@does(Right.SITE_CHANGE)
def answer(page: Asked, site: str, form: Form) -> Response:
    given = questions.answers(form)
    by_hand = form("by_hand")
    wanted = ask.ConfigureSite(answers=given, keep_all=by_hand == "keep", take_back_all=by_hand == "take_back")
    try:
        plan = page.services.preview_configure(page.actor, site, wanted)
        if form("do") != "apply" or plan.refused:
            return _settings(page, site, given=given, plan=plan)
        change = page.services.configure_site(page.actor, site, wanted, version=plan.version)
    except AlveoleError as error:
        errors = {"answers": Errors(page.words, error.problems)}
        return _settings(page, site, errors=errors, status=error.http_status, given=given)
    return page.go(f"/change/{change.id}")


@router.post("/site/{site}/domains")
@does(Right.SITE_CHANGE)
def change_domains(page: Asked, site: str, form: Form) -> Response:
    """``do``: ``add``, ``check`` or ``remove``."""
    services, domain = page.services, form("domain").strip().lower().rstrip(".")
    try:
        if form("do") == "check":
            found = services.check_domain(page.actor, site, domain)
        elif form("do") == "remove":
            found = services.remove_domain(page.actor, site, domain)
        else:
            found = services.add_domain(page.actor, site, AddDomain(domain=domain))
    except AlveoleError as error:
        return refused(page, site, "domain", error, form)
    return page.go(f"/change/{found.change}" if found.change else f"/site/{quote(site)}/settings#domains")


@router.post("/site/{site}/rename")
@does(Right.SITE_RENAME)
def rename(page: Asked, site: str, form: Form) -> Response:
    try:
        change = page.services.rename_site(page.actor, site, ask.RenameSite(name=form("new_name").strip()))
    except AlveoleError as error:
        return refused(page, site, "rename", error, form)
    return page.go(f"/change/{change.id}")


@router.post("/site/{site}/share")
@does(Right.SITE_SHARE)
def share(page: Asked, site: str, form: Form) -> Response:
    levels = {each.value: each for each in ask.ShareLevel}
    level = levels.get(form("level"), ask.ShareLevel.LOOK)
    try:
        page.services.share_site(page.actor, site, ask.ShareSite(whom=form("whom").strip(), level=level))
    except AlveoleError as error:
        return refused(page, site, "share", error, form)
    return page.go(f"/site/{quote(site)}/settings#sharing", page.t("It holds at once."))


@router.post("/site/{site}/give")
@does(Right.SITE_GIVE)
def give(page: Asked, site: str, form: Form) -> Response:
    try:
        page.services.give_site(page.actor, site, ask.GiveSite(owner=form("owner").strip()))
    except AlveoleError as error:
        return refused(page, site, "share", error, form)
    return page.go("/sites", page.t("{site} belongs to {owner} now.", site=site, owner=form("owner").strip()))


def refused(page: Page, site: str, part: str, error: AlveoleError, form: Fields) -> Response:
    if error.http_status in (403, 404):
        raise error
    view = page.services.show_site(page.actor, site, show_env=_sees_secrets(page, site))
    sent = _LENT if part == "lend" else ("new_name", "whom", "owner", "domain")
    typed = as_typed(view) | {key: form(key) for key in sent}
    return _settings(
        page, site, errors={part: Errors(page.words, error.problems)}, status=error.http_status, typed=typed
    )


# --- destroying -------------------------------------------------------------------------------------
@router.get("/site/{site}/destroy")
@does(Right.SITE_DESTROY)
def destroy_form(page: Asked, site: str) -> Response:
    return _destroy(page, site, Errors(page.words), "")


def _destroy(page: Page, site: str, errors: Errors, typed: str, status: int = 200) -> Response:
    page.services.allow_site(page.actor, Right.SITE_DESTROY, site)
    view = page.services.show_site(page.actor, site)
    backups = page.services.list_backups(page.actor, site)
    return show(page, "site/destroy.html", view, "destroy", backups=backups, errors=errors, typed=typed, status=status)


@router.post("/site/{site}/destroy")
@does(Right.SITE_DESTROY)
def destroy(page: Asked, site: str, form: Form) -> Response:
    try:
        change = page.services.destroy_site(page.actor, site, ask.DestroySite(confirm=form("confirm").strip()))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _destroy(page, site, Errors(page.words, error.problems), form("confirm"), error.http_status)
    return page.go(f"/change/{change.id}")
