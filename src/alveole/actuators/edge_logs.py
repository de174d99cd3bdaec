"""The proxy's log lines, from one stream to a file of each site.

nginx writes the lines of all sites into one file, some hundred at a time: a file of each site
would cost it a look at the directory and a write for every request (a sixth of what a request
costs, ``bench/run throughput``). The agent hands them out. While it is away they wait in the
stream; a site's line is there at most a second after its answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from alveole.actuators.robots import is_robots
from alveole.config import Settings
from alveole.errors import Temporary

log = logging.getLogger("alveole.edge")

ACCESS, ERROR = "access.log", "error.log"
#: What nginx appends to: ``STATUS SITE {…}`` a line, the site empty for what belongs to none.
STREAM = "requests.log"
OLDER = f"{STREAM}.1"
_PLACE = "requests.at"
#: A site's log longer than this is rotated; one older one is kept (bytes).
LOG_BYTES = 32 * 1024 * 1024
#: So much of the stream is read before nginx gets a new file (bytes).
STREAM_BYTES = 32 * 1024 * 1024
_BLOCK = 1 << 20
_LINE = re.compile(rb"^(\d{3}) (\w*) (\{[^\n]*\}\n)", re.MULTILINE)
#: Whether the site failed or the way to it: an owner looks for both in one place.
_FAILED = frozenset((b"500", b"501", b"502", b"503", b"504", b"507", b"508", b"511"))
#: Workers that were asked to open the new file have done so by then, also those that are busy (seconds).
_REOPENED_SECONDS = 5.0
_LOOK_SECONDS = 0.5
#: When somebody asked for a site is told as exactly as this (seconds): not every line is looked into.
_SEEN_SECONDS = 5.0


class EdgeLogs:
    """``master`` gives the pid of nginx's master process. One thread at a time."""

    def __init__(self, settings: Settings, master: Callable[[], int | None]) -> None:
        self._settings = settings
        self._top = settings.logs / "edge"
        self._master = master
        self._read = self._remembered()
        self._told = 0.0
        self._began = time.time()
        self._people: dict[bytes, float] = {}
        self._asked: dict[bytes, float] = {}

    def last_asked(self, site: str) -> tuple[float, float]:
        """When a person asked for a site, and when anybody did (seconds since the epoch).

        Before this agent began nothing is known; then it is taken for the moment of the last request.
        """
        key = site.encode()
        return max(self._began, self._people.get(key, 0.0)), max(self._began, self._asked.get(key, 0.0))

    def run(self, stopped: threading.Event) -> None:
        """Hand out what comes until ``stopped``."""
        while not stopped.wait(_LOOK_SECONDS):
            try:
                self.collect()
            except OSError as error:
                self._tell(f"the proxy's log lines wait: {error}")
        with contextlib.suppress(OSError):
            self.collect()

    def collect(self, limit: int = LOG_BYTES, stream_limit: int = STREAM_BYTES) -> int:
        """Hand out every whole line that is there; gives how many. Raises ``OSError`` when the stream cannot be read.

        A line goes to the site's ``access.log``, that of a failure also to its ``error.log``; of a site that is
        gone, nowhere. Killed between writing and remembering the place, the lines of the last megabyte come twice.
        """
        count = 0
        older = self._top / OLDER
        with contextlib.suppress(FileNotFoundError):
            count += self._drain(older, limit)
            if time.time() - older.stat().st_ctime > _REOPENED_SECONDS:
                count += self._drain(older, limit)
                older.unlink()
        with contextlib.suppress(FileNotFoundError):
            count += self._drain(self._top / STREAM, limit)
        self._renew(STREAM, stream_limit)
        self._renew(ERROR, limit)
        return count

    def _drain(self, file: Path, limit: int) -> int:
        count = 0
        with file.open("rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            at = self._read.get(status.st_ino, 0)
            if at > status.st_size:
                at = 0
            while at < status.st_size:
                stream.seek(at)
                block = stream.read(_BLOCK)
                whole = block.rfind(b"\n") + 1
                if not whole:
                    # A line is never this long: something else wrote here.
                    whole = len(block) if len(block) == _BLOCK else 0
                    if not whole:
                        break
                count += self._hand_out(block[:whole], limit)
                at += whole
                self._read[status.st_ino] = at
                self._remember()
        return count

    def _hand_out(self, block: bytes, limit: int) -> int:
        access: dict[bytes, list[bytes]] = {}
        failed: dict[bytes, list[bytes]] = {}
        lines = _LINE.findall(block)
        now = time.time()
        for status, site, line in lines:
            access.setdefault(site, []).append(line)
            if now - self._people.get(site, 0.0) > _SEEN_SECONDS and not is_robots(line):
                self._people[site] = now
            if status in _FAILED and site:
                failed.setdefault(site, []).append(line)
        self._asked.update(dict.fromkeys(access, now))
        for name, found in ((ACCESS, access), (ERROR, failed)):
            for site, parts in found.items():
                try:
                    self._append(self._top / site.decode() / name, b"".join(parts), limit)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    # On a full disk lines are lost, and nothing else.
                    self._tell(f"log lines of {site.decode() or 'no site'} are lost: {error}")
        return len(lines)

    def _append(self, file: Path, text: bytes, limit: int) -> None:
        # Its directory belongs to root, so the name cannot be a link of somebody else's making.
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            status = os.fstat(fd)
            if status.st_size == 0 or status.st_uid != 0:
                os.fchown(fd, 0, _group_id(self._settings.users.control))
            os.write(fd, text)
            full = status.st_size + len(text) > limit
        finally:
            os.close(fd)
        if full:
            file.replace(file.with_name(f"{file.name}.1"))

    def _renew(self, name: str, limit: int) -> None:
        """Give nginx a new file when the one it has is longer than ``limit`` and the last one is done with."""
        file = self._top / name
        older = self._top / f"{name}.1"
        with contextlib.suppress(FileNotFoundError):
            if file.lstat().st_size <= limit or (name == STREAM and older.exists()):
                return
            file.replace(older)
            make_stream(self._settings)
            master = self._master()
            if master is not None:
                os.kill(master, signal.SIGUSR1)

    def _remembered(self) -> dict[int, int]:
        with contextlib.suppress(OSError, ValueError):
            words = [int(word) for word in (self._top / _PLACE).read_text().split()]
            return dict(zip(words[::2], words[1::2], strict=False))
        return {}

    def _remember(self) -> None:
        there = set()
        for name in (STREAM, OLDER):
            with contextlib.suppress(OSError):
                there.add((self._top / name).stat().st_ino)
        self._read = {inode: at for inode, at in self._read.items() if inode in there}
        # In place: a rename for each look would be work for the journal of the file system.
        with contextlib.suppress(OSError):
            fd = os.open(self._top / _PLACE, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                text = " ".join(f"{inode} {at}" for inode, at in self._read.items())
                os.pwrite(fd, text.ljust(96).encode() + b"\n", 0)
            finally:
                os.close(fd)

    def _tell(self, text: str) -> None:
        if time.monotonic() - self._told > 60 or not self._told:
            self._told = time.monotonic()
            log.warning("%s", text)


def make_log_directory(directory: Path, settings: Settings) -> None:
    """A directory of root's for the proxy's lines of one site, or of no site. Control's group may read."""
    if directory.is_dir():
        return
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, 0, _group_id(settings.users.control))
    directory.chmod(0o751)


def make_stream(settings: Settings) -> None:
    """The two files nginx appends to, in a directory of root's, and those that stand beside them from the start.

    A worker can neither replace them nor make others there (nginx's CVE-2016-1247): it owns the
    files, not the directory.
    """
    top = settings.logs / "edge"
    make_log_directory(top, settings)
    for name in (STREAM, ERROR):
        fd = os.open(top / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            os.fchown(fd, _user(settings.users.edge).pw_uid, _group_id(settings.users.control))
            os.fchmod(fd, 0o640)
        finally:
            os.close(fd)
    for name, mode in ((ACCESS, 0o640), (_PLACE, 0o600)):
        fd = os.open(top / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        os.fchown(fd, 0, _group_id(settings.users.control))
        os.close(fd)


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise Temporary(f"there is no user {name!r}", field="users.edge", hint="make it, or name another") from None


def _group_id(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        return 0
