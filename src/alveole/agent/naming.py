"""What control asks of the agent about BIND on this machine. No path crosses: directories are settings."""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.model.names import Domain, Port

#: It is written into a configuration between quotes.
_Secret = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{16,256}={0,2}\Z")]
_Algorithm = Annotated[str, msgspec.Meta(pattern=r"^hmac-sha(?:256|384|512)\Z")]
#: The characters of addresses; the agent reads them once more as one.
_Address = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F.:]{2,45}\Z")]


class NameKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A TSIG key."""

    name: Domain
    algorithm: _Algorithm
    secret: _Secret

    def __repr__(self) -> str:
        return f"NameKey({self.name!r})"


class NameFetcher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secondary."""

    address: _Address
    port: Port


class NameHost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name server of the zone, and its addresses when its name lies in the zone."""

    name: Domain
    addresses: Annotated[tuple[_Address, ...], msgspec.Meta(max_length=32)]


class SetUpNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="set-up-names"):
    """→ :class:`NamesServed`. BIND is the primary server of ``zone`` from now on; again, the same.

    ``Refused`` when BIND is not installed or has such a zone of its own; ``Temporary`` when it does not take it, and
    then its configuration is as before. A zone file that is there is kept.
    """

    zone: Domain
    update: NameKey
    """Who signs with it may change the zone."""
    transfer: NameKey
    """Who signs with it may fetch it."""
    hosts: Annotated[tuple[NameHost, ...], msgspec.Meta(min_length=1, max_length=16)]
    fetchers: Annotated[tuple[NameFetcher, ...], msgspec.Meta(max_length=16)]
    by_key: bool
    """Fetchers must sign."""
    ttl: Annotated[int, msgspec.Meta(ge=1, le=604_800)]
    serial: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
    """Of a zone that is new."""


class UndoNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="undo-names"):
    """→ nothing. BIND serves the zone no more; its file stays. Again: nothing."""


class NamesServed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fresh: bool
    """The zone is new; else its records are those of before."""
    started: bool
    """The server did not run."""


AboutNames = SetUpNames | UndoNames
#: For the table of the protocol.
NAMES_RESULTS: dict[type, type | None] = {SetUpNames: NamesServed, UndoNames: None}
