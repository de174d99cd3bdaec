"""What is stored about a change that has to do with another machine, so that it can go on after a kill."""

from __future__ import annotations

import msgspec


class Moving(msgspec.Struct, frozen=True, omit_defaults=True):
    """``to`` and ``origin``: names of nodes; empty: this machine. Each phase is stored before its work begins.

    ``copying``: it is wanted where it was. ``switched``: where it goes. ``back``: where it was, for it did not hold.
    """

    to: str
    origin: str
    keep_seconds: float
    phase: str = "copying"
    was_running: bool = True
    stopped_at: float = 0.0
    """Since when nothing answers, where the data needed that."""
    first: str = ""
    """The archive of the first copy, which was made while it ran: what comes after it is only what has changed."""
    first_upload: str = ""
    """That copy, as the machine where it goes knows it."""


class Installing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which machine a checkout of Alvéole is brought to, and where on it."""

    host: str
    port: int
    user: str
    host_key: str
    config: str
    place: str


class Forward(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request to the API of the node ``node``, made once however often it is sent: the key is the change's id."""

    node: str
    method: str
    path: str
    body: str = ""
    """JSON; an upload of this machine that it names is sent first. Empty beside ``domains``: nothing is asked first."""
    domains: tuple[str, ...] | None = None
    """All that the site has once this is done; ``None``: they stay."""
    gone: tuple[str, ...] = ()
    """Which of its domains are taken from it, there after they are taken from it here."""
