"""What sites print: a FIFO and an ``s6-log`` of its own for each site that runs.

Both instances of a site write to the same FIFO. They hold it open for reading too, so that a
writer never gets SIGPIPE when the logger dies; the agent starts another one (defect
``not-logged``). ``s6-log`` runs as the log user and outlives the agent.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import signal
import time
from pathlib import Path

import msgspec

from alveole.config import Settings
from alveole.errors import Temporary
from alveole.failpoints import hit
from alveole.host import instances, paths
from alveole.host.cgroups import Cgroups

#: Ten old files and ``current`` of a megabyte each: 11 MB a site at the most.
_SCRIPT = ("n10", "s1000000", "T")
#: Longer lines are cut in pieces of this many bytes (s6-log's own default is 8192).
_LINE = "65536"


class _Logger(msgspec.Struct, frozen=True):
    pid: int
    started: int


_loggers: msgspec.json.Decoder[_Logger] = msgspec.json.Decoder(_Logger)


class Output:
    def __init__(self, settings: Settings, cgroups: Cgroups) -> None:
        self._settings = settings
        self._cgroups = cgroups
        self._sites = f"{settings.run}/sites"
        self._known: dict[str, tuple[tuple[int, int, int], _Logger]] = {}

    def open(self, site: str) -> int:
        """The site's FIFO, open for reading and writing, with a logger at its other end."""
        fifo = self._fifo(site)
        fifo.parent.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        fifo.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = True
        try:
            os.mkfifo(fifo, 0o600)
        except FileExistsError:
            fresh = False
        fd = os.open(fifo, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # Programs of any user inside open /dev/stdout by its name; nobody else comes through the directory.
            os.fchmod(fd, 0o622)
            self.ensure(site, fresh=fresh)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def ensure(self, site: str, *, fresh: bool = False) -> int:
        """Start the site's logger unless it runs; gives its process id. Nobody can have read a ``fresh`` FIFO yet."""
        running = self.logger(site)
        if running is not None:
            return running
        directory = self._directory(site)
        # A second one would find the log locked, and end.
        unrecorded = None if fresh else self._unrecorded(site)
        if unrecorded is not None:
            instances.write(directory / "logger.json", msgspec.json.encode(unrecorded))
            return unrecorded.pid
        self._log_directory(site)
        argv = self._argv(site)
        fifo = os.open(self._fifo(site), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            with (directory / "logger.err").open("wb") as errors:
                process = self._cgroups.spawn_beside(
                    argv, stdin=fifo, stdout=errors, stderr=errors, start_new_session=True, umask=0o027
                )
        finally:
            os.close(fifo)
        instances.adopt(process)
        hit("logger-started")
        record = _Logger(process.pid, instances.start_time(process.pid) or 0)
        instances.write(directory / "logger.json", msgspec.json.encode(record))
        return process.pid

    def logger(self, site: str) -> int | None:
        """The process id of the site's logger, when it runs."""
        file = f"{self._sites}/{site}/logger.json"
        try:
            found = os.stat(file)  # noqa: PTH116  of every site, in every pass
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._known.get(site)
            if known is None or known[0] != stamp:
                known = self._known[site] = (stamp, _loggers.decode(Path(file).read_bytes()))
        except (OSError, msgspec.DecodeError):
            return None
        record = known[1]
        return record.pid if instances.is_running(record.pid, record.started) else None

    def close(self, site: str) -> None:
        """End the logger after it has written what was printed. Idempotent.

        Only when no instance of the site runs: nothing is read any more afterwards.
        """
        directory = self._directory(site)
        pid = self.logger(site)
        if pid is None and (lost := self._unrecorded(site)) is not None:
            pid = lost.pid
        if pid is not None:
            # Nothing comes any more, and what is not read by then is lost.
            self.drain(site, 2.0)
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    # s6-log(1): SIGTERM is treated as the end of its input.
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                    if not instances.wait_end(pidfd, 1.0):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        instances.wait_end(pidfd, 1.0)
                finally:
                    os.close(pidfd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._known.pop(site, None)
        fifo = self._fifo(site)
        for file in (directory / "logger.json", directory / "logger.err", directory / "output", fifo):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (directory / "log").rmdir()

    def close_file(self, site: str) -> None:
        """Have the logger begin a new file, unless nothing is in the one it has (s6-log(8): SIGALRM)."""
        pid = self.logger(site)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGALRM)

    def drain(self, site: str, seconds: float = 0.2) -> None:
        """Wait until the logger has read what was printed, at the most ``seconds``."""
        import fcntl
        import termios

        try:
            fd = os.open(self._fifo(site), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                waiting = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
                if not int.from_bytes(waiting, "little"):
                    return
                time.sleep(0.001)
        finally:
            os.close(fd)

    def tail(self, site: str, lines: int = 20) -> tuple[str, ...]:
        """The last lines the site printed, without their time stamps; for the journal."""
        self.drain(site)
        try:
            with (paths.site_log(self._settings, site) / "current").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 16_384))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ()
        # "2026-11-21 06:51:26.123456789  text"
        return tuple(line.partition("  ")[2] for line in text.splitlines()[-lines:])

    def size(self, site: str) -> int:
        """Where the log ends now: a start looks only at what was printed after it."""
        with contextlib.suppress(OSError):
            return (paths.site_log(self._settings, site) / "current").stat().st_size
        return 0

    def _unrecorded(self, site: str) -> _Logger | None:
        """The logger that an agent started just before it was killed: the process that has the FIFO as its input.

        The site's own programs hold the FIFO too and may put it anywhere: a logger is of the log user, or of root as
        long as it has not changed that, which nothing inside a site ever is.
        """
        try:
            fifo = self._fifo(site).stat()
        except FileNotFoundError:
            return None
        user = _user(self._settings.users.log).pw_uid
        for name in os.listdir("/proc"):  # noqa: PTH208  names alone
            if not name.isdigit():
                continue
            try:
                found = os.stat(f"/proc/{name}/fd/0")  # noqa: PTH116  of every process
            except OSError:
                continue
            if (found.st_dev, found.st_ino) != (fifo.st_dev, fifo.st_ino):
                continue
            started = instances.start_time(int(name))
            whose = _uid(name)
            if started is not None and (whose == user or (whose == 0 and self._is_to_log(name, site))):
                return _Logger(int(name), started)
        return None

    def _is_to_log(self, process: str, site: str) -> bool:
        """Whether a process of root's is about to become the site's logger."""
        wanted = b"".join(word.encode() + b"\0" for word in self._argv(site))
        try:
            return Path(f"/proc/{process}/cmdline").read_bytes().endswith(wanted)
        except OSError:
            return False

    def _argv(self, site: str) -> tuple[str, ...]:
        user = _user(self._settings.users.log)
        return (
            "/usr/bin/s6-applyuidgid",
            "-u",
            str(user.pw_uid),
            "-g",
            str(user.pw_gid),
            "-G",
            "",
            "/usr/bin/s6-log",
            "-l",
            _LINE,
            "--",
            *_SCRIPT,
            str(paths.site_log(self._settings, site)),
        )

    def _fifo(self, site: str) -> Path:
        return self._directory(site) / "log" / "output"

    def _directory(self, site: str) -> Path:
        return paths.disk_mount(self._settings, site).parent

    def _log_directory(self, site: str) -> Path:
        log = paths.site_log(self._settings, site)
        user = _user(self._settings.users.log)
        try:
            group = grp.getgrnam(self._settings.users.control).gr_gid
        except KeyError:
            group = _user(self._settings.users.control).pw_gid
        log.mkdir(mode=0o750, parents=True, exist_ok=True)
        stat = log.lstat()
        if (stat.st_uid, stat.st_gid) != (user.pw_uid, group):
            # Set-group-id: the files are made by the log user and read by control's group.
            os.chown(log, user.pw_uid, group, follow_symlinks=False)
            log.chmod(0o2750)
        return log


def _uid(process: str) -> int | None:
    """Whose a process is. Not the owner of its directory in /proc, which is root for what may not be looked into."""
    try:
        status = Path(f"/proc/{process}/status").read_bytes()
    except OSError:
        return None
    found = re.search(rb"^Uid:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found is not None else None


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise Temporary(f"there is no user {name}", hint="run the installation again") from None
