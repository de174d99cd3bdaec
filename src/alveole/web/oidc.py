"""Administration of the OpenID provider, tried before it is stored, and of who must have a second factor."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, NotFound
from alveole.people import views as people_views
from alveole.people.model import Role
from alveole.people.oidc import OidcSettings
from alveole.people.rights import Right
from alveole.web.admin import show
from alveole.web.outside import mapping_of, mapping_texts, role_options
from alveole.web.pages import ROLES, Asked, Errors, Fields, Form, Page, PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)
TEXTS = ("issuer", "client_id", "client_secret", "redirect", "name_claim", "groups_claim", "certificates")


@router.get("/admin/oidc")
@does(Right.SETTINGS_CHANGE)
def oidc(page: Asked) -> Response:
    return _oidc(page)


def _oidc(
    page: Page,
    typed: dict[str, str] | None = None,
    errors: Errors | None = None,
    trial: people_views.TrialView | None = None,
    status: int = 200,
) -> Response:
    there = True
    try:
        stored = page.services.show_oidc(page.actor)
    except NotFound:
        there = False
        panel = page.request.headers.get("host", "")
        stored = OidcSettings(redirect=f"https://{panel}/v1/oidc/callback")
    if typed is not None:
        # A form that somebody else has written may lack some.
        typed = {**dict.fromkeys((*TEXTS, "scopes", "roles", "teams", "default_role"), ""), **typed}
    else:
        typed = {name: str(getattr(stored, name)) for name in TEXTS}
        typed |= {"scopes": " ".join(stored.scopes), **mapping_texts(stored.mapping)}
    return show(
        page,
        "oidc",
        typed=typed,
        there=there,
        trial=trial,
        errors=errors or Errors(page.words),
        role_options=role_options(page),
        status=status,
    )


@router.post("/admin/oidc")
@does(Right.SETTINGS_CHANGE)
def set_oidc(page: Asked, form: Form) -> Response:
    """``do``: ``try`` asks the provider and keeps nothing, ``store`` keeps it, ``drop`` ends it."""
    typed = {key: value for key, value in form.pairs if key not in ("csrf", "do")}
    trial = None
    try:
        if form("do") == "drop":
            page.services.drop_oidc(page.actor)
            return page.go("/admin/oidc", page.t("Nobody comes from the provider any more."))
        raw = _settings(form)
        if form("do") == "try":
            trial = page.services.try_oidc(page.actor, raw)
        else:
            page.services.set_oidc(page.actor, raw)
            return page.go("/admin/oidc", page.t("It is stored. It holds from the next sign-in."))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _oidc(page, typed, Errors(page.words, error.problems), status=error.http_status)
    return _oidc(page, typed, trial=trial)


def _settings(form: Fields) -> dict[str, Any]:
    raw: dict[str, Any] = {name: form(name).replace("\r\n", "\n").strip() for name in TEXTS}
    return {**raw, "scopes": list(form.lines("scopes")), "mapping": mapping_of(form)}


# --- second factors -------------------------------------------------------------------------------------
@router.get("/admin/second-factor")
@does(Right.SETTINGS_CHANGE)
def policy(page: Asked) -> Response:
    found = page.services.second_factor_policy(page.actor)
    people = page.services.list_accounts(page.actor)
    without = {
        role: sum(1 for each in people if each.active and each.role == role and not set(each.factors) - {"recovery"})
        for role in Role
    }
    options = [(role, page.t(ROLES[role]), role in found.roles, without[role]) for role in Role]
    return show(page, "second-factor", options=options)


@router.post("/admin/second-factor")
@does(Right.SETTINGS_CHANGE)
def set_policy(page: Asked, form: Form) -> Response:
    wanted = tuple(role for role in Role if role in form.all("roles"))
    page.services.require_second_factor(page.actor, ask.RequireSecondFactor(roles=wanted))
    return page.go("/admin/second-factor", page.t("It is stored. It holds from the next sign-in."))
