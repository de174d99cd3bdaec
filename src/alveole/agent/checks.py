"""What a step may name, checked before anything derives a path, an id or an address from it.

Control is not trusted with the machine: whoever takes it over may send any message. The types of
the protocol bound each field by itself; here is what holds between fields, and the names of
resources, which have another grammar for each kind. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from alveole.errors import InvalidInput, Problem
from alveole.model.names import ANY_DOMAIN, DOMAIN, PATH_PREFIX, check_mount_path
from alveole.model.resource import (
    PLATFORM,
    Action,
    AddressSpec,
    BaseSpec,
    CertificateSpec,
    ConfigSpec,
    EdgeSpec,
    FirewallSpec,
    Kind,
    NetworkSpec,
    NodeRouteSpec,
    PanelSpec,
    ReleaseSpec,
    RouteSpec,
    Step,
    StorageSpec,
    WorkloadSpec,
)

_SITE = re.compile(r"s[a-z2-7]{12}")
_DIGEST = re.compile(r"[0-9a-f]{0,64}")
_HOSTNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: A request line's target (RFC 9112 §3.2.1): printable, no space, so that it can add no header.
_HEALTH = re.compile(r"/[!-~]{0,2000}")
_SPECS: dict[Kind, type | tuple[type, ...]] = {
    Kind.NETWORK: NetworkSpec,
    Kind.FIREWALL: FirewallSpec,
    Kind.EDGE: EdgeSpec,
    Kind.BASE: BaseSpec,
    Kind.RELEASE: ReleaseSpec,
    Kind.STORAGE: StorageSpec,
    Kind.CONFIG: ConfigSpec,
    Kind.WORKLOAD: WorkloadSpec,
    Kind.ADDRESS: AddressSpec,
    Kind.CERTIFICATE: CertificateSpec,
    Kind.ROUTE: (RouteSpec, NodeRouteSpec),
    Kind.PANEL: PanelSpec,
}
_NAMES: dict[Kind, re.Pattern[str]] = {
    Kind.NETWORK: re.compile("network"),
    Kind.FIREWALL: re.compile("firewall"),
    Kind.EDGE: re.compile("edge"),
    Kind.BASE: re.compile(r"(?:host|debian|oci)-[0-9a-f]{16}"),
    Kind.RELEASE: re.compile("current"),
    Kind.STORAGE: re.compile(r"[1-9][0-9]{0,8}"),
    Kind.CONFIG: re.compile("config"),
    Kind.WORKLOAD: re.compile("[01]"),
    Kind.ADDRESS: re.compile("ipv4"),
    Kind.CERTIFICATE: re.compile(ANY_DOMAIN),
    Kind.ROUTE: re.compile(f"(?:{ANY_DOMAIN})|@(?:{PATH_PREFIX.removeprefix('^')})"),
    Kind.PANEL: re.compile(DOMAIN),
}
_OF_PLATFORM = frozenset({Kind.NETWORK, Kind.FIREWALL, Kind.EDGE, Kind.BASE, Kind.PANEL})
_OF_EITHER = frozenset({Kind.CERTIFICATE})


def known_scopes(scopes: Collection[str] | None) -> tuple[str, ...] | None:
    """Those that can exist: the platform and ids of sites. ``None`` (everywhere) stays ``None``."""
    return None if scopes is None else tuple(scope for scope in scopes if scope == PLATFORM or _SITE.fullmatch(scope))


def check_step(step: Step) -> None:
    """Raises ``InvalidInput`` unless the step names a resource there can be and its specification is of that one."""
    id, spec = step.id, step.spec
    site = _SITE.fullmatch(id.scope) is not None
    scope = (id.scope == PLATFORM and id.kind in _OF_PLATFORM | _OF_EITHER) or (site and id.kind not in _OF_PLATFORM)
    if not scope or not _NAMES[id.kind].fullmatch(id.name):
        raise InvalidInput(f"there can be no resource {str(id)[:300]!r}", field="step.id")
    if not _DIGEST.fullmatch(step.digest):
        raise InvalidInput("is not a digest", field="step.digest")
    if spec is None and step.action is Action.DELETE:
        return
    if not isinstance(spec, _SPECS[id.kind]):
        raise InvalidInput(f"{step.action} {id} needs a specification of its own kind", field="step.spec")
    if getattr(spec, "site", id.scope) != id.scope or _name_of(spec) not in (None, id.name):
        raise InvalidInput(f"the specification is not that of {id}", field="step.spec")
    problems = _problems(spec) if isinstance(spec, WorkloadSpec) else ()
    if isinstance(spec, ConfigSpec):
        problems = _file_problems(spec)
    if problems:
        raise InvalidInput(problems=problems)


def _name_of(spec: object) -> str | None:
    match spec:
        case BaseSpec():
            return spec.base.key
        case StorageSpec():
            return str(spec.generation)
        case WorkloadSpec():
            return str(spec.slot)
        case CertificateSpec() | PanelSpec() | NodeRouteSpec():
            return spec.domain
        case RouteSpec():
            return spec.domain if spec.path is None else f"@{spec.path}"
    return None


def _problems(spec: WorkloadSpec) -> list[Problem]:
    found = [problem for each in spec.volumes for problem in check_mount_path(each.path, "step.spec.volumes")]
    found += [problem for each in spec.shared or () for problem in check_mount_path(each.path, "step.spec.shared")]
    if not _HOSTNAME.fullmatch(spec.hostname):
        found.append(Problem("step.spec.hostname", "is not a host name"))
    if spec.health and not _HEALTH.fullmatch(spec.health):
        found.append(Problem("step.spec.health", "is not a path that can stand in a request"))
    if not spec.base.startswith(f"{spec.base_kind}-"):
        found.append(Problem("step.spec.base", f"is not of the kind {spec.base_kind}"))
    texts = [*spec.env.values()]
    for process in spec.processes:
        texts += (*process.argv, *process.ready, *process.env.values(), process.cwd)
    for task in spec.tasks:
        texts += (*task.argv, *task.env.values())
    if any("\0" in text for text in texts):
        found.append(Problem("step.spec", "holds a NUL byte"))
    return found


def _file_problems(spec: ConfigSpec) -> list[Problem]:
    """Each path is within its grammar already; together they must make a tree."""
    found = []
    names = [file.path for file in spec.files]
    above = {path[:at] for path in names for at, letter in enumerate(path) if letter == "/"}
    for path in sorted(set(names)):
        if path in above or names.count(path) > 1:
            found.append(Problem("step.spec.files", f"{path} is there more than once"))
    return found
