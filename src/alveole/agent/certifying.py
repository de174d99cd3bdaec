"""What control and the agent say to each other about certificates that others than our authority have issued.

A key never comes to control: the agent makes it, keeps it until its certificate is there, and says what is to be
signed. Only the key of a certificate that somebody uploads passes through, and is forgotten there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from alveole.model.names import AnyDomain

Names = Annotated[tuple[AnyDomain, ...], msgspec.Meta(min_length=1, max_length=100)]
OrderId = Annotated[str, msgspec.Meta(pattern=r"^o[a-z2-7]{12}\Z")]
#: PEM text. A chain of ten large certificates is not a quarter of it.
Pem = Annotated[str, msgspec.Meta(max_length=128 * 1024)]
#: RFC 8555 §8.1: base64url, and for the answer the thumbprint of the account's key behind a dot.
Token = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{16,128}\Z")]
_Thumbprint = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]


class CertificateSource(StrEnum):
    INTERNAL = "internal"
    """By the authority of this platform."""
    ACME = "acme"
    OWN = "own"
    """Uploaded by somebody."""


class CertificateState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the edge shows for one name. Times in seconds since the epoch."""

    name: str
    scope: str
    """``platform``, or the id of the site whose name it is."""
    source: CertificateSource
    file: str
    """The same for names that have the same certificate."""
    by: str = ""
    """Which authority, as it is called in the settings; of an uploaded one who has issued it."""
    names: tuple[str, ...] = ()
    """All that it is valid for, where it is not our authority's."""
    issued_at: float = 0.0
    expires_at: float = 0.0
    problem: str = ""


class ListCertificates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list-certificates"):
    """→ ``tuple[CertificateState, ...]``: one for each name that the edge has a certificate for."""


class ShowCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="show-certificate"):
    """→ the chain that is shown for a name (PEM, without the key). ``NotFound``."""

    name: AnyDomain


class RequestCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="request-certificate"):
    """→ a certificate signing request (PEM) of the order's own key, which is made the first time."""

    order: OrderId
    names: Names


class InstallCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="install-certificate"):
    """Show this certificate for ``names`` from the next handshake on. → the file's name (``str``).

    Either ``order``, whose key is kept here, or ``key``. ``InvalidInput`` unless key, names and dates fit. Installing
    the same again is a no-op, also when the order's key is gone for having been installed.
    """

    names: Names
    source: CertificateSource
    by: str
    chain: Pem
    order: OrderId | None = None
    key: Pem | None = None


class DropCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-certificate"):
    """Show these names what there is besides: the wildcard's certificate, or our authority's."""

    names: Names


class DropOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-order"):
    """Forget the key of an order that comes to nothing."""

    order: OrderId


class KeepChallenge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keep-challenge"):
    """Answer an authority over HTTP, for every name: ``.well-known/acme-challenge/TOKEN`` is ``TOKEN.THUMBPRINT``."""

    token: Token
    thumbprint: _Thumbprint


class DropChallenge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drop-challenge"):
    token: Token


Certifying = (
    ListCertificates
    | ShowCertificate
    | RequestCertificate
    | InstallCertificate
    | DropCertificate
    | DropOrder
    | KeepChallenge
    | DropChallenge
)
#: What comes back for each.
CERTIFYING: dict[type, Any] = {
    ListCertificates: tuple[CertificateState, ...],
    ShowCertificate: str,
    RequestCertificate: str,
    InstallCertificate: str,
    DropCertificate: None,
    DropOrder: None,
    KeepChallenge: None,
    DropChallenge: None,
}
