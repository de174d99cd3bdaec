"""Being told: channels by mail, webhook and feed, what they last told, and the mail server."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from msgspec import UNSET
from starlette.responses import Response

from alveole.api.gate import does
from alveole.errors import AlveoleError, NotFound
from alveole.masking import HIDDEN
from alveole.notices import USUAL, ChannelView, Kind, MailServer, News
from alveole.people.rights import Right
from alveole.requests.channels import AddChannel, SetChannel
from alveole.web.changes import VERBS
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
KINDS = {
    Kind.MAIL: N_("Mail"),
    Kind.WEBHOOK: N_("Webhook"),
    Kind.NTFY: "ntfy",
    Kind.MATRIX: "Matrix",
    Kind.FEED: N_("Feed"),
}
NEWS = {
    News.DEPLOY: N_("new content or a new version"),
    News.ROLLBACK: N_("a roll back"),
    News.CHECK: N_("a check that begins to fail, or passes again"),
    News.REPAIR: N_("a promise that was broken and repaired"),
    News.BACKUP: N_("backups"),
    News.SLEEP: N_("a site that falls asleep or wakes"),
    News.SITE: N_("anything else about a site"),
    News.PLATFORM: N_("what is about no one site"),
    News.FAILED: N_("whatever failed"),
    News.INCIDENT: N_("incidents: what is broken, and that it is over"),
}
TOLD = {"waiting": N_("waits"), "told": N_("was taken"), "failed": N_("given up")}
TLS = {"starttls": N_("STARTTLS"), "tls": N_("TLS from the first byte on"), "none": N_("none (this machine only)")}


@router.get("/channels")
@does(Right.SELF_NOTIFY)
def channels(page: Asked) -> Response:
    return _list(page)


def _list(
    page: Page,
    *,
    form: Fields | None = None,
    errors: Errors | None = None,
    mail_errors: Errors | None = None,
    status: int = 200,
    made: ChannelView | None = None,
) -> Response:
    services, actor = page.services, page.actor
    typed = form or Fields([("event", str(each)) for each in USUAL])
    return page.show(
        "channels.html",
        status=status,
        channels=services.list_channels(actor),
        whom_options=_whom_options(page),
        kinds=KINDS,
        news=NEWS,
        form=typed,
        errors=errors or Errors(page.words),
        made=made,
        address=f"https://{page.request.headers.get('host', '')}",
        mail=_mail(page),
        mail_errors=mail_errors or Errors(page.words),
        tls=TLS,
        hidden=HIDDEN,
    )


def _whom_options(page: Page) -> list[tuple[str, str]]:
    services, actor = page.services, page.actor
    found = [("", page.t("for me"))] if actor.person else []
    found += [(f"team:{each.name}", each.title or each.name) for each in services.list_teams(actor)]
    # Of somebody who looks after thousands of sites the list would be no list any more.
    sites = [each for each in services.store.sites.values() if page.may(Right.SITE_CHANGE, each.site.id)]
    names = sorted(each.site.name for each in sites)[:200]
    return found + [(f"site:{name}", page.t("for the site {site}", site=name)) for name in names]


def _mail(page: Page) -> MailServer | None:
    if not page.may(Right.SETTINGS_CHANGE):
        return None
    try:
        return page.services.show_mail(page.actor)
    except NotFound:
        return MailServer(host="", sender="")


@router.post("/channels")
@does(Right.SELF_NOTIFY)
def add(page: Asked, form: Form) -> Response:
    wanted = AddChannel(
        name=form("name").strip(),
        kind=form("kind"),
        to=form("to").strip(),
        whom=form("whom") or None,
        events=form.all("event"),
        token=form("token").strip(),
    )
    try:
        made = page.services.add_channel(page.actor, wanted)
    except AlveoleError as error:
        if error.http_status == 404:
            raise
        return _list(page, form=form, errors=Errors(page.words, error.problems), status=error.http_status)
    # Not after a redirect: the secret is shown this once and must not wait in a cookie.
    return _list(page, made=made)


@router.get("/channels/{channel}")
@does(Right.SELF_NOTIFY)
def channel(page: Asked, channel: str) -> Response:
    return _one(page, channel)


def _one(
    page: Page, id: str, *, form: Fields | None = None, errors: Errors | None = None, status: int = 200
) -> Response:
    services, actor = page.services, page.actor
    messages = services.list_messages(actor, id)
    found = next((each for each in services.list_channels(actor) if id in (each.id, each.name)), None)
    if found is None:
        raise NotFound("there is no such channel", field="channel")
    # A webhook's path may hold a secret of its receiver, so it is not shown; left empty it stays.
    shown = found.to if found.kind is Kind.MAIL else ""
    typed = form or Fields([("name", found.name), ("to", shown), *(("event", str(each)) for each in found.events)])
    return page.show(
        "channel.html",
        status=status,
        channel=found,
        messages=messages,
        kinds=KINDS,
        news=NEWS,
        told=TOLD,
        verbs=VERBS,
        form=typed,
        errors=errors or Errors(page.words),
    )


@router.post("/channels/{channel}")
@does(Right.SELF_NOTIFY)
def change(page: Asked, channel: str, form: Form) -> Response:
    to, token = form("to").strip(), form("token").strip()
    name = form("name").strip()
    wanted = SetChannel(name=name, to=to or UNSET, events=form.all("event"), token=token or UNSET)
    try:
        page.services.set_channel(page.actor, channel, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _one(page, channel, form=form, errors=Errors(page.words, error.problems), status=error.http_status)
    return page.go(f"/channels/{channel}", page.t("The channel is changed."))


@router.post("/channels/{channel}/test")
@does(Right.SELF_NOTIFY)
def test(page: Asked, channel: str) -> Response:
    told = page.services.try_channel(page.actor, channel)
    kind, said = ("success", page.t("It was told.")) if told.ok else ("danger", page.t("It could not be told:"))
    return page.go(f"/channels/{channel}", f"{said} {page.words.said(told.came)}", kind)


@router.post("/channels/{channel}/remove")
@does(Right.SELF_NOTIFY)
def remove(page: Asked, channel: str) -> Response:
    page.services.drop_channel(page.actor, channel)
    return page.go("/channels", page.t("The channel is gone."))


# --- the mail server ------------------------------------------------------------------------------
@router.post("/mail")
@does(Right.SETTINGS_CHANGE)
def set_mail(page: Asked, form: Form) -> Response:
    wanted: dict[str, Any] = {name: form(name).strip() for name in ("host", "sender", "user", "tls", "certificates")}
    # Nobody is shown the password, so an empty field keeps the one that is there.
    wanted["password"] = form("password") or (HIDDEN if form("user").strip() else "")
    wanted["port"] = int(form("port")) if form("port").isascii() and form("port").isdigit() else form("port")
    try:
        page.services.set_mail(page.actor, wanted)
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _list(page, mail_errors=Errors(page.words, error.problems), status=error.http_status)
    return page.go("/channels#mail", page.t("Mail goes by {host} now.", host=wanted["host"]))
