"""Administration of syslog: what is sent and taken in, with a trial before anything is stored."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput, Problem
from alveole.logbook.model import Source
from alveole.people.rights import Right
from alveole.services.syslog import SyslogTrial, SyslogView
from alveole.web.admin import show
from alveole.web.logbook import PLATFORM_SOURCES, SOURCES
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: The settings that are one text each; names of SyslogOut and SyslogIn. In the form they follow their section.
_OUT = ("server", "facility", "authority", "certificate")
_IN = ("tcp", "tls", "certificate", "authority")
_EVERY = (*(f"syslog_out.{name}" for name in _OUT), *(f"syslog_in.{name}" for name in _IN))
_LISTS = ("syslog_in.networks", "syslog_in.sites")


@router.get("/admin/syslog")
@does(Right.SETTINGS_CHANGE)
def syslog(page: Asked) -> Response:
    return _syslog(page)


def _syslog(
    page: Page,
    typed: dict[str, str] | None = None,
    chosen: set[str] | None = None,
    errors: Errors | None = None,
    trial: SyslogTrial | None = None,
    status: int = 200,
) -> Response:
    found = page.services.show_syslog(page.actor)
    # A form that somebody else has written may lack some.
    typed = _texts(found) if typed is None else {**dict.fromkeys((*_EVERY, *_LISTS), ""), **typed}
    return show(
        page,
        "syslog",
        found=found,
        typed=typed,
        chosen=set(found.syslog_out.sources) if chosen is None else chosen,
        sources=[(str(each), page.t(text)) for each, text in {**SOURCES, **PLATFORM_SOURCES}.items()],
        trial=trial,
        errors=errors or Errors(page.words),
        status=status,
    )


def _texts(found: SyslogView) -> dict[str, str]:
    """The settings as the fields of a form."""
    texts = {f"syslog_out.{name}": str(getattr(found.syslog_out, name)) for name in _OUT}
    texts |= {f"syslog_in.{name}": getattr(found.syslog_in, name) for name in _IN}
    texts["syslog_in.networks"] = "\n".join(found.syslog_in.networks)
    texts["syslog_in.sites"] = "\n".join(f"{host} = {site}" for host, site in found.syslog_in.sites.items())
    return texts


def _settings(page: Page, form: Fields) -> dict[str, Any]:
    """The other way; what the form does not show stays as it is. Raises ``InvalidInput``."""
    found = page.services.show_syslog(page.actor)

    def text(name: str) -> str:
        return form(name).replace("\r\n", "\n").strip()

    out: dict[str, Any] = {name: text(f"syslog_out.{name}") for name in _OUT}
    facility = out["facility"]
    out["facility"] = int(facility) if facility.isascii() and facility.isdigit() and len(facility) < 4 else facility
    out |= {"sources": form.all("sources"), "buffer_bytes": found.syslog_out.buffer_bytes}
    taken: dict[str, Any] = {name: text(f"syslog_in.{name}") for name in _IN}
    taken |= {"connections": found.syslog_in.connections, "bytes_per_second": found.syslog_in.bytes_per_second}
    taken |= {"networks": list(form.lines("syslog_in.networks")), "sites": {}}
    for line in filter(str.strip, form("syslog_in.sites").splitlines()):
        host, equals, site = line.rpartition("=")
        if not (equals and host.strip()):
            raise InvalidInput(problems=[Problem("syslog_in.sites", f"{line.strip()[:60]!r} is not 'host = site'")])
        taken["sites"][host.strip()] = site.strip()
    return {"syslog_out": out, "syslog_in": taken}


@router.post("/admin/syslog")
@does(Right.SETTINGS_CHANGE)
def set_syslog(page: Asked, form: Form) -> Response:
    """``do``: ``try`` sends one message and keeps nothing, ``store`` keeps it, ``drop`` goes back to the file."""
    typed = {key: value for key, value in form.pairs if key not in ("csrf", "do", "sources")}
    chosen = {each for each in form.all("sources") if each in list(Source)}
    services, actor, trial = page.services, page.actor, None
    try:
        if form("do") == "drop":
            services.drop_syslog(actor)
            return page.go("/admin/syslog", page.t("What the settings file says holds again."))
        raw = _settings(page, form)
        if form("do") == "try":
            trial = services.try_syslog(actor, raw)
        else:
            services.set_syslog(actor, raw)
            return page.go("/admin/syslog", page.t("It is stored. It holds within a few seconds."))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _syslog(page, typed, chosen, Errors(page.words, error.problems), status=error.http_status)
    return _syslog(page, typed, chosen, trial=trial)
