"""Parts that several of :mod:`alveole.requests` hold: what runs, what lasts, and what of the machine is lent."""

from __future__ import annotations

import msgspec


class ProcessBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    argv: tuple[str, ...]


class VolumeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    path: str


class PublishBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A port of the machine, ``host``, that leads to the ``port`` of a program inside."""

    host: int
    port: int
    protocol: str = "tcp"
    """``tcp`` or ``udp``."""


class ShareBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A directory of the machine, ``source``, seen inside at ``path``."""

    source: str
    path: str
    writable: bool = False
    """The site's program writes there as the directory's owner."""
