"""What the agent tells of bases and of images."""

from __future__ import annotations

import msgspec

from alveole.model.site import Base


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A local image as a base, with what its configuration says should run."""

    base: Base
    argv: tuple[str, ...]
    env: dict[str, str]
    ports: tuple[int, ...]
    volumes: tuple[str, ...]
    user: str


class PackageChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``before`` is empty for a package that comes, ``after`` for one that goes."""

    name: str
    before: str
    after: str
    security: bool = False


class Renewed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base: Base
    changes: tuple[PackageChange, ...]


class BaseState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent knows of a base. Times in seconds since the epoch; ``None``: never, or not known."""

    base: Base
    bytes: int
    """Its own files; not those of ``lower``."""
    files: int
    made_at: float
    lower: str = ""
    """Key of the base it is a layer over."""
    damage: str = ""
    verified_at: float | None = None
    set_aside_at: float | None = None
    """When files of it were found damaged that instances still run from."""
    updates: tuple[PackageChange, ...] | None = None
    checked_at: float | None = None
    installed: dict[str, str] = {}
    """Package to version; only for one that was asked for by its key."""
