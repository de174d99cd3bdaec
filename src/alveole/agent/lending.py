"""What control asks of the agent about directories of the machine that a site is to see."""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.model.lent import Shared


class CheckShared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="check-shared"):
    """→ tuple of :class:`~alveole.errors.Problem`: what speaks against mounting these. Nothing stays mounted."""

    shared: Annotated[tuple[Shared, ...], msgspec.Meta(max_length=32)]
