"""Releases: content that was delivered, kept under its digest, and the link that makes one live.

``S/sites/<id>/content/releases/<hex>`` never changes once it has that name. It gets the name by one
rename, after everything below it is on the disk, out of a staging directory that no container sees.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from alveole import failpoints, wholefile
from alveole.agent.agent import check_spec
from alveole.agent.protocol import ArchiveFormat, CompareReleases, CopyRelease
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, NoRoom, NotFound, Refused, Temporary
from alveole.host import paths, syscalls
from alveole.host.sandbox import Sandbox, as_root, as_user
from alveole.host.tree import size_text
from alveole.model.app import Difference
from alveole.model.resource import (
    Action,
    Defect,
    Kind,
    Observation,
    Observed,
    Outcome,
    ReleaseSpec,
    ResourceId,
    Step,
    stamp,
)
from alveole.model.site import SITE_UID, Release

log = logging.getLogger("alveole.agent")
#: So many names of files that differ are told.
_NAMES = 100
#: Name of the one release resource of a site.
CURRENT = "current"


#: How often and how long (seconds) what was being written is tried to be removed.
_TRIES = 50
_TRY_SECONDS = 0.1


def room(settings: Settings, where: Path) -> tuple[int, int]:
    """Bytes and inodes that may be used beside ``where``: free, less what the platform keeps for itself.

    Raises ``NoRoom`` when there is nothing left at all.
    """
    disk = os.statvfs(where)
    free = disk.f_bavail * disk.f_frsize
    left = free - settings.content.reserve_bytes
    # File systems that make inodes as they go (btrfs) say 0 of 0.
    files = disk.f_favail if disk.f_files else 1 << 40
    if left <= 0 or files < 64:
        raise NoRoom(
            f"{size_text(free)} and {files:,} inodes are free in {settings.paths.state}, "
            f"and {size_text(settings.content.reserve_bytes)} are kept for the platform",
            field="disk",
            hint="delete old releases, backups or sites, or enlarge the disk",
        )
    return left, files


def ceilings(settings: Settings, where: Path) -> dict[str, int]:
    """The argument ``ceilings`` of the job ``unpack``. Raises ``NoRoom``."""
    left, files = room(settings, where)
    limits = settings.content
    return {
        "bytes": limits.bytes,
        "files": limits.files,
        "depth": limits.depth,
        "ratio": limits.ratio,
        "room_bytes": left,
        "room_files": files,
    }


class Releases:
    """Imports and drops releases, and keeps the link ``current``."""

    kinds = frozenset({Kind.RELEASE})

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._gone: queue.SimpleQueue[Path | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._sweep, name="sweep", daemon=True).start()

    def recover(self) -> None:
        """Remove what imports and removals left that a death cut short; goes on behind (:meth:`settle`).

        Once, at the start of the agent, before its first import.
        """
        for site in _directories(paths.sites(self._settings)):
            if site.name.startswith(".gone."):
                self._gone.put(site)
                continue
            for left in _directories(site / "staging"):
                log.info("removing %s, left by an interrupted import", left)
                self._gone.put(left)
            for link in (site / "content").glob(".current.*"):
                link.unlink(missing_ok=True)

    def settle(self, timeout: float = 60.0) -> None:
        """Wait until what was dropped so far is gone from the disk too. Raises ``Temporary``."""
        done = threading.Event()
        self._gone.put(done)
        if not done.wait(timeout):
            raise Temporary("removed content still takes room on the disk")

    def _sweep(self) -> None:
        # Removing thousands of files takes seconds; nobody needs to wait for it, and a death in the
        # middle leaves it to `recover`.
        while True:
            job = self._gone.get()
            if isinstance(job, threading.Event):
                job.set()
                continue
            self._remove_left(job)

    def _remove_left(self, tree: Path) -> None:
        for again in range(_TRIES, -1, -1):
            try:
                self._remove_tree(tree)
            except FileNotFoundError:
                # The whole site was removed meanwhile, and this with it.
                pass
            except (OSError, AlveoleError) as error:
                if again and isinstance(error, OSError) and error.errno == errno.ENOTEMPTY:
                    # Who was killed while writing there is dying still.
                    time.sleep(_TRY_SECONDS)
                    continue
                log.error("could not remove %s: %s", tree, error)
            return

    def prepare_site(self, site: str) -> None:
        """Make the directories of ``site`` that belong to root; again is nothing new."""
        top = paths.site(self._settings, site)
        wanted = (
            (top, 0o711),
            (paths.content(self._settings, site), 0o755),
            (paths.releases(self._settings, site), 0o755),
            (paths.staging(self._settings, site), 0o700),
        )
        if all(path.is_dir() for path, _ in wanted):
            return
        paths.sites(self._settings).mkdir(parents=True, exist_ok=True)
        for path, mode in wanted:
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        wholefile.sync_directory(top)
        wholefile.sync_directory(paths.sites(self._settings))

    @contextlib.contextmanager
    def staging(self, site: str, uid: int) -> Iterator[Path]:
        """A new directory of ``uid`` that nobody else reaches, removed at the end with what is left in it."""
        self.prepare_site(site)
        path = paths.staging(self._settings, site) / secrets.token_hex(8)
        path.mkdir(0o700)
        try:
            os.chown(path, uid, uid)
            yield path
        finally:
            self._remove_tree(path)

    def import_release(
        self,
        site: str,
        number: int,
        fd: int,
        format: ArchiveFormat | None = None,
        say: Say = quiet,
        *,
        prefix: str = "",
        may_be_empty: bool = False,
        any_links: bool = False,
        first: bool = False,
    ) -> Release:
        """Unpack the archive ``fd`` as the site's own user and keep it under its digest.

        An archive with one directory at its top and nothing beside it stands for the content of
        that directory, unless it names its top as ``./`` (see ``host.archive.unpack``); ``prefix``
        takes only the members below it, as they are; ``any_links`` lets links lead out of it;
        ``first`` makes it live where nothing is. The same content again is a no-op, and mends a kept
        release that lost files. Raises ``InvalidInput`` with the member at fault, ``NoRoom`` with the
        figures, and keeps nothing then.
        """
        uid = paths.site_uid(self._settings, number)
        with self.staging(site, uid) as staging:
            args: dict[str, Any] = {
                "format": str(format) if format is not None else None,
                "ceilings": ceilings(self._settings, staging),
                "unwrap": not prefix,
                "prefix": prefix,
                "may_be_empty": may_be_empty,
                "any_links": any_links,
            }
            found = self._sandbox.run("unpack", staging, as_user(self._settings, number), args, fds=(fd,), say=say)
            release = Release(str(found["digest"]), int(found["bytes"]), int(found["files"]), time.time())
            failpoints.hit("release-unpacked")
            self._keep(site, number, staging, release)
            if first and _read_link(paths.current(self._settings, site)) is None:
                self._make_live(site, release.digest)
        return release

    def collect(self, site: str, number: int, tree: int, say: Say = quiet) -> Release:
        """Make a release of the open directory ``tree``, which belongs to the site and which it may have filled.

        Raises ``InvalidInput`` with the file at fault, and ``NoRoom``; keeps nothing then.
        """
        with self.staging(site, paths.site_uid(self._settings, number)) as staging:
            args = {"ceilings": ceilings(self._settings, staging)}
            found = self._sandbox.run("collect", staging, as_user(self._settings, number), args, fds=(tree,), say=say)
            release = Release(str(found["digest"]), int(found["bytes"]), int(found["files"]), time.time())
            failpoints.hit("release-collected")
            self._keep(site, number, staging, release)
        return release

    def copy(self, request: CopyRelease, say: Say = quiet) -> None:
        """Carry out ``CopyRelease``. Raises ``NotFound``, ``NoRoom``, and ``Refused`` when the source is damaged."""
        if paths.release(self._settings, request.to, request.digest).is_dir():
            return
        source = paths.release(self._settings, request.site, request.digest)
        try:
            tree = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotFound(f"there is no release {request.digest[:19]}…", hint="send it again") from None
        user = as_user(self._settings, request.to_number)
        try:
            with self.staging(request.to, paths.site_uid(self._settings, request.to_number)) as staging:
                args = {"ceilings": ceilings(self._settings, staging)}
                found = self._sandbox.run("collect", staging, user, args, fds=(tree,), say=say)
                if found["digest"] != request.digest:
                    raise Refused(f"the release {request.digest[:19]}… is damaged", hint="send it again")
                failpoints.hit("release-copied")
                release = Release(request.digest, int(found["bytes"]), int(found["files"]), time.time())
                self._keep(request.to, request.to_number, staging, release)
        finally:
            os.close(tree)

    def compare(self, request: CompareReleases) -> Difference:
        """Carry out ``CompareReleases``. Raises ``NotFound``."""
        for digest in filter(None, (request.before, request.after)):
            if not paths.release(self._settings, request.site, digest).is_dir():
                raise NotFound(f"there is no release {digest[:19]}…", hint="send it again")
        args = {
            "before": paths.hex_of(request.before) if request.before else None,
            "after": paths.hex_of(request.after),
            "names": _NAMES,
        }
        where = paths.releases(self._settings, request.site)
        found = self._sandbox.run("differences", where, as_user(self._settings, request.number), args)
        return Difference(found["added"], found["changed"], found["removed"], tuple(found["names"]))

    def _keep(self, site: str, number: int, staging: Path, release: Release) -> None:
        tree = staging / "tree"
        uid = paths.site_uid(self._settings, number)
        info = tree.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != uid:
            raise Temporary("the unpacked content is not where it belongs")
        target = paths.release(self._settings, site, release.digest)
        if target.is_dir():
            known = self._sandbox.run(
                "digest", paths.releases(self._settings, site), as_user(self._settings, number), {"path": target.name}
            )
            if known["digest"] == release.digest:
                return
            log.warning("release %s of %s was damaged and is replaced", release.digest, site)
            target.rename(staging / "damaged")
        tree.rename(target)
        failpoints.hit("release-renamed")
        wholefile.sync_directory(target.parent)

    def verify(self, site: str, number: int, digest: str) -> None:
        """Read a whole release. Raises ``NotFound``, or ``Refused`` when its content has another digest."""
        path = paths.release(self._settings, site, digest)
        if not path.is_dir():
            raise NotFound(f"there is no release {digest[:19]}…", hint="deliver it again")
        found = self._sandbox.run("digest", path, as_user(self._settings, number), {"path": "."})
        if found["digest"] != digest:
            raise Refused(f"the release {digest[:19]}… is damaged", hint="deliver it again")

    def drop_release(self, site: str, number: int, digest: str) -> None:
        """Remove a release; an absent one is fine. Raises ``Refused`` for the live one."""
        target = paths.release(self._settings, site, digest)
        if _read_link(paths.current(self._settings, site)) == _link_text(digest):
            raise Refused(f"release {digest[:19]}… is live", hint="make another one live first")
        if not target.is_dir():
            return
        self.prepare_site(site)
        gone = paths.staging(self._settings, site) / f"dropped.{secrets.token_hex(8)}"
        target.rename(gone)
        wholefile.sync_directory(target.parent)
        self._gone.put(gone)

    def remove_site(self, site: str, number: int) -> None:
        """Remove every file of a site below ``S/sites``; nothing of it may run or be mounted.

        Gone by name at once, the room on the disk
        a little later (:meth:`settle`). Raises ``Refused`` while something is mounted there.
        """
        top = paths.site(self._settings, site)
        if not top.is_dir():
            return
        if mounted := syscalls.mount_points(top):
            raise Refused(f"{mounted[0]} is still mounted", hint="the site must be stopped first")
        gone = top.with_name(f".gone.{site}.{secrets.token_hex(4)}")
        top.rename(gone)
        wholefile.sync_directory(gone.parent)
        self._gone.put(gone)

    def disk_bytes(self, site: str, number: int) -> int:
        """What the releases of a site take on the disk."""
        path = paths.releases(self._settings, site)
        if not path.is_dir():
            return 0
        return int(self._sandbox.run("measure", path, as_root(self._settings, number), {"paths": ["."]})["disk"])

    def _remove_tree(self, path: Path) -> None:
        """Remove ``path``: what root owns by us, what a site owns by a child under its ids."""
        try:
            info = path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(info.st_mode):
            path.unlink()
        elif info.st_uid == 0:
            # The kernel's own part of an overlay, which no site ever sees, may hold files of root.
            for entry in sorted(path.iterdir()):
                if entry.name == "work" and path.name.startswith("root."):
                    shutil.rmtree(entry)
                else:
                    self._remove_tree(entry)
            path.rmdir()
        else:
            number = (info.st_uid - self._settings.users.first_uid) // 65_536
            if number < 0:
                raise Refused(f"{path} belongs to uid {info.st_uid}, which is no site's")
            self._sandbox.run("remove", path, as_root(self._settings, number), {"paths": None})
            path.rmdir()

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        found = []
        if scopes is None:
            scopes = [path.name for path in _directories(paths.sites(self._settings)) if path.name[0] != "."]
        for site in scopes:
            text = _read_link(paths.current(self._settings, site))
            if text is not None:
                found.append(self._observed(site, text))
        return Observation(tuple(found))

    def _observed(self, site: str, text: str) -> Observed:
        id = ResourceId(Kind.RELEASE, site, CURRENT)
        digest = f"sha256:{text.removeprefix('releases/')}"
        if text != _link_text(digest) or len(digest) != 71:
            return Observed(id, "", False, (Defect("changed", f"the live link leads to {text[:100]!r}"),))
        try:
            info = paths.release(self._settings, site, digest).lstat()
        except FileNotFoundError:
            return Observed(id, "", False, (Defect("damaged", f"release {digest[:19]}… is gone"),))
        number, own = divmod(info.st_uid - self._settings.users.first_uid, 65_536)
        if not stat.S_ISDIR(info.st_mode) or own != SITE_UID or number < 1:
            return Observed(id, "", False, (Defect("damaged", f"release {digest[:19]}… is not the site's directory"),))
        return Observed(id, stamp(ReleaseSpec(site, number, digest)), True, detail={"release": digest})

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        current = paths.current(self._settings, step.id.scope)
        if step.action is Action.DELETE:
            current.unlink(missing_ok=True)
            return Outcome(True)
        spec: ReleaseSpec = check_spec(step, ReleaseSpec)
        if not paths.release(self._settings, spec.site, spec.digest).is_dir():
            return Outcome(False, f"release {spec.digest[:19]}… is missing: deliver it again", temporary=False)
        self.prepare_site(spec.site)
        self._make_live(spec.site, spec.digest)
        return Outcome(True)

    def _make_live(self, site: str, digest: str) -> None:
        current = paths.current(self._settings, site)
        fresh = current.with_name(f".current.{secrets.token_hex(4)}")
        fresh.symlink_to(_link_text(digest))
        # A rename is the only switch under which no request fails; unlink and symlink lose some.
        fresh.rename(current)


def _link_text(digest: str) -> str:
    return f"releases/{paths.hex_of(digest)}"


def _read_link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return None


def _directories(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
