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


class Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes: int
    digest: Digest
