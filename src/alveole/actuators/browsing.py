"""Looking into a backup, taking it or a file of it out, putting one file back.

An archive is one stream: it is read from its beginning, and what is not wanted is passed over. Names in it are a site's
own and are only ever data here; nothing of it is written to a disk but by a confined child under the site's ids.
"""

from __future__ import annotations

import hashlib
import os
import shutil

from alveole import failpoints
from alveole.actuators.backups import Backups
from alveole.actuators.repository import damaged
from alveole.agent.saving import ArchiveEntry, BrowseBackup, FetchBackup, RestoreFile
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import InvalidInput, NotFound
from alveole.host import disk, paths
from alveole.host.sandbox import Sandbox, as_root
from alveole.host.tar import Stream, members
from alveole.host.tree import CHUNK, Rejected, write_all

#: Names of one directory that are given; more are not looked at one by one by anybody.
MOST = 5000
_MANIFEST = b"manifest.json"


class _Hashed(Stream):
    """A stream that knows the digest of all that was read of it."""

    def __init__(self, fd: int) -> None:
        self.digest = hashlib.sha256()
        super().__init__(fd, "")

    def _read(self, limit: int = CHUNK) -> bytes:
        data = super()._read(limit)
        self.digest.update(data)
        return data


class Browser:
    def __init__(self, settings: Settings, sandbox: Sandbox, backups: Backups) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._backups = backups

    def browse(self, request: BrowseBackup) -> tuple[ArchiveEntry, ...]:
        """What lies directly in a directory of the archive, by name. Raises ``NotFound``."""
        known = self._backups.repository.known(request.snapshot)
        top = request.path.strip("/")
        prefix = f"{top}/".encode() if top else b""
        found: dict[str, ArchiveEntry] = {}
        there = not top
        with self._backups.repository.dump(known.snapshot) as raw:
            stream = Stream(raw.fileno(), "")
            try:
                for member in members(stream):
                    if member.kind == "f":
                        stream.skip(member.size, member.shown)
                    name = member.name.rstrip(b"/")
                    there = there or name == top.encode()
                    if not name.startswith(prefix) or name == _MANIFEST or len(found) >= MOST:
                        continue
                    there = True
                    first, _slash, more = name[len(prefix) :].partition(b"/")
                    text = first.decode("utf-8", "backslashreplace")
                    if more:
                        found.setdefault(text, ArchiveEntry(text, "d"))
                    elif text:
                        link = member.link.decode("utf-8", "backslashreplace") if member.kind == "l" else ""
                        kind = "f" if member.kind == "h" else member.kind
                        found[text] = ArchiveEntry(text, kind, member.size, member.mode, member.mtime, link)
            except Rejected as error:
                raise damaged(request.snapshot, str(error)) from None
        if not there:
            raise NotFound(f"there is no {request.path[:200]!r} in the backup", field="path")
        return tuple(found[name] for name in sorted(found))

    def fetch(self, request: FetchBackup, file: int, say: Say = quiet) -> int:
        """The archive, or one file of it, into ``file``; nothing is left in it when the digest is another."""
        known = self._backups.repository.known(request.snapshot)
        wanted = request.member.strip("/").encode()
        size = -1
        with self._backups.repository.dump(known.snapshot) as raw:
            stream = _Hashed(raw.fileno())
            if not wanted:
                size = known.bytes
                for part in iter(lambda: stream._read(), b""):
                    write_all(file, part)
                    say("reading the backup", min(1.0, stream.consumed / max(1, known.bytes)))
            else:
                try:
                    for member in members(stream):
                        if member.kind == "f" and member.name == wanted:
                            size = member.size
                            for part in stream.parts(member.size, member.shown):
                                write_all(file, part)
                        elif member.kind == "f":
                            stream.skip(member.size, member.shown)
                        say("reading the backup", min(1.0, stream.consumed / max(1, known.bytes)))
                except Rejected as error:
                    raise damaged(request.snapshot, str(error)) from None
        found = f"sha256:{stream.digest.hexdigest()}"
        if found != request.digest:
            os.ftruncate(file, 0)
            raise damaged(request.snapshot, f"its content has the digest {found[:19]}…, not {request.digest[:19]}…")
        if size < 0:
            raise NotFound(f"there is no file {request.member[:200]!r} in the backup", field="path")
        return size

    def put_back(self, request: RestoreFile, say: Say = quiet) -> int:
        """One file, or a directory with all in it, of a volume. Raises ``InvalidInput``, ``NotFound``, ``NoRoom``."""
        parts = request.member.strip("/").split("/")
        if len(parts) < 3 or parts[0] != "volumes" or {"", ".", ".."} & set(parts):
            raise InvalidInput(
                "is no file of a volume", field="path", hint="as in volumes/NAME/…; content comes by a new release"
            )
        known = self._backups.repository.known(request.snapshot)
        where = paths.staging(self._settings, request.site)
        spool = os.open(where, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            say("reading the whole backup", 0.1)
            with self._backups.repository.dump(known.snapshot) as raw, open(spool, "wb", closefd=False) as out:
                shutil.copyfileobj(raw, out, CHUNK)
            os.lseek(spool, 0, os.SEEK_SET)
            with open(spool, "rb", closefd=False) as whole:
                digest = f"sha256:{hashlib.file_digest(whole, 'sha256').hexdigest()}"
            if digest != request.digest:
                raise damaged(request.snapshot, f"its content has the digest {digest[:19]}…")
            failpoints.hit("restore-file-read")
            with disk.borrowed(self._settings, request.site) as data:
                volume = paths.volumes(data, request.generation) / parts[1]
                if not volume.is_dir() or volume.is_symlink():
                    raise NotFound(f"the site has no volume {parts[1]!r}", field="path")
                done = self._sandbox.run(
                    "put-one",
                    volume,
                    as_root(self._settings, request.number),
                    {"prefix": f"volumes/{parts[1]}/", "path": "/".join(parts[2:])},
                    fds=(spool,),
                    say=say,
                )
            return int(done["files"])
        finally:
            os.close(spool)
