"""Backups: content and volumes of a site in one archive, kept by restic.

The archive is a tar: ``manifest.json`` first, then ``release/…``, ``volumes/NAME/…`` and, of a
working copy, ``work/tree/…`` and ``work/git/…``. It is written whole into a file without a name,
so that a running site is frozen only while its volumes are copied, and so that its digest is known
before restic sees it. Nothing of a backup is used before all of it was read and its digest
compared; what its manifest claims is data, never a right.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from alveole import failpoints, wholefile
from alveole.actuators.carried import Carried
from alveole.actuators.releases import Releases, room
from alveole.actuators.repositories import Repositories
from alveole.actuators.repository import damaged
from alveole.agent.protocol import (
    ArchiveFormat,
    BackupMade,
    CreateBackup,
    LookAtData,
    Packed,
    PackSite,
    RestoreBackup,
    UnpackSite,
    VolumeState,
)
from alveole.agent.saving import LOCAL, TakeBackup
from alveole.backends.base import Say, WorkCopies, WorkCopy, quiet
from alveole.config import Settings
from alveole.errors import NoRoom, NotFound, Refused
from alveole.host import disk, paths
from alveole.host.paths import STATE_VOLUME
from alveole.host.run import ProgramFailed
from alveole.host.sandbox import As, Sandbox, as_root, as_user
from alveole.host.tar import Stream, members
from alveole.host.tree import CHUNK, TAR_END, Rejected, padded, size_text, tar_header, write_all
from alveole.model.names import BackupId, Digest
from alveole.model.resource import WorkloadSpec
from alveole.model.site import Kept, Release

log = logging.getLogger("alveole.agent")
#: Holds the processes of an instance still; they go on when the block ends.
Freezer = Callable[[str, int], AbstractContextManager[None]]
#: Lets what runs of a site leave copies that make sense, and gives what that is; nothing of it starts or
#: stops until the block ends.
Saver = Callable[[str, Say], AbstractContextManager[tuple[WorkloadSpec, ...]]]

_MANIFEST = b"manifest.json"
_MANIFEST_BYTES = 4 * 1024 * 1024


class SavedWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What of a working copy is in a backup. ``fresh``: the whole tree, since something in it was not published."""

    release: Digest | None = None
    published: Digest | None = None
    fresh: bool = False


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``manifest.json`` of a backup. ``site`` is control's own text about the site, passed through."""

    format: int
    id: BackupId
    release: Digest | None
    volumes: tuple[str, ...]
    site: str
    left_out: tuple[str, ...] = ()
    """Volumes that make no sense while they are written to, and were: the restore tasks make them anew."""
    work: SavedWork | None = None


@contextlib.contextmanager
def _no_saver(_site: str, _say: Say) -> Iterator[tuple[WorkloadSpec, ...]]:
    yield ()


@contextlib.contextmanager
def _no_freezer(_site: str, _slot: int) -> Iterator[None]:
    yield


class Backups:
    """Creates, reads, restores, lists and drops backups."""

    def __init__(
        self,
        settings: Settings,
        sandbox: Sandbox,
        releases: Releases,
        freezer: Freezer = _no_freezer,
        saver: Saver = _no_saver,
        work: WorkCopies | None = None,
    ) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._releases = releases
        self._freezer = freezer
        self._saver = saver
        self._work = work
        self.repository = Repositories(settings)

    def recover(self) -> None:
        """Remove what a death in the middle of a restore left in the writable parts. Once, at the agent's start."""
        for site in sorted(paths.sites(self._settings).glob("s*")):
            self._clear_leftovers(paths.volumes(site / "data", 0).parent)

    def list(self) -> tuple[BackupMade, ...]:
        """What the repository holds of ours, oldest first."""
        return self.repository.list()

    def drop(self, snapshot: str, *, prune: bool = True) -> None:
        """Forget a backup and give its room back; an absent one is fine."""
        self.repository.drop(snapshot, prune=prune)

    # Making

    def create(self, request: CreateBackup, say: Say = quiet) -> BackupMade:
        """Save content and volumes of a site, which may run. Raises ``NoRoom`` before anything is written.

        What runs is asked first to leave copies that make sense (its backup tasks); volumes that are
        only to be taken cold are left out then, and the archive says so.
        """
        self.repository.prepare()
        self._releases.prepare_site(request.site)
        with self._spool(request.site) as spool:
            self._write(request, spool, say, copies=2 if self.repository.is_local else 1)
            failpoints.hit("backup-spooled")
            return self._store(request.id, request.site, spool, say)

    def pack(self, request: PackSite, file: int, say: Say = quiet) -> Packed:
        """The archive of :meth:`create` into the empty ``file``, for another machine. Raises as that."""
        self._releases.prepare_site(request.site)
        wanted = CreateBackup(**{name: getattr(request, name) for name in CreateBackup.__struct_fields__})
        carried = Carried(self._settings, request.site)
        if request.since is not None:
            with carried.opened(request.since) as listing:
                self._write(wanted, file, say, copies=1, listing=("read", listing))
        elif request.first:
            with self._spool(request.site) as listing:
                self._write(wanted, file, say, copies=1, listing=("write", listing))
                carried.keep(_digest(file), listing)
        else:
            self._write(wanted, file, say, copies=1)
        return Packed(os.lseek(file, 0, os.SEEK_END), _digest(file))

    def take(self, request: TakeBackup, file: int, say: Say = quiet) -> str:
        """An archive of another machine into a repository of this one. Raises ``Refused`` for a damaged one."""
        target = self.repository.of(request.to)
        target.prepare()
        for made in target.list(request.site):
            if made.id == request.id and made.digest == request.digest:
                return made.snapshot
        self._compare(request.id, _digest(file), request.digest)
        _manifest(request.id, file)
        size = os.lseek(file, 0, os.SEEK_END)
        if request.to == LOCAL and not self._settings.backups.repository:
            self._need(size, self._settings.state)
        os.lseek(file, 0, os.SEEK_SET)
        say(f"storing {size_text(size)}", 0.8)
        return target.store(request.id, request.site, file, size, request.digest).snapshot

    def _write(
        self, request: CreateBackup, spool: int, say: Say, *, copies: int, listing: tuple[str, int] | None = None
    ) -> None:
        """Content and volumes into ``spool``; room for as many ``copies`` of them is asked for first.

        ``listing``: of the volumes, to be written or read, and its file.
        """
        first = listing is not None and listing[0] == "write"
        with contextlib.ExitStack() as stack:
            running = () if first else stack.enter_context(self._saver(request.site, say))
            try:
                data = stack.enter_context(disk.borrowed(self._settings, request.site))
                volumes: Path | None = paths.volumes(data, request.generation)
            except FileNotFoundError:
                volumes = None
            found = sorted(path.name for path in volumes.iterdir()) if volumes is not None and volumes.is_dir() else []
            never, cold = _left_out(request, running)
            names = [name for name in found if name not in never | cold]
            works = self._work if request.work else None
            copy = stack.enter_context(works.saving(request.site, request.number)) if works is not None else None
            changed = listing is not None and not first
            # Of what has changed nobody knows the size before it is looked through, and people wait.
            expected = 0 if changed else self._measure(request, volumes, names, copies, copy)
            left_out = tuple(sorted(cold.intersection(found)))
            work = SavedWork(copy.release, copy.published, copy.fresh) if copy is not None else None
            manifest = Manifest(1, request.id, request.release, tuple(names), request.manifest, left_out, work)
            text = msgspec.json.encode(manifest)
            if len(text) > _MANIFEST_BYTES:
                raise Refused("the description of the site is larger than 4 MiB")
            write_all(spool, tar_header(_MANIFEST, b"0", size=len(text)) + padded(text))
            if request.release is not None and not changed:
                release = paths.release(self._settings, request.site, request.release)
                self._pack(release, as_user(self._settings, request.number), "release/", spool, expected, say)
            if volumes is not None and names:
                with contextlib.nullcontext() if first else self._freezer(request.site, request.slot):
                    for name in names:
                        ids = as_root(self._settings, request.number)
                        self._pack(volumes, ids, f"volumes/{name}/", spool, expected, say, path=name, listing=listing)
            if works is not None and copy is not None:
                with works.still(request.site):
                    self._pack_work(request, copy, spool, expected, say)
            if running and STATE_VOLUME in names:
                # The instance that starts over the restored data finds it: see data/init/init.
                mark = f"volumes/{STATE_VOLUME}/hot.{request.id}".encode()
                write_all(spool, tar_header(mark, b"0", mode=0o644))
        # Unmounted, where it was mounted for this, before the slow part.
        write_all(spool, TAR_END)

    def _pack_work(self, request: CreateBackup, copy: WorkCopy, spool: int, expected: int, say: Say) -> None:
        ids = as_root(self._settings, request.number)
        if copy.fresh:
            # Whole, as people see it: what of it is the release's own restic stores but once.
            self._pack(copy.tree, ids, "work/tree/", spool, expected, say)
        self._pack(copy.git, ids, "work/git/", spool, expected, say)

    def _measure(
        self, request: CreateBackup, volumes: Path | None, names: Sequence[str], copies: int, copy: WorkCopy | None
    ) -> int:
        expected = 0
        found: list[tuple[Path, As, Sequence[str]]] = []
        if request.release is not None:
            release = paths.release(self._settings, request.site, request.release)
            if not release.is_dir():
                raise NotFound(f"release {request.release[:19]}… is missing", hint="deliver it again")
            found.append((release, as_user(self._settings, request.number), ["."]))
        if volumes is not None and names:
            found.append((volumes, as_root(self._settings, request.number), names))
        if copy is not None:
            trees = (copy.tree, copy.git) if copy.fresh else (copy.git,)
            found.extend((path, as_root(self._settings, request.number), ["."]) for path in trees)
        for path, ids, inside in found:
            size = self._sandbox.run("measure", path, ids, {"paths": [*inside]})
            # A header and the padding of each member.
            expected += int(size["bytes"]) + 1024 * int(size["files"])
        self._need(expected * copies, paths.site(self._settings, request.site))
        return expected

    def _need(self, size: int, where: Path) -> None:
        left, _ = room(self._settings, where)
        if size > left:
            raise NoRoom(
                f"this needs {size_text(size)}, and {size_text(left)} are left",
                field="disk",
                hint="delete old backups or releases, or enlarge the disk",
            )

    def _pack(
        self,
        world: Path,
        ids: As,
        prefix: str,
        spool: int,
        expected: int,
        say: Say,
        *,
        path: str = ".",
        listing: tuple[str, int] | None = None,
    ) -> None:
        args = {"path": path, "prefix": prefix, "bytes": expected}
        if listing is None:
            self._sandbox.run("pack", world, ids, args, fds=(spool,), say=say)
        else:
            args |= {"listing": listing[0], "kept": f"kept/{path}"}
            self._sandbox.run("pack", world, ids, args, fds=(spool, listing[1]), say=say)

    @contextlib.contextmanager
    def _spool(self, site: str) -> Iterator[int]:
        """An open file without a name beside the site's data: gone with this process, whatever happens."""
        fd = os.open(paths.staging(self._settings, site), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def _store(self, id: str, site: str, spool: int, say: Say) -> BackupMade:
        size = os.lseek(spool, 0, os.SEEK_END)
        digest = _digest(spool)
        os.lseek(spool, 0, os.SEEK_SET)
        say(f"storing {size_text(size)}", 0.8)
        return self.repository.store(id, site, spool, size, digest)

    # Reading

    def look(self, request: LookAtData) -> tuple[VolumeState, ...]:
        """What each volume holds, by name; none for a site without data."""
        try:
            with disk.borrowed(self._settings, request.site) as data:
                volumes = paths.volumes(data, request.generation)
                names = sorted(path.name for path in volumes.iterdir()) if volumes.is_dir() else []
                ids = as_root(self._settings, request.number)
                found = [self._sandbox.run("measure", volumes, ids, {"paths": [name]}) for name in names]
        except FileNotFoundError:
            return ()
        return tuple(
            VolumeState(name, int(each["bytes"]), int(each["files"]), float(each["newest"]))
            for name, each in zip(names, found, strict=True)
            if name != STATE_VOLUME
        )

    def read_manifest(self, snapshot: str, digest: str, say: Say = quiet) -> str:
        """Read a whole backup, compare its digest, and give control's own text about the site.

        Raises ``NotFound``, or ``Refused`` naming the backup and what is wrong with it.
        """
        return self.verify(snapshot, digest, say).site

    def verify(self, snapshot: str, digest: str, say: Say = quiet) -> Manifest:
        """As :meth:`read_manifest`, giving the whole manifest."""
        known = self.repository.known(snapshot)
        head = io.BytesIO()
        total = hashlib.sha256()
        done = 0
        with self.repository.dump(known.snapshot) as stream:
            while data := stream.read(CHUNK):
                total.update(data)
                if head.tell() < _MANIFEST_BYTES + 4096:
                    head.write(data)
                done += len(data)
                say(f"reading the backup, {size_text(done)}", min(1.0, done / max(1, known.bytes)))
        self._compare(snapshot, f"sha256:{total.hexdigest()}", digest)
        with os.fdopen(os.memfd_create("manifest", os.MFD_CLOEXEC), "w+b") as file:
            file.write(head.getvalue())
            file.flush()
            return _manifest(snapshot, file.fileno())

    @staticmethod
    def _compare(snapshot: str, found: str, wanted: str) -> None:
        if found != wanted:
            raise damaged(snapshot, f"its content has the digest {found[:19]}… instead of {wanted[:19]}…")

    def restore(self, request: RestoreBackup, say: Say = quiet) -> Release | None:
        """Unpack a backup's content and volumes for a site, as a new data generation beside the live one.

        Everything was read and compared before the first file is made. Ids, sizes and names of the
        site come from ``request`` alone. A generation of that number that a restore left half-way
        is replaced. Raises ``Refused`` naming a damaged backup, ``NotFound``, ``NoRoom``.
        """
        known = self.repository.known(request.snapshot)
        self._releases.prepare_site(request.site)
        self._need(2 * known.bytes, paths.site(self._settings, request.site))
        with self._spool(request.site) as spool:
            say(f"reading the backup, {size_text(known.bytes)}", 0.1)
            with self.repository.dump(known.snapshot) as stream, open(spool, "wb", closefd=False) as file:
                shutil.copyfileobj(stream, file, CHUNK)
            return self._unpack(request.snapshot, request, spool, say, work=request.work)

    def unpack(self, request: UnpackSite, file: int, say: Say = quiet) -> Release | None:
        """As :meth:`restore`, from an archive that came from another machine."""
        self._releases.prepare_site(request.site)
        self._need(os.fstat(file).st_size, paths.site(self._settings, request.site))
        carried = Carried(self._settings, request.site)
        if request.onto is not None:
            carried.check(request.onto, request.generation)
            return self._unpack("carried", request, file, say, work=True)
        release = self._unpack("carried", request, file, say, work=True)
        carried.note(request.digest, request.generation)
        return release

    def _unpack(
        self, name: str, request: RestoreBackup | UnpackSite, spool: int, say: Say, *, work: bool
    ) -> Release | None:
        self._compare(name, _digest(spool), request.digest)
        manifest = _manifest(name, spool)
        failpoints.hit("restore-read")
        saved = manifest.work if work and self._work is not None else None
        if saved is not None and saved.fresh and self._work is not None:
            # Before anything is written: see the protocol.
            self._work.check_replaceable(request.site, request.number)
        release = None
        onto = isinstance(request, UnpackSite) and request.onto is not None
        if manifest.release is not None and not onto:
            say("unpacking the content", 0.5)
            release = self._releases.import_release(
                request.site,
                request.number,
                spool,
                ArchiveFormat.TAR,
                say,
                prefix="release/",
                may_be_empty=True,
                any_links=True,
            )
            if release.digest != manifest.release:
                raise damaged(name, "its content is not the release that it says it holds")
        if onto:
            say("bringing the volumes up to date", 0.7)
            self._bring_volumes(request, spool, say)
        elif manifest.volumes:
            say("unpacking the volumes", 0.7)
            self._restore_volumes(request, spool, say)
        if saved is not None:
            self._restore_work(request, saved, manifest.release, spool, say)
        return release

    def _restore_work(
        self, request: RestoreBackup | UnpackSite, work: SavedWork, release: Digest | None, spool: int, say: Say
    ) -> None:
        """The working copy over the release that comes back, where it stood on that or was published as that."""
        if self._work is None:
            return
        ids = as_root(self._settings, request.number)
        if work.fresh:
            say("unpacking the working copy", 0.9)
            below = release if release in (work.release, work.published) else None
            with self._work.replacing(request.site, request.number, below) as copy:
                self._sandbox.run("put-back", copy.tree, ids, {"prefix": "work/tree/"}, fds=(spool,), say=say)
                failpoints.hit("restore-work")
                self._restore_git(copy, ids, spool, say)
            return
        with self._work.saving(request.site, request.number) as there:
            if there is not None:
                self._restore_git(there, ids, spool, say)
                return
        with self._work.replacing(request.site, request.number, release) as copy:
            self._restore_git(copy, ids, spool, say)

    def _restore_git(self, copy: WorkCopy, ids: As, spool: int, say: Say) -> None:
        """A repository that is there stays: what was pushed after the backup is in no backup yet."""
        measured = self._sandbox.run("measure", copy.git, ids, {"paths": ["HEAD"]})
        if not measured["disk"]:
            args = {"prefix": "work/git/", "last": "HEAD"}
            self._sandbox.run("put-back", copy.git, ids, args, fds=(spool,), say=say)

    def _restore_volumes(self, request: RestoreBackup | UnpackSite, spool: int, say: Say) -> None:
        with self._data(request) as data:
            top = paths.volumes(data, request.generation).parent
            top.mkdir(mode=0o711, exist_ok=True)
            top.chmod(0o711)
            self._clear_leftovers(top)
            start_uid = self._settings.uid_start(request.number)
            fresh = top / f".restore.{secrets.token_hex(4)}"
            fresh.mkdir(0o700)
            os.chown(fresh, start_uid, start_uid)
            try:
                disk_info = os.statvfs(top)
                without = request.without if isinstance(request, RestoreBackup) else ()
                free = disk_info.f_bavail * disk_info.f_frsize
                if request.disk_bytes is None:
                    free, _ = room(self._settings, top)
                self._sandbox.run(
                    "restore",
                    fresh,
                    as_root(self._settings, request.number),
                    {"prefix": "volumes/", "room_bytes": free, "without": ["/".join(each) for each in without]},
                    fds=(spool,),
                    say=say,
                )
                failpoints.hit("restore-unpacked")
                target = top / str(request.generation)
                if target.is_dir():
                    target.rename(top / f".gone.{secrets.token_hex(4)}")
                os.chown(fresh, 0, 0)
                fresh.chmod(0o711)
                fresh.rename(target)
                wholefile.sync_directory(top)
            finally:
                self._clear_leftovers(top)

    def _bring_volumes(self, request: RestoreBackup | UnpackSite, spool: int, say: Say) -> None:
        """In place: it is the generation of a site that never ran over it, and a death in between begins anew."""
        with self._data(request) as data:
            target = paths.volumes(data, request.generation)
            target.mkdir(mode=0o711, parents=True, exist_ok=True)
            start_uid = self._settings.uid_start(request.number)
            os.chown(target, start_uid, start_uid)
            try:
                ids = as_root(self._settings, request.number)
                args = {"prefix": "volumes/", "kept": "kept/"}
                self._sandbox.run("bring", target, ids, args, fds=(spool,), say=say)
                failpoints.hit("restore-brought")
            finally:
                os.chown(target, 0, 0)
                target.chmod(0o711)

    @contextlib.contextmanager
    def _data(self, request: RestoreBackup | UnpackSite) -> Iterator[Path]:
        """The writable part, made if the site is new."""
        image = paths.disk_image(self._settings, request.site)
        plain = paths.data_dir(self._settings, request.site, False)
        if not image.exists() and not plain.exists():
            if request.disk_bytes is None:
                plain.mkdir(0o711)
                plain.chmod(0o711)
            else:
                disk.create(image, request.disk_bytes)
        with disk.borrowed(self._settings, request.site) as data:
            yield data

    def _clear_leftovers(self, top: Path) -> None:
        """Remove what restores have begun or replaced in ``top``; root's own directory, out of reach of sites."""
        for pattern in (".restore.*", ".gone.*"):
            for left in sorted(top.glob(pattern)):
                uids = [path.lstat().st_uid for path in (left, *left.iterdir())]
                number = (max(uids) - self._settings.users.first_uid) // 65_536
                if number >= 1:
                    start_uid = self._settings.uid_start(number)
                    os.chown(left, start_uid, start_uid, follow_symlinks=False)
                    self._sandbox.run("remove", left, as_root(self._settings, number), {"paths": None})
                left.rmdir()


def _left_out(request: CreateBackup, running: tuple[WorkloadSpec, ...]) -> tuple[set[str], set[str]]:
    """Names of the volumes that no backup takes, and of those that this one does not because the site runs."""
    lived = [volume for spec in running for volume in spec.volumes]
    never = {volume.name for volume in (*request.volumes, *lived) if volume.backup is Kept.NEVER}
    return never, {volume.name for volume in lived if volume.backup is Kept.COLD}


def _digest(fd: int) -> str:
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _manifest(snapshot: str, fd: int) -> Manifest:
    """The manifest at the beginning of an archive whose digest was compared."""
    os.lseek(fd, 0, os.SEEK_SET)
    stream = Stream(fd, "")
    try:
        member = next(members(stream), None)
        if member is None or member.name != _MANIFEST or not 0 < member.size <= _MANIFEST_BYTES:
            raise damaged(snapshot, "it does not begin with a manifest")
        return msgspec.json.decode(stream.take(member.size), type=Manifest)
    except (Rejected, msgspec.DecodeError) as error:
        raise damaged(snapshot, f"its manifest does not parse: {error}") from None


__all__ = ["Backups", "Freezer", "Manifest", "ProgramFailed"]
