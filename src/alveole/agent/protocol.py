"""What control may ask of the agent: one tagged value a verb, checked field by field.

On the wire: a Unix stream socket, one request a connection, messages of JSON ended by a line
feed. Files travel beside the first message (``SCM_RIGHTS``). The agent answers any number of
:class:`Said` and then one :class:`Done` or one :class:`Failed`. There is no field for a path of
the host: the agent derives every path itself from ids and numbers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from alveole.agent.anchoring import Anchor, KeepAnchor, ListAnchors
from alveole.agent.reaching import Reach
from alveole.backends.base import Usage
from alveole.errors import Problem
from alveole.model.names import (
    BackupId,
    BaseKey,
    Digest,
    Domain,
    EnvKey,
    Generation,
    Number,
    Package,
    PathPrefix,
    Port,
    SiteId,
    Slot,
)
from alveole.model.resource import Observation, Outcome, Step
from alveole.model.site import Base, BuildCommand, HealthCheck, Release, VolumeMount

MAX_MESSAGE = 8 * 1024 * 1024


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="facts"):
    """→ :class:`MachineFacts`."""


class Observe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="observe"):
    """→ :class:`~alveole.model.resource.Observation`. ``None``: every scope."""

    scopes: tuple[str, ...] | None = None


class Apply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="apply"):
    """→ :class:`~alveole.model.resource.Outcome`."""

    step: Step


class GetUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="usage"):
    """→ ``dict[site id, Usage]``."""

    sites: tuple[SiteId, ...] | None = None


class ArchiveFormat(StrEnum):
    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_ZST = "tar.zst"
    ZIP = "zip"


class ImportRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="import-release"):
    """→ :class:`~alveole.model.site.Release`. One file comes along: the archive, readable and seekable.

    Unpacked as the site's own user under the ceilings of the settings; kept under its digest.
    Importing the same content again is a no-op.
    """

    site: SiteId
    number: Number
    format: ArchiveFormat | None = None
    """``None``: recognised from its first bytes."""
    first: bool = False
    """Where no release is live yet, this one is from now on: a new site needs no step of its own for it."""


class BuildRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="build-release"):
    """→ :class:`Built`. Runs programs on a copy of a release, which stays as it is, and keeps what comes out.

    They run in a container of their own on ``base``, under the limits of the settings (``[build]``),
    without network but for the package registries, and that only with ``network``.
    """

    site: SiteId
    number: Number
    source: Digest
    base: Base
    commands: Annotated[tuple[BuildCommand, ...], msgspec.Meta(max_length=32)]
    env: dict[EnvKey, str] = {}
    network: bool = False


class WantsBuild(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="wants-build"):
    """→ ``bool``. Whether any of these programs would run on the release, before a base is made for them."""

    site: SiteId
    number: Number
    source: Digest
    commands: Annotated[tuple[BuildCommand, ...], msgspec.Meta(max_length=32)]


class DropRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-release"):
    site: SiteId
    number: Number
    digest: Digest


class RemoveSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remove-site"):
    """Remove every file of a site: content, storage, logs. ``Refused`` while an instance of it is there.

    Removing what is gone already is a no-op; backups stay.
    """

    site: SiteId
    number: Number


class ReadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="read-config"):
    """→ ``tuple[ConfigState, ...]``: the configuration files of a site as they lie on the disk."""

    site: SiteId
    number: Number


class ForgetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="forget-config"):
    """Take hand-made changes of these files back: they are removed, and the loop writes them again."""

    site: SiteId
    number: Number
    paths: tuple[str, ...]


class ImportImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="import-image"):
    """→ :class:`~alveole.agent.protocol.Image`. One file comes along: an OCI archive (tar of an OCI layout).

    Every blob is checked against its digest; the image becomes a base.
    """


class ResolveBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="resolve-base"):
    """→ :class:`~alveole.model.site.Base`. The key of the host's base or of a Debian package set, unbuilt."""

    kind: str
    packages: tuple[Package, ...] = ()


class DropBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-base"):
    key: BaseKey


class ListBases(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list-bases"):
    """→ ``tuple[BaseState, ...]``: every base on the disk, or the one ``key`` with the packages it holds."""

    key: BaseKey | None = None


class VerifyBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="verify-base"):
    """→ :class:`BaseState`. Every file of the base (and of what it leans on) is compared with its digest."""

    key: BaseKey


class CheckBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="check-base"):
    """→ ``tuple[PackageChange, ...]``: what updates would change, by lists fetched for it (``fetch``)."""

    key: BaseKey
    fetch: bool = True


class RenewBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="renew-base"):
    """→ :class:`Renewed`. A base of the same packages with all updates, beside the old one.

    The old one itself when there is nothing new; the same new one when it is there already.
    """

    key: BaseKey


class CloneSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="clone-site"):
    """Copy content and volumes of ``site`` to ``to``, whose storage was made for it; owners become its own.

    The site stands still while its volumes are copied.
    """

    site: SiteId
    number: Number
    generation: Generation
    release: Digest | None
    to: SiteId
    to_number: Number


class CheckHealth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="check-health"):
    """→ ``tuple[Link, ...]``: each check of a running instance, really made, in at most ``seconds`` each."""

    site: SiteId
    slot: Slot
    checks: tuple[HealthCheck, ...]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0


class ListProcesses(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list-processes"):
    """→ ``tuple[ProcessState, ...]``: those of one instance in order of start; none when it is not there."""

    site: SiteId
    slot: Slot


class Exec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="exec"):
    """Start a program inside an instance.

    The first answer is :class:`Started` with the session's files beside it; the connection then
    takes :class:`Resize` and :class:`Kill`, and :class:`Done` carries the exit status.
    """

    site: SiteId
    slot: Slot
    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=4096)]
    tty: bool = False
    uid: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    """An id inside the container."""


class Visit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="visit"):
    """Start a program over the working copy of a site, whether the site runs or not. As :class:`Exec`.

    It sees ``/site/work`` (a copy of ``release`` that it may change), ``/site/git`` and the site's volumes, in a
    container of the site's own ids on ``base``. :class:`Done` carries :class:`Visited`.
    """

    site: SiteId
    number: Number
    base: Base
    release: Digest | None
    generation: Generation
    volumes: Annotated[tuple[VolumeMount, ...], msgspec.Meta(max_length=64)]
    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=4096)]
    tty: bool = False


class LookAtWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="look-at-work"):
    """→ :class:`WorkState`: the working copy of a site."""

    site: SiteId
    number: Number


class KeepWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keep-work"):
    """→ :class:`~alveole.model.site.Release`: a release of the working copy as it is. ``Refused`` without one."""

    site: SiteId
    number: Number


class DropWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-work"):
    """Forget what was changed in the working copy; the git repository stays. ``Refused`` while it is in use."""

    site: SiteId
    number: Number


class EndVisits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="end-visits"):
    """End every program over the working copy of a site."""

    site: SiteId


class CreateBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="create-backup"):
    """→ :class:`BackupMade`. ``manifest`` is control's own JSON about the site, kept inside."""

    id: BackupId
    site: SiteId
    number: Number
    slot: Slot
    generation: Generation
    release: Digest | None
    manifest: str
    volumes: tuple[VolumeMount, ...] = ()
    """Of the site: which of them no backup takes."""


class ReadBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="read-backup"):
    """→ the manifest (``str``), after the whole backup was read and its digest compared."""

    snapshot: str
    digest: Digest


class RestoreBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="restore-backup"):
    """Unpack content and volumes for ``site`` beside what is live: a new data generation.

    Nothing that is live is touched. → :class:`~alveole.model.site.Release` or ``None``.
    """

    snapshot: str
    digest: Digest
    site: SiteId
    number: Number
    generation: Generation
    disk_bytes: Annotated[int, msgspec.Meta(ge=1)] | None


class DropBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-backup"):
    snapshot: str


class ListBackups(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list-backups"):
    """→ ``tuple[BackupMade, ...]``: what the repository holds."""


class GetAuthority(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="authority"):
    """→ the certificate of the internal authority (PEM)."""


class Inspect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="inspect"):
    """→ ``tuple[Link, ...]``: the chain from a name to the application, each link really tried."""

    site: SiteId
    number: Number
    slot: Slot
    domain: Domain
    path: PathPrefix | None = None
    port: Port | None = None


class Doctor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="doctor"):
    """→ ``tuple[Link, ...]``: what of the machine and of the platform is in order."""


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="watch"):
    """Stay connected and be told of instances that ended: each a :class:`Said` with ``scope``."""


Request = (
    Facts
    | Observe
    | Apply
    | GetUsage
    | ImportRelease
    | BuildRelease
    | WantsBuild
    | DropRelease
    | RemoveSite
    | ReadConfig
    | ForgetConfig
    | ImportImage
    | ResolveBase
    | DropBase
    | ListBases
    | VerifyBase
    | CheckBase
    | RenewBase
    | CloneSite
    | CheckHealth
    | ListProcesses
    | Exec
    | Visit
    | LookAtWork
    | KeepWork
    | DropWork
    | EndVisits
    | CreateBackup
    | ReadBackup
    | RestoreBackup
    | DropBackup
    | ListBackups
    | GetAuthority
    | Inspect
    | Doctor
    | KeepAnchor
    | ListAnchors
    | Reach
    | Watch
)


class Said(msgspec.Struct, frozen=True, tag="said"):
    """Progress, or for ``Watch`` the ``scope`` to look at."""

    text: str = ""
    share: float | None = None
    scope: str = ""


class Started(msgspec.Struct, frozen=True, tag="started"):
    files: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    result: Any = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    code: str
    problems: tuple[Problem, ...]


Answer = Said | Started | Done | Failed


class Resize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="resize"):
    rows: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    columns: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class Kill(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="kill"):
    signal: Annotated[int, msgspec.Meta(ge=1, le=64)]


class MachineFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cgroup: str
    """``v1``, ``v2`` or ``hybrid``."""
    kernel: str
    runtime: str
    proxy: str
    cpus: int
    memory_bytes: int
    disk_free_bytes: int
    disk_bytes: int


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A local image as a base, with what its configuration says should run."""

    base: Base
    argv: tuple[str, ...]
    env: dict[str, str]
    ports: tuple[int, ...]
    volumes: tuple[str, ...]
    user: str


class ConfigState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``text`` is given for what was changed by hand; ``None`` also when it is gone or no text."""

    path: str
    changed: bool
    text: str | None = None


class Built(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``release`` is ``None`` when a program failed: ``message`` says which and how. ``output``: the last lines."""

    release: Release | None
    message: str = ""
    output: tuple[str, ...] = ()
    seconds: float = 0.0


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a working copy was changed: files that were written, and names that went or came."""

    files: int = 0
    bytes: int = 0
    """Of the files that are there."""
    names: tuple[str, ...] = ()
    """The first of them."""


class Visited(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status: int
    changes: Changes = Changes()


class WorkState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``release``: what it stands on; ``published``: what was made of it last; ``fresh``: what came after that."""

    there: bool = False
    release: Digest | None = None
    published: Digest | None = None
    visitors: int = 0
    fresh: Changes = Changes()


class PackageChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``before`` is empty for a package that comes, ``after`` for one that goes."""

    name: str
    before: str
    after: str
    security: bool = False


class Renewed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base: Base
    changes: tuple[PackageChange, ...]


class BaseState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent knows of a base. Times in seconds since the epoch; ``None``: never, or not known."""

    base: Base
    bytes: int
    """Its own files; not those of ``lower``."""
    files: int
    made_at: float
    lower: str = ""
    """Key of the base it is a layer over."""
    damage: str = ""
    verified_at: float | None = None
    set_aside_at: float | None = None
    """When files of it were found damaged that instances still run from."""
    updates: tuple[PackageChange, ...] | None = None
    checked_at: float | None = None
    installed: dict[str, str] = {}
    """Package to version; only for one that was asked for by its key."""


class ProcessState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One process of an instance, as its supervisor sees it."""

    name: str
    state: str
    """``up``, ``starting``, ``waiting`` (it ended, and starts again in a moment), ``down`` or ``unknown``."""
    wanted: bool
    """Whether it shall be up now: not before its turn at the start, nor after it at the end."""
    seconds: float | None
    """For how long it has been so; ``None``: not known."""
    restarts: int | None
    """How often it has ended by itself since the instance began; ``None``: then the whole instance is made anew."""
    exit_status: int | None = None
    """Of its last end, unless a signal ended it."""
    exit_signal: int | None = None
    ended_at: float | None = None


class BackupMade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: BackupId
    snapshot: str
    bytes: int
    digest: Digest
    created_at: float = 0.0


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One link of the chain that ``why`` and ``doctor`` walk."""

    name: str
    ok: bool
    asked: str
    came: str
    cure: str = ""
    milliseconds: float = 0.0


RESULTS: dict[type, Any] = {
    Facts: MachineFacts,
    Observe: Observation,
    Apply: Outcome,
    GetUsage: dict[str, Usage],
    ImportRelease: Release,
    BuildRelease: Built,
    WantsBuild: bool,
    DropRelease: None,
    RemoveSite: None,
    ReadConfig: tuple[ConfigState, ...],
    ForgetConfig: None,
    ImportImage: Image,
    ResolveBase: Base,
    DropBase: None,
    ListBases: tuple[BaseState, ...],
    VerifyBase: BaseState,
    CheckBase: tuple[PackageChange, ...],
    RenewBase: Renewed,
    CloneSite: None,
    CheckHealth: tuple[Link, ...],
    ListProcesses: tuple[ProcessState, ...],
    Exec: int,
    Visit: Visited,
    LookAtWork: WorkState,
    KeepWork: Release,
    DropWork: None,
    EndVisits: None,
    CreateBackup: BackupMade,
    ReadBackup: str,
    RestoreBackup: Release | None,
    DropBackup: None,
    ListBackups: tuple[BackupMade, ...],
    GetAuthority: str,
    Inspect: tuple[Link, ...],
    Doctor: tuple[Link, ...],
    KeepAnchor: None,
    ListAnchors: tuple[Anchor, ...],
    Reach: None,
}

# msgspec works out a type at its first use, and two threads that do so at once can bring the interpreter
# down (seen with 0.22: control ended by SIGSEGV at every fifth start on a slow machine). So all of them are
# worked out here, at import, before there are threads.
for _type in (Request, Answer, *filter(None, RESULTS.values())):
    msgspec.json.Decoder(_type)
