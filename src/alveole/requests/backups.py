"""What people ask for about backups beside making and restoring one; as :mod:`alveole.requests`."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from alveole.requests import Body


class PinBackup(Body, frozen=True, kw_only=True):
    pinned: bool


class SetPolicy(Body, frozen=True, kw_only=True):
    """See :class:`alveole.policy.backups.BackupPolicy`. What is absent stays as it is."""

    nightly: bool | UnsetType = UNSET
    before_destroy: bool | UnsetType = UNSET
    hour: float | UnsetType = UNSET
    window_hours: float | UnsetType = UNSET
    parallel: int | UnsetType = UNSET
    days: int | UnsetType = UNSET
    weeks: int | UnsetType = UNSET
    months: int | UnsetType = UNSET
    gone_days: int | UnsetType = UNSET
    prove: bool | UnsetType = UNSET
    prove_days: int | UnsetType = UNSET
    copy_to: str | UnsetType = UNSET
    """A repository, or empty for none."""


class SetSitePolicy(Body, frozen=True, kw_only=True):
    """What is another for one site; ``null``: as for the machine. What is absent stays as it is."""

    nightly: bool | UnsetType | None = UNSET
    days: int | UnsetType | None = UNSET
    weeks: int | UnsetType | None = UNSET
    months: int | UnsetType | None = UNSET
    prove: bool | UnsetType | None = UNSET


class ProveBackup(Body, frozen=True, kw_only=True):
    """``site``: the newest backup of that site."""

    site: str


class PutRepository(Body, frozen=True, kw_only=True):
    """A further repository. ``kind``: ``local``, ``sftp`` or ``s3``."""

    kind: str
    place: str
    """A directory; ``USER@HOST:PORT/PATH``; ``https://HOST/BUCKET/PREFIX``."""
    host_key: str = ""
    """Of SFTP: the one key that the host may show, ``TYPE BASE64``."""
    user: str = ""
    """Of S3: the id of the access key."""
    secret: str = ""
    """Of S3: the access key itself. It is never shown again."""
    region: str = ""


class OpenBackup(Body, frozen=True, kw_only=True):
    """Show a backup as a site of a past day. ``length``: like ``1h``, or seconds; at most a day."""

    length: str | float = "1h"


class RestoreFile(Body, frozen=True, kw_only=True):
    path: str
    """As in ``volumes/NAME/…`` or ``release/…``."""


# As at the end of :mod:`alveole.agent.protocol`.
for _body in (PinBackup, SetPolicy, SetSitePolicy, ProveBackup, PutRepository, OpenBackup, RestoreFile):
    msgspec.json.Decoder(_body)
