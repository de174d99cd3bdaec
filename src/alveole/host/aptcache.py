"""Package lists and package files that all builds share, in ``S/cache/apt``.

No build works in the shared directories: each has a workplace of hard links, so that builds at the same
time need no lock but for the moment in which the lists are fetched, and what is cleaned away here is
never pulled from under one that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from alveole.config import Settings
from alveole.errors import Refused
from alveole.host import apt, paths
from alveole.host.run import ProgramFailed, run

log = logging.getLogger("alveole.agent")

#: How old lists may be for a base nobody asked to be of today.
FRESH_SECONDS = 3600.0
UPDATE_SECONDS = 600.0
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}


class Workplace:
    """What one build needs of apt: ``lists`` and ``archives`` of its own, and the sources as a file."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.lists = top / "lists"
        self.archives = top / "archives"
        self.sources = top / "etc" / "sources.list.d"
        self.preferences = top / "etc" / "preferences.d"
        self.fetched = False
        """Whether the lists were fetched for this very build."""

    def make(self) -> None:
        etc = self.top / "etc/apt.conf.d"
        for path in (self.lists / "partial", self.archives / "partial", self.sources, self.preferences, etc):
            path.mkdir(parents=True)
        # apt fetches as a user of its own, who has to get here.
        for path in (self.top, self.lists, self.archives):
            path.chmod(0o755)

    def configuration(self, status: Path) -> Path:
        """A file for ``APT_CONFIG`` with which the machine's apt sees ``status`` (a dpkg status file) as what
        is installed, and nothing of the machine's own settings but how to reach the sources."""
        lines = [
            f'Dir::Etc "{self.top}/etc";',
            f'Dir::State "{self.top}";',
            f'Dir::State::lists "{self.lists}";',
            f'Dir::State::status "{status}";',
            f'Dir::State::extended_states "{status.parent.parent}/apt/extended_states";',
            f'Dir::Cache "{self.top}";',
            f'Dir::Cache::archives "{self.archives}";',
            'Dir::Log "/dev/null";',
            'Debug::NoLocking "1";',
            *COMMON,
            *apt.settings(),
        ]
        file = self.top / "apt.conf"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file


#: Settings that hold wherever a base is made; apt.conf(5).
COMMON = (
    'APT::Install-Recommends "0";',
    'APT::Get::Assume-Yes "1";',
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
)


class Cache:
    """One a process; safe for any number of threads and processes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.top = paths.apt_cache(settings)

    def recover(self) -> None:
        """Remove the workplaces of builds that were cut short."""
        for path in self.top.glob(".work.*"):
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def workplace(self, *, fresh_seconds: float = FRESH_SECONDS, added: bool = True) -> Iterator[Workplace]:
        """A new one with lists no older than ``fresh_seconds`` and every package file there is; it goes at the end.

        Without ``added`` it knows Debian's own packages only.

        Raises ``Refused`` when the machine has no source, ``ProgramFailed`` when one cannot be reached.
        """
        self._prepare()
        place = Workplace(self.top / f".work.{secrets.token_hex(4)}")
        place.make()
        try:
            self._lists(place, fresh_seconds)
            if not added:
                (place.sources / "alveole.sources").write_text(apt.sources(apt.suite()), encoding="utf-8")
            for file in (self.top / "archives").glob("*.deb"):
                with contextlib.suppress(FileNotFoundError):
                    os.link(file, place.archives / file.name)
            yield place
            self._keep(place)
        finally:
            shutil.rmtree(place.top, ignore_errors=True)

    def _prepare(self) -> None:
        for path in (self.top.parent, self.top, self.top / "lists", self.top / "archives"):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)

    def sources(self) -> str:
        """All package sources of bases, as one deb822 file. Raises ``Refused`` when there is none."""
        suite = apt.suite()
        found = apt.sources(suite)
        if not found:
            raise Refused(
                f"this machine has no apt source for {suite}", field="base", hint="add one to /etc/apt/sources.list.d"
            )
        return "\n\n".join((found.strip(), *apt.added(self._settings.bases.sources))) + "\n"

    def age(self) -> float | None:
        """Seconds since the lists were fetched; ``None``: never."""
        try:
            return max(0.0, time.time() - (self.top / "fetched").stat().st_mtime)
        except FileNotFoundError:
            return None

    def _lists(self, place: Workplace, fresh_seconds: float) -> None:
        text = self.sources()
        (place.sources / "alveole.sources").write_text(text, encoding="utf-8")
        mark = self.top / "fetched"
        print_of = hashlib.sha256(text.encode()).hexdigest()
        with (self.top / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                age = time.time() - mark.stat().st_mtime
                if mark.read_text() == print_of and 0 <= age < fresh_seconds:
                    self._link_lists(self.top / "lists", place.lists)
                    return
            # apt replaces a list by a rename, so that links to the one before keep what they are.
            self._link_lists(self.top / "lists", place.lists)
            status = place.top / "status"
            status.touch()
            try:
                run(
                    ["apt-get", "-o", "APT::Update::Error-Mode=any", "update"],
                    env={**_ENVIRONMENT, **apt.environment(), "APT_CONFIG": str(place.configuration(status))},
                    timeout=UPDATE_SECONDS,
                )
            except ProgramFailed as error:
                # Without the network a base can still be made of what is here already.
                if fresh_seconds < FRESH_SECONDS or not mark.exists() or mark.read_text() != print_of:
                    raise
                log.warning("building with package lists of %s: %s", time.ctime(mark.stat().st_mtime), error)
                return
            kept = self.top / "lists"
            for file in kept.iterdir():
                if file.is_file():
                    file.unlink()
            self._link_lists(place.lists, kept)
            mark.write_text(print_of)
            place.fetched = True

    @staticmethod
    def _link_lists(source: Path, target: Path) -> None:
        for file in source.iterdir():
            if file.is_file() and file.name != "lock":
                os.link(file, target / file.name)

    def _keep(self, place: Workplace) -> None:
        """Take what was downloaded into the shared directory, and drop the oldest beyond the bound."""
        kept = self.top / "archives"
        for file in place.archives.glob("*.deb"):
            with contextlib.suppress(FileExistsError):
                os.link(file, kept / file.name)
        left = self._settings.bases.cache_bytes
        for _, size, file in sorted(_files(kept), reverse=True):
            left -= size
            if left < 0:
                file.unlink(missing_ok=True)


def _files(directory: Path) -> Iterator[tuple[float, int, Path]]:
    for file in directory.glob("*.deb"):
        with contextlib.suppress(FileNotFoundError):
            info = file.stat()
            yield info.st_atime, info.st_size, file
