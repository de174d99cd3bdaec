"""The part of the protocol that is about working copies: what control asks, and what comes back.

Of :mod:`alveole.agent.protocol`, which names them all; a file of its own for its length only.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.model.names import Digest, Generation, Number, SiteId
from alveole.model.site import Base, VolumeMount


class Visit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="visit"):
    """Start a program over the working copy of a site, whether the site runs or not. As ``Exec``.

    It sees ``/site/work`` (a copy of ``release`` that it may change), ``/site/git``, ``/site/releases`` and the
    site's volumes, in a container of the site's own ids on ``base``. ``Done`` carries :class:`Visited`.
    """

    site: SiteId
    number: Number
    base: Base
    release: Digest | None
    generation: Generation
    volumes: Annotated[tuple[VolumeMount, ...], msgspec.Meta(max_length=64)]
    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=4096)]
    tty: bool = False


class LookAtWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="look-at-work"):
    """→ :class:`WorkState`: the working copy of a site."""

    site: SiteId
    number: Number


class KeepWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keep-work"):
    """→ :class:`~alveole.model.site.Release`: a release of the working copy as it is. ``Refused`` without one."""

    site: SiteId
    number: Number


class WorkKept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="work-kept"):
    """The release that :class:`KeepWork` gave is stored: what it holds need not stay in the working copy.

    Until then nothing of the copy is let go, whoever dies; said again, or about another release, it does nothing.
    """

    site: SiteId
    number: Number
    release: Digest


class DropWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-work"):
    """Forget what was changed in the working copy; the git repository stays. ``Refused`` while it is in use."""

    site: SiteId
    number: Number
    whole: bool = False
    """With the repository."""


class EndVisits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="end-visits"):
    """End every program over the working copy of a site."""

    site: SiteId


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a working copy was changed: files that were written, and names that went or came."""

    files: int = 0
    bytes: int = 0
    """Of the files that are there."""
    names: tuple[str, ...] = ()
    """The first of them."""


class Visited(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status: int
    changes: Changes = Changes()


class WorkState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``release``: what it stands on; ``published``: what was made of it last; ``fresh``: what came after that."""

    there: bool = False
    release: Digest | None = None
    published: Digest | None = None
    visitors: int = 0
    fresh: Changes = Changes()
