"""Administration of where people come from: the LDAP directory, with a trial before anything is stored."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem
from alveole.people import views as people_views
from alveole.people.mapping import Mapping
from alveole.people.model import Role
from alveole.people.rights import Right
from alveole.web.admin import show
from alveole.web.pages import ROLES, Asked, Errors, Fields, Form, Page, PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: The settings that are one text; their names are those of :class:`alveole.people.ldap.LdapSettings`.
TEXTS = ("user_dn", "bind_dn", "bind_password", "base", "filter", "name", "title", "email")
MORE = ("group_base", "group_filter", "group_name", "member_of")


@router.get("/admin/ldap")
@does(Right.SETTINGS_CHANGE)
def ldap(page: Asked) -> Response:
    return _ldap(page)


def _ldap(
    page: Page,
    typed: dict[str, str] | None = None,
    errors: Errors | None = None,
    trial: people_views.TrialView | None = None,
    status: int = 200,
) -> Response:
    there = True
    try:
        stored = page.services.show_ldap(page.actor)
    except NotFound:
        there = False
        from alveole.people.ldap import LdapSettings

        stored = LdapSettings()
    if typed is not None:
        # A form that somebody else has written may lack some.
        every = (*TEXTS, *MORE, "servers", "certificates", "roles", "teams", "default_role")
        typed = {**dict.fromkeys(every, ""), **typed}
    else:
        typed = {name: str(getattr(stored, name)) for name in (*TEXTS, *MORE)}
        typed |= {"servers": "\n".join(stored.servers), "certificates": stored.certificates}
        typed |= mapping_texts(stored.mapping)
    return show(
        page,
        "ldap",
        typed=typed,
        there=there,
        trial=trial,
        errors=errors or Errors(page.words),
        role_options=role_options(page),
        status=status,
    )


@router.post("/admin/ldap")
@does(Right.SETTINGS_CHANGE)
def set_ldap(page: Asked, form: Form) -> Response:
    """``do``: ``try`` signs somebody in with what was typed and keeps nothing, ``store`` keeps it, ``drop`` ends it."""
    typed = {key: value for key, value in form.pairs if key not in ("csrf", "do", "try_password")}
    trial = None
    try:
        if form("do") == "drop":
            page.services.drop_ldap(page.actor)
            return page.go("/admin/ldap", page.t("Nobody comes from the directory any more."))
        raw = _settings(form)
        if form("do") == "try":
            wanted = ask.TryLdap(name=form("try_name"), password=form("try_password") or None, settings=raw)
            trial = page.services.try_ldap(page.actor, wanted)
        else:
            page.services.set_ldap(page.actor, raw)
            return page.go("/admin/ldap", page.t("It is stored. It holds from the next sign-in."))
    except AlveoleError as error:
        if error.http_status == 403:
            raise
        return _ldap(page, typed, Errors(page.words, error.problems), status=error.http_status)
    return _ldap(page, typed, trial=trial)


def role_options(page: Page) -> list[tuple[str, str]]:
    return [("", page.t("may not come in")), *((str(role), page.t(ROLES[role])) for role in Role)]


def mapping_texts(mapping: Mapping) -> dict[str, str]:
    """From groups to roles and teams, as the fields of a form."""
    return {
        "roles": "\n".join(f"{group} = {role}" for group, role in mapping.roles.items()),
        "teams": "\n".join(f"{group} = {team}" for group, team in mapping.teams.items()),
        "default_role": str(mapping.default_role or ""),
    }


def mapping_of(form: Fields) -> dict[str, Any]:
    """The other way; raises ``InvalidInput``."""
    problems: list[Problem] = []

    def pairs(name: str) -> dict[str, str]:
        found = {}
        for line in form(name).splitlines():
            group, equals, value = line.rpartition("=")
            if line.strip() and not (equals and group.strip()):
                problems.append(Problem(f"mapping.{name}", f"{line.strip()[:60]!r} is not 'group = {name[:-1]}'"))
            elif line.strip():
                found[group.strip()] = value.strip()
        return found

    found = {"roles": pairs("roles"), "teams": pairs("teams"), "default_role": form("default_role") or None}
    if problems:
        raise InvalidInput(problems=problems)
    return found


def _settings(form: Fields) -> dict[str, Any]:
    raw: dict[str, Any] = {name: form(name).strip() for name in (*TEXTS, *MORE)}
    raw |= {"servers": list(form.lines("servers")), "certificates": form("certificates").replace("\r\n", "\n")}
    return {**raw, "mapping": mapping_of(form)}
