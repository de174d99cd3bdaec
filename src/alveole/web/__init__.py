"""The pages: a door like the others, made of HTML. No logic of their own: every verb is one of the services.

Rendered here, on the server; htmx brings parts of a page anew, and everything that matters works without it, by
forms that are posted and redirected. Nothing is asked of another host: what is not ours lies in ``vendor/``.

| module | holds |
|---|---|
| ``pages`` | from a request to a page: who asks, in which language, refusals as pages, forms |
| ``words`` | French and English |
| ``assets`` | style, scripts and symbols, under names that change with their content |
| ``entrance``, ``factors``, ``account`` | signing in; one's own account |
| ``sites``, ``site``, ``content``, ``new`` | the pages of sites |
| ``filemanager``, ``console`` | a site's files, and a shell in it |
| ``logbook``, ``syslog`` | log lines, and who visits a site; what is sent and taken in |
| ``backups``, ``pastdays`` | backups of a site, what is in one, and where a machine keeps them; past days |
| ``checks`` | a site's checks: text, running, evidence, secrets |
| ``operations`` | a site's programs, and named commands by button |
| ``channels`` | who is told by mail, webhook, ntfy, Matrix and feed, and what came of it |
| ``incidents`` | incidents, rules, silences; what is promised to a site |
| ``apps``, ``newapp`` | applications: environments, versions, history; making one |
| ``dns`` | where the names of sites are published |
| ``certificates`` | what visitors of each name are shown, and who issues it |
| ``figures`` | graphs, traffic, reports by month, the screen on the wall |
| ``lent`` | ports and directories of the machine for a site |
| ``fleet`` | other machines, and moving a site to one |
| ``changes``, ``admin``, ``people``, ``outside``, ``oidc`` | what goes on, and the pages of administrators |
"""

from __future__ import annotations

from fastapi import FastAPI

from alveole.api.routes import include
from alveole.web import (
    account,
    admin,
    apps,
    assets,
    backups,
    certificates,
    changes,
    channels,
    checks,
    console,
    content,
    dns,
    entrance,
    environments,
    factors,
    figures,
    filemanager,
    fleet,
    incidents,
    lent,
    logbook,
    new,
    newapp,
    oidc,
    operations,
    outside,
    pages,
    pastdays,
    people,
    site,
    sites,
    syslog,
)

__all__ = ["install"]
_PAGES = (
    *(assets, entrance, factors, account, sites, site, content, filemanager, console, checks, operations, apps),
    *(environments, newapp, new, changes, admin, people, outside, oidc, channels),
    *(fleet, dns, certificates, logbook, syslog, figures, incidents, backups, lent, pastdays),
)


def install(app: FastAPI) -> None:
    """Put the pages into ``app``. For :func:`alveole.api.build`."""
    for module in _PAGES:
        include(app, module.router)
    app.state.error_page = pages.error_page
    app.state.incident_report = incidents.report_page
