"""The stable documents that the API answers and the command line prints with ``--json``.

Fields are only ever added. Times are seconds since the epoch, sizes bytes. Encode them with
``msgspec.json.encode``; :data:`alveole.model.change.Change` is itself such a document.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from alveole.agent.protocol import Link, MachineFacts
from alveole.model.change import Change
from alveole.model.lent import Published, Shared
from alveole.model.resource import PromiseState
from alveole.model.site import Access, Answer, HealthCheck, Limits, Process, Release, VolumeMount, Wanted
from alveole.policy.sleeping import Sleep


class State(StrEnum):
    """What a site does now, from what is wanted and what is observed."""

    RUNNING = "running"
    STOPPED = "stopped"
    STARTING = "starting"
    STOPPING = "stopping"
    UPDATING = "updating"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ASLEEP = "asleep"
    """Nobody asks for it; the next visit wakes it."""
    UNREACHABLE = "unreachable"
    """It lives on another machine, which does not answer."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all documents."""


class PromiseView(View, frozen=True, kw_only=True):
    resource: str
    """Like ``workload/0``."""
    state: PromiseState
    reason: str = ""


class FileView(View, frozen=True, kw_only=True):
    """A rendered configuration file of a site."""

    path: str
    """Below ``/config``."""
    uid: int
    mode: int
    restarts: tuple[str, ...] = ()
    kept: bool = False
    """Its hand-made text stays when the site is configured anew."""
    changed_by_hand: bool = False


class ModulesView(View, frozen=True, kw_only=True):
    """What a site of modules was composed of."""

    asked: tuple[str, ...]
    modules: dict[str, str]
    """Name to digest, in order of need."""
    answers: dict[str, dict[str, Answer]]
    """By module, generic questions under ``""``. Passwords are ``***`` unless they were asked for."""
    given: dict[str, tuple[str, ...]]
    """Which of them a person gave."""
    files: tuple[FileView, ...] = ()
    checks: tuple[HealthCheck, ...] = ()
    made_up: tuple[str, ...] = ()
    """Passwords that nobody gave, like ``wordpress.password``; the answers have them."""
    update: str = ""
    why: str = ""


class ProcessView(View, frozen=True, kw_only=True):
    """How one process of a site is at this moment."""

    name: str
    state: str
    """``up``, ``starting``, ``waiting`` (it ended, and starts again in a moment), ``down`` or ``unknown``."""
    wanted: bool
    seconds: float | None
    """For how long it has been so."""
    restarts: int | None
    """How often it has ended by itself since the instance began; ``None`` of a site with a single command, whose
    instance is made anew then (see the journal)."""
    exit_status: int | None = None
    """Of its last end, unless a signal ended it."""
    exit_signal: int | None = None
    ended_at: float | None = None


class CheckState(View, frozen=True, kw_only=True):
    """How a scenario stands, by its last run through the edge."""

    name: str
    ok: bool | None = None
    """``None``: it has not been run yet."""
    failing: bool = False
    """So many runs in a row failed that it was told."""
    at: float | None = None
    since: float | None = None
    """Since when it has been so."""
    seconds: float | None = None
    problem: str = ""
    every: float = 0.0
    """Seconds between two runs that watch the site; 0: it is not run by itself."""
    next_at: float | None = None
    """When it is run next by itself; told where checks are listed."""


class SiteView(View, frozen=True, kw_only=True):
    name: str
    id: str
    number: int
    state: State
    wanted: Wanted
    urls: tuple[str, ...]
    ipv4: str
    ipv6: str
    plan: str
    base: str
    """For people: ``host``, ``debian+gunicorn``, ``oci:sha256:0123456789ab``."""
    base_key: str
    earlier_base: str | None = None
    """Key of the base that it had before the last upgrade and can go back to."""
    memory_bytes: int
    cpu_seconds: float
    disk_bytes: int
    pids: int
    cpu_load: float = 0.0
    """Processors that it keeps busy now: 0.5 is half of one."""
    requests_today: int | None = None
    """What the edge has answered for it since midnight of the machine's clock; ``None`` in long lists."""
    sent_bytes_today: int | None = None
    log_bytes: int | None = None
    """What its log lines take on the disk, outside of its own; ``None`` in lists."""
    promises: tuple[PromiseView, ...]
    domains: tuple[str, ...]
    claims: tuple[str, ...] = ()
    """Domains that are pending until they are proven; empty in lists."""
    path: str | None
    access: Access
    https_only: bool
    sleep: Sleep = Sleep()
    on_push: str
    on_files: str
    release: str | None
    releases: tuple[Release, ...]
    """Newest first; empty in lists."""
    env: dict[str, str]
    """Values are ``***`` unless they were asked for."""
    volumes: tuple[VolumeMount, ...]
    published: tuple[Published, ...] = ()
    """Ports of the machine that lead to it."""
    shared: tuple[Shared, ...] = ()
    """Directories of the machine that it sees."""
    persistent: bool = True
    """Whether what its programs write outside of volumes lasts from a stop to the next start."""
    processes: tuple[Process, ...]
    port: int | None
    health: str
    ready_seconds: int
    stop_seconds: int
    owner: str
    version: int
    created_at: float
    problem: str = ""
    """Why it is not as wanted; empty when it is."""
    change: str | None = None
    """Id of the change that is running on it."""
    application: ModulesView | None = None
    process_states: tuple[ProcessView, ...] = ()
    """In order of start; empty in lists, and while no instance is there."""
    checks: tuple[CheckState, ...] = ()
    """The site's scenarios."""
    node: str = ""
    """The machine that it lives on; empty: this one."""
    seen_at: float | None = None
    """Of a site on another machine: when that last said how it is. Seconds since the epoch."""


class StepView(View, frozen=True, kw_only=True):
    action: str
    resource: str
    reason: str


class FoundSites(View, frozen=True, kw_only=True):
    """A page of sites."""

    sites: tuple[SiteView, ...]
    found: int
    total: int
    """All that the caller may look at."""
    page: int
    pages: int
    states: dict[str, int]
    """Of all of them, by state."""
    owners: tuple[str, ...]
    modules: tuple[str, ...]


class DryRun(View, frozen=True, kw_only=True):
    """What a request would do. ``others`` counts the other sites that would be touched: always 0."""

    site: SiteView
    steps: tuple[StepView, ...]
    others: int = 0
    files: tuple[FileChange, ...] = ()
    """Configuration files that would be written (sites of modules)."""


class FileFate(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    KEPT = "kept"
    """The hand-made text stays."""
    TAKEN_BACK = "taken-back"
    """The rendered text takes the place of the hand-made one."""
    IN_THE_WAY = "in-the-way"
    """Changed by hand, and the new text would overwrite it: refused."""
    CHANGED_BY_HAND = "changed-by-hand"
    """But not touched by this."""


class FileChange(View, frozen=True, kw_only=True):
    path: str
    fate: FileFate
    diff: str = ""
    """Unified, from what the container sees now to what it would see; secrets are ``***``."""
    restarts: tuple[str, ...] = ()


class PlanView(View, frozen=True, kw_only=True):
    name: str
    limits: Limits
    description: str
    sleep_after: int = 0
    """Seconds without a visit after which its sites sleep, where they do not say by themselves; 0: never."""
    built_in: bool
    sites: int
    """How many sites have it."""


class PackageView(View, frozen=True, kw_only=True):
    """``before`` is empty for a package that comes, ``after`` for one that goes."""

    name: str
    before: str
    after: str
    security: bool


class BaseView(View, frozen=True, kw_only=True):
    key: str
    kind: str
    label: str
    image: str | None
    packages: tuple[str, ...]
    ready: bool
    sites: int
    created_at: float
    site_names: tuple[str, ...] = ()
    earlier_of: tuple[str, ...] = ()
    """Sites that had it before an upgrade and can still go back to it."""
    builds_of: tuple[str, ...] = ()
    """Sites whose content is built on it the next time."""
    bytes: int | None = None
    """What its own files take; not those of ``lower``. ``None``: it is not built."""
    lower: str | None = None
    """Key of the base that it is a layer over."""
    damage: str = ""
    """What of it is not as it was made; empty: nothing that is known."""
    verified_at: float | None = None
    """When its files were last compared with their digests and found sound."""
    updates: int | None = None
    """Packages that an upgrade would change, by the package lists of ``checked_at``."""
    security_updates: int | None = None
    checked_at: float | None = None
    changes: tuple[PackageView, ...] = ()
    installed: dict[str, str] = {}
    """Package to version; only when one base is shown."""


class UpgradeView(View, frozen=True, kw_only=True):
    """What the upgrade of a base would do. No change: there is nothing newer."""

    key: str
    label: str
    changes: tuple[PackageView, ...]
    sites: tuple[str, ...]
    """The sites that would be tried and switched, in this order."""
    builds: tuple[str, ...] = ()
    """The sites whose content is built on it."""


class RollbackView(View, frozen=True, kw_only=True):
    """What going back would do to one site."""

    site: str
    label: str
    base: str
    """Key of the base that it has."""
    earlier: str
    """Key of the base that it would have again."""
    changes: tuple[PackageView, ...]
    content: str = ""
    """``earlier``: the content that it had there comes back, too; ``rebuilt``: it is built again; else it stays."""


class TokenView(View, frozen=True, kw_only=True):
    id: str
    name: str
    role: str
    person: str = ""
    """Whose it is; empty: no person's."""
    scope: tuple[str, ...] = ()
    """The actions it may do; empty: all that its role may."""
    sites: tuple[str, ...] = ()
    """The sites it is for; empty: all."""
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    secret: str | None = None
    """Only in the answer to the creation."""


class UploadView(View, frozen=True, kw_only=True):
    id: str
    path: str
    """Where the API writes the bytes; not part of any answer to a client."""


class LogsView(View, frozen=True, kw_only=True):
    """Where a site's log files are, for the door that reads and follows them."""

    site: str
    directory: str
    """The site's output: an s6-log directory (``current`` and rotated ``@…`` files)."""
    archive: str
    """Older files of it, packed."""
    edge_directory: str
    """``access.log`` and ``error.log`` of the proxy."""


class ExecGrant(View, frozen=True, kw_only=True):
    """The caller may run a program in this instance."""

    site: str
    slot: int
    argv: tuple[str, ...]
    tty: bool
    uid: int | None
    change: str
    """The journal's change of this session; end it with :meth:`Services.exec_ended`."""


class KeyView(View, frozen=True, kw_only=True):
    """A public key of a person, for the SSH door."""

    id: str
    name: str
    kind: str
    """``ssh-ed25519``, for instance."""
    fingerprint: str
    """``SHA256:`` and 43 characters, as OpenSSH shows it."""
    created_at: float
    used_at: float | None


class WorkView(View, frozen=True, kw_only=True):
    """The working copy of a site: what SFTP, scp and rsync see."""

    site: str
    there: bool
    """Whether anybody has ever opened it."""
    release: str | None
    """What it stands on."""
    behind: bool
    """Another release is live by now: publishing goes back behind what came with that one."""
    published: str | None
    """The release that was made of it last."""
    files: int
    """How many files were changed since."""
    bytes: int
    names: tuple[str, ...]
    """The first of them."""
    visitors: int
    address: str
    """For ``sftp`` and ``ssh``."""


class WhyView(View, frozen=True, kw_only=True):
    """The chain from a site's name to its application: what was asked and what came at each link.

    ``broken`` is the name of the first link that does not hold, empty when all do: what comes after
    it may fail because of it.
    """

    site: SiteView
    broken: str
    links: tuple[Link, ...]
    waiting: tuple[str, ...]
    last: Change | None


class DoctorView(View, frozen=True, kw_only=True):
    ok: bool
    links: tuple[Link, ...]


class MachineLoad(View, frozen=True, kw_only=True):
    """How busy the machine is now. ``cpu``: processors at work, of ``cpus``."""

    cpu: float
    cpus: int
    averages: tuple[float, float, float]
    """Of 1, 5 and 15 minutes, as proc_loadavg(5) has them."""
    memory_used_bytes: int
    memory_bytes: int


class StatusView(View, frozen=True, kw_only=True):
    version: str
    domain: str
    started_at: float
    agent: bool
    """Whether the agent answers."""
    machine: MachineFacts | None
    load: MachineLoad | None = None
    sites: dict[str, int]
    """Count by state."""
    capacity: int
    """How many sites the network can hold."""
    promises: tuple[PromiseView, ...]
    """The platform's own."""
    damaged: tuple[str, ...]
    """What the store set aside, named."""
    changed_by_hand: dict[str, str] = {}
    """Sites with configuration files that somebody changed inside the container, and which."""
    log_bytes: int = 0
    """What all log lines take on the disk; at most half a minute old."""
    reminders: tuple[str, ...] = ()
    """What people still have to do, such as keeping the key of the backups elsewhere."""


class Exported(View, frozen=True, kw_only=True):
    kind: str
    text: str
