"""What is remembered of a site's configuration files, out of the container's reach."""

from __future__ import annotations

from pathlib import Path

import msgspec

from alveole.config import Settings
from alveole.host import instances, paths

#: By process the files that it reads when it starts, each with the digest of its text.
Readers = dict[str, dict[str, str]]


class FileRecord(msgspec.Struct, frozen=True):
    """A file as it was written last."""

    sha256: str
    uid: int
    mode: int
    restarts: tuple[str, ...]
    mark: tuple[int, ...]
    """See :func:`alveole.host.configfiles.mark`; while it is the same, nobody has touched the file."""


class Stamp(msgspec.Struct, frozen=True):
    """``S/sites/<id>/config/stamp.json``."""

    digest: str
    number: int
    files: dict[str, FileRecord] = {}
    changed: bool = False
    """Whether what runs has yet to take the files over."""
    forced: tuple[str, ...] = ()
    """Processes to be started anew then although their files say no more than when they started."""
    writing: dict[str, str] = {}
    """Digests of what was being written when this was noted: found later, they are nobody's hand."""

    def knows(self, path: str, sha256: str) -> bool:
        """Whether content of ``path`` was written by us."""
        return sha256 == self.writing.get(path) or (path in self.files and sha256 == self.files[path].sha256)

    def readers(self) -> Readers:
        """What processes that start now read. A file that may be half-way between two texts has no digest."""
        found: Readers = {}
        for path, record in self.files.items():
            for name in record.restarts:
                found.setdefault(name, {})[path] = "" if path in self.writing else record.sha256
        return found


stamps: msgspec.json.Decoder[Stamp] = msgspec.json.Decoder(Stamp)
_readers: msgspec.json.Decoder[Readers] = msgspec.json.Decoder(Readers)


def path(settings: Settings, site: str) -> Path:
    return paths.config(settings, site) / "stamp.json"


def readers_now(settings: Settings, site: str) -> Readers:
    """What processes of the site that start now read; nothing where there is no usable record."""
    try:
        return stamps.decode(path(settings, site).read_bytes()).readers()
    except (OSError, msgspec.DecodeError):
        return {}


def read_by(settings: Settings, site: str, slot: int) -> Readers:
    """What the processes of an instance have read."""
    try:
        return _readers.decode((paths.instance(settings, site, slot) / "readers.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}


def note_read_by(settings: Settings, site: str, slot: int, readers: Readers) -> None:
    instances.write(paths.instance(settings, site, slot) / "readers.json", msgspec.json.encode(readers))
