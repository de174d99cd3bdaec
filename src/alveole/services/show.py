"""From what is stored and what was last seen to the documents of :mod:`alveole.views`. No effects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from msgspec import structs

from alveole.backends.base import Usage
from alveole.config import Settings
from alveole.figures.traffic import Counted
from alveole.journal import Live
from alveole.loop.compile import hosts
from alveole.loop.passes import Look
from alveole.masking import HIDDEN
from alveole.model.addressing import Addressing
from alveole.model.resource import Kind, Promise, PromiseState
from alveole.model.site import Process, Release, ResourcePlan, Site, Wanted
from alveole.policy.sleeping import is_asleep, sleep_of
from alveole.store import Stored
from alveole.views import CheckState, ModulesView, ProcessView, PromiseView, SiteView, State

_NOTHING = Usage()
_CHANGING = {
    "create": State.STARTING,
    "start": State.STARTING,
    "restart": State.STARTING,
    "stop": State.STOPPING,
    "destroy": State.STOPPING,
}


def site_view(
    stored: Stored,
    settings: Settings,
    addressing: Addressing,
    *,
    look: Look | None,
    live: Live | None,
    known: bool,
    usage: Usage | None,
    releases: tuple[Release, ...] = (),
    show_env: bool = False,
    application: ModulesView | None = None,
    process_states: tuple[ProcessView, ...] = (),
    owner: str = "",
    load: float = 0.0,
    traffic: Counted | None = None,
    log_bytes: int | None = None,
    checks: tuple[CheckState, ...] = (),
    claims: tuple[str, ...] = (),
    plans: Mapping[str, ResourcePlan] | None = None,
) -> SiteView:
    """``known``: whether the agent answered lately, so that ``look`` still says how things are. ``owner``: its name."""
    site = stored.site
    usage = usage or _NOTHING
    ipv4, ipv6 = _addresses(addressing, site.number)
    promises = promise_views(look.promises) if look else ()
    return SiteView(
        name=site.name,
        id=site.id,
        number=site.number,
        state=state_of(stored, look, live, known),
        wanted=site.wanted,
        urls=urls(site, settings),
        ipv4=ipv4,
        ipv6=ipv6,
        plan=site.plan,
        base=site.base.label,
        base_key=site.base.key,
        earlier_base=site.earlier.base.key if site.earlier is not None else None,
        memory_bytes=usage.memory_bytes,
        cpu_seconds=usage.cpu_seconds,
        disk_bytes=usage.disk_bytes,
        pids=usage.pids,
        cpu_load=load,
        requests_today=traffic.requests if traffic is not None else None,
        sent_bytes_today=traffic.sent_bytes if traffic is not None else None,
        log_bytes=log_bytes,
        promises=promises,
        domains=site.domains,
        path=site.path,
        access=site.access,
        https_only=site.https_only,
        sleep=sleep_of(site, plans or {}),
        on_push=site.on_push,
        on_files=site.on_files,
        release=site.release,
        releases=releases,
        env=site.env if show_env else dict.fromkeys(site.env, HIDDEN),
        volumes=site.volumes,
        published=site.published,
        shared=site.shared,
        persistent=site.persistent,
        processes=site.run.processes if show_env else tuple(_without_env(each) for each in site.run.processes),
        port=site.run.port,
        health=site.run.health,
        ready_seconds=site.run.ready_seconds,
        stop_seconds=site.run.stop_seconds,
        owner=owner,
        version=site.version,
        created_at=site.created_at,
        problem="" if live is not None else problem_of(look, known),
        change=live.id if live is not None else None,
        application=application,
        process_states=process_states,
        checks=checks,
        claims=claims,
    )


def _without_env(process: Process) -> Process:
    return structs.replace(process, env=dict.fromkeys(process.env, HIDDEN)) if process.env else process


def state_of(stored: Stored, look: Look | None, live: Live | None, known: bool) -> State:
    if live is not None:
        return _CHANGING.get(live.change.verb, State.UPDATING)
    if stored.pending:
        return State.STOPPING if stored.pending == "destroy" else State.STARTING
    if look is None or not known:
        return State.UNKNOWN
    if stored.site.wanted is Wanted.STOPPED:
        lives = any(item.id.kind is Kind.WORKLOAD for item in look.found)
        return State.STOPPING if lives else State.STOPPED
    if is_asleep(stored.site):
        lives = any(item.id.kind is Kind.WORKLOAD for item in look.found)
        return State.STOPPING if lives else State.ASLEEP
    for promise in look.promises:
        if promise.id.kind is Kind.WORKLOAD:
            return _BY_PROMISE[promise.state]
    return State.STARTING


_BY_PROMISE = {
    PromiseState.KEPT: State.RUNNING,
    PromiseState.PENDING: State.STARTING,
    PromiseState.BROKEN: State.FAILED,
    PromiseState.UNKNOWN: State.UNKNOWN,
}


def problem_of(look: Look | None, known: bool) -> str:
    if not known:
        return "the agent does not answer"
    if look is None:
        return ""
    return "; ".join(
        f"{each.id.kind}/{each.id.name}: {each.reason}" for each in look.promises if each.state is not PromiseState.KEPT
    )


@lru_cache(maxsize=32_768)
def promise_views(promises: tuple[Promise, ...]) -> tuple[PromiseView, ...]:
    return tuple(
        PromiseView(resource=f"{each.id.kind}/{each.id.name}", state=each.state, reason=each.reason)
        for each in promises
    )


def urls(site: Site, settings: Settings) -> tuple[str, ...]:
    """Every address of the site that can be visited, HTTPS first: of all names below one there is none to show."""
    places = [(host, "/") for host in hosts(site, settings) if not host.startswith("*.")]
    if site.path is not None:
        places.append((settings.domain, f"{site.path}/"))
    secure = _port(settings.edge.https_port, 443)
    plain = _port(settings.edge.http_port, 80)
    found = [f"https://{host}{secure}{path}" for host, path in places]
    if not site.https_only:
        found += [f"http://{host}{plain}{path}" for host, path in places]
    return tuple(found)


def _port(port: int, usual: int) -> str:
    return "" if port == usual else f":{port}"


@lru_cache(maxsize=32_768)
def _addresses(plan: Addressing, number: int) -> tuple[str, str]:
    return str(plan.life4(number)), str(plan.life6(number))


def count_states(states: Mapping[str, State]) -> dict[str, int]:
    counts = dict.fromkeys((str(state) for state in State), 0)
    for state in states.values():
        counts[state] += 1
    return counts
