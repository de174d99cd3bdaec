"""What a person owns: a site, its plan, its releases and its backups.

These values are *desired* state. What exists is ``model.resource.Observed``; nothing here says
anything about a running machine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from alveole.model.lent import Published, Shared
from alveole.model.names import (
    AnyDomain,
    BackupId,
    BaseKey,
    Digest,
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
from alveole.model.operation import Operation

Argv = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=256)]
InnerId = Annotated[int, msgspec.Meta(ge=0, le=65_533)]
"""A uid inside a container."""
Answer = str | int | bool | tuple[str, ...] | None
CONFIG_PATH = r"^(?:[a-z0-9][A-Za-z0-9._-]{0,63})(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,63}){0,5}\Z"
MIB = 1024 * 1024
GIB = 1024 * MIB
#: The one unprivileged user that owns and runs a site's content inside its container.
SITE_UID = 1000
#: Where a command may listen instead of on a port; the edge reaches it through the file system.
SITE_SOCKET = "/run/alveole/web.sock"
#: The live release, a link that is replaced by one rename.
SITE_CONTENT = "/site/current"
#: All kept releases by their digests, the one that was just delivered too.
SITE_RELEASES = "/site/releases"
#: Where the rendered configuration files of modules are, for the container to read.
CONFIG = "/config"


#: A year.
SLEEP_MOST_SECONDS = 31_536_000
SleepSeconds = Annotated[int, msgspec.Meta(ge=0, le=SLEEP_MOST_SECONDS)]
"""0: never."""


class WokenBy(StrEnum):
    """Whose request wakes a site that sleeps, and keeps it awake."""

    PEOPLE = "people"
    """Not crawlers, and not what looks whether it answers."""
    EVERYBODY = "everybody"


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
    sleep_after: SleepSeconds = 0
    """Of its sites that do not say by themselves; see :attr:`Site.sleep_after`."""


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


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A program of the site that keeps running: an argument vector, never a shell line."""

    name: ProcessName
    argv: Argv
    uid: InnerId = SITE_UID
    """Inside the container. When any differs from ``SITE_UID`` the supervisor runs as the container's root."""
    order: Annotated[int, msgspec.Meta(ge=0, le=99)] = 50
    """Lower starts earlier and stops later; what is equal starts together. Tasks share the scale."""
    ready: tuple[str, ...] = ()
    """A program that succeeds when the process is ready; what follows waits for it. Empty: as soon as it runs."""
    ready_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 60
    stop_signal: Annotated[str, msgspec.Meta(pattern=r"^(?:SIG[A-Z0-9]{2,6})?\Z")] = ""
    """Empty: what the program is known to end cleanly on, else ``SIGTERM``."""
    stop_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] | None = None
    """Grace of this process; ``None``: that of the site."""
    env: dict[EnvKey, str] = {}
    cwd: str = ""


class When(StrEnum):
    """The points of a site's life at which a :class:`Task` runs, always inside the container."""

    PREPARE = "prepare"
    """At every start, before any process: what is made again does no harm."""
    INSTALL = "install"
    """Once in the life of the data, at its ``order`` among the processes."""
    UPGRADE = "upgrade"
    """At its ``order`` among the processes, when data meets another base than at its last start: other versions
    of programs, mostly newer ones. Not for new data. It is run again when it was cut, or the base goes back."""
    CHANGE = "change"
    """After configuration files were written, before processes start anew."""
    BACKUP = "backup"
    """Before a backup of a running site: leave a consistent copy in a volume."""
    RESTORE = "restore"
    """Instead of ``install``, when the data came from a backup of a running site."""
    STOP = "stop"
    """Before the processes are stopped: flush."""


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A program of the site that ends by itself. Its failure fails what waits for it, with its output."""

    name: ProcessName
    when: When
    argv: Argv
    uid: InnerId = SITE_UID
    order: Annotated[int, msgspec.Meta(ge=0, le=99)] = 60
    seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 120
    env: dict[EnvKey, str] = {}


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user of the container beside those of the base; it has a group of the same name and number."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,30}\Z")]
    uid: InnerId
    home: MountPath = "/nonexistent"


class Kept(StrEnum):
    """What a backup does with a volume."""

    ALWAYS = "always"
    """It is in every backup."""
    COLD = "cold"
    """Only while the site is stopped: its files make no sense while they are written to."""
    NEVER = "never"
    """It can be made again."""


class VolumeMount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: VolumeName
    path: MountPath
    uid: InnerId = SITE_UID
    """Who owns the empty volume."""
    backup: Kept = Kept.ALWAYS


class FileLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A symbolic link in the container's own root, for a program that reads one fixed path."""

    path: str
    target: str


class ConfigFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rendered configuration file. ``path`` is below ``CONFIG``, relative: ``mariadb/my.cnf``."""

    path: Annotated[str, msgspec.Meta(pattern=CONFIG_PATH, max_length=200)]
    text: str
    uid: InnerId = 0
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o644
    restarts: tuple[ProcessName, ...] = ()
    """Processes that read it when they start."""


class HealthCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One question whose answer says that the site works. Either ``argv`` (inside) or ``path`` (over HTTP)."""

    name: ProcessName
    argv: tuple[str, ...] = ()
    uid: InnerId = SITE_UID
    path: str = ""
    status: int = 200
    contains: str = ""
    """Text that the answer holds."""


class UpdateMode(StrEnum):
    BLUE_GREEN = "blue-green"
    """The new instance is started beside the old one."""
    STOP_START = "stop-start"
    """Two instances cannot share the data: the old one ends first."""


class BuildCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One program of a build, started in ``/site/current`` as the site's own user."""

    argv: Argv
    file: str = ""
    """Only when this is at the top of the content (``*.gemspec`` is a pattern); empty: always."""
    unless: str = ""
    """Not when this is there."""
    network: bool = False
    """Asks the package registries, where the build has leave to."""


class Building(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What turns content that is delivered into what the site runs."""

    commands: tuple[BuildCommand, ...] = ()
    packages: tuple[Package, ...] = ()
    """Of the base that the build runs on: those of the modules that build, and what is needed for that only."""
    network: bool | None = None
    """Whether it may ask the package registries; ``None``: as the settings say."""
    runtime: dict[Package, int] = {}
    """Packages that what is built hangs on, and how many numbers of their version."""
    made_for: dict[Package, str] = {}
    """These numbers in the base that the last release was built on (``{"python3": "3.11"}``)."""


class Application(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a site made of modules comes from; everything that runs was composed of it."""

    modules: dict[str, str] = {}
    """Name to digest of each module, in order of need; the asked for are in ``asked``."""
    asked: tuple[str, ...] = ()
    answers: dict[str, dict[str, Answer]] = {}
    """By module (``""``: the generic questions), then by question: given or computed, secrets included."""
    given: dict[str, tuple[str, ...]] = {}
    """Which of them a person gave: the others are computed again when they may."""
    kept_files: dict[str, str] = {}
    """Configuration files that were changed by hand and are to stay so: path to text."""
    why: str = ""
    """The reason, when the modules were picked from the content."""
    building: Building | None = None
    """``None``: content is taken as it comes."""
    env: dict[EnvKey, str] = {}
    """Variables of the site that come from the modules, beside those that a person set."""


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
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
    tasks: tuple[Task, ...] = ()
    accounts: tuple[Account, ...] = ()
    links: tuple[FileLink, ...] = ()
    checks: tuple[HealthCheck, ...] = ()
    operations: tuple[Operation, ...] = ()
    """That its modules declare."""
    logs: tuple[str, ...] = ()
    """Files inside the container that programs write by themselves instead of printing."""
    update: UpdateMode = UpdateMode.BLUE_GREEN


class Arrival(StrEnum):
    """What becomes of content that came through the SSH door."""

    LIVE = "live"
    """A release, live at once."""
    WAIT = "wait"
    """It waits for somebody to make it live."""


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may reach the site, by network in CIDR notation. No ``allow`` means everybody."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Earlier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base that a site had before it was switched to a renewed one, and when it left it."""

    base: Base
    left_at: float
    release: str | None = None
    """What it ran there, when the new base made it necessary to build the content again."""
    made_for: dict[Package, str] = {}
    """What that was made for; see :class:`Building`."""
    rebuilt: str | None = None
    """What came of it: as long as the site runs that, ``release`` is what fits the earlier base."""


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
    domains: tuple[AnyDomain, ...] = ()
    env: dict[EnvKey, str] = {}
    volumes: tuple[VolumeMount, ...] = ()
    files: tuple[ConfigFile, ...] = ()
    application: Application | None = None
    path: PathPrefix | None = None
    access: Access = Access()
    https_only: bool = False
    published: tuple[Published, ...] = ()
    """Ports of the machine, beside the one of HTTP that the proxy leads to."""
    shared: tuple[Shared, ...] = ()
    """Directories of the machine."""
    persistent: bool = True
    """Whether what its programs write outside of volumes lasts from a stop to the next start."""
    on_push: Arrival = Arrival.LIVE
    """Of what ``git push`` brought: ``wait`` keeps the release beside the live one."""
    on_files: Arrival = Arrival.WAIT
    """Of a working copy that was changed: ``wait`` leaves it a working copy until somebody publishes it."""
    slot: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    incarnation: int = 0
    data_generation: int = 1
    earlier: Earlier | None = None
    """What it can go back to. An upgrade of its base sets it; any other change of its base takes it away."""
    node: str = ""
    """The machine that it lives on; empty: this one. Of a site elsewhere only its names are kept here."""
    kept_at: dict[str, float] = {}
    """Machines (empty: this one) that hold it stopped since it was moved, and until when (seconds since the epoch)."""
    owner: str = "root"
    """Id of a person (``p…``) or a team (``g…``); anything else belongs to nobody."""
    created_at: float = 0.0
    """Seconds since the epoch."""
    version: int = 1
    """Rises with every change of the row but falling asleep and waking; the ETag of the site."""
    sleep_after: SleepSeconds | None = None
    """Seconds without a visit after which it sleeps; ``None``: as its plan says."""
    woken_by: WokenBy = WokenBy.PEOPLE
    asleep: float = 0.0
    """Since when it sleeps (seconds since the epoch), wanted as it is; 0: it does not. Every change wakes it."""

    @property
    def runs(self) -> bool:
        """Whether an instance of it is to be there, on whatever machine."""
        return self.wanted is Wanted.RUNNING and not self.asleep


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Immutable content of one site, named by the digest of its files."""

    digest: Digest
    bytes: int
    files: int
    created_at: float
    sender: str = ""
    note: str = ""
    source: Digest | None = None
    """The release it was built from; ``None``: it came as it is."""


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
    owner: str = ""
    """The site's owner when it was made: whose it is once the site is gone."""
