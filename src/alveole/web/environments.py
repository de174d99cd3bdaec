"""One environment of an application, the application's own settings, and what differs between two versions.

What the page of an application does with one button is here too, with everything around it: what speaks against a
deploy before it is begun, a reason to pass the life cycle, what a roll back would bring, what the environment asks for.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem
from alveole.model.app import Accept, DeliveryPolicy, VersionState
from alveole.model.change import Change
from alveole.people.rights import Right, may
from alveole.text import read_span, span
from alveole.views.apps import AppView, DeployPlan, EnvironmentView
from alveole.web.changes import VERBS
from alveole.web.newapp import ACCEPTS
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute, on_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: A public key is a line of minisign or an armored block of OpenPGP.
_SHOWN_KEY = 60


# --- one environment ----------------------------------------------------------------------------
def _of(page: Page, app: str, environment: str) -> tuple[AppView, EnvironmentView]:
    found = page.services.show_app(page.actor, app)
    own = next((each for each in found.environments if each.name == environment.lower()), None)
    if own is None:
        raise NotFound(f"{found.name} has no environment {environment!r}", field="environment")
    return found, own


@router.get("/environment/{app}/{environment}")
@does(Right.APP_LOOK)
def environment(page: Asked, app: str, environment: str, to: str = "") -> Response:
    """``to``: the version whose roll back is looked at."""
    return _environment(page, app, environment, to=to)


def _environment(
    page: Page,
    app: str,
    environment: str,
    *,
    to: str = "",
    errors: Errors | None = None,
    where: str = "",
    form: Fields | None = None,
    status: int = 200,
) -> Response:
    """``where``: the form that ``errors`` are about."""
    found, own = _of(page, app, environment)
    held = page.services.people.held_app(page.services.apps.apps[found.id], _site_id(page, found, own))
    here = {each.version for each in (own.live, own.delivered) if each is not None}
    return page.show(
        "environment.html",
        status=status,
        app=found,
        environment=own,
        working=live.change if (live := page.services.journal.of_site(held.site)) is not None else None,
        verbs=VERBS,
        ready=[each.name for each in found.versions if each.state is VersionState.ACCEPTED and each.name not in here],
        plan=(plan := _plan(page, lambda: _deploy_plan(page, found, own)) if own.delivered is not None else None),
        against=[_in_words(page, each) for each in plan.refused] if plan is not None else [],
        back=_plan(page, lambda: _back_plan(page, found, own, to)) if to in own.back_to else None,
        to=to,
        typed=form or Fields(list(_typed(own.policy).items())),
        errors=errors or Errors(page.words),
        where=where,
        passes=may(page.actor, Right.APP_PASS, held),
        may_here=lambda right: may(page.actor, right, held),
        changes=may(page.actor, Right.APP_CHANGE, page.services.people.held_app(page.services.apps.apps[found.id])),
    )


def _site_id(page: Page, app: AppView, own: EnvironmentView) -> str:
    return next(each.site for each in page.services.apps.apps[app.id].environments if each.name == own.name)


def _plan(page: Page, ask_for: Callable[[], DeployPlan]) -> DeployPlan | None:
    """What would be done; nothing for who may not ask."""
    try:
        return ask_for()
    except AlveoleError:
        return None


def _in_words(page: Page, told: str) -> str:
    """What speaks against it, without the field and the command that it names for the command line."""
    text = told.partition(": ")[2]
    text = page.words.said(text.rpartition(" (")[0] if text.endswith(")") else text)
    return text[:1].upper() + text[1:]


def _deploy_plan(page: Page, app: AppView, own: EnvironmentView) -> DeployPlan:
    return page.services.preview_deploy(page.actor, app.id, own.name, ask.DeployVersion())


def _back_plan(page: Page, app: AppView, own: EnvironmentView, to: str) -> DeployPlan:
    return page.services.preview_roll_back(page.actor, app.id, own.name, ask.RollBack(version=to))


def _typed(policy: DeliveryPolicy) -> dict[str, str]:
    return {
        "soak": span(policy.soak_seconds) if policy.soak_seconds else "",
        "approvals": str(policy.approvals),
        "windows": "\n".join(policy.windows),
        "verify": span(policy.verify_seconds) if policy.verify_seconds else "",
        "snapshot": "yes" if policy.snapshot else "",
        "before": shlex.join(policy.before),
        "after": shlex.join(policy.after),
        "hook": span(policy.hook_seconds),
    }


@router.post("/environment/{app}/{environment}")
@does(Right.APP_CHANGE)
def set_environment(page: Asked, app: str, environment: str, form: Form) -> Response:
    """What it asks for from now on."""
    # Asked before anything is read, so that who may not learns nothing of what they typed.
    page.services.allow_app(page.actor, Right.APP_CHANGE, app)
    try:
        page.services.set_environment(page.actor, app, environment, _policy(form))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        errors = Errors(page.words, error.problems)
        return _environment(page, app, environment, errors=errors, where="policy", form=form, status=error.http_status)
    return page.go(f"/environment/{quote(app)}/{quote(environment)}", page.t("It is changed."))


def _policy(form: Fields) -> ask.SetEnvironment:
    problems: list[Problem] = []

    def seconds(name: str, field: str) -> int:
        text = form(name).replace(" ", "").lower()
        try:
            return read_span(text) if text else 0
        except ValueError:
            problems.append(Problem(field, f"{text[:40]!r} is not a time", "write it like 30m, 12h or 2d"))
            return 0

    def command(name: str) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(form(name)))
        except ValueError:
            problems.append(Problem(name, "has a quotation mark without its other one", "close it"))
            return ()

    approvals = form("approvals", "0")
    wanted = ask.SetEnvironment(
        soak_seconds=seconds("soak", "soak_seconds"),
        approvals=int(approvals) if approvals.isascii() and approvals.isdigit() and len(approvals) < 3 else 99,
        windows=tuple(filter(None, map(str.strip, form("windows").splitlines()))),
        verify_seconds=seconds("verify", "verify_seconds"),
        snapshot=form("snapshot") == "yes",
        before=command("before"),
        after=command("after"),
        hook_seconds=seconds("hook", "hook_seconds") or DeliveryPolicy().hook_seconds,
    )
    if problems:
        raise InvalidInput(problems=problems)
    return wanted


def _step(page: Page, app: str, environment: str, where: str, form: Fields, verb: Callable[[], Change]) -> Response:
    """Carry out and lead to the change; a refusal is said beside the form, with what was typed."""
    try:
        change = verb()
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        errors = Errors(page.words, on_page(error.problems))
        kept = Fields([*form.pairs, *_typed(_of(page, app, environment)[1].policy).items()])
        to = form("version") if where == "back" else ""
        return _environment(
            page, app, environment, to=to, errors=errors, where=where, form=kept, status=error.http_status
        )
    return page.go(f"/change/{change.id}")


@router.post("/environment/{app}/{environment}/deliver")
@does(Right.APP_DELIVER)
def deliver(page: Asked, app: str, environment: str, form: Form) -> Response:
    wanted = ask.DeliverVersion(version=form("version"), reason=form("reason").strip())
    verb = page.services.deliver_version
    return _step(page, app, environment, "deliver", form, lambda: verb(page.actor, app, environment, wanted))


@router.post("/environment/{app}/{environment}/deploy")
@does(Right.APP_DEPLOY)
def deploy(page: Asked, app: str, environment: str, form: Form) -> Response:
    wanted = ask.DeployVersion(version=form("version") or None, reason=form("reason").strip())
    verb = page.services.deploy_version
    return _step(page, app, environment, "deploy", form, lambda: verb(page.actor, app, environment, wanted))


@router.post("/environment/{app}/{environment}/rollback")
@does(Right.APP_ROLLBACK)
def roll_back(page: Asked, app: str, environment: str, form: Form) -> Response:
    wanted = ask.RollBack(
        version=form("version") or None, with_data=form("with_data") == "yes", reason=form("reason").strip()
    )
    verb = page.services.roll_back
    return _step(page, app, environment, "back", form, lambda: verb(page.actor, app, environment, wanted))


# --- the application ----------------------------------------------------------------------------
@router.get("/app/{app}/settings")
@does(Right.APP_CHANGE)
def settings(page: Asked, app: str) -> Response:
    page.services.allow_app(page.actor, Right.APP_CHANGE, app)
    return _settings(page, app)


def _settings(
    page: Page,
    app: str,
    *,
    errors: Errors | None = None,
    where: str = "",
    form: Fields | None = None,
    status: int = 200,
) -> Response:
    found = page.services.show_app(page.actor, app)
    own = page.services.people.held_app(page.services.apps.apps[found.id])
    return page.show(
        "app-settings.html",
        status=status,
        app=found,
        accepts=[(key, page.t(text)) for key, text in ACCEPTS.items()],
        signers=[(each, each if len(each) <= _SHOWN_KEY else f"{each[:_SHOWN_KEY]}…") for each in found.signers],
        form=form or Fields([]),
        errors=errors or Errors(page.words),
        where=where,
        gives=may(page.actor, Right.APP_GIVE, own),
        destroys=may(page.actor, Right.APP_DESTROY, own),
    )


def _set(page: Page, app: str, where: str, form: Fields, verb: Callable[[], Any]) -> Response | None:
    """The page again with what is wrong; ``None`` when it was done."""
    try:
        verb()
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        errors = Errors(page.words, error.problems)
        return _settings(page, app, errors=errors, where=where, form=form, status=error.http_status)
    return None


@router.post("/app/{app}/settings")
@does(Right.APP_CHANGE)
def set_app(page: Asked, app: str, form: Form) -> Response:
    page.services.allow_app(page.actor, Right.APP_CHANGE, app)
    accept = next((each for each in Accept if each == form("accept")), Accept.WAIT)
    more = (form("signer").strip(),) if form("signer").strip() else ()
    known = page.services.show_app(page.actor, app).signers
    kept = tuple(each for each in known if each in form.all("keep"))
    wanted = ask.SetApp(accept=accept, signers=(*kept, *more))
    wrong = _set(page, app, "coming", form, lambda: page.services.set_app(page.actor, app, wanted))
    return wrong or page.go(f"/app/{quote(app)}/settings", page.t("It is changed."))


@router.post("/app/{app}/give")
@does(Right.APP_GIVE)
def give(page: Asked, app: str, form: Form) -> Response:
    wanted = ask.GiveApp(owner=form("owner").strip())
    wrong = _set(page, app, "give", form, lambda: page.services.give_app(page.actor, app, wanted))
    return wrong or page.go("/apps", page.t("{name} is given to {owner}.", name=app, owner=wanted.owner))


@router.post("/app/{app}/destroy")
@does(Right.APP_DESTROY)
def destroy(page: Asked, app: str, form: Form) -> Response:
    """Its versions and history go, its sites stay."""
    begun: list[Change] = []
    wanted = ask.DestroyApp(confirm=form("confirm").strip())
    verb = page.services.destroy_app
    wrong = _set(page, app, "destroy", form, lambda: begun.append(verb(page.actor, app, wanted)))
    return wrong or page.go(f"/change/{begun[0].id}")


@router.post("/app/{app}/version/{version}/forget")
@does(Right.APP_CHANGE)
def forget(page: Asked, app: str, version: str) -> Response:
    try:
        page.services.forget_version(page.actor, app, version)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.go(f"/app/{quote(app)}", page.refused(error), "danger")
    return page.go(f"/app/{quote(app)}", page.t("Version {name} is forgotten.", name=version))


# --- two versions -------------------------------------------------------------------------------
@router.get("/app/{app}/compare")
@does(Right.APP_LOOK)
def compare(page: Asked, app: str, one: str = "", other: str = "", environment: str = "") -> Response:
    """Without two versions: only the form that asks for them."""
    found = page.services.show_app(page.actor, app)
    difference = None
    errors = Errors(page.words)
    status = 200
    if one and other:
        try:
            difference = page.services.compare_versions(page.actor, found.id, one, other, environment or None)
        except AlveoleError as error:
            errors, status = Errors(page.words, error.problems), error.http_status
    return page.show(
        "app-compare.html",
        status=status,
        app=found,
        one=one,
        other=other,
        environment=environment,
        difference=difference,
        errors=errors,
    )
