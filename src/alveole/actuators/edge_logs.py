"""The proxy's log lines, from one stream to a file of each site.

nginx writes the lines of all sites into one file, some hundred at a time: a file of each site
would cost it a look at the directory and a write for every request (a sixth of what a request
costs, ``bench/run throughput``). The agent hands them out. While it is away they wait in the
stream, of which the newest :data:`WAITING_BYTES` are kept: what is older is given back to the disk by the
proxy itself (``alveole_edge.lua``). A site's line is there at most a second after its answer.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pwd
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from alveole.actuators.robots import is_robots
from alveole.agent.figuring import BUCKETS, Served
from alveole.config import Settings
from alveole.errors import Temporary

log = logging.getLogger("alveole.edge")

ACCESS, ERROR = "access.log", "error.log"
#: What nginx appends to, a line: ``STATUS SITE SECONDS BYTES_IN BYTES_OUT CLIENT {…}``, the site empty for what belongs
#: to none. What stands before the brace is counted, what follows goes into the site's log.
STREAM = "requests.log"
OLDER = f"{STREAM}.1"
_PLACE = "requests.at"
#: A site's log longer than this is rotated; the one before it is packed (``log_keeper``).
LOG_BYTES = 32 * 1024 * 1024
#: So much of the stream is read before nginx gets a new file (bytes).
STREAM_BYTES = 32 * 1024 * 1024
#: Of the stream, and of the proxy's own lines, so much stays on the disk while the agent is away (bytes).
WAITING_BYTES = 256 * 1024 * 1024
_BLOCK = 1 << 20
_LINE = re.compile(rb"^(\d{3}) (\w*) (\d+\.\d+) (\d+) (\d+) (\S+) (\{[^\n]*\}\n)", re.MULTILINE)
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
        self._tallies: dict[bytes, _Tally] = {}
        self.since = time.time()
        self._people: dict[bytes, float] = {}
        self._asked: dict[bytes, float] = {}

    def last_asked(self, site: str) -> tuple[float, float]:
        """When a person asked for a site, and when anybody did (seconds since the epoch).

        Before this agent began nothing is known; then it is taken for the moment of the last request.
        """
        key = site.encode()
        return max(self.since, self._people.get(key, 0.0)), max(self.since, self._asked.get(key, 0.0))

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
                there = _data(stream.fileno(), at)
                stream.seek(there)
                block = stream.read(_BLOCK)
                if there > at:
                    # In the middle of a line, whose rest could be made to look like a whole one.
                    cut = block.find(b"\n") + 1
                    self._tell(f"{there + cut - at} bytes of the proxy's lines waited too long and are lost")
                    block, at = block[cut:], there + cut
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
        for status, site, seconds, read, sent, client, line in lines:
            tally = self._tallies.get(site)
            if tally is None:
                tally = self._tallies[site] = _Tally()
            tally.add(status, seconds, int(read), int(sent), b":" in client, now)
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

    def served(self) -> dict[str, Served]:
        """What was answered since :attr:`since`, by site; under no name what belongs to none."""
        return {site.decode(): tally.told() for site, tally in list(self._tallies.items())}

    def forget(self, site: str) -> None:
        """The counts of a site that is gone."""
        self._tallies.pop(site.encode(), None)

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
            rotate(file)

    def _renew(self, name: str, limit: int) -> None:
        """Give nginx a new file when the one it has is longer than ``limit`` and the last one is done with."""
        file = self._top / name
        older = self._top / f"{name}.1"
        with contextlib.suppress(FileNotFoundError):
            if file.lstat().st_size <= limit or (name == STREAM and older.exists()):
                return
            if name == STREAM:
                file.replace(older)
            else:
                rotate(file)
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


def rotate(file: Path) -> None:
    """``file`` becomes ``NAME.1``, and what that was gets the moment as its number: it is packed soon."""
    older = file.with_name(f"{file.name}.1")
    with contextlib.suppress(FileNotFoundError):
        older.rename(file.with_name(f"{file.name}.{time.time_ns()}"))
    with contextlib.suppress(FileNotFoundError):
        file.rename(older)


def _data(file: int, at: int) -> int:
    """Where the next byte is that was not given back to the disk."""
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError:
        # A file system that knows no holes has none.
        return at


class _Tally:
    """Counts of one site; one thread adds, others read."""

    __slots__ = ("inward", "last_at", "outward", "statuses", "times")

    def __init__(self) -> None:
        self.statuses = [0] * 5
        self.inward = [0, 0]
        self.outward = [0, 0]
        self.times: dict[int, int] = {}
        self.last_at = 0.0

    def add(self, status: bytes, seconds: bytes, read: int, sent: int, six: bool, now: float) -> None:
        # nginx says 009 of a client that went before its answer was known.
        self.statuses[min(max(status[0] - 49, 0), 4)] += 1
        self.inward[six] += read
        self.outward[six] += sent
        self.last_at = now
        if status == b"101":
            # What lasted is the conversation that began then (RFC 9110, 15.2.2), and no answer that took long.
            return
        milliseconds = float(seconds) * 1000
        bucket = 0 if milliseconds < 1 else min(int(10 * math.log10(milliseconds)) + 1, BUCKETS - 1)
        self.times[bucket] = self.times.get(bucket, 0) + 1

    def told(self) -> Served:
        one, two, three, four, five = self.statuses
        return Served(
            statuses=(one, two, three, four, five),
            in_bytes=(self.inward[0], self.inward[1]),
            out_bytes=(self.outward[0], self.outward[1]),
            times=tuple(sorted(self.times.items())),
            last_at=self.last_at,
        )


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
