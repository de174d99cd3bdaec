"""The pages of certificates: of one site, and of the whole platform with the authorities that issue them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput
from alveole.people.rights import Right
from alveole.views import certificates as cv
from alveole.web.admin import show as show_admin
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute
from alveole.web.site import show as show_site
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
SOURCES = {"internal": N_("internal authority"), "own": N_("uploaded"), "acme": "ACME"}
#: Fewer days are shown in the colour of what is wrong.
SOON_DAYS = 21


# --- of one site ------------------------------------------------------------------------------------
@router.get("/site/{site}/certificates")
@does(Right.SITE_LOOK)
def of_site(page: Asked, site: str) -> Response:
    return _of_site(page, site)


def _of_site(page: Page, site: str, errors: Errors | None = None, chain: str = "", status: int = 200) -> Response:
    view = page.services.show_site(page.actor, site)
    found = page.services.list_certificates(page.actor, site)
    return show_site(
        page,
        "site/certificates.html",
        view,
        "settings",
        status=status,
        found=found,
        shared=() if page.may(Right.SETTINGS_CHANGE) else _shared(found),
        sources=SOURCES,
        soon=SOON_DAYS,
        errors=errors or Errors(page.words),
        chain=chain,
    )


@router.post("/site/{site}/certificates")
@does(Right.SITE_CHANGE)
def change_of_site(page: Asked, site: str, form: Form) -> Response:
    """``do``: ``upload``, ``issue``, ``renew`` or ``remove``."""
    where = f"/site/{quote(site)}/certificates"
    try:
        return _change(page, form, where, site)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _of_site(page, site, Errors(page.words, error.problems), form("chain"), error.http_status)


def _shared(found: Collection[cv.CertificateView]) -> frozenset[str]:
    """The names that have a certificate which is of others too: it is renewed for all of them at once."""
    own = {each.name for each in found}
    wild = {each.name: f"*.{each.name.partition('.')[2]}" for each in found if each.name not in each.names}
    return frozenset(name for name, above in wild.items() if above not in own)


def _change(page: Page, form: Fields, where: str, site: str | None) -> Response:
    services, actor, name = page.services, page.actor, form("certificate")
    if form("do") == "upload":
        wanted = cv.UploadCertificate(chain=form("chain"), key=form("key"))
        taken = services.upload_certificate(actor, wanted, site)
        notes = " ".join(page.words.said(each) + "." for each in taken.notes)
        text = page.t(
            "It is shown for {names}.", names=", ".join(taken.names) or page.t("names that are still to come")
        )
        return page.go(where, f"{text} {notes}".strip())
    if form("do") in ("issue", "renew"):
        wish = cv.IssueCertificate(renew=form("do") == "renew")
        return page.go(f"/change/{services.issue_certificate(actor, name, wish, site).id}")
    if form("do") == "remove":
        services.remove_certificate(actor, name, site)
        return page.go(where, page.t("The certificate of {name} is gone.", name=name))
    raise InvalidInput(f"{form('do')[:20]!r} is nothing that can be done to certificates", field="do")


# --- of the platform --------------------------------------------------------------------------------
@router.get("/admin/certificates")
@does(Right.SITE_LIST)
def of_all(page: Asked) -> Response:
    """Those of the names that somebody may look at."""
    return _of_all(page)


def _of_all(page: Page, errors: Errors | None = None, form: Fields | None = None, status: int = 200) -> Response:
    return show_admin(
        page,
        "certificates",
        found=page.services.list_certificates(page.actor),
        acme=page.services.show_acme(page.actor) if page.may(Right.SETTINGS_CHANGE) else None,
        sources=SOURCES,
        soon=SOON_DAYS,
        errors=errors or Errors(page.words),
        form=form or Fields([]),
        status=status,
    )


@router.post("/admin/certificates")
@does(Right.SETTINGS_CHANGE)
def change_of_all(page: Asked, form: Form) -> Response:
    """``do``: what is done to certificates, or ``set``, ``budget``, ``add``, ``drop``, ``try``, ``add-zone``,
    ``drop-zone``."""
    try:
        return _administer(page, form)
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _of_all(page, Errors(page.words, error.problems), form, error.http_status)


def _administer(page: Page, form: Fields) -> Response:
    services, actor, here = page.services, page.actor, "/admin/certificates"
    match form("do"):
        case "set":
            services.set_acme(
                actor, cv.SetAcme(automatic=form("automatic") == "yes", look=form("look") == "yes", order=_order(form))
            )
            return page.go(here, page.t("It is stored."))
        case "budget":
            limits = {name: _number(form, name, 0) for name in ("domain_week", "same_week", "failures_hour")}
            services.set_acme(actor, cv.SetAcme(budgets={form("authority"): limits}))
            return page.go(here, page.t("It is stored."))
        case "add":
            wanted = cv.AddAuthority(settings=_authority(form), agree=form("agree") == "yes")
            services.add_authority(actor, wanted)
            return page.go(here, page.t("The authority knows this platform now."))
        case "drop":
            services.remove_authority(actor, form("authority"))
            return page.go(here, page.t("It is asked for nothing any more."))
        case "try":
            tried = services.try_authority(actor, form("authority"))
            return page.go(here, page.words.said(tried.said), "success" if tried.ok else "danger")
        case "add-zone":
            services.put_zone(actor, _zone(form))
            return page.go(here, page.t("Names below {zone} can be proven by DNS now.", zone=form("zone").strip()))
        case "drop-zone":
            services.remove_zone(actor, form("zone"))
            return page.go(here, page.t("Nothing is written to that zone any more."))
    return _change(page, form, here, None)


def _order(form: Fields) -> tuple[str, ...]:
    return form.lines("order")


def _number(form: Fields, name: str, otherwise: int) -> int:
    text = form(name).strip()
    if text and not (text.isascii() and text.isdigit() and len(text) < 6):
        raise InvalidInput(f"{text[:20]!r} is not a number", field=name)
    return int(text) if text else otherwise


def _authority(form: Fields) -> dict[str, Any]:
    raw: dict[str, Any] = {
        name: form(name).strip() for name in ("name", "directory", "email", "eab_kid", "eab_key", "challenge")
    }
    raw |= {"certificates": form("certificates").replace("\r\n", "\n").strip(), "private": form("private") == "yes"}
    return {**raw, "port": _number(form, "asked_port", 80)}


def _zone(form: Fields) -> dict[str, Any]:
    raw: dict[str, Any] = {name: form(name).strip() for name in ("zone", "server", "secret")}
    return {**raw, "key": form("tsig").strip(), "port": _number(form, "zone_port", 53)}
