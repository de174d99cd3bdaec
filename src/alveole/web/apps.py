"""Applications: per environment what is live and what lies ready, two buttons a step; versions; history."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput
from alveole.model.app import Stage, VersionState
from alveole.model.change import Change
from alveole.people.rights import Right, may
from alveole.views.apps import AppView, EnvironmentView
from alveole.web.changes import VERBS
from alveole.web.files import Files
from alveole.web.new import machines
from alveole.web.pages import HEADERS, Asked, Errors, Fields, Form, Page, PageRoute, on_page
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")
VERSION_STATES = {
    VersionState.WAITING: N_("waits"),
    VersionState.ACCEPTED: N_("accepted"),
    VersionState.REFUSED: N_("refused"),
}
STAGES = {
    Stage.DELIVERED: N_("lies ready"),
    Stage.WITHDRAWN: N_("replaced before it was live"),
    Stage.FAILED: N_("did not hold"),
    Stage.LIVE: N_("live"),
    Stage.LEFT: N_("was live"),
}
_HISTORY = 50


@router.get("/apps")
@does(Right.SITE_LIST)
def apps(page: Asked) -> Response:
    return page.show("apps.html", apps=page.services.list_apps(page.actor))


@router.get("/app/{app}")
@does(Right.APP_LOOK)
def app(page: Asked, app: str, seen: str = "") -> Response:
    """With ``seen`` only what moves, and nothing when it is as it was."""
    return _show(page, page.services.show_app(page.actor, app), seen=seen)


def _show(
    page: Page,
    found: AppView,
    *,
    errors: Errors | None = None,
    form: Fields | None = None,
    status: int = 200,
    seen: str = "",
) -> Response:
    """``form``: what was typed to send a version."""
    # When another machine last answered changes every few seconds, and is shown only while it is away.
    still = [msgspec.structs.replace(each, seen_at=None) for each in found.environments]
    shown = msgspec.structs.replace(found, environments=tuple(still))
    digest = hashlib.sha256(msgspec.json.encode(shown)).hexdigest()[:16]
    if page.partial and seen == digest:
        return Response(status_code=204, headers=HEADERS)
    known = page.services.apps.apps[found.id]
    held = {each.name: page.services.people.held_app(known, each.site) for each in known.environments}
    own = page.services.people.held_app(known)
    return page.show(
        "part/app.html" if page.partial and seen else "app.html",
        status=status,
        app=found,
        digest=digest,
        steps=[(each, _next(found, each)) for each in found.environments],
        history=page.services.app_history(page.actor, found.id)[:_HISTORY],
        version_states=VERSION_STATES,
        stages=STAGES,
        errors=errors or Errors(page.words),
        typed=form or Fields([]),
        working={each.name: _working(page, each.site) for each in known.environments},
        verbs=VERBS,
        ways=_ways(page, found.name) if page.services.settings.ssh.enabled else (),
        sends=may(page.actor, Right.VERSION_SEND, own),
        changes=may(page.actor, Right.APP_CHANGE, own),
        node_options=machines(page),
        decides=may(page.actor, Right.VERSION_DECIDE, own),
        syncs=[
            each.name
            for each in found.environments
            if not each.node and may(page.actor, Right.APP_SYNC, held[each.name])
        ],
        may_here=lambda right, environment: may(page.actor, right, held[environment]),
    )


def _ways(page: Page, app: str) -> tuple[str, str]:
    """How this person sends a version through the SSH door."""
    settings = page.services.settings
    login = f"{page.actor.name}+{app}.incoming@{settings.domain}"
    return (f"sftp -P {settings.ssh.port} {login}", f"git push ssh://{login}:{settings.ssh.port}/{app} v2.6")


def _working(page: Page, site: str) -> Change | None:
    """What is at work on an environment."""
    live = page.services.journal.of_site(site)
    return live.change if live is not None else None


def _next(app: AppView, environment: EnvironmentView) -> str:
    """The version that would be delivered next: what the environment before runs, or the newest that was accepted."""
    names = [each.name for each in app.environments]
    at = names.index(environment.name)
    before = app.environments[at - 1] if at else None
    accepted = [each.name for each in app.versions if each.state is VersionState.ACCEPTED]
    if before is None:
        found = accepted[0] if accepted else ""
    else:
        found = before.live.version if before.live is not None else ""
    here = {each.version for each in (environment.live, environment.delivered) if each is not None}
    return "" if found in here else found


def _step(
    page: Page, app: str, verb: Callable[[], Change | AppView | object], said: str = "", refused: str = ""
) -> Response:
    """Carry out and lead to the change, or back with what is ``said``; a refusal is said on the page of the
    application, or on that of the path ``refused``."""
    try:
        done = verb()
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        said = "; ".join(page.words.problem(each) for each in on_page(error.problems))
        return page.go(refused or f"/app/{quote(app)}", said, "danger")
    return page.go(f"/change/{done.id}" if isinstance(done, Change) else f"/app/{quote(app)}", said)


@router.post("/app/{app}/send")
@does(Right.VERSION_SEND)
def send(page: Asked, app: str, form: Files) -> Response:
    try:
        if not _UPLOAD.match(form("upload")):
            raise InvalidInput("choose a file first", field="upload")
        wanted = ask.SendVersion(
            version=form("version").strip(),
            upload=form("upload"),
            note=form("note").strip(),
            signature=form("signature").strip() or None,
        )
        change = page.services.send_version(page.actor, app, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        view = page.services.show_app(page.actor, app)
        errors = Errors(page.words, on_page(error.problems))
        return _show(page, view, errors=errors, form=form, status=error.http_status)
    return page.go(f"/change/{change.id}")


@router.post("/app/{app}/version/{version}")
@does(Right.VERSION_DECIDE)
def decide(page: Asked, app: str, version: str, form: Form) -> Response:
    wanted = ask.DecideVersion(accept=form("do") == "accept", reason=form("reason").strip())
    told = N_("{version} is accepted and can be delivered.") if wanted.accept else N_("{version} is refused.")
    said = page.t(told, version=version)
    return _step(page, app, lambda: page.services.decide_version(page.actor, app, version, wanted), said)


@router.post("/app/{app}/{environment}/deliver")
@does(Right.APP_DELIVER)
def deliver(page: Asked, app: str, environment: str, form: Form) -> Response:
    wanted = ask.DeliverVersion(version=form("version"), reason=form("reason").strip())
    return _step(page, app, lambda: page.services.deliver_version(page.actor, app, environment, wanted))


@router.post("/app/{app}/{environment}/approve")
@does(Right.APP_APPROVE)
def approve(page: Asked, app: str, environment: str, form: Form) -> Response:
    wanted = ask.ApproveVersion(version=form("version"))
    name = environment.upper()
    said = page.t(
        "You approve {version} in {environment}. Somebody else deploys it.", version=wanted.version, environment=name
    )
    return _step(page, app, lambda: page.services.approve_version(page.actor, app, environment, wanted), said)


@router.post("/app/{app}/{environment}/deploy")
@does(Right.APP_DEPLOY)
def deploy(page: Asked, app: str, environment: str, form: Form) -> Response:
    wanted = ask.DeployVersion(version=form("version") or None, reason=form("reason").strip())
    return _step(page, app, lambda: page.services.deploy_version(page.actor, app, environment, wanted))


@router.post("/app/{app}/{environment}/rollback")
@does(Right.APP_ROLLBACK)
def roll_back(page: Asked, app: str, environment: str, form: Form) -> Response:
    wanted = ask.RollBack(version=form("version") or None, with_data=form("with_data") == "yes")
    return _step(page, app, lambda: page.services.roll_back(page.actor, app, environment, wanted))


# --- synchronise --------------------------------------------------------------------------------
@router.get("/app/{app}/{environment}/synchronise")
@does(Right.APP_SYNC)
def preview(page: Asked, app: str, environment: str, source: str = "", content: str = "", data: str = "") -> Response:
    """What would be replaced by what, and the button that does it."""
    wanted = ask.Synchronise(source=source, content=content == "yes", data=data == "yes")
    try:
        plan = page.services.preview_synchronise(page.actor, app, environment, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go(f"/app/{quote(app)}", page.refused(error), "danger")
    return page.show("app-sync.html", app=app, plan=plan, content=wanted.content, data=wanted.data)


@router.post("/app/{app}/{environment}/synchronise")
@does(Right.APP_SYNC)
def synchronise(page: Asked, app: str, environment: str, form: Form) -> Response:
    wanted = ask.Synchronise(
        source=form("source"),
        content=form("content") == "yes",
        data=form("data") == "yes",
        confirm=form("confirm").strip(),
        reason=form("reason").strip(),
    )
    asked = {"source": wanted.source, "content": form("content"), "data": form("data")}
    again = f"/app/{quote(app)}/{quote(environment)}/synchronise?{urlencode(asked)}"
    verb = page.services.synchronise
    return _step(page, app, lambda: verb(page.actor, app, environment, wanted), refused=again)


@router.post("/app/{app}/masks")
@does(Right.APP_CHANGE)
def masks(page: Asked, app: str, form: Form) -> Response:
    wanted = ask.SetApp(masks=tuple(filter(None, map(str.strip, form("masks").splitlines()))))
    return _step(page, app, lambda: page.services.set_app(page.actor, app, wanted), page.words.t("The rules are kept."))
