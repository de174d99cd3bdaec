"""What is asked about channels: who is told, and how."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from alveole.requests import Body


class AddChannel(Body, frozen=True, kw_only=True):
    """``kind``: mail, webhook, feed, ntfy or matrix. ``whom``: ``team:NAME``, ``site:NAME``, a person; ``None``: who
    asks."""

    name: str
    kind: str
    to: str = ""
    """Of mail the address; empty: one's own. Of a webhook the URL, of ntfy that of the topic, of Matrix
    ``https://HOST/!ROOM:SERVER``."""
    whom: str | None = None
    events: tuple[str, ...] = ()
    """Kinds of news; none: deploy, rollback, check, failed and incident."""
    token: str = ""
    """Of ntfy and Matrix: what lets us in there."""


class SetChannel(Body, frozen=True, kw_only=True):
    """Absent fields stay as they are."""

    name: str | UnsetType = UNSET
    to: str | UnsetType = UNSET
    events: tuple[str, ...] | UnsetType = UNSET
    token: str | UnsetType = UNSET
