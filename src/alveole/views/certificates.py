"""What is shown and asked about certificates and the authorities that issue them."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from alveole.requests import Body
from alveole.views import View


class UploadCertificate(Body, frozen=True, kw_only=True):
    """PEM texts. The key is shown to nobody again."""

    chain: str
    """The certificate, then those that lead to its authority."""
    key: str

    def __repr__(self) -> str:
        return "UploadCertificate(…)"


class IssueCertificate(Body, frozen=True, kw_only=True):
    renew: bool = False
    """Also when there is one that need not be renewed yet."""


class SetAcme(Body, frozen=True, kw_only=True):
    automatic: bool | UnsetType = UNSET
    """Whether every name that can have a certificate gets one, or only those that somebody asks for."""
    look: bool | UnsetType = UNSET
    """Whether a name is asked for over HTTP before an authority is."""
    order: tuple[str, ...] | UnsetType = UNSET
    """The names of all authorities, in the order in which they are asked."""
    budgets: dict[str, dict[str, Any]] | UnsetType = UNSET
    """By authority, limits of its budget: ``domain_week``, ``same_week``, ``failures_hour``. What is left out stays."""


class AddAuthority(Body, frozen=True, kw_only=True):
    """``settings``: those of an authority, by name. Its terms of service must be agreed to."""

    settings: dict[str, Any]
    agree: bool = False
    """The terms of service of the authority are agreed to."""
    first: bool = False
    """It is asked before the others."""


class CertificateView(View, frozen=True, kw_only=True):
    """What visitors of one name are shown."""

    name: str
    site: str = ""
    """Whose name it is; empty: the platform's."""
    source: str
    """``internal`` (our own authority), ``acme``, or ``own`` (uploaded)."""
    by: str = ""
    """The authority."""
    names: tuple[str, ...] = ()
    """All that the certificate is for."""
    issued_at: float = 0.0
    expires_at: float = 0.0
    days: int = 0
    """Left."""
    problem: str = ""
    renew_at: float | None = None
    """When the next one is asked for; null: nothing is asked for."""
    next_at: float | None = None
    """When that is looked at again."""
    attempts: int = 0
    """How often in a row it came to nothing."""
    hindrance: str = ""
    """What came of the last attempt at getting one."""
    chain: str = ""
    """PEM, when one certificate is shown."""


class CertificateTaken(View, frozen=True, kw_only=True):
    """An uploaded certificate that is shown from now on."""

    names: tuple[str, ...]
    """To whose visitors."""
    notes: tuple[str, ...] = ()
    expires_at: float


class BudgetView(View, frozen=True, kw_only=True):
    """``domain``: a registered domain, of which so many certificates were issued this week."""

    domain: str
    issued: int
    most: int
    """0: no limit."""
    failed: int = 0
    """Validations of names below it that failed within the hour."""


class AuthorityView(View, frozen=True, kw_only=True):
    name: str
    directory: str
    email: str
    private: bool
    port: int
    challenge: str
    eab_kid: str
    eab_key: str
    """``***`` when there is one."""
    certificates: str
    account: str
    """Its address there; empty: not asked yet."""
    budget: dict[str, int]
    spent: tuple[BudgetView, ...]


class ZoneView(View, frozen=True, kw_only=True):
    zone: str
    server: str
    port: int
    key: str
    algorithm: str
    secret: str
    """``***`` when there is one."""
    wait_seconds: float
    published: bool
    """Names of sites are published in it (``/v1/dns``): it is there for as long, and cannot be removed by itself."""


class AcmeView(View, frozen=True, kw_only=True):
    automatic: bool
    look: bool
    authorities: tuple[AuthorityView, ...]
    zones: tuple[ZoneView, ...]


class AcmeTried(View, frozen=True, kw_only=True):
    ok: bool
    said: str
