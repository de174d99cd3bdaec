"""The part of the protocol that is about carrying a site to another machine. Of :mod:`alveole.agent.protocol`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.model.names import BackupId, Digest, Generation, Number, SiteId, Slot
from alveole.model.site import VolumeMount


class PackSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="pack-site"):
    """→ :class:`Packed`. One file comes along, empty and writable: content and volumes go into it as one archive.

    The archive is that of a backup, and what runs is treated as for one; ``id`` only tells it from others.
    """

    id: BackupId
    site: SiteId
    number: Number
    slot: Slot
    generation: Generation
    release: Digest | None
    manifest: str
    volumes: tuple[VolumeMount, ...] = ()
    work: bool = False
    """Also what of the working copy is not published, and the git repository."""
    first: bool = False
    """A first copy of what goes on being written to: nothing is asked or held still for it, and it makes sense only
    together with the copy ``since`` it."""
    since: Digest | None = None
    """The archive of such a first copy: only what of the volumes is not as it was then, and no content."""


class UnpackSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="unpack-site"):
    """Unpack an archive that :class:`PackSite` made: a new data generation beside what is live.

    One file comes along: the archive, readable and seekable. Its digest is compared before anything is made of it.
    → :class:`~alveole.model.site.Release` or ``None``.
    """

    digest: Digest
    site: SiteId
    number: Number
    generation: Generation
    disk_bytes: Annotated[int, msgspec.Meta(ge=1)] | None
    onto: Digest | None = None
    """The first copy that was unpacked as this generation, and is brought up to date by what comes. → ``None``"""


class Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes: int
    digest: Digest
