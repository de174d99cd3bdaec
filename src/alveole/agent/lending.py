"""What control asks of the agent about what a site is lent of the machine: directories that it sees, ports."""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.model.lent import Published, Shared
from alveole.model.names import SiteId, Slot


class CheckShared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="check-shared"):
    """→ tuple of :class:`~alveole.errors.Problem`: what speaks against mounting these. Nothing stays mounted."""

    shared: Annotated[tuple[Shared, ...], msgspec.Meta(max_length=32)]


class LookAtPorts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="look-at-ports"):
    """→ ``tuple[Link, ...]``: for each port whether a program inside listens there; none while it does not run."""

    site: SiteId
    slot: Slot
    ports: Annotated[tuple[Published, ...], msgspec.Meta(min_length=1, max_length=32)]
