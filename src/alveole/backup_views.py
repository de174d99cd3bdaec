"""What is shown about backups; as :mod:`alveole.views`."""

from __future__ import annotations

from alveole.agent.protocol import Link
from alveole.agent.saving import Entry, Kind
from alveole.backup_policy import Policy, SitePolicy
from alveole.scenarios.model import Report
from alveole.views import View


class BackupView(View, frozen=True, kw_only=True):
    id: str
    site: str
    site_id: str
    exists: bool
    """Whether the site it was made of still exists."""
    bytes: int
    created_at: float
    digest: str
    cause: str = "hand"
    """``night``, ``destroy``, ``deploy`` or ``hand``: only what Alvéole made by itself is ever thinned out."""
    pinned: bool = False
    """It stays until somebody deletes it."""
    repository: str = "local"
    copies: tuple[str, ...] = ()
    """The other repositories that have it too."""
    proved: bool | None = None
    """Whether a site that was made of it answered as it should; ``None``: not tried yet."""
    proved_at: float | None = None
    problem: str = ""
    """Why it could not be proved."""


class BackupDetail(View, frozen=True, kw_only=True):
    """A backup with what was asked of the scratch site that was made of it."""

    backup: BackupView
    seconds: float | None = None
    """How long the proof took."""
    links: tuple[Link, ...] = ()
    reports: tuple[Report, ...] = ()


class PolicyView(View, frozen=True, kw_only=True):
    """How the backups of the machine are made and kept."""

    policy: Policy
    by_itself: bool
    """``backups.by_itself`` of the machine's settings: false, and none of it happens."""


class SiteBackupsView(View, frozen=True, kw_only=True):
    """How a site's backups stand."""

    site: str
    own: SitePolicy
    """What is another than for the machine."""
    policy: Policy
    """What holds for the site."""
    backups: int
    saved_at: float | None
    """When the newest was made."""
    proved_at: float | None
    """When one was last proved."""
    unproved: str = ""
    """The backup that could not be proved last, if the newest attempt failed."""
    problem: str = ""
    next_at: float | None = None
    """When it is saved next by itself."""


class RepositoryView(View, frozen=True, kw_only=True):
    """Where backups are kept. What is secret about it is never shown."""

    name: str
    kind: Kind
    place: str
    used: bool
    """New backups go there."""
    copied_to: bool = False
    """Each backup is copied there."""
    problem: str = ""
    """Of the last time it was reached."""
    asked_at: float | None = None
    backups: int | None = None
    """How many it held then."""
    public_key: str = ""
    """Of SFTP: what it signs in with; to be put into ``authorized_keys`` there."""


class SshKeyView(View, frozen=True, kw_only=True):
    public_key: str


class BackupKeyView(View, frozen=True, kw_only=True):
    """What every repository is sealed with. Without it no backup can be read when this machine is lost."""

    key: str


class PlatformSaved(View, frozen=True, kw_only=True):
    """The newest backup of the platform itself."""

    id: str
    at: float
    bytes: int
    repository: str
    copied_to: str = ""


class KeepingView(View, frozen=True, kw_only=True):
    """How well this machine could be made again."""

    platform: PlatformSaved | None
    key_exported_at: float | None
    key_exported_by: str = ""


class TreeView(View, frozen=True, kw_only=True):
    """One directory of a backup."""

    backup: str
    path: str
    entries: tuple[Entry, ...]
