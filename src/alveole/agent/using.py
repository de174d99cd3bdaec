"""What control asks of the agent to know whether somebody uses a site."""

from __future__ import annotations

import msgspec

from alveole.model.names import Number, Port, SiteId, Slot


class Used(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One live instance whose visitors are looked for."""

    site: SiteId
    number: Number
    slot: Slot
    port: Port | None = None
    """``None``: its Unix socket."""


class Using(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="using"):
    """→ ``dict[SiteId, Use]``, of each that is asked for."""

    instances: tuple[Used, ...]


class Use(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    people: float
    """When a person asked for it last (seconds since the epoch); before the agent began is told as that moment."""
    anybody: float
    """When anybody did, crawlers and monitoring too."""
    connections: int
    """Open from the edge at this moment: requests that are not answered yet, WebSockets, a few seconds' keep-alive."""
