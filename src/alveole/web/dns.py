"""Administration of where the names of sites are published, with a trial before anything is stored."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.gate import does
from alveole.dns.rfc2136 import ALGORITHMS
from alveole.dns.zone import DnsSettings, DnsTrial, DnsView
from alveole.errors import AlveoleError, NotFound
from alveole.people.rights import Right
from alveole.web.admin import show
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: The settings that are one text each; names of :class:`alveole.dns.zone.DnsSettings`.
_TEXTS = ("mode", "zone", "server", "key", "algorithm", "secret", "alias")
_NUMBERS = {"port": 53, "ttl": 300}
_LISTS = ("addresses", "wildcards", "secondaries")
_CHECKS = ("follow", "wildcard", "transfer_by_key")
_MODES = {"here": N_("BIND on this machine"), "elsewhere": N_("a BIND or Knot elsewhere")}
STATES = {
    "waiting": N_("waiting"),
    "published": N_("published"),
    "theirs": N_("there already"),
    "held": N_("somebody else's"),
}


@router.get("/admin/dns")
@does(Right.SETTINGS_CHANGE)
def dns(page: Asked) -> Response:
    return _dns(page)


def _dns(
    page: Page,
    typed: dict[str, str] | None = None,
    errors: Errors | None = None,
    trial: DnsTrial | None = None,
    status: int = 200,
) -> Response:
    found: DnsView | None = None
    try:
        found = page.services.show_dns(page.actor)
    except NotFound:
        stored = DnsSettings()
    else:
        stored = found.settings
    if typed is not None:
        # A form that somebody else has written may lack some.
        typed = {**dict.fromkeys((*_TEXTS, *_NUMBERS, *_LISTS, *_CHECKS), ""), **typed}
    else:
        typed = _texts(stored)
    return show(
        page,
        "dns",
        typed=typed,
        found=found,
        trial=trial,
        errors=errors or Errors(page.words),
        modes=[(mode, page.t(text)) for mode, text in _MODES.items()],
        algorithms=[(each, each) for each in ALGORITHMS],
        states=STATES,
        status=status,
    )


def _texts(stored: DnsSettings) -> dict[str, str]:
    """The settings as the fields of a form."""
    return {
        **{name: str(getattr(stored, name)) for name in (*_TEXTS, *_NUMBERS)},
        **{name: "yes" if getattr(stored, name) else "" for name in _CHECKS},
        "addresses": "\n".join(stored.addresses),
        "wildcards": "\n".join(stored.wildcards),
        "secondaries": "\n".join(f"{each.name} {each.address}".strip() for each in stored.secondaries),
    }


def _settings(page: Page, form: Fields) -> dict[str, Any]:
    """The other way; what the form does not show stays as it is."""
    try:
        kept: dict[str, Any] = msgspec.to_builtins(page.services.show_dns(page.actor).settings)
    except NotFound:
        kept = {}
    raw: dict[str, Any] = {name: form(name).strip() for name in _TEXTS}
    for name, usual in _NUMBERS.items():
        text = form(name).strip()
        raw[name] = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else (text or usual)
    raw |= {name: form(name) == "yes" for name in _CHECKS}
    raw |= {name: list(form.lines(name)) for name in ("addresses", "wildcards")}
    pairs = [line.rpartition(" ") for line in form.lines("secondaries")]
    raw["secondaries"] = [{"name": name.strip(), "address": address} for name, _space, address in pairs]
    if raw["mode"] == "here":
        # Its keys are made by setting it up.
        raw |= {"server": "", "port": 53, "key": "", "secret": ""}
    return {**kept, **raw}


@router.post("/admin/dns")
@does(Right.SETTINGS_CHANGE)
def set_dns(page: Asked, form: Form) -> Response:
    """``do``: ``try`` writes a record and removes it, ``store`` keeps the settings, ``drop`` ends it."""
    typed = {key: value for key, value in form.pairs if key not in ("csrf", "do")}
    wanted, services, actor = form("do"), page.services, page.actor
    trial = None
    try:
        if wanted == "drop":
            services.drop_dns(actor)
            return page.go("/admin/dns", page.t("Names are not published any more."))
        if wanted == "try":
            trial = services.try_dns(actor, _settings(page, form))
        else:
            services.set_dns(actor, _settings(page, form))
            return page.go("/admin/dns", page.t("It is stored. Names are being published."))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _dns(page, typed, Errors(page.words, error.problems), status=error.http_status)
    return _dns(page, typed, trial=trial)


@router.post("/admin/dns/compare")
@does(Right.SETTINGS_CHANGE)
def compare(page: Asked, form: Form) -> Response:
    """``do``: ``sync`` puts right what differs, else it is only told."""
    try:
        if form("do") != "sync":
            return _dns(page, trial=page.services.check_dns(page.actor))
        page.services.sync_dns(page.actor)
    except NotFound as error:
        # Ended by somebody else meanwhile.
        return page.go("/admin/dns", page.refused(error), "danger")
    return page.go("/admin/dns", page.t("Everything was compared."))
