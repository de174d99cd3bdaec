"""My sites: found, filtered, fifty a page, renewed while somebody looks; starting, stopping and restarting them."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError
from alveole.people.rights import Right
from alveole.views import SiteView, State
from alveole.web.pages import HEADERS, Asked, Page, PageRoute, query
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
SIZE = 50
BEGUN = {
    "start": N_("{site} is starting."),
    "stop": N_("{site} is stopping."),
    "restart": N_("{site} starts anew."),
    "sleep": N_("{site} falls asleep; the next visit wakes it."),
}


@router.get("/sites")
@does(Right.SITE_LIST)
def sites(
    page: Asked, q: str = "", state: str = "", owner: str = "", module: str = "", n: int = 1, seen: str = ""
) -> Response:
    """With ``seen`` only the rows, and nothing when they are as they were."""
    wanted = ask.FindSites(text=q[:200], state=state, owner=owner, module=module, page=n, limit=SIZE)
    found = page.services.find_sites(page.actor, wanted)
    here = {"q": q, "state": state, "owner": owner, "module": module}
    troubles = page.services.count_incidents_by_site(page.actor)
    digest = _digest(found.sites, page.words.code, troubles)
    if page.partial and seen == digest:
        return Response(status_code=204, headers=HEADERS)
    template = "part/rows.html" if page.partial and seen else "sites.html"
    last = found.pages
    return page.show(
        template,
        found=found,
        here=here,
        digest=digest,
        at=n,
        again=f"/sites{query(**here, n=n if n > 1 else None, seen=digest)}",
        before=f"/sites{query(**here, n=n - 1)}" if n > 1 else "",
        after=f"/sites{query(**here, n=n + 1)}" if n < last else "",
        states=[each for each in State if found.states[each] or each == state],
        problem_of=problem_of,
        troubles=troubles,
    )


def problem_of(site: SiteView) -> str:
    """The first promise that is not kept, for a line of a table."""
    return site.problem.partition(";")[0]


def _digest(sites: tuple[SiteView, ...], language: str, troubles: dict[str, int]) -> str:
    """Changes when the rows would look different; usage counts in steps of a mebibyte."""
    shown = [
        (
            s.name,
            s.state,
            s.urls[:1],
            s.problem,
            s.owner,
            s.plan,
            s.version,
            s.requests_today,
            s.cpu_load,
            troubles.get(s.id),
        )
        for s in sites
    ]
    sizes = [(s.memory_bytes >> 20, s.disk_bytes >> 20) for s in sites]
    return hashlib.sha256(f"{language}{shown}{sizes}".encode()).hexdigest()[:16]


@router.post("/site/{site}/start")
@does(Right.SITE_RUN)
def start(page: Asked, site: str) -> Response:
    return _run(page, "start", site)


@router.post("/site/{site}/stop")
@does(Right.SITE_RUN)
def stop(page: Asked, site: str) -> Response:
    return _run(page, "stop", site)


@router.post("/site/{site}/restart")
@does(Right.SITE_RUN)
def restart(page: Asked, site: str) -> Response:
    return _run(page, "restart", site)


@router.post("/site/{site}/sleep")
@does(Right.SITE_RUN)
def sleep(page: Asked, site: str) -> Response:
    return _run(page, "sleep", site)


def _run(page: Page, verb: str, site: str) -> Response:
    services = page.services
    act = {
        "start": services.start_site,
        "stop": services.stop_site,
        "restart": services.restart_site,
        "sleep": services.sleep_site,
    }[verb]
    try:
        act(page.actor, site)
    except AlveoleError as error:
        if page.partial or error.http_status in (403, 404):
            raise
        return page.back(f"/site/{site}", page.refused(error), "danger")
    if page.partial and page.request.headers.get("hx-target", "").startswith("row-"):
        view = services.show_listed(page.actor, site)
        troubles = services.count_incidents_by_site(page.actor)
        return page.show("part/one-row.html", site=view, problem_of=problem_of, troubles=troubles)
    return page.back(f"/site/{site}", page.t(BEGUN[verb], site=site), "info")
