"""What control may ask of the agent: one tagged value a verb, checked field by field.

On the wire: a Unix stream socket, one request a connection, messages of JSON ended by a line
feed. Files travel beside the first message (``SCM_RIGHTS``). The agent answers any number of
:class:`Said` and then one :class:`Done` or one :class:`Failed`. It derives every path of the host
itself from ids and numbers, but for shared directories: below those that its settings name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from alveole.agent.anchoring import Anchor, KeepAnchor, ListAnchors
from alveole.agent.carrying import Packed, PackSite, UnpackSite
from alveole.agent.certifying import CERTIFYING, Certifying
from alveole.agent.figuring import Figures, TakeFigures
from alveole.agent.lending import CheckShared, LookAtPorts
from alveole.agent.logwords import LOG_RESULTS, LogRequest
from alveole.agent.naming import NAMES_RESULTS, AboutNames
from alveole.agent.operating import ListPrograms, ProgramState, RestartProcess, SignalProgram
from alveole.agent.reaching import Reach
from alveole.agent.saving import (
    KEEPING_RESULTS,
    AboutKept,
    BackupMade,
    CreateBackup,
    DropBackup,
    ListBackups,
    ReadBackup,
    RestoreBackup,
)
from alveole.agent.using import Use, Using
from alveole.agent.working import (
    Changes,
    DropWork,
    EndVisits,
    KeepWork,
    LookAtWork,
    Visit,
    Visited,
    WorkKept,
    WorkState,
)
from alveole.backends.base import Usage
from alveole.errors import Problem
from alveole.model.app import Difference
from alveole.model.bases import BaseState as BaseState  # noqa: PLC0414  a word of this protocol too
from alveole.model.bases import Image as Image  # noqa: PLC0414  likewise
from alveole.model.bases import PackageChange as PackageChange  # noqa: PLC0414  likewise
from alveole.model.bases import Renewed as Renewed  # noqa: PLC0414  likewise
from alveole.model.names import (
    REGISTRY,
    REPOSITORY,
    TAG,
    AnyDomain,
    BaseKey,
    Digest,
    Domain,
    EnvKey,
    Generation,
    NodeName,
    Number,
    Package,
    PathPrefix,
    Port,
    SiteId,
    Slot,
)
from alveole.model.resource import Observation, Outcome, Step
from alveole.model.site import Base, BuildCommand, HealthCheck, Release

#: What is of another file and is known by this one's name too.
__all__ = [
    "BackupMade",
    "Changes",
    "CreateBackup",
    "DropBackup",
    "DropWork",
    "EndVisits",
    "KeepWork",
    "ListBackups",
    "LookAtWork",
    "PackSite",
    "Packed",
    "ReadBackup",
    "RestoreBackup",
    "UnpackSite",
    "Visit",
    "Visited",
    "WorkKept",
    "WorkState",
]
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
    """One that is not there is no fault. Raises ``Refused`` for the live one."""

    site: SiteId
    number: Number
    digest: Digest


class CopyRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="copy-release"):
    """Give the site ``to`` a release that ``site`` has. What is there already is left as it is.

    The copy has the owners of ``to``, is on the disk when this returns, and is read whole: another digest than
    its name is refused.
    """

    site: SiteId
    number: Number
    digest: Digest
    to: SiteId
    to_number: Number


class CompareReleases(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="compare-releases"):
    """→ :class:`~alveole.model.app.Difference`. ``before`` ``None``: everything is new."""

    site: SiteId
    number: Number
    before: Digest | None
    after: Digest


class RemoveSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remove-site"):
    """Remove every file of a site: content, storage, logs. ``Refused`` while an instance of it is there.

    Removing what is gone already is a no-op; backups stay.
    """

    site: SiteId
    number: Number
    forget: bool = False
    """Its packed lines too, at once: it was nobody's, a copy that something was tried on."""


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


class PullImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="pull-image"):
    """→ :class:`~alveole.agent.protocol.Image`: fetched from a registry that the settings name. As an import, then.

    ``Refused`` for any other registry, whoever asks.
    """

    registry: Annotated[str, msgspec.Meta(pattern=REGISTRY, max_length=262)]
    repository: Annotated[str, msgspec.Meta(pattern=REPOSITORY, max_length=255)]
    tag: Annotated[str, msgspec.Meta(pattern=TAG)]


class ResolveBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="resolve-base"):
    """→ :class:`~alveole.model.site.Base`. The key of the host's base or of a Debian package set, unbuilt."""

    kind: str
    packages: tuple[Package, ...] = ()


class DropBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-base"):
    """One that is not there is no fault; that no site uses it is the caller's to know. Raises ``Refused`` while a layer
    leans on it."""

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
    seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0


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


class LookAtData(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="look-at-data"):
    """→ ``tuple[VolumeState, ...]``: what each volume of a site holds, by name. Nothing is changed."""

    site: SiteId
    number: Number
    generation: Generation


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
    asleep: bool = False
    also: Annotated[tuple[AnyDomain, ...], msgspec.Meta(max_length=100)] = ()
    """Its other names: of each its certificate and its route are tried."""
    health: Annotated[str, msgspec.Meta(max_length=2001, pattern=r"^(?:/[!-~]{0,2000})?\Z")] = "/"
    """Where the program says whether it is well."""
    node: NodeName | None = None
    """The machine that it lives on, if not this one: the chain ends with the line there."""


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
    | CopyRelease
    | CompareReleases
    | RemoveSite
    | ReadConfig
    | ForgetConfig
    | ImportImage
    | PullImage
    | ResolveBase
    | DropBase
    | ListBases
    | VerifyBase
    | CheckBase
    | RenewBase
    | CloneSite
    | CheckHealth
    | ListProcesses
    | ListPrograms
    | SignalProgram
    | RestartProcess
    | Exec
    | Visit
    | LookAtWork
    | KeepWork
    | WorkKept
    | DropWork
    | EndVisits
    | CreateBackup
    | AboutKept
    | ReadBackup
    | RestoreBackup
    | LookAtData
    | DropBackup
    | ListBackups
    | PackSite
    | UnpackSite
    | GetAuthority
    | Certifying
    | Inspect
    | Doctor
    | KeepAnchor
    | TakeFigures
    | ListAnchors
    | Reach
    | AboutNames
    | LogRequest
    | Using
    | CheckShared
    | LookAtPorts
    | Watch
)


class Said(msgspec.Struct, frozen=True, tag="said"):
    """Progress, or for ``Watch`` the ``scope`` to look at."""

    text: str = ""
    share: float | None = None
    scope: str = ""


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The program of an ``Exec`` or ``Visit`` runs; so many open files come along."""

    files: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The end: a value of the type in :data:`RESULTS`."""

    result: Any = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The end: the error of :mod:`alveole.errors` with this ``code``."""

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


class VolumeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    bytes: int
    files: int
    changed_at: float
    """When something in it was last written."""


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One link of the chain that ``why`` and ``doctor`` walk."""

    name: str
    ok: bool
    asked: str
    came: str
    cure: str = ""
    milliseconds: float = 0.0
    machine: str = ""
    """The node that it was tried on; empty: this machine."""


RESULTS: dict[type, Any] = {
    Facts: MachineFacts,
    Observe: Observation,
    Apply: Outcome,
    GetUsage: dict[str, Usage],
    ImportRelease: Release,
    BuildRelease: Built,
    WantsBuild: bool,
    DropRelease: None,
    CopyRelease: None,
    CompareReleases: Difference,
    RemoveSite: None,
    ReadConfig: tuple[ConfigState, ...],
    ForgetConfig: None,
    ImportImage: Image,
    PullImage: Image,
    ResolveBase: Base,
    DropBase: None,
    ListBases: tuple[BaseState, ...],
    VerifyBase: BaseState,
    CheckBase: tuple[PackageChange, ...],
    RenewBase: Renewed,
    CloneSite: None,
    CheckHealth: tuple[Link, ...],
    ListProcesses: tuple[ProcessState, ...],
    ListPrograms: tuple[ProgramState, ...],
    SignalProgram: None,
    RestartProcess: None,
    Exec: int,
    Visit: Visited,
    LookAtWork: WorkState,
    KeepWork: Release,
    WorkKept: None,
    DropWork: None,
    EndVisits: None,
    CreateBackup: BackupMade,
    **KEEPING_RESULTS,
    ReadBackup: str,
    RestoreBackup: Release | None,
    LookAtData: tuple[VolumeState, ...],
    DropBackup: None,
    ListBackups: tuple[BackupMade, ...],
    PackSite: Packed,
    UnpackSite: Release | None,
    GetAuthority: str,
    **CERTIFYING,
    Inspect: tuple[Link, ...],
    Doctor: tuple[Link, ...],
    CheckShared: tuple[Problem, ...],
    LookAtPorts: tuple[Link, ...],
    KeepAnchor: None,
    TakeFigures: Figures,
    ListAnchors: tuple[Anchor, ...],
    Reach: None,
    **NAMES_RESULTS,
    **LOG_RESULTS,
    Using: dict[str, Use],
}

# msgspec works out a type at its first use, and two threads that do so at once can bring the interpreter down (seen
# with 0.22: control ended by SIGSEGV at every fifth start on a slow machine). So all are worked out here, at import.
for _type in (Request, Answer, *filter(None, RESULTS.values())):
    msgspec.json.Decoder(_type)
