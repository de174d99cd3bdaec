"""The machine's own lines: from the systemd journal where there is one, else from the files of /var/log.

They are copied in small steps into ``S/logs/host``, in a form of their own (:class:`~alveole.logbook.lines.Form`), so
that they are searched, kept and bounded like all others; where the reading ended is remembered beside them. Of what
came while the agent was away the newest part is taken.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from alveole import wholefile
from alveole.config import Settings
from alveole.errors import AlveoleError
from alveole.host.run import run
from alveole.logbook.lines import level_in
from alveole.logbook.model import LEVELS
from alveole.logbook.writer import Writer

log = logging.getLogger("alveole.logs")
JOURNALCTL = "/usr/bin/journalctl"
#: Where journald keeps its journals (systemd-journald.service(8)).
_JOURNALS = (Path("/run/log/journal"), Path("/var/log/journal"))
#: What Debian's rsyslog writes, and what others call it. ``kern.log`` and ``mail.log`` repeat lines of the first.
FILES = ("syslog", "messages", "auth.log", "kern.log", "dpkg.log", "apt/history.log")
#: At one look at most so many lines of the journal, and so many bytes of each file.
_LINES = 20_000
_BYTES = 4 * 1024 * 1024
_FIELDS = "__REALTIME_TIMESTAMP,__CURSOR,PRIORITY,SYSLOG_IDENTIFIER,_COMM,_SYSTEMD_UNIT,MESSAGE"
_OF = re.compile(r"[^\w./@-]+")
#: RFC 3164 and RFC 3339 stamps of rsyslog: host and program follow.
_OLD = re.compile(r"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) \S+ ([^\s:\[]{1,64})(?:\[\d+\])?: ?(.*)", re.DOTALL)
_NEW = re.compile(r"(\d{4}-\d\d-\d\dT\S{8,25}) \S+ ([^\s:\[]{1,64})(?:\[\d+\])?: ?(.*)", re.DOTALL)
_PLACE = ".place"


class _Places(msgspec.Struct):
    cursor: str = ""
    files: dict[str, tuple[int, int]] = {}
    """Inode and offset, by name."""


class HostLogs:
    """``top``: where the files are. One look at a time."""

    def __init__(self, settings: Settings, top: Path = Path("/var/log"), journal: bool | None = None) -> None:
        self._directory = settings.logs / "host"
        self._top = top
        self._journal = has_journal() if journal is None else journal
        self._writer = Writer(self._directory)
        self._lock = threading.Lock()
        self._known = False
        self._places = _Places()

    def gather(self) -> int:
        """Copy what came since the last look; gives how many lines. Never raises: what cannot be read waits."""
        with self._lock:
            if not self._known:
                self._known, self._places = True, self._remembered()
            try:
                count = self._from_journal() if self._journal else sum(map(self._from_file, FILES))
            except (OSError, AlveoleError, ValueError) as error:
                log.warning("the machine's lines wait: %s", error)
                return 0
            if count:
                self._remember()
            return count

    def _remembered(self) -> _Places:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((self._directory / _PLACE).read_bytes(), type=_Places)
        return _Places()

    def _remember(self) -> None:
        with contextlib.suppress(OSError):
            wholefile.write(self._directory / _PLACE, msgspec.json.encode(self._places), synced=False)

    # --- the journal --------------------------------------------------------------------------
    def _from_journal(self) -> int:
        begin = f"--after-cursor={self._places.cursor}" if self._places.cursor else "--since=-1h"
        argv = [JOURNALCTL, "-o", "json", "-q", "--no-pager", f"--output-fields={_FIELDS}", "-n", str(_LINES), begin]
        done = run(argv, timeout=30.0, check=False)
        if done.returncode != 0 and self._places.cursor:
            # The journal with that cursor is gone: begin anew at the next look.
            self._places.cursor = ""
        count = 0
        for line in done.stdout.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                self._places.cursor = record["__CURSOR"]
                count += 1
                # Alvéole's own lines are kept as such already.
                if not str(record.get("_SYSTEMD_UNIT", "")).startswith("alveole-"):
                    self._writer.write(*_of_journal(record))
        return count

    # --- files --------------------------------------------------------------------------------
    def _from_file(self, name: str) -> int:
        path = self._top / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return 0
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            inode, at = self._places.files.get(name, (0, -1))
            count = 0
            if inode != status.st_ino:
                if inode:
                    count += self._rest_of(path, inode, at, name)
                # The first time only what comes from now on, but for a little: it is all there in the file itself.
                at = 0 if inode else max(0, status.st_size - 64 * 1024)
            if status.st_size < at:
                at = 0
            moved = max(at, status.st_size - _BYTES)
            count += self._copy(file, moved, name, skip=moved > 0 and (moved > at or not inode))
            self._places.files[name] = (status.st_ino, file.tell())
        return count

    def _rest_of(self, path: Path, inode: int, at: int, name: str) -> int:
        """What came into the file before logrotate(8) renamed it."""
        older = path.with_name(f"{path.name}.1")
        with contextlib.suppress(OSError):
            fd = os.open(older, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                if os.fstat(fd).st_ino == inode:
                    return self._copy(file, at, name)
        return 0

    def _copy(self, file: Any, at: int, name: str, *, skip: bool = False) -> int:
        file.seek(at)
        if skip:
            at += len(file.readline())
        block = file.read(_BYTES)
        whole = block.rfind(b"\n") + 1
        file.seek(at + whole)
        lines = block[:whole].decode("utf-8", "replace").split("\n")
        for line in lines[:-1]:
            self._writer.write(*_of_line(line, name))
        return len(lines) - 1


def has_journal() -> bool:
    """Whether systemd-journald keeps the machine's lines."""
    return Path(JOURNALCTL).exists() and any(each.is_dir() for each in _JOURNALS)


def _of_journal(record: dict[str, Any]) -> tuple[str, str, str, float]:
    """Level, program, text and moment of a record (systemd.journal-fields(7))."""
    message = record.get("MESSAGE", "")
    if message is None:
        # journalctl(1), "json": a field of more than 4 KiB is null, and twenty thousand of them have no room here.
        message = "(longer than 4 KiB: journalctl --all has it)"
    if isinstance(message, list):
        # Bytes that are not UTF-8 come as a list of numbers.
        message = bytes(message).decode("utf-8", "replace")
    number = int(record.get("PRIORITY") or 6)
    of = record.get("SYSLOG_IDENTIFIER") or record.get("_COMM") or "journal"
    level = LEVELS[number] if 0 <= number < 8 else "info"
    return level, _program(str(of)), str(message), int(record["__REALTIME_TIMESTAMP"]) / 1e6


def _program(of: str) -> str:
    return _OF.sub("-", of)[:64] or "-"


def _of_line(line: str, name: str) -> tuple[str, str, str, float]:
    """The same of a line in a file; what has no stamp that is known is of now."""
    now = time.time()
    at, of, text = now, name, line
    with contextlib.suppress(ValueError, OverflowError):
        if found := _NEW.match(line):
            at, of, text = datetime.fromisoformat(found[1]).timestamp(), found[2], found[3]
        elif found := _OLD.match(line):
            # Without a year: the one that is not to come.
            year = datetime.fromtimestamp(now).year
            at = datetime.strptime(f"{year} {found[1]}", "%Y %b %d %H:%M:%S").timestamp()
            at = at if at < now + 86_400 else datetime.fromtimestamp(at).replace(year=year - 1).timestamp()
            of, text = found[2], found[3]
    return level_in(text) or "info", _program(of), text, at
