"""Administration of people: accounts, teams, what they may have at most."""

from __future__ import annotations

from fastapi import APIRouter
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput
from alveole.people.model import Role
from alveole.people.rights import Right
from alveole.web.admin import MIB, show
from alveole.web.pages import ROLES, Asked, Errors, Fields, Form, Page, PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)


# --- accounts -----------------------------------------------------------------------------------------
def _accounts(
    page: Page,
    *,
    errors: Errors | None = None,
    form: Fields | None = None,
    status: int = 200,
    token: str = "",
    of: str = "",
) -> Response:
    return show(
        page,
        "accounts",
        accounts=page.services.list_accounts(page.actor),
        role_options=[(role, page.t(ROLES[role])) for role in Role],
        errors=errors or Errors(page.words),
        form=form or Fields([]),
        status=status,
        token=token,
        of=of,
    )


@router.get("/admin/accounts")
@does(Right.ACCOUNT_CHANGE)
def accounts(page: Asked) -> Response:
    return _accounts(page)


@router.post("/admin/accounts")
@does(Right.ACCOUNT_CHANGE)
def add_account(page: Asked, form: Form) -> Response:
    wanted = ask.AddAccount(
        name=form("name").strip(), role=_role(form), title=form("title").strip(), email=form("email").strip()
    )
    try:
        made = page.services.add_account(page.actor, wanted)
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _accounts(page, errors=Errors(page.words, error.problems), form=form, status=error.http_status)
    return _accounts(page, token=made.token or "", of=made.name)


def _role(form: Fields) -> Role:
    return next((role for role in Role if role == form("role")), Role.OWNER)


@router.get("/admin/accounts/{account}")
@does(Right.ACCOUNT_LOOK)
def account(page: Asked, account: str) -> Response:
    return _account(page, account)


def _account(
    page: Page, account: str, errors: Errors | None = None, form: Fields | None = None, status: int = 200
) -> Response:
    services, actor = page.services, page.actor
    person = services.show_account(actor, account)
    return page.show(
        "admin/account.html",
        person=person,
        quota=services.quota(actor, account),
        sessions=services.list_sessions(actor, account),
        tokens=services.list_tokens(actor, account),
        factors=services.list_factors(actor, account),
        role_options=[(role, page.t(ROLES[role])) for role in Role],
        errors=errors or Errors(page.words),
        form=form or Fields([]),
        status=status,
        mib=MIB,
    )


@router.post("/admin/accounts/{account}")
@does(Right.ACCOUNT_CHANGE)
def set_account(page: Asked, account: str, form: Form) -> Response:
    wanted = ask.SetAccount(
        role=_role(form),
        title=form("title").strip(),
        email=form("email").strip(),
        active=form("active") == "yes",
    )
    quota = None
    try:
        quota = _quota(form)
        page.services.set_account(page.actor, account, wanted)
        if quota != ask.SetQuota():
            page.services.set_quota(page.actor, account, quota)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _account(page, account, Errors(page.words, error.problems), form, error.http_status)
    return page.go(f"/admin/accounts/{account}", page.t("It is changed."))


def _quota(form: Fields) -> ask.SetQuota:
    return ask.SetQuota(
        sites=_limit(form, "sites"), memory_bytes=_limit(form, "memory", MIB), disk_bytes=_limit(form, "disk", MIB)
    )


def _limit(form: Fields, name: str, unit: int = 1) -> int | UnsetType | None:
    """A limit that was changed; empty is none."""
    text = form(name).strip()
    if text == form(f"was_{name}").strip():
        return UNSET
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidInput(f"{text[:20]!r} is not a number", field=name)
    return int(text) * unit


@router.post("/admin/accounts/{account}/invite")
@does(Right.ACCOUNT_CHANGE)
def invite(page: Asked, account: str) -> Response:
    made = page.services.invite(page.actor, account)
    return _accounts(page, token=made.token, of=made.person)


@router.post("/admin/accounts/{account}/second-factor")
@does(Right.ACCOUNT_KEYS)
def remove_factors(page: Asked, account: str) -> Response:
    """For who has lost theirs; where one is required they set another up when they come in."""
    page.services.remove_factor(page.actor, "all", account)
    return page.go(f"/admin/accounts/{account}", page.t("Their second factors are gone."))


@router.post("/admin/accounts/{account}/sign-out")
@does(Right.ACCOUNT_KEYS)
def end_sessions(page: Asked, account: str) -> Response:
    page.services.end_session(page.actor, "all", account)
    return page.go(f"/admin/accounts/{account}", page.t("All their sessions have ended."))


@router.post("/admin/accounts/{account}/remove")
@does(Right.ACCOUNT_CHANGE)
def remove_account(page: Asked, account: str) -> Response:
    try:
        page.services.remove_account(page.actor, account)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go(f"/admin/accounts/{account}", page.refused(error), "danger")
    return page.go("/admin/accounts", page.t("The account is gone; its sites stay, and belong to nobody."))


# --- teams ----------------------------------------------------------------------------------------------
def _teams(page: Page, errors: Errors | None = None, form: Fields | None = None, status: int = 200) -> Response:
    return show(
        page,
        "teams",
        teams=(found := page.services.list_teams(page.actor)),
        quotas={each.id: page.services.quota(page.actor, f"team:{each.name}") for each in found}
        if page.may(Right.ACCOUNT_CHANGE)
        else {},
        mib=MIB,
        errors=errors or Errors(page.words),
        form=form or Fields([]),
        status=status,
    )


@router.get("/admin/teams")
@does(Right.SELF_LOOK)
def teams(page: Asked) -> Response:
    return _teams(page)


@router.post("/admin/teams")
@does(Right.ACCOUNT_CHANGE)
def add_team(page: Asked, form: Form) -> Response:
    wanted = ask.AddTeam(name=form("name").strip(), title=form("title").strip(), members=form.lines("members"))
    try:
        page.services.add_team(page.actor, wanted)
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _teams(page, Errors(page.words, error.problems), form, error.http_status)
    return page.go("/admin/teams", page.t("The team is made."))


@router.post("/admin/teams/{team}")
@does(Right.ACCOUNT_CHANGE)
def set_team(page: Asked, team: str, form: Form) -> Response:
    """The whole list of members, as it was typed."""
    try:
        title = form("title").strip()
        now = set(page.services.set_team(page.actor, team, ask.SetTeam(title=title)).members)
        wanted = set(form.lines("members"))
        come, go = tuple(sorted(wanted - now)), tuple(sorted(now - wanted))
        if come or go:
            page.services.set_team(page.actor, team, ask.SetTeam(add=come, remove=go))
        quota = _quota(form)
        if quota != ask.SetQuota():
            page.services.set_quota(page.actor, f"team:{team}", quota)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go("/admin/teams", page.refused(error), "danger")
    return page.go("/admin/teams", page.t("It is changed."))


@router.post("/admin/teams/{team}/remove")
@does(Right.ACCOUNT_CHANGE)
def remove_team(page: Asked, team: str) -> Response:
    try:
        page.services.remove_team(page.actor, team)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go("/admin/teams", page.refused(error), "danger")
    return page.go("/admin/teams", page.t("The team is gone."))
