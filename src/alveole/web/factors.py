"""The second factor: giving it, and setting one up. Passkeys go by the page's script and the API."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.admit import cookie
from alveole.api.gate import does
from alveole.errors import AlveoleError
from alveole.people.rights import Right
from alveole.web.entrance import entered
from alveole.web.pages import Asked, Errors, Form, Page, PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_SET_UP = "/second-factor/set-up"


def _needs(page: Page) -> str:
    person = page.services.people.persons.get(page.actor.person)
    return page.services.needs(person) if person is not None and page.actor.entering else ""


@router.get("/second-factor")
@does(Right.SELF_ENTER)
def code_form(page: Asked) -> Response:
    needs = _needs(page)
    if needs == "enrol":
        return page.go(_SET_UP)
    return page.show("second-factor.html", errors=Errors(page.words)) if needs else page.go("/")


@router.post("/second-factor")
@does(Right.SELF_ENTER)
def give_code(page: Asked, form: Form) -> Response:
    try:
        found = page.services.give_code(page.actor, form("code"))
    except AlveoleError as error:
        errors = Errors(page.words, error.problems)
        return page.show("second-factor.html", status=error.http_status, errors=errors)
    return entered(page, found, "/")


@router.get(_SET_UP)
@does(Right.SELF_ENTER)
def set_up_form(page: Asked) -> Response:
    return page.show("set-up-factor.html", fresh=None, codes=(), errors=Errors(page.words), must=page.actor.entering)


@router.post(_SET_UP)
@does(Right.SELF_ENTER)
def set_up(page: Asked, form: Form) -> Response:
    """Without a code a fresh secret, with one its confirmation."""
    must = page.actor.entering
    if not form("code"):
        fresh = page.services.new_totp(page.actor)
        return page.show("set-up-factor.html", fresh=fresh.secret, codes=(), errors=Errors(page.words), must=must)
    try:
        wanted = ask.ConfirmTotp(code=form("code").strip(), name=form("name").strip())
        added, session = page.services.confirm_totp(page.actor, wanted)
    except AlveoleError as error:
        errors = Errors(page.words, error.problems)
        return page.show(
            "set-up-factor.html", status=error.http_status, fresh=form("secret"), codes=(), errors=errors, must=must
        )
    answer = page.show(
        "set-up-factor.html", fresh=None, codes=added.recovery_codes or ("",), errors=Errors(page.words), must=False
    )
    if session is not None:
        seconds = page.services.settings.accounts.session_seconds
        answer.headers.append("set-cookie", cookie(session.secret, seconds))
    return answer


@router.post("/account/factors/{factor}/remove")
@does(Right.ACCOUNT_KEYS)
def remove(page: Asked, factor: str) -> Response:
    try:
        page.services.remove_factor(page.actor, factor)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go("/account", page.refused(error), "danger")
    return page.go("/account", page.t("The second factor is gone."))
