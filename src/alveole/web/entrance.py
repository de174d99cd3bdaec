"""Coming in and going out: sign-in, second factor, the first administrator, a forgotten password."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.admit import cookie
from alveole.api.entrance import place_of
from alveole.api.gate import SIGN_IN, does
from alveole.errors import AlveoleError
from alveole.people.rights import Right
from alveole.services.doors import Entered
from alveole.web import pages
from alveole.web.pages import Asked, Errors, Form, Page, PageRoute, local_path
from alveole.web.words import LANGUAGES

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: What the person still has to do, and where.
_NEEDS = {"second-factor": "/second-factor", "enrol": "/second-factor/set-up"}


def entered(page: Page, found: Entered, then: str) -> Response:
    answer = page.go(_NEEDS.get(found.needs, then))
    seconds = page.services.settings.accounts.session_seconds
    answer.headers.append("set-cookie", cookie(found.secret, seconds))
    return answer


@router.get("/")
@does(Right.SITE_LIST)
def home(page: Asked) -> Response:
    return page.go("/sites")


@router.get(SIGN_IN)
@does(Right.OPEN)
def sign_in_form(page: Asked, next: str = "/") -> Response:
    then = local_path(next)
    if page.somebody is not None and not page.somebody.entering:
        return page.go(then)
    # The cookie is SameSite=Strict: a link of elsewhere does not bring it. A second look, of our own, does.
    again = page.request.headers.get("sec-fetch-site") == "cross-site"
    errors = Errors(page.words)
    return page.show("sign-in.html", then=then, name="", errors=errors, again=again, oidc=page.services.offers_oidc())


@router.post(SIGN_IN)
@does(Right.OPEN)
def sign_in(page: Asked, form: Form) -> Response:
    then = local_path(form("next", "/"))
    wanted = ask.SignIn(name=form("name"), password=form("password"))
    try:
        found = page.services.sign_in(wanted, place_of(page.request))
    except AlveoleError as error:
        errors = Errors(page.words, error.problems)
        return page.show(
            "sign-in.html",
            status=error.http_status,
            then=then,
            name=form("name"),
            errors=errors,
            again=False,
            oidc=page.services.offers_oidc(),
        )
    return entered(page, found, then)


@router.post("/sign-out")
@does(Right.SELF_ENTER)
def sign_out(page: Asked) -> Response:
    page.services.sign_out(page.actor)
    answer = page.go(SIGN_IN, page.t("You are signed out."))
    answer.headers.append("set-cookie", cookie("", 0))
    answer.headers["Clear-Site-Data"] = '"cache", "storage"'
    return answer


@router.get("/welcome")
@does(Right.OPEN)
def welcome_form(page: Asked) -> Response:
    """For a token of an invitation, or of the first sign-in. The token is typed: an address ends up in histories."""
    return page.show("welcome.html", name="", token="", errors=Errors(page.words))


@router.post("/welcome")
@does(Right.OPEN)
def welcome(page: Asked, form: Form) -> Response:
    name = form("name").strip()
    wanted = ask.UseInvitation(token=form("token"), password=form("password"), name=name or None)
    try:
        if form("password") != form("again"):
            raise _different(page)
        found = page.services.use_invitation(wanted, place_of(page.request))
    except AlveoleError as error:
        errors = Errors(page.words, error.problems)
        return page.show("welcome.html", status=error.http_status, name=name, token=form("token"), errors=errors)
    return entered(page, found, "/")


def _different(page: Page) -> AlveoleError:
    from alveole.errors import InvalidInput

    return InvalidInput("is not the same password", field="again")


@router.post("/language")
@does(Right.OPEN)
def language(page: Asked, form: Form) -> Response:
    """In the account, and in the browser, so that the sign-in has it too."""
    code = form("language") if form("language") in LANGUAGES else page.words.code
    if page.may(Right.SELF_CHANGE) and page.actor.person:
        page.services.set_language(page.actor, code)
    return pages.remember(page.go(local_path(form("next", "/"))), pages.LANGUAGE, code)


@router.post("/theme")
@does(Right.OPEN)
def theme(page: Asked, form: Form) -> Response:
    name = form("theme") if form("theme") in pages.THEMES else "auto"
    return pages.remember(page.go(local_path(form("next", "/"))), pages.THEME, name)
