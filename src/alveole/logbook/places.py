"""Which files hold what: of each site, of Alvéole itself, of the machine.

```
S/logs/<site>/          what it prints: an s6-log directory        S/logs/edge/<site>/  access.log, error.log, older
S/logs/in/<site>/       what came by syslog; in/host: of no site   S/logs/own/<part>/   agent, control, ssh, porter
S/logs/host/            gathered from the machine                  S/logs/archive/<site|own|host>/  all of it, packed
S/logs/own/control/syslog.json   what the porter is to do: there only while it has something to do
```
A packed file is called ``LABEL.FROM.TO.INODE.zst`` (seconds since the epoch), so that a search opens only those of its
time. ``archive/<site>/destroyed`` is there from the destruction on.
"""

# Names alone are wanted, by the thousand: objects of pathlib would cost more than the rest.
# ruff: noqa: PTH208

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from alveole.logbook.lines import Form
from alveole.logbook.model import Source
from alveole.logbook.segments import Packed, Plain, Segment

ARCHIVE, OWN, HOST, IN, EDGE = "archive", "own", "host", "in", "edge"
PARTS = ("agent", "control", "ssh", "porter")
DESTROYED = "destroyed"
#: Below the logs: what control writes for the porter (a :class:`~alveole.logbook.settings.Syslog`), and what it tells.
#: The unit ``alveole-porter.path`` of systemd waits for the first.
WANTED, STATE = "own/control/syslog.json", "own/porter/state.json"
#: An older file of a directory of s6-log: ``@`` and a TAI64N label.
OLDER = re.compile(r"^@[0-9a-f]{24}\.[su]\Z")
_SITE = re.compile(r"^s[a-z2-7]{12}\Z")
_PACKED = re.compile(r"^([a-z-]+)\.(\d{1,12})\.(\d{1,12})\.([0-9a-f]{1,16})\.zst\Z")
_SLACK = 120


class Archive(NamedTuple):
    """A packed file, by its name."""

    name: str
    label: str
    begin: int
    end: int
    inode: int


class Place(NamedTuple):
    """One row of files, oldest to newest. ``live`` has the form of s6-log, or holds ``file`` and its older ones."""

    source: Source
    form: Form
    live: Path
    archive: Path
    label: str
    site: str = ""
    of: str = ""
    file: str = ""

    def older(self) -> list[str]:
        """Names of the files that nothing is written to any more, oldest first."""
        with contextlib.suppress(OSError):
            names = os.listdir(self.live)
            if not self.file:
                return sorted(name for name in names if OLDER.match(name))
            begin = f"{self.file}."
            found = [name for name in names if name.startswith(begin) and name[len(begin) :].isdigit()]
            # NAME.1 is the newest of them; the others have the moment of their rotation.
            return sorted(found, key=lambda name: (len(name) == len(begin) + 1, name))
        return []

    @property
    def current(self) -> Path:
        return self.live / (self.file or "current")

    def segments(
        self, stack: contextlib.ExitStack, since: float | None = None, until: float | None = None
    ) -> list[Segment]:
        """What is to be read, oldest first; a file that is packed meanwhile is not read twice."""
        # The current one first: what is renamed after this is among the older ones, and known by its inode.
        files = [_open(stack, self.current)]
        files = [*(_open(stack, self.live / name) for name in self.older()), *files]
        plain: list[Plain] = []
        for file in files:
            if file is not None:
                each = Plain(file, self.form)
                if all(each.inode != other.inode for other in plain):
                    plain.append(each)
        there = {(each.inode, int(each.first() or 0.0)) for each in plain if each.size}
        found: list[Segment] = []
        for kept in archives(self.archive, self.label):
            if (since is not None and kept.end < since - _SLACK) or (until is not None and kept.begin > until + _SLACK):
                continue
            if (kept.inode, kept.begin) in there:
                continue
            file = _open(stack, self.archive / kept.name)
            if file is not None:
                found.append(Packed(file, self.form))
        return [*found, *plain]


def _open(stack: contextlib.ExitStack, path: Path) -> BinaryIO | None:
    try:
        # What is not a file of ours, but a link or a pipe that a writer has put there, is not read.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    return stack.enter_context(os.fdopen(fd, "rb", buffering=0))


def archives(directory: Path, label: str | None = None) -> list[Archive]:
    """The packed files in a directory, oldest first; only those of ``label``."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            match = _PACKED.match(name)
            if match is not None and label in (None, match[1]):
                found.append(Archive(name, match[1], int(match[2]), int(match[3]), int(match[4], 16)))
    return sorted(found, key=lambda each: (each.begin, each.end, each.name))


def is_site(name: str) -> bool:
    """Whether this is the id of a site."""
    return _SITE.match(name) is not None


def of_site(logs: Path, site: str, sources: Iterable[Source]) -> Iterator[Place]:
    archive = logs / ARCHIVE / site
    for source in sources:
        if source is Source.OUT:
            yield Place(source, Form.PLAIN, logs / site, archive, "out", site)
        elif source in (Source.ACCESS, Source.ERROR):
            label = str(source)
            yield Place(source, Form.REQUEST, logs / EDGE / site, archive, label, site, file=f"{label}.log")
        elif source is Source.IN:
            yield Place(source, Form.LEVELLED, logs / IN / site, archive, "in", site)


def of_platform(logs: Path, sources: Iterable[Source]) -> Iterator[Place]:
    archive = logs / ARCHIVE / OWN
    for source in sources:
        if source is Source.OWN:
            for part in PARTS:
                yield Place(source, Form.LEVELLED, logs / OWN / part, archive, part, of=part)
            yield Place(source, Form.PROXY, logs / EDGE, archive, "proxy", of="proxy", file="error.log")
            yield Place(source, Form.REQUEST, logs / EDGE, archive, "access", of="no-site", file="access.log")
        elif source is Source.HOST:
            yield Place(source, Form.LEVELLED, logs / HOST, logs / ARCHIVE / HOST, "host")
            yield Place(source, Form.LEVELLED, logs / IN / HOST, logs / ARCHIVE / HOST, "in")


def sites(logs: Path) -> set[str]:
    """Ids of all sites that have any lines, of destroyed ones too."""
    found: set[str] = set()
    for directory in (logs, logs / EDGE, logs / IN, logs / ARCHIVE):
        with contextlib.suppress(OSError):
            found.update(name for name in os.listdir(directory) if _SITE.match(name))
    return found


def destroyed(logs: Path, site: str) -> float | None:
    """When it was; ``None``: it was not, or nothing is left of it."""
    try:
        return (logs / ARCHIVE / site / DESTROYED).stat().st_mtime
    except OSError:
        return None


def size_of(directory: Path) -> int:
    """Bytes of the files in a directory (not below it) on the disk."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    # What was given back in the middle of a file does not count, nor what was only reserved.
                    status = entry.stat(follow_symlinks=False)
                    total += min(status.st_size, status.st_blocks * 512)
    return total


def size_of_file(file: Path) -> int:
    """Its bytes on the disk; of one that is not there, none."""
    try:
        status = file.stat()
    except OSError:
        return 0
    return min(status.st_size, status.st_blocks * 512)


def bytes_of(logs: Path, site: str) -> int:
    """All that one site takes."""
    return sum(size_of(each) for each in (logs / site, logs / EDGE / site, logs / IN / site, logs / ARCHIVE / site))
