"""What control and the agent say to each other about the journal's chain (:mod:`alveole.ledger`)."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Seq = Annotated[int, msgspec.Meta(ge=1, le=2**62)]


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Number and hash of a link, and when the agent was told."""

    seq: _Seq
    hash: _Hash
    at: float = 0.0


class KeepAnchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keep-anchor"):
    """→ nothing. ``Refused`` for a link before the last one that was told, or for another hash of it."""

    seq: _Seq
    hash: _Hash


class ListAnchors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list-anchors"):
    """→ ``tuple[Anchor, ...]``, oldest first."""
