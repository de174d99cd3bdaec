"""Incidents: the list, one with its history, its report; rules and silences; what is promised to a site."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from alveole.api.gate import does
from alveole.errors import AlveoleError, NotFound
from alveole.incidents.model import AddSilence, RuleText, Said, Severity, Tried, TryRule
from alveole.people.rights import Right
from alveole.web.changes import VERBS
from alveole.web.pages import Asked, Errors, Fields, Form, Page, PageRoute
from alveole.web.site import show
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_SIZE = 50
SEVERITIES = {
    Severity.CRITICAL: N_("critical"),
    Severity.WARNING: N_("warning"),
    Severity.INFO: N_("for information"),
}
STATES = {"open": N_("open"), "acknowledged": N_("somebody looks after it"), "closed": N_("over")}
#: How each looks: the words of states of sites, which the style knows.
MARKS = {"open": "broken", "acknowledged": "pending", "closed": "kept"}
NOTES = {
    "opened": N_("opened"),
    "joined": N_("also"),
    "well": N_("well again"),
    "told": N_("told"),
    "silent": N_("silent"),
    "acknowledged": N_("acknowledged"),
    "comment": N_("comment"),
    "action": N_("done about it"),
    "escalated": N_("escalated"),
    "closed": N_("closed"),
    "reopened": N_("opened again"),
}
PROMISES = {
    "content": N_("Content is served"),
    "answer": N_("Answers come in time"),
    "certificate": N_("Certificates are valid for long enough"),
    "backup": N_("There is a fresh backup"),
    "memory": N_("Memory has head-room"),
    "disk": N_("The disk has head-room"),
}
KEPT = {"kept": N_("kept"), "broken": N_("broken"), "unknown": N_("not measured")}
#: The grammar in a few words; the manual says it whole.
WORDS = (
    ("on", N_("the figure")),
    ("above, below, is", N_("when it is bad: exactly one of these")),
    ("for", N_("how long until somebody is told")),
    ("well", N_("how long well until it is over")),
    ("severity", N_("info, warning or critical")),
    ("cause", N_("what belongs together")),
    ("tell", N_("who is told")),
    ("escalate, escalate_to", N_("and who if nobody acknowledges for so long")),
    ("items, sites", N_("patterns")),
    ("promise", N_("the promise that is broken by it")),
    ("covers", N_("causes of sites that are part of it")),
    ("enabled", N_("whether it is asked at all")),
)
NEW_RULE = 'on = "site.disk-share"\nabove = 80\nfor = "10m"\ntitle = "The disk fills up"\ntell = ["owner"]\n'


def tabs(page: Page) -> list[tuple[str, str]]:
    every = [
        ("/incidents", N_("Incidents"), Right.SITE_LIST),
        ("/incidents/rules", N_("Rules"), Right.PLATFORM_LOOK),
        ("/incidents/silences", N_("Silences"), Right.SITE_LIST),
    ]
    return [(path, page.t(name)) for path, name, right in every if page.may(right)]


@router.get("/incidents")
@does(Right.SITE_LIST)
def incidents(page: Asked, state: str = "all", site: str = "", before: str = "") -> Response:
    found = page.services.list_incidents(page.actor, state=state, site=site or None, before=before or None, limit=_SIZE)
    closed = [each for each in found if each.closed_at is not None]
    return page.show(
        "incidents.html",
        tabs=tabs(page),
        here="/incidents",
        incidents=found,
        older=closed[-1].id if len(closed) == _SIZE else "",
        state=state,
        site=site,
        severities=SEVERITIES,
        states=STATES,
        marks=MARKS,
        untold=page.services.hears_incidents()[1] if page.may(Right.PLATFORM_LOOK) else "",
    )


@router.get("/incident/{incident}")
@does(Right.INCIDENT_LOOK)
def incident(page: Asked, incident: str) -> Response:
    return _one(page, incident)


def _one(page: Page, id: str, errors: Errors | None = None, form: Fields | None = None, status: int = 200) -> Response:
    found = page.services.show_incident(page.actor, id)
    site = page.services.store.site(found.site)
    return page.show(
        "incident.html",
        status=status,
        incident=found,
        acts=page.may(Right.INCIDENT_ACT, site.site.id if site is not None else ""),
        severities=SEVERITIES,
        states=STATES,
        marks=MARKS,
        kinds=NOTES,
        verbs=VERBS,
        errors=errors or Errors(page.words),
        form=form or Fields([]),
    )


@router.post("/incident/{incident}/{what}")
@does(Right.INCIDENT_ACT)
def act(page: Asked, incident: str, what: str, form: Form) -> Response:
    services, said = page.services, Said(text=form("text").replace("\r\n", "\n").strip())
    try:
        if what == "ack":
            services.acknowledge_incident(page.actor, incident, said)
        elif what in ("comment", "act"):
            services.comment_incident(page.actor, incident, said, action=what == "act")
        elif what == "close":
            services.close_incident(page.actor, incident, said)
        elif what == "reopen":
            services.reopen_incident(page.actor, incident, said)
        else:
            services.show_incident(page.actor, incident)
            raise NotFound("there is no such page")
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _one(page, incident, Errors(page.words, error.problems), form, error.http_status)
    return page.go(f"/incident/{quote(incident)}", page.t("It is written down."))


@router.get("/incident/{incident}/report")
@does(Right.INCIDENT_LOOK)
def report(page: Asked, incident: str) -> Response:
    found = page.services.report_incident(page.actor, incident)
    return page.show(
        "incident-report.html",
        report=found,
        incident=found.incident,
        severities=SEVERITIES,
        kinds=NOTES,
        verbs=VERBS,
    )


def report_page(request: Request, incident: str) -> Response:
    """For the API, which has no pages of its own."""
    found: Response = report(Page(request), incident)
    return found


# --- rules ----------------------------------------------------------------------------------------
@router.get("/incidents/rules")
@does(Right.PLATFORM_LOOK)
def rules(page: Asked) -> Response:
    return _rules(page)


def _rules(page: Page, errors: Errors | None = None, form: Fields | None = None, status: int = 200) -> Response:
    return page.show(
        "rules.html",
        rule_words=WORDS,
        status=status,
        tabs=tabs(page),
        here="/incidents/rules",
        rules=page.services.list_rules(page.actor),
        figures=page.services.list_figures(page.actor),
        severities=SEVERITIES,
        errors=errors or Errors(page.words),
        form=form or Fields([("text", NEW_RULE)]),
    )


@router.post("/incidents/rules")
@does(Right.RULE_CHANGE)
def add_rule(page: Asked, form: Form) -> Response:
    name = form("name").strip()
    try:
        page.services.put_rule(page.actor, name, RuleText(text=_text(form), fresh=True))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _rules(page, _placed(page, error), form, error.http_status)
    return page.go(f"/incidents/rule/{quote(name)}", page.t("The rule is kept."))


def _text(form: Fields) -> str:
    return form("text").replace("\r\n", "\n")


def _placed(page: Page, error: AlveoleError) -> Errors:
    """All that is wrong stands above the text, each with the word at fault."""
    return Errors(page.words, error.problems)


@router.get("/incidents/rule/{rule}")
@does(Right.PLATFORM_LOOK)
def rule(page: Asked, rule: str) -> Response:
    return _rule(page, rule)


def _rule(
    page: Page,
    name: str,
    errors: Errors | None = None,
    form: Fields | None = None,
    tried: tuple[Tried, ...] | None = None,
    status: int = 200,
) -> Response:
    found = page.services.show_rule(page.actor, name)
    return page.show(
        "rule.html",
        rule_words=WORDS,
        status=status,
        rule=found,
        severities=SEVERITIES,
        errors=errors or Errors(page.words),
        form=form or Fields([("text", found.text)]),
        tried=tried,
        figures=page.services.list_figures(page.actor),
    )


@router.post("/incidents/rule/{rule}")
@does(Right.RULE_CHANGE)
def set_rule(page: Asked, rule: str, form: Form) -> Response:
    """``do=try`` says what the text would look at now, and keeps nothing of it."""
    try:
        if form("do") == "try":
            return _rule(page, rule, form=form, tried=page.services.try_rule(page.actor, TryRule(text=_text(form))))
        page.services.put_rule(page.actor, rule, RuleText(text=_text(form)))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _rule(page, rule, _placed(page, error), form, status=error.http_status)
    return page.go(f"/incidents/rule/{quote(rule)}", page.t("The rule is kept."))


@router.post("/incidents/rule/{rule}/remove")
@does(Right.RULE_CHANGE)
def remove_rule(page: Asked, rule: str) -> Response:
    page.services.drop_rule(page.actor, rule)
    return page.go("/incidents/rules", page.t("The rule is gone, or as it was in the beginning."))


# --- silences -------------------------------------------------------------------------------------
@router.get("/incidents/silences")
@does(Right.SITE_LIST)
def silences(page: Asked) -> Response:
    return _silences(page)


def _silences(page: Page, errors: Errors | None = None, form: Fields | None = None, status: int = 200) -> Response:
    names = [each.name for each in page.services.list_rules(page.actor)] if page.may(Right.RULE_CHANGE) else []
    return page.show(
        "silences.html",
        status=status,
        tabs=tabs(page),
        here="/incidents/silences",
        silences=page.services.list_silences(page.actor),
        rule_options=[("", page.t("all rules")), *((name, name) for name in names)],
        may_end=[each.id for each in page.services.list_silences(page.actor) if _may_end(page, each.site)],
        errors=errors or Errors(page.words),
        form=form or Fields([]),
    )


def _may_end(page: Page, site: str) -> bool:
    stored = page.services.store.site(site) if site else None
    return page.may(Right.INCIDENT_ACT, stored.site.id) if stored is not None else page.may(Right.RULE_CHANGE)


def _silence(form: Fields) -> AddSilence:
    return AddSilence(
        why=form("why").strip(),
        length=form("length").strip(),
        rule=form("rule"),
        weekly=form("weekly").strip(),
    )


@router.post("/incidents/silences")
@does(Right.RULE_CHANGE)
def add_silence(page: Asked, form: Form) -> Response:
    try:
        page.services.add_silence(page.actor, None, _silence(form))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _silences(page, Errors(page.words, error.problems), form, error.http_status)
    return page.go("/incidents/silences", page.t("It is silent."))


@router.post("/incidents/silence/{silence}/remove")
@does(Right.SITE_LIST)
def remove_silence(page: Asked, silence: str) -> Response:
    page.services.drop_silence(page.actor, silence)
    return page.back("/incidents/silences", page.t("The silence is over."))


# --- of one site ----------------------------------------------------------------------------------
@router.get("/site/{site}/promises")
@does(Right.SITE_LOOK)
def promises(page: Asked, site: str) -> Response:
    return _promises(page, site)


def _promises(
    page: Page, site: str, errors: Errors | None = None, form: Fields | None = None, status: int = 200
) -> Response:
    services = page.services
    view = services.show_site(page.actor, site)
    return show(
        page,
        "site/promises.html",
        view,
        "promises",
        status=status,
        promises=services.site_promises(page.actor, site).promises,
        incidents=services.list_incidents(page.actor, site=site, limit=10),
        silences=[each for each in services.list_silences(page.actor) if each.site == view.name],
        titles=PROMISES,
        kept=KEPT,
        severities=SEVERITIES,
        states=STATES,
        marks=MARKS,
        verbs=VERBS,
        errors=errors or Errors(page.words),
        form=form or Fields([]),
    )


@router.post("/site/{site}/silences")
@does(Right.INCIDENT_ACT)
def silence_site(page: Asked, site: str, form: Form) -> Response:
    try:
        page.services.add_silence(page.actor, site, _silence(form))
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return _promises(page, site, Errors(page.words, error.problems), form, error.http_status)
    return page.go(f"/site/{quote(site)}/promises", page.t("It is silent."))
