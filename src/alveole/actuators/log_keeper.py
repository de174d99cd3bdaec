"""Log files after they were written: packed, kept for a time and within bounds, and removed.

What is full is closed by its writer (``s6-log``, :mod:`~alveole.actuators.edge_logs`, the roles' own writers); what is
old is closed from here. Then it is packed into a directory of root's, where it stays when the site is gone. Every step
can be cut: a file is removed only when its packed one is whole and has its name.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pwd
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from alveole.actuators.edge_logs import rotate
from alveole.config import Settings
from alveole.logbook import places
from alveole.logbook.lines import Form
from alveole.logbook.model import OF_PLATFORM, OF_SITES, Source
from alveole.logbook.places import Place
from alveole.logbook.segments import Plain, pack

log = logging.getLogger("alveole.logs")
_LOOK_SECONDS = 20.0
#: Ages and bounds are looked at this often (seconds).
_TIDY_SECONDS = 300.0
#: A file of the proxy's that was renamed so long ago is not appended to any more (seconds).
_SETTLED_SECONDS = 5.0


class LogKeeper:
    """``close_output`` has a site's output begin a new file; ``gather`` brings in the machine's lines."""

    def __init__(
        self, settings: Settings, close_output: Callable[[str], None], gather: Callable[[], object] | None = None
    ) -> None:
        self._settings = settings
        self._logs = settings.logs
        self._close_output = close_output
        self._gather = gather
        self._lock = threading.Lock()
        self._changed: dict[Path, int] = {}
        self._firsts: dict[Path, tuple[int, float]] = {}
        self._tidied = float("-inf")

    def run(self, stopped: threading.Event) -> None:
        """Look after all lines until ``stopped``."""
        while not stopped.wait(_LOOK_SECONDS):
            # Each by itself: on a full disk nothing is packed, and what is too old makes room all the same.
            for work in (self.gather, self._tidy_in_time, self.keep):
                try:
                    work()
                except OSError as error:
                    log.warning("log files stay as they are: %s", error)

    def _tidy_in_time(self) -> None:
        if time.monotonic() - self._tidied > _TIDY_SECONDS:
            self._tidied = time.monotonic()
            self.tidy()

    def gather(self) -> None:
        """Bring in the machine's own lines, where the settings want them."""
        if self._gather is not None and self._settings.logbook.host:
            self._gather()

    def keep(self) -> int:
        """Pack every file that is closed; gives how many. Raises ``OSError`` when the disk is full.

        A file that cannot be read holds up itself alone, and is tried again.
        """
        count = 0
        with self._lock:
            for place in self._all():
                try:
                    count += self._pack_older(place)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    log.warning("%s: lines are not packed: %s", place.live, error)
        return count

    def tidy(self, now: float | None = None) -> int:
        """Close what is old, and remove packed files beyond their time and room; gives how many were removed."""
        now = time.time() if now is None else now
        with self._lock:
            for place in self._all():
                self._close_old(place, now)
        return self._prune(now)

    def retire(self, site: str) -> None:
        """The site is destroyed: what is left of its lines is packed, and dated."""
        archive = self._logs / places.ARCHIVE / site
        with self._lock:
            for place in places.of_site(self._logs, site, OF_SITES):
                with contextlib.suppress(OSError):
                    self._pack_older(place, all_of_it=True)
            with contextlib.suppress(OSError):
                if archive.is_dir():
                    (archive / places.DESTROYED).touch()
        shutil.rmtree(self._logs / places.IN / site, ignore_errors=True)

    def forget(self, site: str) -> None:
        """The site was nobody's, and what it printed stands where it was asked for: its lines go with it."""
        with self._lock:
            for top in (places.ARCHIVE, places.IN, places.EDGE):
                shutil.rmtree(self._logs / top / site, ignore_errors=True)

    def _all(self) -> Iterator[Place]:
        yield from places.of_platform(self._logs, OF_PLATFORM)
        for site in places.sites(self._logs):
            yield from places.of_site(self._logs, site, OF_SITES)

    def _pack_older(self, place: Place, *, all_of_it: bool = False) -> int:
        try:
            changed = place.live.stat().st_mtime_ns
        except OSError:
            return 0
        # A file that is closed has another name, so the directory was written to.
        if self._changed.get(place.live) == changed and not all_of_it and not place.file:
            return 0
        names = place.older()
        if place.file and not all_of_it:
            names = [name for name in names if name != f"{place.file}.1" or self._is_old(place.live / name)]
        if all_of_it:
            names.append(place.current.name)
        count = 0
        for name in names:
            count += self._pack(place, name)
        if not place.file:
            self._changed[place.live] = changed
        return count

    def _is_old(self, file: Path) -> bool:
        # Who counts the requests of today reads this one too (``traffic.py``).
        with contextlib.suppress(OSError):
            return time.time() - file.stat().st_mtime > max(self._settings.logbook.rotate_seconds, _SETTLED_SECONDS)
        return False

    def _pack(self, place: Place, name: str) -> bool:
        """Pack one file and remove it. ``False``: it is gone, or none of ours."""
        with contextlib.ExitStack() as stack:
            try:
                directory = os.open(place.live, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                return False
            stack.callback(os.close, directory)
            source = _open(directory, name)
            if source is None:
                return False
            stack.enter_context(source)
            status = os.fstat(source.fileno())
            if status.st_size:
                self._write(place, source, status.st_ino)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        return True

    def _write(self, place: Place, source: BinaryIO, inode: int) -> None:
        group = _group(self._settings.users.control)
        for directory in (place.archive.parent, place.archive):
            if not directory.is_dir():
                directory.mkdir(mode=0o750, parents=True, exist_ok=True)
                os.chown(directory, 0, group)
                directory.chmod(0o750)
        # A site that came back, from another machine or under the same id, is not destroyed.
        (place.archive / places.DESTROYED).unlink(missing_ok=True)
        part = place.archive / f".{place.label}.part"
        part.unlink(missing_ok=True)
        try:
            begin, end = pack(source, place.form, part)
            now = int(time.time())
            begin, end = begin or end or now, end or begin or now
            os.chown(part, 0, group)
            part.chmod(0o640)
            part.replace(place.archive / f"{place.label}.{int(begin)}.{int(end) + 1}.{inode:x}.zst")
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _close_old(self, place: Place, now: float) -> None:
        try:
            status = place.current.stat()
        except OSError:
            self._firsts.pop(place.current, None)
            return
        inode, first = self._firsts.get(place.current, (0, 0.0))
        if inode != status.st_ino or not first:
            directory = os.open(place.live, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                file = _open(directory, place.current.name)
            finally:
                os.close(directory)
            if file is None:
                return
            with file:
                first = Plain(file, place.form).first() or 0.0
            self._firsts[place.current] = (status.st_ino, first)
        if not first or now - first < self._settings.logbook.rotate_seconds:
            return
        if place.source is Source.OUT:
            self._close_output(place.site)
        elif place.form is Form.REQUEST:
            rotate(place.current)

    def _prune(self, now: float) -> int:
        """By age, then by the room of each site, then by the room of all."""
        kept = self._settings.logbook
        count = 0
        total = sum(places.size_of(each) for each in _live(self._logs))
        files: list[tuple[int, int, Path]] = []
        for directory in _directories(self._logs / places.ARCHIVE):
            gone = places.destroyed(self._logs, directory.name)
            if gone is not None and now - gone > kept.destroyed_seconds:
                count += len(places.archives(directory))
                shutil.rmtree(directory, ignore_errors=True)
                continue
            room = kept.site_bytes
            for each in reversed(places.archives(directory)):
                path = directory / each.name
                try:
                    size = path.stat().st_size
                except OSError:
                    continue
                room -= size
                if now - each.end > kept.keep_seconds or room < 0:
                    path.unlink(missing_ok=True)
                    count += 1
                else:
                    files.append((each.begin, size, path))
                    total += size
            if gone is not None and not places.archives(directory):
                shutil.rmtree(directory, ignore_errors=True)
        for _, size, path in sorted(files):
            if total <= kept.total_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            count += 1
        if count:
            log.info("%d packed log files were removed: too old, or beyond their room", count)
        return count


def _open(directory: int, name: str) -> BinaryIO | None:
    """A plain file in a directory that somebody else may write to: no link, no pipe, no other's file."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    status, owner = os.fstat(fd), os.fstat(directory).st_uid
    # The proxy owns what it appends to in a directory of root's.
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or (owner and status.st_uid != owner):
        os.close(fd)
        return None
    return os.fdopen(fd, "rb")


def _directories(top: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [each for each in top.iterdir() if each.is_dir() and not each.is_symlink()]
    return []


def _live(logs: Path) -> Iterator[Path]:
    yield from (logs / places.EDGE, logs / places.HOST)
    for each in _directories(logs):
        if each.name in (places.EDGE, places.IN, places.OWN):
            yield from _directories(each)
        elif places.is_site(each.name):
            yield each


def _group(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        return 0


def make_own(settings: Settings) -> None:
    """The directories that Alvéole's processes write their lines into, each its own."""
    users = settings.users
    group = _group(users.control)
    owners = {"agent": "root", "control": users.control, "ssh": users.ssh, "porter": users.log}
    own = settings.logs / places.OWN
    for directory, user in ((own, "root"), *((own / part, user) for part, user in owners.items())):
        with contextlib.suppress(KeyError):
            uid = pwd.getpwnam(user).pw_uid
            directory.mkdir(exist_ok=True)
            os.chown(directory, uid, group, follow_symlinks=False)
            # Set-group-id: control's group reads what any of them writes.
            directory.chmod(0o755 if directory == own else 0o2750)
    for directory, user in ((settings.logs / places.IN, users.log), (settings.logs / places.HOST, "root")):
        directory.mkdir(exist_ok=True)
        with contextlib.suppress(KeyError):
            os.chown(directory, pwd.getpwnam(user).pw_uid, group, follow_symlinks=False)
        directory.chmod(0o2750)
