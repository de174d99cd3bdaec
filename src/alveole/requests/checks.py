"""What is asked about checks; see :mod:`alveole.requests`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.requests import Body


class CheckText(Body, frozen=True, kw_only=True):
    """``text``: a scenario in YAML."""

    text: str
    fresh: bool = False
    """Refuse where there is one of that name already."""
    watch: bool = True
    """``False``: it is never run by itself, whatever its ``every`` says."""


class RunChecks(Body, frozen=True, kw_only=True):
    """``names``: of the site's scenarios; none: all. ``slot``: ask that instance instead of going through the edge."""

    names: tuple[str, ...] = ()
    text: str | None = None
    """A scenario that is run and not kept."""
    slot: Annotated[int, msgspec.Meta(ge=0, le=1)] | None = None


class RecordCheck(Body, frozen=True, kw_only=True):
    """Make a scenario of a visit that the proxy has seen, between two moments in seconds since the epoch.

    ``until``: the moment of the request. Without an ``address`` it is the visit of whoever came first.
    """

    since: float
    until: float | None = None
    address: str = ""
    agent: str = ""
    """What the browser calls itself (``User-Agent``); empty: whatever that is."""


class CheckSecret(Body, frozen=True, kw_only=True):
    value: str
