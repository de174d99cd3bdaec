"""The part of the protocol that is about backups and where they are kept. Of :mod:`alveole.agent.protocol`.

A ``snapshot`` is the name that a repository gave a backup; of another repository than the machine's own first one it
begins with that one's name and a slash.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from alveole.model.names import BackupId, BaseKey, Digest, Generation, Number, SiteId, Slot, VolumeName
from alveole.model.site import VolumeMount

RepositoryName = Annotated[str, msgspec.Meta(pattern=r"^[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")]
Snapshot = Annotated[str, msgspec.Meta(pattern=r"^(?:[a-z][a-z0-9-]{0,31}/)?[0-9a-z]{1,64}\Z")]
#: A path inside of an archive: relative, without anything that leads elsewhere.
Inside = Annotated[str, msgspec.Meta(max_length=4096)]
#: The repository that is there without anybody having named one.
LOCAL = "local"


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
    work: bool = False
    """Also what of the working copy is not published, and the git repository."""


class ReadBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="read-backup"):
    """→ the manifest (``str``), after the whole backup was read and its digest compared."""

    snapshot: Snapshot
    digest: Digest


class RestoreBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="restore-backup"):
    """Unpack content and volumes for ``site`` beside what is live: a new data generation.

    Nothing that is live is touched. → :class:`~alveole.model.site.Release` or ``None``.
    """

    snapshot: Snapshot
    digest: Digest
    site: SiteId
    number: Number
    generation: Generation
    disk_bytes: Annotated[int, msgspec.Meta(ge=1)] | None
    without: tuple[tuple[VolumeName, str], ...] = ()
    """Volume and pattern of files that are left out; ``*`` stands for slashes too."""
    work: bool = False
    """Also the working copy, in the place of one that holds nothing unpublished. ``Refused`` where one does."""


class DropBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-backup"):
    snapshot: Snapshot
    prune: bool = True
    """Give its room back at once; else with the next :class:`PruneBackups`, which many of them share."""


class PruneBackups(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="prune-backups"):
    """Give back the room of what was dropped, in every repository."""


class ListBackups(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list-backups"):
    """→ ``tuple[BackupMade, ...]``: what the repository holds that new backups go into."""


class CopyBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="copy-backup"):
    """→ the name (``str``) of the same backup in the repository ``to``; copied once, however often it is asked."""

    id: BackupId
    snapshot: Snapshot
    to: RepositoryName


class TakeBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="take-backup"):
    """→ the name (``str``) that the repository ``to`` gives an archive of another machine; once, however often it is
    asked. One file comes along, readable: its digest is compared before any of it is stored."""

    id: BackupId
    site: SiteId
    digest: Digest
    to: RepositoryName


class BrowseBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="browse-backup"):
    """→ ``tuple[Entry, ...]``: what lies directly in one directory of the archive, by name."""

    snapshot: Snapshot
    path: Inside = ""


class FetchBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fetch-backup"):
    """→ its size (``int``). One file comes along, empty and writable: the archive goes into it, whole and compared
    with its digest, or with ``member`` the bytes of that one file."""

    snapshot: Snapshot
    digest: Digest
    member: Inside = ""


class RestoreFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="restore-file"):
    """→ ``int``, files. Put a file, or a directory with all in it, of a volume back into the data of a site, under the
    ids of the site. ``member`` is ``volumes/NAME/…``; what stands there now is replaced, and nothing else touched."""

    snapshot: Snapshot
    digest: Digest
    site: SiteId
    number: Number
    generation: Generation
    member: Inside


class Kind(StrEnum):
    LOCAL = "local"
    SFTP = "sftp"
    S3 = "s3"
    OTHER = "other"
    """Named in the settings of the machine, in restic's own words."""


class PutRepository(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="put-repository"):
    """→ :class:`RepositoryState`. Keep how a repository is reached, then reach it and make it where it is not.

    ``secret`` stays with the agent, in a file of root's, and is never given out again.
    """

    name: RepositoryName
    kind: Kind
    place: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    """A directory; ``USER@HOST:PORT/PATH``; ``https://HOST/BUCKET/PREFIX``."""
    host_key: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """Of SFTP: ``TYPE BASE64``, the one key that the host may show."""
    user: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """Of S3: the id of the access key."""
    secret: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    region: Annotated[str, msgspec.Meta(max_length=64)] = ""


class NewRepositoryKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="new-repository-key"):
    """→ the public key (``str``) that the repository of this name will sign in with by SFTP; made once."""

    name: RepositoryName


class ListRepositories(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list-repositories"):
    """→ ``tuple[RepositoryState, ...]``, the local one first. Nobody is asked for it."""


class CheckRepository(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="check-repository"):
    """→ :class:`RepositoryState`. Reach it, and have its structure compared (``restic check``)."""

    name: RepositoryName


class UseRepository(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="use-repository"):
    """New backups go there from now on; those that are made stay where they are."""

    name: RepositoryName


class ForgetRepository(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="forget-repository"):
    """How it is reached is forgotten; what it holds stays there."""

    name: RepositoryName


class BackupKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="backup-key"):
    """→ the key (``str``) that every repository of this machine is sealed with."""


class SavePlatform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="save-platform"):
    """→ :class:`BackupMade`. One file comes along: a copy of the database. With it go the settings, the authority, the
    sealed secrets, the keys of the SSH door and what control keeps beside its database."""

    id: BackupId


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release of a site, or of an application, by whose lease it is."""

    site: SiteId
    number: Number
    release: Digest


class SaveKept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="save-kept"):
    """→ :class:`KeptSaved`. Have the repository that is used hold these releases and images beside the backups, and
    nothing else of their kind that this machine has put there. Neither ever changes: what it holds already is not read
    again. ``to``: another repository that is to hold the same."""

    contents: tuple[Content, ...]
    images: tuple[BaseKey, ...]
    to: RepositoryName | None = None


class KeptSaved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stored: int
    dropped: int
    problems: tuple[str, ...] = ()
    """What could not be saved, and why."""


class RepositoryState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    kind: Kind
    place: str
    used: bool
    """New backups go there."""
    problem: str = ""
    """Of the last time it was reached; empty: none."""
    asked_at: float | None = None
    public_key: str = ""
    """Of SFTP: what it signs in with."""
    backups: int | None = None
    """How many it held then."""


class ArchiveEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name in a directory of an archive. ``kind``: ``f`` file, ``d`` directory, ``l`` link, ``p`` pipe."""

    name: str
    kind: str
    size: int = 0
    mode: int = 0
    changed_at: int = 0
    link: str = ""


class BackupMade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: BackupId
    snapshot: str
    bytes: int
    digest: Digest
    created_at: float = 0.0


#: Where backups are kept, what is in them, and the platform's own.
AboutKept = (
    PruneBackups
    | CopyBackup
    | TakeBackup
    | BrowseBackup
    | FetchBackup
    | RestoreFile
    | PutRepository
    | NewRepositoryKey
    | ListRepositories
    | CheckRepository
    | UseRepository
    | ForgetRepository
    | BackupKey
    | SavePlatform
    | SaveKept
)
#: For the table of the protocol.
KEEPING_RESULTS: dict[type, Any] = {
    PruneBackups: None,
    CopyBackup: str,
    TakeBackup: str,
    BrowseBackup: tuple[ArchiveEntry, ...],
    FetchBackup: int,
    RestoreFile: int,
    PutRepository: RepositoryState,
    NewRepositoryKey: str,
    ListRepositories: tuple[RepositoryState, ...],
    CheckRepository: RepositoryState,
    UseRepository: None,
    ForgetRepository: None,
    BackupKey: str,
    SavePlatform: BackupMade,
    SaveKept: KeptSaved,
}
