"""What a lost machine needs beside the backups of its sites: releases that are kept, and images.

A site's backup holds the release that is live. The others, to which people roll back, the versions of applications and
images that were imported never change: each is one archive, made once, whose name says what it is. Like a backup's its
content is packed and unpacked as the ids that it belongs to, and nothing of it is used before its digest was compared.

Several machines may use one repository, as one that rehearses how another is made again. So each has archives of its
own there, and lets go of no other's; restic stores what they have in common once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping

import msgspec

from alveole import failpoints, wholefile
from alveole.actuators.bases import Bases
from alveole.actuators.releases import Releases, room
from alveole.actuators.repositories import Repositories
from alveole.actuators.repository import Held, Repository, damaged
from alveole.agent.protocol import ArchiveFormat
from alveole.agent.saving import Content, KeptSaved, SaveKept
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import NoRoom, NotFound, Refused
from alveole.host import bases, paths
from alveole.host.bases import BaseRecord, mapped_tree
from alveole.host.sandbox import As, Sandbox, as_root, as_user
from alveole.host.tar import Stream, members
from alveole.host.tree import CHUNK, TAR_END, Rejected, padded, size_text, tar_header, write_all
from alveole.model.site import BaseKind

_RECORD = b"base.json"
_RECORD_BYTES = 4 << 20


def release_name(site: str, digest: str) -> str:
    return f"release:{site}:{paths.hex_of(digest)}"


def image_name(key: str) -> str:
    return f"image:{key}"


class Kept:
    def __init__(self, settings: Settings, sandbox: Sandbox, repositories: Repositories) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._repositories = repositories

    # --- saving -------------------------------------------------------------------------------
    def save(self, request: SaveKept, say: Say = quiet) -> KeptSaved:
        """Carry out ``SaveKept``. What cannot be read is told and does not keep the others from being saved.

        Raises what a repository says that cannot be reached or written to.
        """
        target = self._repositories.of(self._repositories.used())
        target.prepare()
        own = self._holder()
        there = target.held(own)
        wanted: dict[str, Content | str] = {release_name(each.site, each.release): each for each in request.contents}
        wanted |= {image_name(each): each for each in request.images}
        problems: list[str] = []
        stored = 0
        missing = {name: each for name, each in wanted.items() if name not in there}
        for name, each in missing.items():
            say(f"saving {name[:40]}", stored / len(missing))
            try:
                with self._spool() as spool:
                    self._write(spool, each, say)
                    failpoints.hit("kept-spooled")
                    size = os.lseek(spool, 0, os.SEEK_END)
                    digest = _digest(spool)
                    os.lseek(spool, 0, os.SEEK_SET)
                    target.hold(name, own, spool, size, digest)
            except (Refused, NotFound, NoRoom) as error:
                problems.append(f"{name}: {error}")
                continue
            stored += 1
        gone = [held for name, held in there.items() if name not in wanted]
        target.let_go(gone)
        if request.to is not None and request.to != target.name:
            problems += self._copy(target, self._repositories.of(request.to), own, wanted, say)
        return KeptSaved(stored, len(gone), tuple(problems))

    def _holder(self) -> str:
        file = paths.holder(self._settings)
        with contextlib.suppress(FileNotFoundError):
            if re.fullmatch(r"[0-9a-f]{32}", found := file.read_text()):
                return found
        made = secrets.token_hex(16)
        wholefile.write(file, made.encode())
        return made

    @staticmethod
    def _copy(source: Repository, target: Repository, own: str, wanted: Mapping[str, object], say: Say) -> list[str]:
        target.prepare()
        there = target.held(own)
        for name, held in source.held(own).items():
            if name in wanted and name not in there:
                say(f"copying {name[:40]} to {target.name}", 0.9)
                try:
                    target.hold_of(source, held)
                except Refused as error:
                    # Of two of the same kind none can be copied.
                    return [str(error)]
        target.let_go([held for name, held in there.items() if name not in wanted])
        return []

    def _write(self, spool: int, wanted: Content | str, say: Say) -> None:
        if isinstance(wanted, str):
            try:
                record = paths.base_record(self._settings, wanted).read_bytes()
            except FileNotFoundError:
                raise NotFound("its files are gone", hint="import it again") from None
            write_all(spool, tar_header(_RECORD, b"0", size=len(record), mode=0o600) + padded(record))
            with mapped_tree(self._settings, paths.base_root(self._settings, wanted)) as tree:
                self._pack(spool, tree, as_root(self._settings, bases.NUMBER), "root/", say)
        else:
            release = paths.release(self._settings, wanted.site, wanted.release)
            if not release.is_dir():
                raise NotFound("its files are gone", hint="send it again")
            tree = os.open(release, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._pack(spool, tree, as_user(self._settings, wanted.number), "release/", say)
            finally:
                os.close(tree)
        write_all(spool, TAR_END)

    def _pack(self, spool: int, tree: int, ids: As, prefix: str, say: Say) -> None:
        found = self._sandbox.run("measure", tree, ids, {"paths": ["."]})
        # A header and the padding of each member; twice, for the archive and for what the repository takes of it.
        size = int(found["bytes"]) + 1024 * int(found["files"])
        left, _files = room(self._settings, self._settings.state)
        if 2 * size > left:
            raise NoRoom(f"this needs {size_text(2 * size)}, and {size_text(left)} are left", field="disk")
        self._sandbox.run("pack", tree, ids, {"path": ".", "prefix": prefix, "bytes": size}, fds=(spool,), say=say)

    @contextlib.contextmanager
    def _spool(self) -> Iterator[int]:
        """An open file without a name: gone with this process, whatever happens."""
        fd = os.open(self._settings.state, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    # --- giving back --------------------------------------------------------------------------
    def bring_release(self, releases: Releases, held: Held, content: Content) -> None:
        """Raises ``Refused`` naming what is damaged, ``NoRoom``."""
        with self._dumped(held) as spool:
            found = releases.import_release(
                content.site,
                content.number,
                spool,
                ArchiveFormat.TAR,
                prefix="release/",
                may_be_empty=True,
                any_links=True,
            )
        if found.digest != content.release:
            raise damaged(held.snapshot, "it is not the release that it is called")

    def bring_image(self, kept: Bases, held: Held, key: str) -> None:
        """Raises ``Refused`` naming what is damaged, ``NoRoom``."""
        with self._dumped(held) as spool, kept.staging("image") as staging:
            record = _record(held, spool)
            if record.base.key != key or record.base.kind is not BaseKind.OCI or record.lower:
                raise damaged(held.snapshot, "it is not the image that it is called")
            left, _files = room(self._settings, staging)
            with mapped_tree(self._settings, staging / "root") as tree:
                ids = as_root(self._settings, bases.NUMBER)
                self._sandbox.run("restore", tree, ids, {"prefix": "root/", "room_bytes": left}, fds=(spool,))
            kept.adopt(staging, record)

    @contextlib.contextmanager
    def _dumped(self, held: Held) -> Iterator[int]:
        left, _files = room(self._settings, self._settings.state)
        if held.bytes > left:
            raise NoRoom(f"this needs {size_text(held.bytes)}, and {size_text(left)} are left", field="disk")
        with self._spool() as spool:
            with self._repositories.dump(held.snapshot) as stream, open(spool, "wb", closefd=False) as file:
                shutil.copyfileobj(stream, file, CHUNK)
            if (found := _digest(spool)) != held.digest:
                raise damaged(held.snapshot, f"its content has the digest {found[:19]}…")
            os.lseek(spool, 0, os.SEEK_SET)
            yield spool


def _digest(fd: int) -> str:
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _record(held: Held, spool: int) -> BaseRecord:
    stream = Stream(spool, "")
    try:
        first = next(members(stream), None)
        if first is None or first.name != _RECORD or not 0 < first.size <= _RECORD_BYTES:
            raise damaged(held.snapshot, "it does not begin with what is known of the image")
        return msgspec.json.decode(stream.take(first.size), type=BaseRecord)
    except (Rejected, msgspec.DecodeError) as error:
        raise damaged(held.snapshot, f"what is known of the image does not parse: {error}") from None
