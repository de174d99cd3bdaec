"""What is shown about backups; as :mod:`alveole.views`."""

from __future__ import annotations

from alveole.agent.protocol import Link
from alveole.agent.saving import ArchiveEntry, Kind
from alveole.policy.backups import BackupPolicy, SitePolicy
from alveole.scenarios.model import Report
from alveole.store.pastdays import PastState
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

    policy: BackupPolicy
    by_itself: bool
    """``backups.by_itself`` of the machine's settings: false, and none of it happens."""


class SiteBackupsView(View, frozen=True, kw_only=True):
    """How a site's backups stand."""

    site: str
    own: SitePolicy
    """What is another than for the machine."""
    policy: BackupPolicy
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


class PastDayView(View, frozen=True, kw_only=True):
    """A site of a past day, beside the live one. What is written in it goes with it."""

    id: str
    name: str
    address: str
    """Where it is seen, by those who are signed in at the pages and may look at the site."""
    backup: str
    backup_at: float
    """Which day it shows."""
    site: str
    site_id: str
    state: PastState
    """``opening``, ``open`` or ``closing``."""
    opened_by: str
    opened_at: float
    closes_at: float


class CalendarDay(View, frozen=True, kw_only=True):
    date: str
    """``2026-11-21``, in the machine's own time."""
    made: int
    pinned: int
    """Of those made that day; as the following two."""
    proved: int
    unproved: int
    """Those that could not be proved."""
    failed: int
    """How often saving the site failed that day."""


class CalendarView(View, frozen=True, kw_only=True):
    """A month of a site's backups; only days on which there was something."""

    site: str
    month: str
    days: tuple[CalendarDay, ...]
    first: str
    """The month of the oldest backup."""


class PreviewView(View, frozen=True, kw_only=True):
    """A file of a backup, and the one that stands there now."""

    backup: str
    site: str
    path: str
    bytes: int
    now_bytes: int | None
    """``None``: it is not there now."""
    same: bool
    text: bool
    """Both are texts, and no longer than 256 KiB."""
    diff: tuple[str, ...]
    """What putting it back would change, as ``diff -u``; at most 2,000 lines."""
    content: bool
    """It is of the content, and comes back by a new release."""
    live: bool
    """It is live at once; else the release waits until somebody makes it live."""


class TreeView(View, frozen=True, kw_only=True):
    """One directory of a backup."""

    backup: str
    path: str
    entries: tuple[ArchiveEntry, ...]
