"""What people see of applications: documents for the API, the command line and the pages."""

from __future__ import annotations

from alveole.model.app import Accept, Approval, DeliveryPolicy, Difference, Stage, VersionState
from alveole.views import FileChange, SiteView, State, View


class VersionView(View, frozen=True, kw_only=True):
    name: str
    id: str
    state: VersionState
    archive: str
    """Digest of what was sent."""
    release: str
    """Digest of its files."""
    bytes: int
    files: int
    created_at: float
    sender: str
    note: str
    signer: str
    decided_by: str
    decided_at: float | None
    reason: str
    built: bool
    against: str
    """The version before it, of which ``difference`` speaks."""
    difference: Difference
    live: tuple[str, ...]
    """Environments that serve it."""
    delivered: tuple[str, ...]
    """Environments where it lies ready."""


class DeploymentView(View, frozen=True, kw_only=True):
    """One version in one environment: what was done, by whom, and how it ended."""

    id: str
    environment: str
    version: str
    stage: Stage
    created_at: float
    by: str
    change: str
    """Its newest change, with the whole log."""
    approvals: tuple[Approval, ...]
    live_at: float | None
    left_at: float | None
    went_back: bool
    backup: str | None


class SavedView(View, frozen=True):
    """Data that were saved, and can be brought back."""

    id: str
    """Of the backup."""
    bytes: int
    created_at: float


class EnvironmentView(View, frozen=True, kw_only=True):
    name: str
    site: str
    urls: tuple[str, ...]
    state: State
    problem: str
    policy: DeliveryPolicy
    live: DeploymentView | None
    delivered: DeploymentView | None
    saved: SavedView | None
    """Its data as they were before the live version was deployed; a roll back brings them back when asked to."""
    back_to: tuple[str, ...]
    """Versions that it can be rolled back to, the newest first."""
    interruption: str
    """How a deploy interrupts it; empty: not at all."""
    held: str
    """Who is at work on it, and with what; empty: nobody."""
    node: str = ""
    """The server that it lives on; empty: this one."""
    seen_at: float | None = None
    """Of one on another server: when that last said how it is. Seconds since the epoch."""


class AppView(View, frozen=True, kw_only=True):
    name: str
    id: str
    owner: str
    accept: Accept
    signers: tuple[str, ...]
    masks: tuple[str, ...]
    created_at: float
    version: int
    environments: tuple[EnvironmentView, ...]
    """In order."""
    versions: tuple[VersionView, ...]
    """Newest first."""


class AppPreview(View, frozen=True, kw_only=True):
    """One environment of an application that somebody is about to make."""

    name: str
    site: SiteView
    files: tuple[FileChange, ...] = ()
    """Configuration files that would be written."""


class DeployPlan(View, frozen=True, kw_only=True):
    """What a deploy or a roll back would do, before anything is done."""

    environment: str
    version: str
    before: str
    """The version that is live; empty: none."""
    steps: tuple[str, ...]
    interruption: str
    refused: tuple[str, ...]
    """What speaks against it."""
    configuration: tuple[FileChange, ...] = ()
    """Configuration files that would be other ones."""
    answers: dict[str, str]
    """By question: what would change, secrets not shown."""


class VersionComparison(View, frozen=True, kw_only=True):
    """What differs from one version to another."""

    one: str
    other: str
    environment: str
    """Whose configuration and answers are compared; empty: no environment has had both."""
    files: Difference
    configuration: tuple[FileChange, ...]
    """Configuration files that differ, with the difference of each; secrets are ``***``."""
    answers: dict[str, str]
    """By question: what it was, and what it is with the other; secrets not shown."""
    settings: dict[str, str]
    """``base`` and ``modules``, and the names of variables (``env``), where they differ."""


class SyncVolume(View, frozen=True):
    """One volume of the environment that is overwritten, and what comes in its place."""

    name: str
    bytes: int
    files: int
    changed_at: float
    """When something in it was last written, in seconds since the epoch; 0: there is none."""
    new_bytes: int
    new_files: int
    new_changed_at: float


class SyncPlan(View, frozen=True, kw_only=True):
    """What synchronising would replace, before anything is done."""

    source: str
    environment: str
    before: str
    """The version that is live here; empty: none."""
    version: str
    """The one that would be; empty: it stays."""
    volumes: tuple[SyncVolume, ...]
    masks: tuple[str, ...]
    """The rules that personal data go through."""
    interruption: str
    saved: bool
    """Whether the data here are saved first."""
    refused: tuple[str, ...]
    """What speaks against it."""
