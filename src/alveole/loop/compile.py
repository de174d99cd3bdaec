"""PURE. From what people want to the resources that must exist.

``sites, plans, settings → tuple[Desired]``. Nothing here looks at the machine, and the same input
gives the same output byte for byte, so that a digest differs exactly when something must change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import UNSET

from alveole.config import Settings
from alveole.model.resource import (
    PLATFORM,
    Action,
    AddressSpec,
    BaseSpec,
    CertificateSpec,
    ConfigSpec,
    Desired,
    EdgeSpec,
    FirewallSpec,
    Kind,
    NetworkSpec,
    NodeRouteSpec,
    PanelSpec,
    ReleaseSpec,
    ResourceId,
    RouteSpec,
    RouteTarget,
    Spec,
    Step,
    StorageSpec,
    VolumeOwner,
    WorkloadSpec,
    stamp,
)
from alveole.model.site import Base, Limits, Site, Wanted, WokenBy

NETWORK = ResourceId(Kind.NETWORK, PLATFORM, "network")
FIREWALL = ResourceId(Kind.FIREWALL, PLATFORM, "firewall")
EDGE = ResourceId(Kind.EDGE, PLATFORM, "edge")
#: Static content has one release resource: the link that says which release is live.
CURRENT = "current"


def is_static(site: Site) -> bool:
    """Whether nginx serves the content as files. An image always runs something."""
    return not site.run.processes


def has_storage(site: Site) -> bool:
    """Whether the site has a writable part: a root of its own over the base, or volumes."""
    return not is_static(site) or bool(site.volumes)


def site_domain(name: str, settings: Settings) -> str:
    """The domain that every site has from its name, below the main domain."""
    return f"{name}.{settings.domain}"


def hosts(site: Site, settings: Settings) -> tuple[str, ...]:
    """Every domain the site answers at, its own first; without the path of the main domain."""
    return (site_domain(site.name, settings), *site.domains)


def under_wildcard(domain: str, settings: Settings) -> bool:
    """Whether the certificate ``*.DOMAIN`` covers it: exactly one label more (RFC 6125 §6.4.3)."""
    label, _, rest = domain.partition(".")
    return bool(label) and rest == settings.domain


def base_id(base: Base) -> ResourceId:
    """A base is the platform's: sites share it."""
    return ResourceId(Kind.BASE, PLATFORM, base.key)


def workload_id(site: Site, slot: int | None = None) -> ResourceId:
    """The instance in ``slot`` (0 or 1); ``None``: the live one."""
    return ResourceId(Kind.WORKLOAD, site.id, str(site.slot if slot is None else slot))


def compile_platform(settings: Settings, bases: Iterable[Base]) -> tuple[Desired, ...]:
    """What all sites share: bridge, rules, proxy, the main domain's certificate, and ``bases``."""
    certificate = ResourceId(Kind.CERTIFICATE, PLATFORM, settings.domain)
    unique = {base.key: base for base in bases}
    return (
        _desired(NETWORK, NetworkSpec()),
        _desired(FIREWALL, FirewallSpec()),
        _desired(EDGE, EdgeSpec()),
        _desired(certificate, CertificateSpec(settings.domain, wildcard=False)),
        *_panel(settings, certificate),
        *(_desired(base_id(unique[key]), BaseSpec(unique[key])) for key in sorted(unique)),
    )


def _panel(settings: Settings, main: ResourceId) -> tuple[Desired, ...]:
    domain = settings.panel_domain
    if not domain:
        return ()
    wildcard = under_wildcard(domain, settings)
    certificate = ResourceId(Kind.CERTIFICATE, PLATFORM, domain)
    return (
        _desired(certificate, CertificateSpec(domain, wildcard), (main,) if wildcard else ()),
        _desired(ResourceId(Kind.PANEL, PLATFORM, domain), PanelSpec(domain), (certificate,)),
    )


def compile_site(site: Site, settings: Settings, plans: Mapping[str, Limits]) -> tuple[Desired, ...]:
    """The resources of one site.

    Raises ``KeyError`` when its plan is not among ``plans``: the services never let that happen.
    A stopped site, and one that sleeps, keeps its base, content, storage, certificates and names; its names say so. Of
    a site on another machine there are the names alone, and what a stopped one keeps as long as it is kept here too.
    """
    if site.node and "" not in site.kept_at:
        return tuple(_names(site, settings, running=False))
    running = site.runs and not site.node
    limits = plans[site.plan]
    resources: list[Desired] = []
    parts: list[ResourceId] = [base_id(site.base)]
    if is_static(site) and site.release is not None:
        release = _desired(
            ResourceId(Kind.RELEASE, site.id, CURRENT), ReleaseSpec(site.id, site.number, site.release), ()
        )
        resources.append(release)
    if has_storage(site):
        storage = _desired(
            ResourceId(Kind.STORAGE, site.id, str(site.data_generation)),
            StorageSpec(
                site=site.id,
                number=site.number,
                generation=site.data_generation,
                volumes=tuple(sorted({VolumeOwner(volume.name, volume.uid) for volume in site.volumes})),
                disk_bytes=limits.disk_bytes,
            ),
        )
        resources.append(storage)
        parts.append(storage.id)
    if site.files:
        config = _desired(
            ResourceId(Kind.CONFIG, site.id, "config"),
            ConfigSpec(site.id, site.number, site.files),
            (base_id(site.base),),
        )
        resources.append(config)
        parts.append(config.id)
    if running:
        resources.append(_workload(site, limits, tuple(parts)))
        resources.append(
            _desired(
                ResourceId(Kind.ADDRESS, site.id, "ipv4"),
                AddressSpec(site.id, site.number, site.slot, site.published or UNSET),
                (workload_id(site),),
            )
        )
    resources.extend(_names(site, settings, running))
    return tuple(resources)


def held_below(step: Step, sites: Iterable[Site], settings: Settings) -> list[Step]:
    """What is done before the route of a star (``*.example.org``) is made: the names right below it that are other
    sites' lead somewhere first, if only to a 503. Else they would be this site's until their own can answer, as after a
    boot."""
    star, _dot, below = step.id.name.partition(".")
    if step.action is not Action.CREATE or step.id.kind is not Kind.ROUTE or star != "*":
        return []
    steps = []
    for site in sites:
        for host in hosts(site, settings) if site.id != step.id.scope else ():
            if host.partition(".")[2] == below and not host.startswith("*."):
                spec = RouteSpec(site.id, site.number, site.slot, RouteTarget.STARTING, None, host)
                reason = f"is not {step.id.name}'s"
                steps.append(Step(ResourceId(Kind.ROUTE, site.id, host), Action.CREATE, stamp(spec), spec, reason))
    return steps


def _workload(site: Site, limits: Limits, parts: tuple[ResourceId, ...]) -> Desired:
    static = is_static(site)
    spec = WorkloadSpec(
        site=site.id,
        number=site.number,
        slot=site.slot,
        # The id and not the name: a rename must not start anything anew.
        hostname=site.id,
        base=site.base.key,
        base_kind=site.base.kind,
        static=static,
        writable=not static,
        processes=site.run.processes,
        port=site.run.port,
        env=site.env,
        volumes=site.volumes,
        data_generation=site.data_generation,
        limits=limits,
        health=site.run.health,
        ready_seconds=site.run.ready_seconds,
        stop_seconds=site.run.stop_seconds,
        incarnation=site.incarnation,
        release=None if static else site.release,
        tasks=site.run.tasks,
        accounts=site.run.accounts,
        links=site.run.links,
        config=bool(site.files),
        shared=site.shared or UNSET,
        forgets=UNSET if site.persistent else True,
    )
    return _desired(workload_id(site), spec, (NETWORK, FIREWALL, *parts))


def _names(site: Site, settings: Settings, running: bool) -> list[Desired]:
    resources: list[Desired] = []
    leans_on = (workload_id(site),) if running else ()
    if running and is_static(site) and site.release is not None:
        # Not the instance, which may start before its content is in: it follows the link.
        leans_on = (*leans_on, ResourceId(Kind.RELEASE, site.id, CURRENT))
    target = RouteTarget.WORKLOAD if running else _at_rest(site)
    main = ResourceId(Kind.CERTIFICATE, PLATFORM, settings.domain)

    def route(name: str, domain: str, path: str | None, certificate: ResourceId) -> None:
        if site.node:
            there = NodeRouteSpec(site.id, site.node, domain, site.https_only)
            resources.append(_desired(ResourceId(Kind.ROUTE, site.id, name), there, (certificate,)))
            return
        spec = RouteSpec(
            site=site.id,
            number=site.number,
            slot=site.slot,
            target=target,
            port=site.run.port,
            domain=domain,
            path=path,
            access=site.access,
            https_only=site.https_only,
        )
        resources.append(_desired(ResourceId(Kind.ROUTE, site.id, name), spec, (*leans_on, certificate)))

    for domain in hosts(site, settings):
        wildcard = under_wildcard(domain, settings)
        certificate = ResourceId(Kind.CERTIFICATE, site.id, domain)
        resources.append(_desired(certificate, CertificateSpec(domain, wildcard), (main,) if wildcard else ()))
        route(domain, domain, None, certificate)
    if site.path is not None:
        route(f"@{site.path}", settings.domain, site.path, main)
    return resources


def _at_rest(site: Site) -> RouteTarget:
    if site.wanted is Wanted.STOPPED:
        return RouteTarget.STOPPED
    return RouteTarget.ASLEEP if site.woken_by is WokenBy.PEOPLE else RouteTarget.ASLEEP_FOR_ALL


def _desired(id: ResourceId, spec: Spec, needs: tuple[ResourceId, ...] = ()) -> Desired:
    # No digest of a need is mixed in: what an instance leans on by content (base key, release,
    # generation) is in its own spec by name, and nothing else may restart it.
    return Desired(id, spec, stamp(spec), needs)
