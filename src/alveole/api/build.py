"""From the services to an ASGI application."""

from __future__ import annotations

import pwd
from collections.abc import Callable

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from alveole.api import (
    accounts,
    apps,
    backups,
    certificates,
    changes,
    checks,
    dns,
    domains,
    entrance,
    exec,
    factors,
    figures,
    files,
    fleet,
    incidents,
    logbook,
    modules,
    notify,
    objects,
    operations,
    outside,
    pastdays,
    platform,
    problems,
    repositories,
    schema,
    sites,
    syslog,
    visits,
)
from alveole.api.admit import Admission
from alveole.api.exec import Start
from alveole.api.gate import Gate, check_declared, routes_of
from alveole.api.routes import include
from alveole.config import Settings
from alveole.services import Services


def build(
    services: Services,
    settings: Settings,
    *,
    start: Start | None = None,
    pages: Callable[[FastAPI], None] | None = None,
) -> ASGIApp:
    """The whole API, and the ``pages`` that put themselves into it. ``start`` opens programs inside sites; by default
    it asks the agent, or the machine where the site lives."""
    edge_uid = _uid(settings.users.edge)
    admission = Admission(services, edge_uid)
    app: FastAPI = FastAPI(
        title="Alvéole",
        # The framework's pages load scripts from other hosts; openapi.json alone is served.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        middleware=[Middleware(Gate, admission=admission, routes=lambda: routes_of(app))],
    )
    app.state.services = services
    app.state.edge_uid = edge_uid
    app.state.settings = settings
    app.state.start = start or (lambda wanted: services.start(wanted))
    problems.install(app)
    for module in (
        sites,
        modules,
        exec,
        changes,
        checks,
        dns,
        domains,
        certificates,
        incidents,
        notify,
        objects,
        backups,
        repositories,
        pastdays,
        platform,
        figures,
        accounts,
        outside,
        entrance,
        factors,
        visits,
        apps,
        fleet,
        operations,
        logbook,
        syslog,
        files,
    ):
        include(app, module.router)
    if pages is not None:
        pages(app)
    schema.install(app)
    check_declared(routes_of(app))
    return app


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
