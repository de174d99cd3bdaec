"""What control asks of the agent to speak to an instance that is not live yet, or not any more."""

from __future__ import annotations

import msgspec

from alveole.model.names import Number, Port, SiteId, Slot


class Reach(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="reach"):
    """→ nothing. With one open socket beside it: bytes go between it and where the instance answers the edge."""

    site: SiteId
    number: Number
    slot: Slot
    port: Port | None = None
    """``None``: its Unix socket."""
