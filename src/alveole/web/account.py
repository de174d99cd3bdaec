"""One's own account: password, sessions, tokens, what one may have."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput
from alveole.people.rights import Right
from alveole.web.pages import Asked, Errors, Form, Page, PageRoute
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: How long a token is good, in days; 0 is without end.
DAYS = (7, 30, 90, 365, 0)
#: What tokens are made for most; empty is all that the role may.
SCOPES = {
    "look": (N_("Only look"), ("site.list", "site.look", "change.look", "catalogue.look", "backup.look")),
    "release": (
        N_("Publish content"),
        ("site.list", "site.look", "change.look", "upload.send", "site.release"),
    ),
    "send": (N_("Send versions of applications"), ("upload.send", "version.send")),
    "all": (N_("All that I may"), ()),
}


def _show(page: Page, errors: dict[str, Errors] | None = None, status: int = 200, **typed: object) -> Response:
    services, actor = page.services, page.actor
    person = services.people.persons.get(actor.person)
    found = errors or {}
    return page.show(
        "account.html",
        status=status,
        person=services.show_account(actor) if person is not None else None,
        sessions=services.list_sessions(actor) if person is not None else (),
        tokens=services.list_tokens(actor) if person is not None or page.may(Right.TOKEN_CHANGE) else (),
        factors=services.list_factors(actor) if person is not None else (),
        keys=services.list_keys(actor) if person is not None else (),
        ssh=services.settings.ssh.port if services.settings.ssh.enabled else 0,
        quota=services.quota(actor) if person is not None else None,
        day_options=[
            (days, page.words.n(days, "{count} day", "{count} days") if days else page.t("without end"))
            for days in DAYS
        ],
        scope_options=[(key, page.t(text)) for key, (text, _) in SCOPES.items()],
        password_errors=found.get("password") or Errors(page.words),
        token_errors=found.get("token") or Errors(page.words),
        key_errors=found.get("key") or Errors(page.words),
        typed=typed,
        secret=typed.get("secret", ""),
    )


@router.get("/account")
@does(Right.SELF_LOOK)
def account(page: Asked) -> Response:
    return _show(page)


@router.post("/account/password")
@does(Right.ACCOUNT_KEYS)
def password(page: Asked, form: Form) -> Response:
    try:
        if form("password") != form("again"):
            raise InvalidInput("is not the same password", field="again")
        page.services.set_password(page.actor, None, ask.SetPassword(password=form("password"), old=form("old")))
    except AlveoleError as error:
        return _show(page, {"password": Errors(page.words, error.problems)}, error.http_status)
    return page.go("/account", page.t("Your password is changed, and your other sessions have ended."))


@router.post("/account/keys")
@does(Right.ACCOUNT_KEYS)
def add_key(page: Asked, form: Form) -> Response:
    try:
        page.services.add_key(page.actor, ask.AddKey(key=form("key").strip(), name=form("key_name").strip()))
    except AlveoleError as error:
        errors = {"key": Errors(page.words, error.problems)}
        return _show(page, errors, error.http_status, key=form("key"), key_name=form("key_name"))
    return page.go("/account#keys", page.t("The key is added: with it you come in by SSH."))


@router.post("/account/keys/{key}/remove")
@does(Right.ACCOUNT_KEYS)
def remove_key(page: Asked, key: str) -> Response:
    page.services.remove_key(page.actor, key)
    return page.go("/account#keys", page.t("The key is removed."))


@router.post("/account/sessions/{session}/end")
@does(Right.ACCOUNT_KEYS)
def end_session(page: Asked, session: str) -> Response:
    page.services.end_session(page.actor, session)
    return page.go("/account", page.t("The session has ended."))


@router.post("/account/tokens")
@does(Right.ACCOUNT_KEYS)
def create_token(page: Asked, form: Form) -> Response:
    days = int(form("days")) if form("days").isascii() and form("days").isdigit() else DAYS[0]
    scope = SCOPES.get(form("scope"), SCOPES["look"])[1]
    wanted = ask.CreateToken(
        name=form("token_name"),
        expires_in_seconds=min(days, 3650) * 86_400 or None,
        scope=scope,
        sites=form.lines("sites"),
    )
    try:
        made = page.services.create_token(page.actor, wanted)
    except AlveoleError as error:
        errors = {"token": Errors(page.words, error.problems)}
        return _show(page, errors, error.http_status, name=form("token_name"), sites=form("sites"))
    # Not after a redirect: the secret is shown this once and must not wait in a cookie.
    return _show(page, secret=made.secret)


@router.post("/account/tokens/{token}/delete")
@does(Right.ACCOUNT_KEYS)
def delete_token(page: Asked, token: str) -> Response:
    page.services.delete_token(page.actor, token)
    return page.go("/account", page.t("The token is deleted: what used it is locked out at once."))
