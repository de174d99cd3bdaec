"""Desired resources, what is observed of them, and the steps between the two.

The loop is level-based: ``compile`` turns sites into :class:`Desired`, the agent reports
:class:`Observed`, ``plan`` compares and gives :class:`Step` and :class:`Waiting`.

Which resources a site has::

    base ──┐
    release┼─> workload ──> address (which slot owns the site's address for life)
    storage┤        └─────> route (one a name or path) <── certificate (one a name)
    config ┘

The platform has ``network`` (bridge and forwarding), ``firewall``, ``edge`` (the proxy) and
``certificate`` for the main domain's wildcard, in the scope ``platform``.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from alveole.model.lent import Published, Shared
from alveole.model.names import (
    AnyDomain,
    BaseKey,
    Digest,
    Domain,
    EnvKey,
    Generation,
    NodeName,
    Number,
    PathPrefix,
    Port,
    SiteId,
    Slot,
    VolumeName,
)
from alveole.model.site import (
    Access,
    Account,
    Base,
    BaseKind,
    ConfigFile,
    FileLink,
    InnerId,
    Limits,
    Process,
    Task,
    VolumeMount,
)

PLATFORM = "platform"


class Kind(StrEnum):
    NETWORK = "network"
    FIREWALL = "firewall"
    EDGE = "edge"
    BASE = "base"
    RELEASE = "release"
    STORAGE = "storage"
    CONFIG = "config"
    WORKLOAD = "workload"
    ADDRESS = "address"
    CERTIFICATE = "certificate"
    ROUTE = "route"
    PANEL = "panel"


class ResourceId(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """``scope`` is a site's id or ``platform``; ``name`` is unique within kind and scope.

    Names by kind: config, ``"config"``; base, its key; release, its digest; storage, the data generation (``"1"``);
    workload, the slot (``"0"``, ``"1"``); address, ``"ipv4"`` stands for both families;
    certificate, the domain; route, the domain or ``@/prefix``; panel, its domain; platform kinds, the kind itself.
    """

    kind: Kind
    scope: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.scope}/{self.name}"


class NetworkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="network"):
    """The bridge, its addresses and forwarding; everything else is in the settings."""


class FirewallSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="firewall"):
    """The rule set. Which sites may go out is part of each workload, not of this."""


class EdgeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="edge"):
    """The proxy, configured from the settings alone: routes are links, not configuration."""


class BaseSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="base"):
    base: Base


class ReleaseSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="release"):
    """Makes ``digest`` the live content (the link ``current``). Importing it is a call of its own."""

    site: SiteId
    number: Number
    digest: Digest


class VolumeOwner(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    name: VolumeName
    uid: InnerId


class StorageSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="storage"):
    """The writable part: a directory, or a file of ``disk_bytes`` mounted as a partition."""

    site: SiteId
    number: Number
    generation: Generation
    volumes: tuple[VolumeOwner, ...]
    disk_bytes: int | None


class ConfigSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="config"):
    """The rendered configuration files of a site, mounted at ``/config`` in each of its instances.

    Written in place, so that a change of a file starts only the processes anew that read it.
    A file that was changed by hand is a defect ``changed-by-hand`` that the loop reports and never repairs.
    """

    site: SiteId
    number: Number
    files: tuple[ConfigFile, ...]


class WorkloadSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="workload"):
    """One instance of a site. It has no field for privilege or host namespaces.

    ``static`` means nginx serves ``SITE_CONTENT``; ``writable`` means the instance has a root of
    its own over the base (kept over stop and start, dropped by an update), else it is read-only.
    """

    site: SiteId
    number: Number
    slot: Slot
    hostname: str
    base: BaseKey
    base_kind: BaseKind
    static: bool
    writable: bool
    processes: tuple[Process, ...]
    port: Port | None
    env: dict[EnvKey, str]
    volumes: tuple[VolumeMount, ...]
    data_generation: Generation
    limits: Limits
    health: str
    """Path that is asked for until it is answered; empty: it takes no requests, and is ready when its processes are."""
    ready_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)]
    stop_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)]
    incarnation: int
    release: Digest | None = None
    """Set for what must start anew with its content; static sites follow the link instead."""
    tasks: tuple[Task, ...] = ()
    accounts: tuple[Account, ...] = ()
    links: tuple[FileLink, ...] = ()
    config: bool = False
    """Whether the site has configuration files: ``/config`` is mounted."""
    shared: tuple[Shared, ...] | UnsetType = UNSET
    """Directories of the machine: the one path of the host that a message holds. The agent takes it only below those
    that the settings name. Absent where there are none, like ``ports`` of the address."""
    forgets: bool | UnsetType = UNSET
    """Each start begins with the root of the base, and nothing but volumes lasts. Absent: until the next update."""


class AddressSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="address"):
    site: SiteId
    number: Number
    slot: Slot
    ports: tuple[Published, ...] | UnsetType = UNSET
    """Ports of the machine that lead to it. Absent and not empty, so that a site without keeps the digest it had."""


class CertificateSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="certificate"):
    """``wildcard``: link to the main domain's certificate instead of issuing one."""

    domain: AnyDomain
    wildcard: bool


class RouteTarget(StrEnum):
    WORKLOAD = "workload"
    STOPPED = "stopped"
    """Answers 503 with a plain page."""
    ASLEEP = "asleep"
    """The request waits at the edge until the site is awake; of crawlers and the like it is answered with 503."""
    ASLEEP_FOR_ALL = "asleep-for-all"
    """The same, and every request wakes it."""
    STARTING = "starting"
    """Answers 503: nothing leads there yet. Never takes the place of a link that is there."""


class RouteSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="route"):
    """One name (``domain``) or one path of the main domain (``path``) and where it leads."""

    site: SiteId
    number: Number
    slot: Slot
    target: RouteTarget
    port: Port | None
    """``None``: the instance's Unix socket."""
    domain: AnyDomain
    path: PathPrefix | None = None
    access: Access = Access()
    https_only: bool = False
    past: bool | UnsetType = UNSET
    """It is a past day: only who is signed in at the pages, and may look at the site, is let in."""


class NodeRouteSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="node-route"):
    """One name whose site lives on another machine: the end of the line to ``node`` is where it leads.

    Who may come in is for the edge there to decide, which is told the client's own address.
    """

    site: SiteId
    node: NodeName
    domain: AnyDomain
    https_only: bool = False


class PanelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="panel"):
    """The name at which the edge hands requests to control's pages, over HTTPS only."""

    domain: Domain


Spec = (
    NetworkSpec
    | FirewallSpec
    | EdgeSpec
    | BaseSpec
    | ReleaseSpec
    | StorageSpec
    | ConfigSpec
    | WorkloadSpec
    | AddressSpec
    | CertificateSpec
    | RouteSpec
    | NodeRouteSpec
    | PanelSpec
)

_encoder = msgspec.json.Encoder(order="sorted")


def stamp(spec: Spec, needs: tuple[str, ...] = ()) -> str:
    """The digest carried by the real object: covers the whole spec and what it needs (32 hex digits)."""
    content = _encoder.encode({"spec": spec, "needs": sorted(needs)})
    return hashlib.sha256(content).hexdigest()[:32]


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: ResourceId
    spec: Spec
    digest: str
    needs: tuple[ResourceId, ...] = ()
    """Must be observed ready before a step for this one is given."""


class Defect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A way in which a real object differs from its stamp; ``cause`` is a sentence for the journal.

    ``code`` is stable: ``interface-missing``, ``exited``, ``oom-killed``, ``not-answering``,
    ``rules-missing``, ``not-running``, ``changed``, ``damaged``…
    """

    code: str
    cause: str


class Observed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One real object that carries our stamp.

    ``ready`` means others may rely on it. ``uses`` names the objects it leans on right now, so that
    nothing in use is deleted. ``detail`` is for people (``pid``, ``exit_status``, ``since``…).
    """

    id: ResourceId
    digest: str
    ready: bool
    defects: tuple[Defect, ...] = ()
    uses: tuple[ResourceId, ...] = ()
    detail: dict[str, str | int | float] = {}


class Observation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One look at a scope. ``unknown`` names kinds that could not be looked at: *unknown is not absent*."""

    found: tuple[Observed, ...]
    unknown: tuple[tuple[Kind, str], ...] = ()
    """Kind and why, e.g. ``("route", "permission denied")``."""


class Action(StrEnum):
    CREATE = "create"
    REPLACE = "replace"
    """Same name, other digest: end the old one, make the new one."""
    REPAIR = "repair"
    """Same digest, with defects."""
    DELETE = "delete"


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: ResourceId
    action: Action
    digest: str = ""
    spec: Spec | None = None
    """``None`` only for a delete."""
    reason: str = ""
    """Why, for the journal: ``"missing"``, ``"differs"``, or the causes of the defects."""
    grace_seconds: float = 0.0
    """A delete waits this long before it ends what may still be answering."""
    quiet: bool = False
    """Of configuration files: the instance is about to be made anew, so nothing that runs takes them over."""


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a step ended. ``temporary`` means it is worth another try."""

    done: bool
    message: str = ""
    temporary: bool = True
    seconds: float = 0.0
    tail: tuple[str, ...] = ()
    """The last lines the failing program printed."""


class Waiting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: ResourceId
    reason: str


class PromiseState(StrEnum):
    KEPT = "kept"
    PENDING = "pending"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: ResourceId
    state: PromiseState
    reason: str = ""
