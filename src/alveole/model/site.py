"""What a person owns: a site, its plan, its releases and its backups.

These values are *desired* state. What exists is ``model.resource.Observed``; nothing here says
anything about a running machine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from alveole.model.names import (
    BackupId,
    BaseKey,
    Digest,
    Domain,
    EnvKey,
    MountPath,
    Package,
    PathPrefix,
    Port,
    ProcessName,
    SiteId,
    SiteName,
    VolumeName,
)

MIB = 1024 * 1024
GIB = 1024 * MIB
#: The one unprivileged user that owns and runs a site's content inside its container.
SITE_UID = 1000
#: Where a command may listen instead of on a port; the edge reaches it through the file system.
SITE_SOCKET = "/run/alveole/web.sock"
#: The live release, a link that is replaced by one rename.
SITE_CONTENT = "/site/current"


class Wanted(StrEnum):
    """The state a person asked for."""

    RUNNING = "running"
    STOPPED = "stopped"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a site may use. ``None`` means without limit (``disk_bytes``, ``io_bytes_per_second``)."""

    cpu_millis: Annotated[int, msgspec.Meta(ge=10, le=1_000_000)]
    """Processor time, in thousandths of one core."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=4 * MIB)]
    pids: Annotated[int, msgspec.Meta(ge=4, le=4_000_000)]
    """Processes and threads together."""
    io_bytes_per_second: Annotated[int, msgspec.Meta(ge=64 * 1024)] | None = None
    disk_bytes: Annotated[int, msgspec.Meta(ge=16 * MIB)] | None = None
    """Size of the writable part: its root changes and its volumes."""
    internet: bool = False
    """Whether the site may open connections to the outside (by NAT)."""


class ResourcePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: SiteName
    limits: Limits
    description: str = ""


BUILT_IN_PLANS = (
    ResourcePlan("small", Limits(250, 128 * MIB, 64, 20 * MIB, 1 * GIB, False), "a page, a small application"),
    ResourcePlan("medium", Limits(1000, 512 * MIB, 256, 50 * MIB, 5 * GIB, True), "an application and its database"),
    ResourcePlan("large", Limits(2000, 2 * GIB, 1024, 100 * MIB, 20 * GIB, True), "a busy application"),
)


class BaseKind(StrEnum):
    HOST = "host"
    """The machine's own ``/usr``, read-only."""
    DEBIAN = "debian"
    """A shared root file system made by mmdebstrap with a set of packages."""
    OCI = "oci"
    """A local OCI image, named by the digest of its manifest."""


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shared read-only root file system. ``key`` names it everywhere (``debian-0123456789abcdef``)."""

    kind: BaseKind
    key: BaseKey
    packages: tuple[Package, ...] = ()
    image: Digest | None = None

    @property
    def label(self) -> str:
        """The word a person reads: ``host``, ``debian+gunicorn``, ``oci:sha256:0123456789ab``."""
        if self.kind is BaseKind.DEBIAN:
            return "+".join(("debian", *self.packages))
        if self.kind is BaseKind.OCI and self.image is not None:
            return f"oci:{self.image[:19]}"
        return str(self.kind)


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program of the site: an argument vector, never a shell line."""

    name: ProcessName
    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=256)]


class VolumeMount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: VolumeName
    path: MountPath


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What runs in the container.

    No process and no image: the content is static and the edge's twin, nginx, serves it. One
    process runs alone; several run under one supervisor. ``port`` is what the web process listens
    on; ``None`` means the Unix socket ``SITE_SOCKET``.
    """

    processes: tuple[Process, ...] = ()
    port: Port | None = None
    health: str = "/"
    """Path asked for before a route opens; any answer under 500 is ready."""
    ready_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 60
    stop_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 10
    """Grace between the stop signal and the kill."""


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may reach the site, by network in CIDR notation. No ``allow`` means everybody."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One site as it is wanted.

    ``number`` is its lease: addresses, uid range and interface names all derive from it, and it
    stays the site's own until the site is destroyed. ``slot`` (0 or 1) says which of its two
    instances is to be live; an update flips it, so that the old instance serves until the new
    one is ready. ``incarnation`` rises with every restart asked for, ``data_generation`` with
    every restore of volumes.
    """

    id: SiteId
    number: Annotated[int, msgspec.Meta(ge=1)]
    name: SiteName
    wanted: Wanted
    plan: SiteName
    base: Base
    run: Run
    release: Digest | None = None
    domains: tuple[Domain, ...] = ()
    env: dict[EnvKey, str] = {}
    volumes: tuple[VolumeMount, ...] = ()
    path: PathPrefix | None = None
    access: Access = Access()
    https_only: bool = False
    slot: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    incarnation: int = 0
    data_generation: int = 1
    owner: str = "root"
    created_at: float = 0.0
    """Seconds since the epoch."""
    version: int = 1
    """Rises with every change of the row; the ETag of the site."""


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Immutable content of one site, named by the digest of its files."""

    digest: Digest
    bytes: int
    files: int
    created_at: float
    sender: str = ""
    note: str = ""


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: BackupId
    site_id: SiteId
    site_name: SiteName
    snapshot: str
    """The id of the restic snapshot."""
    bytes: int
    created_at: float
    digest: Digest
    """Of the whole archive, checked again before anything of it is used."""
