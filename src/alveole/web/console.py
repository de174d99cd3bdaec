"""A shell in the page. The bytes go over :mod:`alveole.api.exec`; here is only the window around it."""

from __future__ import annotations

import secrets
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.admit import SOCKET
from alveole.api.gate import does
from alveole.people.rights import Right
from alveole.web.pages import POLICY, Asked, PageRoute
from alveole.web.site import show

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/site/{site}/console")
@does(Right.SITE_CONSOLE)
def console(page: Asked, site: str) -> Response:
    page.services.allow_site(page.actor, Right.SITE_CONSOLE, site)
    view = page.services.show_site(page.actor, site)
    ssh = page.services.settings.ssh
    # xterm.js writes its colours into style elements that it makes; nothing else on the page has this word.
    nonce = secrets.token_urlsafe(16)
    return show(
        page,
        "site/console.html",
        view,
        "console",
        headers={"Content-Security-Policy": POLICY.replace("style-src 'self'", f"style-src 'self' 'nonce-{nonce}'")},
        nonce=nonce,
        socket=f"/v1/sites/{quote(view.name)}/console",
        protocol=SOCKET,
        login=f"-p {ssh.port} {page.actor.name}+{view.name}@{page.services.settings.domain}" if ssh.enabled else "",
    )
