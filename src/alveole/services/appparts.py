"""Pieces of the verbs about applications: what is checked of a request, and what an environment is made of."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from alveole import requests as ask
from alveole.errors import InvalidInput, Problem
from alveole.loop.compile import is_static
from alveole.model.app import ENVIRONMENT_NAME, Accept, App
from alveole.model.moving import Forward
from alveole.model.names import check_pattern
from alveole.model.site import Access, Answer, Arrival, Base, BaseKind, Run, Site, UpdateMode, Wanted, WokenBy
from alveole.services.modules import Composed, recomposed
from alveole.trust import signatures

#: What a site of a new application has, unless something else is asked for.
_AS_MADE = {
    "https_only": False,
    "persistent": True,
    "sleep_after": None,
    "woken_by": WokenBy.PEOPLE,
    "on_push": Arrival.LIVE,
    "on_files": Arrival.WAIT,
}


def objects(app: App) -> tuple[str, ...]:
    return ("", *(each.site for each in app.environments))


def check_here(site: Site, field: str) -> list[Problem]:
    """Versions are unpacked, compared and brought into environments by this machine."""
    hint = f"bring it here first: alveole site move {site.name} --to here"
    return [Problem(field, f"{site.name} lives on {site.node}", hint)] if site.node else []


def check_environment_name(name: str) -> tuple[Problem, ...]:
    hint = "use at most 16 lower-case letters, digits and hyphens"
    return check_pattern(name, ENVIRONMENT_NAME, "environments", "a name of an environment", hint)


def check_signers(signers: tuple[str, ...]) -> list[Problem]:
    problems: list[Problem] = []
    for each in signers:
        try:
            signatures.line_of(each)
        except InvalidInput as error:
            problems += error.problems
    return problems


def site_request(request: ask.CreateApp, environment: str) -> ask.CreateSite:
    return ask.CreateSite(
        name=f"{request.name}-{environment}",
        base=request.base,
        packages=request.packages,
        command=request.command,
        processes=request.processes,
        port=request.port,
        plan=request.plans.get(environment, request.plan),
        env=request.env,
        volumes=request.volumes,
        health=request.health,
        ready_seconds=request.ready_seconds,
        stop_seconds=request.stop_seconds,
        stopped=True,
        modules=request.modules,
        answers=request.answers,
        build_network=request.build_network,
        owner=request.owner,
    )


def sibling(like: Site, name: str, composed: Composed | None, base: Base) -> Site:
    fresh = msgspec.structs.replace(
        like,
        name=name,
        wanted=Wanted.STOPPED,
        release=None,
        domains=(),
        path=None,
        published=(),
        shared=(),
        slot=0,
        incarnation=0,
        data_generation=1,
        earlier=None,
        created_at=time.time(),
        version=1,
    )
    made = composed.composition if composed is not None else None
    return recomposed(fresh, made, base) if made is not None else fresh


def interruption(site: Site) -> str:
    """How a deploy of ``site`` interrupts it, for people; empty: not one request fails."""
    if site.run.update is not UpdateMode.STOP_START or is_static(site):
        return ""
    return "a module of it has a single writer: it is stopped, then started with the new version"


def like_of(sites: Mapping[str, Site], request: ask.AddEnvironment) -> Site:
    """Of ``sites`` by environment, in order, the one whose configuration a new environment begins with: one of where it
    is to live, or of this machine, where nobody has named one."""
    found = sites.get((request.like or request.before or "").lower(), [*sites.values()][-1])
    if request.like is not None or found.node == request.node:
        return found
    beside = [site for site in sites.values() if site.node and site.node == request.node]
    here = [site for site in sites.values() if not site.node]
    return beside[0] if beside else here[-1] if found.node and here else found


# --- environments on other servers ----------------------------------------------------------------
def row_of_far(draft: Site, node: str) -> Site:
    """What is kept here of an environment that lives on ``node``: no configuration, for passwords are made up there."""
    return msgspec.structs.replace(
        draft,
        node=node,
        base=Base(BaseKind.HOST, f"host-{'0' * 16}"),
        run=Run(processes=draft.run.processes, port=draft.run.port, update=draft.run.update),
        application=None,
        files=(),
        env={},
        release=None,
        path=None,
        published=(),
        shared=(),
        kept_at={},
    )


def settings_of_far(site: Site) -> dict[str, Any]:
    """Who may reach it, and the like: what the request that makes an application does not say."""
    found = {name: getattr(site, name) for name, made in _AS_MADE.items() if getattr(site, name) != made}
    if site.access != Access():
        found |= {"allow": site.access.allow, "deny": site.access.deny}
    return {name: msgspec.to_builtins(value) for name, value in found.items()}


def asked_of_nodes(request: ask.CreateApp, where: Mapping[str, str]) -> tuple[Forward, ...]:
    """One application on each other machine, of the environments that live there."""
    found = []
    for node in dict.fromkeys(filter(None, where.values())):
        names = tuple(name for name in request.environments if where.get(name) == node)
        plans = {name: plan for name, plan in request.plans.items() if name in names}
        found.append(_asked(node, msgspec.structs.replace(request, environments=names, plans=plans)))
    return tuple(found)


def made_like(sites: Mapping[str, Site], request: ask.AddEnvironment, node: str) -> str | None:
    """The environment on ``node`` that a new one there is made like, by that machine; ``None``: none lives there.

    Raises ``InvalidInput`` where it was to be like one that lives elsewhere: one application has one configuration."""
    there = [name for name, site in sites.items() if node and site.node == node]
    if not there:
        return None
    like = like_of(sites, request)
    beside = next((name for name in there if sites[name] is like), there[0])
    if request.like is not None and request.like.lower() != beside:
        told = f"on {node} it is made like {beside.upper()}"
        raise InvalidInput(told, field="like", hint=f"give --like {beside}, or none")
    return beside


def asked_like(
    app: App, environment: str, like: Site, node: str, answers: dict[str, Answer], beside: str | None
) -> Forward:
    """The application on ``node`` of one environment with the configuration of ``like``, which lives here; or one more
    environment of it, like the one that lives there already (``beside``)."""
    if beside is not None:
        body = ask.AddEnvironment(name=environment, like=beside)
        return Forward(node, "POST", f"/v1/apps/{app.name}/environments", msgspec.json.encode(body).decode())
    if like.application is not None:
        own, building = like.application.env, like.application.building
        request = ask.CreateApp(
            name=app.name,
            modules=like.application.asked,
            answers=answers,
            env={name: text for name, text in like.env.items() if own.get(name) != text},
            build_network=building.network if building is not None else None,
        )
    else:
        request = ask.CreateApp(
            name=app.name,
            base=like.base.key if like.base.kind is BaseKind.OCI else str(like.base.kind),
            packages=like.base.packages,
            processes=tuple(ask.ProcessBody(name=each.name, argv=each.argv) for each in like.run.processes),
            port=like.run.port,
            env=like.env,
            volumes=tuple(ask.VolumeBody(name=each.name, path=each.path) for each in like.volumes),
            health=like.run.health,
            ready_seconds=like.run.ready_seconds,
            stop_seconds=like.run.stop_seconds,
        )
    return _asked(node, msgspec.structs.replace(request, environments=(environment,), plan=like.plan))


def _asked(node: str, request: ask.CreateApp) -> Forward:
    # Who owns it, who may send and what is accepted is decided on this machine.
    asked = msgspec.structs.replace(request, owner=None, nodes={}, signers=(), accept=Accept.AT_ONCE)
    return Forward(node, "POST", "/v1/apps", msgspec.json.encode(asked).decode())


def check_builds_here(where: Mapping[str, str], composed: Iterable[Composed | None]) -> list[Problem]:
    """Versions are built once, on this machine, with the programs of an environment that lives here."""
    built = [each for each in composed if each is not None and each.composition is not None]
    if (
        not where
        or not all(where.values())
        or not any(each.composition is not None and each.composition.application.building is not None for each in built)
    ):
        return []
    hint = "let one environment live on this machine"
    return [Problem("nodes", "leave no environment here, and its modules build what is sent here", hint)]
