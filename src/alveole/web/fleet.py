"""The machines that are driven from here, and bringing a site to one of them."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.gate import does
from alveole.errors import AlveoleError
from alveole.people.rights import Right
from alveole.remote import fleet
from alveole.web import site as of_site
from alveole.web.admin import show
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/admin/servers")
@does(Right.PLATFORM_LOOK)
def servers(page: Asked) -> Response:
    return _servers(page)


def _servers(
    page: Page,
    errors: Errors | None = None,
    form: Fields | None = None,
    scanned: fleet.ScannedView | None = None,
    status: int = 200,
) -> Response:
    may_change = page.may(Right.NODE_CHANGE)
    return show(
        page,
        "servers",
        nodes=page.services.list_nodes(page.actor),
        ssh_key=page.services.node_key(page.actor) if may_change else "",
        errors=errors or Errors(page.words),
        form=form or Fields([]),
        scanned=scanned,
        status=status,
    )


@router.post("/admin/servers")
@does(Right.NODE_CHANGE)
def add(page: Asked, form: Form) -> Response:
    """First the host key is shown; with its fingerprint in the form the machine is added."""
    host, port = form("host").strip(), form("port").strip()
    number = int(port) if port.isdigit() and 0 < int(port) < 65_536 else 22
    try:
        if not form("fingerprint"):
            scanned = page.services.scan_node(page.actor, fleet.ScanNode(host=host, port=number))
            return _servers(page, form=form, scanned=scanned)
        wanted = fleet.AddNode(
            name=form("name").strip(),
            host=host,
            port=number,
            user=form("user").strip() or fleet.ROOT,
            fingerprint=form("fingerprint"),
            config=form("config").strip() or fleet.SETTINGS,
        )
        page.services.add_node(page.actor, wanted)
    except AlveoleError as error:
        return _servers(page, Errors(page.words, error.problems), form, status=error.http_status)
    return page.go("/admin/servers", page.t("It is driven from here."))


@router.post("/admin/servers/{node}/remove")
@does(Right.NODE_CHANGE)
def remove(page: Asked, node: str, form: Form) -> Response:
    try:
        page.services.remove_node(page.actor, node, lost=form("lost") == "yes")
    except AlveoleError as error:
        return _servers(page, Errors(page.words, error.problems), status=error.http_status)
    return page.go("/admin/servers", page.t("It is not driven from here any more."))


@router.post("/admin/servers/{node}/drain")
@does(Right.NODE_CHANGE)
def drain(page: Asked, node: str, form: Form) -> Response:
    try:
        page.services.drain_node(page.actor, node, drain=form("do") != "use")
    except AlveoleError as error:
        return _servers(page, Errors(page.words, error.problems), status=error.http_status)
    return page.go("/admin/servers", page.t("It holds at once."))


# --- a site ---------------------------------------------------------------------------------------
@router.get("/site/{site}/move")
@does(Right.SITE_MOVE)
def move_form(page: Asked, site: str) -> Response:
    return _move(page, site, Errors(page.words))


def _move(page: Page, site: str, errors: Errors, status: int = 200) -> Response:
    page.services.allow_site(page.actor, Right.SITE_MOVE, site)
    view = page.services.show_listed(page.actor, site)
    targets = [(name, name) for name in page.services.targets(page.actor, site)]
    targets = [(name, page.t("this machine") if name == "here" else name) for name, _ in targets]
    kept = sorted(name or page.t("this machine") for name in page.services.copies(page.actor, site))
    return of_site.show(page, "site/move.html", view, "", targets=targets, kept=kept, errors=errors, status=status)


@router.post("/site/{site}/move")
@does(Right.SITE_MOVE)
def move(page: Asked, site: str, form: Form) -> Response:
    try:
        if form("do") == "confirm":
            change = page.services.confirm_move(page.actor, site)
        else:
            change = page.services.move_site(page.actor, site, fleet.MoveSite(to=form("to")))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _move(page, site, Errors(page.words, error.problems), error.http_status)
    return page.go(f"/change/{quote(change.id)}")
