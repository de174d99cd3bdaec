"""Saving the platform itself: what a machine must have to be itself again, but for the sites' own content.

The archive is a tar of root's making: the database as control has copied it, and beside it files that are read here
without following a link, for control owns some of their directories.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from alveole import __version__, failpoints
from alveole.actuators.repositories import Repositories
from alveole.agent.saving import BackupMade
from alveole.backends.base import Say, quiet
from alveole.config import DEFAULT_FILE, ENVIRONMENT, Settings
from alveole.errors import Refused
from alveole.host import paths
from alveole.host.tree import CHUNK, TAR_END, padded, tar_header, write_all

#: How its backups are called among those of sites.
PLATFORM = "platform"
#: So many of them stay; each is small.
KEPT = 14
DATABASE = "control/alveole.db"
ABOUT = "platform.json"
SETTINGS = "settings.toml"
#: What is only of the moment: uploads, passports that wait, and the database, which comes as a copy.
_LEFT_OUT = frozenset({"restic-cache", "uploads", "carried"})
_NOT_THESE = ("alveole.db", "reserve", "copy-", ".")
#: Files of others are taken up to this size; nothing of ours is larger.
_FILE_BYTES = 64 << 20


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``platform.json``: what the archive is of."""

    format: int
    version: str
    domain: str


class PlatformBackup:
    def __init__(self, settings: Settings, repositories: Repositories) -> None:
        self._settings = settings
        self._repositories = repositories

    def save(self, id: str, database: int, say: Say = quiet) -> BackupMade:
        """Into the repository that is used. Raises ``Refused``, ``ProgramFailed``."""
        self._repositories.prepare()
        spool = os.open(paths.secrets(self._settings), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            self._write(spool, database, say)
            failpoints.hit("platform-spooled")
            size = os.lseek(spool, 0, os.SEEK_END)
            os.lseek(spool, 0, os.SEEK_SET)
            with open(spool, "rb", closefd=False) as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            os.lseek(spool, 0, os.SEEK_SET)
            say("storing the platform", 0.8)
            made = self._repositories.store(id, PLATFORM, spool, size, digest)
        finally:
            os.close(spool)
        for old in self._repositories.list(PLATFORM)[:-KEPT]:
            self._repositories.drop(old.snapshot, prune=False)
        return made

    def _write(self, spool: int, database: int, say: Say) -> None:
        about = msgspec.json.encode(About(1, __version__, self._settings.domain))
        _put(spool, ABOUT, about)
        say("the database", 0.1)
        size = os.fstat(database).st_size
        write_all(spool, tar_header(DATABASE.encode(), b"0", size=size, mode=0o600))
        done = 0
        while data := os.pread(database, CHUNK, done):
            write_all(spool, data)
            done += len(data)
        if done != size:
            raise Refused("the copy of the database changed while it was read")
        write_all(spool, bytes(-size % 512))
        settings = Path(os.environ.get(ENVIRONMENT) or DEFAULT_FILE)
        if settings.is_file():
            _put(spool, SETTINGS, settings.read_bytes())
        for name, file in self._files():
            content = _read(file)
            if content is not None:
                _put(spool, name, content)
        write_all(spool, TAR_END)

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Names in the archive, and what they are of; below the state directory both are the same."""
        settings = self._settings
        tops = [paths.authority(settings), paths.certificates(settings), settings.ssh_keys, paths.secrets(settings)]
        for top in (*tops, settings.database.parent):
            for directory, folders, files in os.walk(top, followlinks=False):
                folders[:] = sorted(each for each in folders if each not in _LEFT_OUT)
                for name in sorted(files):
                    if name.startswith(_NOT_THESE):
                        continue
                    path = Path(directory) / name
                    yield str(path.relative_to(settings.state)), path


def _read(path: Path) -> bytes | None:
    """A plain file's content; ``None`` for what is none, or is larger than anything of ours."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _FILE_BYTES:
            return None
        return file.read()


def _put(spool: int, name: str, content: bytes) -> None:
    write_all(spool, tar_header(name.encode(), b"0", size=len(content), mode=0o600) + padded(content))
