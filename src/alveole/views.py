"""The stable documents that the API answers and the command line prints with ``--json``.

Fields are only ever added. Times are seconds since the epoch, sizes bytes. Encode them with
``msgspec.json.encode``; :data:`alveole.model.change.Change` is itself such a document.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from alveole.agent.protocol import Link, MachineFacts
from alveole.model.change import Change
from alveole.model.resource import PromiseState
from alveole.model.site import Access, Limits, Process, Release, VolumeMount, Wanted


class State(StrEnum):
    """What a site does now, from what is wanted and what is observed."""

    RUNNING = "running"
    STOPPED = "stopped"
    STARTING = "starting"
    STOPPING = "stopping"
    UPDATING = "updating"
    FAILED = "failed"
    UNKNOWN = "unknown"


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all documents."""


class PromiseView(View, frozen=True, kw_only=True):
    resource: str
    """Like ``workload/0``."""
    state: PromiseState
    reason: str = ""


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
    memory_bytes: int
    cpu_seconds: float
    disk_bytes: int
    pids: int
    promises: tuple[PromiseView, ...]
    domains: tuple[str, ...]
    path: str | None
    access: Access
    https_only: bool
    release: str | None
    releases: tuple[Release, ...]
    """Newest first; empty in lists."""
    env: dict[str, str]
    """Values are ``***`` unless they were asked for."""
    volumes: tuple[VolumeMount, ...]
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


class StepView(View, frozen=True, kw_only=True):
    action: str
    resource: str
    reason: str


class DryRun(View, frozen=True, kw_only=True):
    """What a request would do. ``others`` counts the other sites that would be touched: always 0."""

    site: SiteView
    steps: tuple[StepView, ...]
    others: int = 0


class PlanView(View, frozen=True, kw_only=True):
    name: str
    limits: Limits
    description: str
    built_in: bool
    sites: int
    """How many sites have it."""


class BaseView(View, frozen=True, kw_only=True):
    key: str
    kind: str
    label: str
    image: str | None
    packages: tuple[str, ...]
    ready: bool
    sites: int
    created_at: float


class BackupView(View, frozen=True, kw_only=True):
    id: str
    site: str
    site_id: str
    exists: bool
    """Whether the site it was made of still exists."""
    bytes: int
    created_at: float
    digest: str


class TokenView(View, frozen=True, kw_only=True):
    id: str
    name: str
    role: str
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


class WhyView(View, frozen=True, kw_only=True):
    """The chain from a site's name to its application: what was asked and what came at each link."""

    site: SiteView
    links: tuple[Link, ...]
    waiting: tuple[str, ...]
    last: Change | None


class DoctorView(View, frozen=True, kw_only=True):
    ok: bool
    links: tuple[Link, ...]


class StatusView(View, frozen=True, kw_only=True):
    version: str
    domain: str
    started_at: float
    agent: bool
    """Whether the agent answers."""
    machine: MachineFacts | None
    sites: dict[str, int]
    """Count by state."""
    capacity: int
    """How many sites the network can hold."""
    promises: tuple[PromiseView, ...]
    """The platform's own."""
    damaged: tuple[str, ...]
    """What the store set aside, named."""


class Exported(View, frozen=True, kw_only=True):
    kind: str
    text: str
