"""The documents about people, of the same kind as those of :mod:`alveole.views`."""

from __future__ import annotations

from alveole.agent.protocol import Link
from alveole.views import View


class PersonView(View, frozen=True, kw_only=True):
    id: str
    name: str
    role: str
    title: str
    email: str
    source: str
    """``local``, ``ldap`` or ``oidc``: who says whether they may come in."""
    active: bool
    teams: tuple[str, ...]
    """Names."""
    factors: tuple[str, ...] = ()
    """Kinds of second factors they have: ``totp``, ``passkey``, ``recovery``."""
    sites: int = 0
    """How many are their own."""
    created_at: float
    seen_at: float | None
    token: str | None = None
    """Only in the answer to the creation without a password: with it the person chooses one."""


class TeamView(View, frozen=True, kw_only=True):
    id: str
    name: str
    title: str
    members: tuple[str, ...]
    """Names of persons."""
    sites: int
    created_at: float


class ShareView(View, frozen=True, kw_only=True):
    whom: str
    """A person's name, or ``team:NAME``."""
    level: str


class SharingView(View, frozen=True, kw_only=True):
    site: str
    owner: str
    shares: tuple[ShareView, ...]


class SessionView(View, frozen=True, kw_only=True):
    id: str
    person: str
    created_at: float
    seen_at: float
    expires_at: float
    address: str
    agent: str
    method: str
    entering: bool
    """The second factor is still to be given."""
    current: bool = False
    """It is the one that asks."""


class SignedIn(View, frozen=True, kw_only=True):
    """Signed in. The session itself is in the cookie, and in no answer."""

    person: PersonView
    session: SessionView
    csrf: str
    """Send it as ``X-CSRF-Token`` with every request that changes something."""
    needs: str = ""
    """``second-factor``: give it; ``enrol``: one must be set up first; empty: nothing more."""


class WhoView(View, frozen=True, kw_only=True):
    """Who asks, as the rights see it."""

    name: str
    role: str
    via: str
    person: PersonView | None
    csrf: str = ""
    needs: str = ""


class InvitationView(View, frozen=True, kw_only=True):
    token: str
    """Shown this once; good for one use."""
    expires_at: float
    person: str = ""
    """Whose password it sets; empty: it makes the first administrator."""


class QuotaView(View, frozen=True, kw_only=True):
    """What somebody may have and what their sites' plans promise so far; a limit of ``null`` is none."""

    whom: str
    sites: int | None
    memory_bytes: int | None
    disk_bytes: int | None
    used_sites: int
    used_memory_bytes: int
    used_disk_bytes: int
    default: bool
    """They have none of their own: it is that of everybody."""


class FactorView(View, frozen=True, kw_only=True):
    id: str
    kind: str
    """``totp``, ``passkey`` or ``recovery`` (one code)."""
    name: str
    created_at: float
    used_at: float | None


class TotpView(View, frozen=True, kw_only=True):
    """For the authenticator; confirm it with a code."""

    secret: str
    uri: str
    """To be shown as a QR code."""


class FactorAdded(View, frozen=True, kw_only=True):
    factor: FactorView
    recovery_codes: tuple[str, ...]
    """Shown this once, with the first factor; each is good once."""
    csrf: str = ""
    """Of the session that goes on, when this let it in."""


class TrialView(View, frozen=True, kw_only=True):
    """What signing somebody in would come to."""

    ok: bool
    links: tuple[Link, ...]
    name: str
    title: str
    email: str
    groups: tuple[str, ...]
    role: str
    """Empty: no group of theirs lets them in."""
    teams: tuple[str, ...]
