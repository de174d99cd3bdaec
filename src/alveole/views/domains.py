"""What is shown and asked about the domains of a site."""

from __future__ import annotations

from typing import Literal

from alveole.requests import Body
from alveole.views import View


class AddDomain(Body, frozen=True, kw_only=True):
    domain: str
    """In full, such as ``www.example.org``."""


class DomainView(View, frozen=True, kw_only=True):
    """A domain of a site beside its own name. ``pending``: nobody is served under it until it is proven."""

    domain: str
    state: Literal["live", "pending"]
    record: str = ""
    """The name at which a TXT record proves it; empty for one that is live."""
    value: str = ""
    """What that record is to hold."""
    problem: str = ""
    """What came when it was looked for last."""
    asked_at: float | None = None
    next_at: float | None = None
    expires_at: float | None = None
    by: str = ""
    """Who claims it."""
    change: str | None = None
    """The change that makes it live, or takes it away."""
