"""What of the machine is lent to a site, as lines of a form: ports, directories; and whether what it writes lasts."""

from __future__ import annotations

import re

from fastapi import APIRouter
from msgspec import UNSET
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput, Problem
from alveole.people.rights import Right
from alveole.requests.parts import PublishBody, ShareBody
from alveole.web.pages import Asked, Fields, Form, PageRoute
from alveole.web.site import lines_of, refused

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_PORTS = re.compile(r"(\d{1,5})\s*[:=\s]\s*(\d{1,5})(?:/(tcp|udp))?\Z")
_SHARE = re.compile(r"(/[^:]*?)\s*[:=]\s*(/[^:]*?)\s*(?::(ro|rw))?\Z")


def published_of(form: Fields, problems: list[Problem]) -> tuple[PublishBody, ...]:
    found = []
    for line in form("published").splitlines():
        if text := line.strip():
            if one := _PORTS.match(text):
                found.append(PublishBody(host=int(one[1]), port=int(one[2]), protocol=one[3] or "tcp"))
            else:
                problems.append(Problem("published", f"{text[:40]!r} is not 'port:port inside'"))
    return tuple(found)


def shared_of(form: Fields, problems: list[Problem]) -> tuple[ShareBody, ...]:
    found = []
    for line in form("shared").splitlines():
        if text := line.strip():
            if one := _SHARE.match(text):
                found.append(ShareBody(source=one[1].strip(), path=one[2].strip(), writable=one[3] == "rw"))
            else:
                problems.append(Problem("shared", f"{text[:60]!r} is not '/directory:/path inside'"))
    return tuple(found)


@router.post("/site/{site}/lent")
@does(Right.SITE_CHANGE)
def lend(page: Asked, site: str, form: Form) -> Response:
    """Only what is another than it was is asked for: the rest may be an administrator's to change."""
    problems: list[Problem] = []
    try:
        old = lines_of(page.services.show_site(page.actor, site))
        lends = page.may(Right.MACHINE_LEND)
        published, shared = published_of(form, problems), shared_of(form, problems)
        if problems:
            raise InvalidInput(problems=problems)
        now = {key: form(key).replace("\r\n", "\n").strip() for key in old}
        wanted = ask.SetSite(
            published=published if lends and now["published"] != old["published"] else UNSET,
            shared=shared if lends and now["shared"] != old["shared"] else UNSET,
            persistent=now["persistent"] != "no" if now["persistent"] != old["persistent"] else UNSET,
        )
        change = page.services.set_site(page.actor, site, wanted)
    except AlveoleError as error:
        return refused(page, site, "lend", error, form)
    return page.go(f"/change/{change.id}")
