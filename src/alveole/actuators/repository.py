"""The repository that restic keeps: one archive a backup, under tags that say whose it is and what it must be."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

import msgspec

from alveole import wholefile
from alveole.agent.saving import LOCAL, BackupMade
from alveole.config import Settings
from alveole.errors import NotFound, Refused, Temporary
from alveole.host import paths
from alveole.host.run import ENVIRONMENT, ProgramFailed, run, start

log = logging.getLogger("alveole.agent")
FILE = "/archive.tar"
_TAG = "alveole"
#: Of what is kept beside the backups: see :meth:`Repository.held`.
_HELD = "alveole-held"
_SECONDS = 6 * 3600.0
_SNAPSHOT = re.compile(r"^[0-9a-f]{8,64}\Z")
#: What restic says of a repository that does not hold what it should. Anything else that keeps it from reading one, as
#: a line that is cut ("connection lost"), says nothing of what is held there.
_CORRUPT = re.compile(
    r"ciphertext verification failed|invalid data returned|not found in repository|no matching ID found|wrong hash"
    r"|ReadFull\(<[^>]*>\): (?:EOF|file does not exist|open .*: no such file or directory)\Z"
    r"|ReadFull\(<[^>]*>\): The specified key does not exist"
)
#: Beside what it died of.
_ASIDE = ("Load(", "error in cleanup handler", "Is there a repository at")
#: What restic needs to reach a repository elsewhere comes from the agent's own environment.
_PASSED = re.compile(r"^(?:AWS|B2|AZURE|GOOGLE|OS|ST|RCLONE)_[A-Z0-9_]+\Z")


class _Snapshot(msgspec.Struct):
    """The part of ``restic snapshots --json`` that is used."""

    id: str
    time: str
    tags: tuple[str, ...] = ()


class Held(msgspec.Struct, frozen=True):
    snapshot: str
    bytes: int
    digest: str


class Way(msgspec.Struct, frozen=True):
    """How restic reaches a repository. ``environment`` holds what is secret: no argument ever does."""

    place: str
    """What ``restic --repo`` is given."""
    local: Path | None = None
    """Its directory, when it is one of this machine."""
    options: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class Repository:
    """One repository. Safe from several threads."""

    def __init__(self, settings: Settings, name: str, way: Way) -> None:
        self._settings = settings
        self.name = name
        self.way = way
        # restic locks its repository against itself; waiting here is kinder than failing there.
        self._lock = threading.RLock()
        self._ready = False

    def prepare(self) -> None:
        """Make the password and the repository unless they are there, and drop locks of the dead.

        Raises ``Refused`` for a repository whose password is lost, ``ProgramFailed``.
        """
        with self._lock:
            if self._ready:
                return
            local = self.way.local
            exists = (local / "config").exists() if local is not None else None
            self.prepare_key()
            if exists is None:
                exists = self._restic("cat", "config", check=False).returncode == 0
            if not exists:
                self._restic("init")
            elif local is None or any((local / "locks").iterdir()):
                # restic removes a lock whose process has died or that nobody renewed for 30 minutes.
                self._restic("unlock")
            self._ready = True

    def prepare_key(self) -> None:
        """Make the key unless it is there. Raises ``Refused`` where it is lost."""
        password = paths.backup_password(self._settings)
        with self._lock:
            if password.exists():
                return
            if self.way.local is not None and (self.way.local / "config").exists():
                raise Refused(
                    f"the password of the backups is missing ({password})",
                    field="backups",
                    hint="put the file back; without it no backup can be read",
                )
            _make_password(password)

    def _argv(self, *words: str) -> list[str]:
        cache = ("--no-cache",)
        if self.way.local is None:
            cache = (f"--cache-dir={paths.secrets(self._settings) / 'restic-cache'}",)
        return [
            # A backup that nobody waits for any more must not go on and appear later.
            *("setpriv", "--pdeathsig", "KILL", "restic", "--repo", self.way.place, *self.way.options),
            *("--password-file", str(paths.backup_password(self._settings)), *cache, *words),
        ]

    def _environment(self) -> dict[str, str]:
        passed = {key: value for key, value in os.environ.items() if _PASSED.match(key)}
        return {**passed, **self.way.environment}

    def _restic(self, *words: str, stdin: int | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = self._argv(*words)
        try:
            return run(argv, stdin=stdin, env=self._environment(), timeout=_SECONDS, check=check)
        except ProgramFailed as error:
            # The one who reads it wants to hear of restic, not of what starts it.
            raise ProgramFailed(argv[argv.index("restic") :], error.status, "\n".join(error.tail)) from None

    def _snapshots(self, tag: str = _TAG) -> list[_Snapshot]:
        self.prepare()
        with self._lock:
            done = self._restic("snapshots", "--json", "--tag", tag)
        # Warnings stand before the document.
        text = next((line for line in done.stdout.splitlines() if line.startswith(("[", "null"))), "null")
        return msgspec.json.decode(text, type=list[_Snapshot] | None) or []

    def list(self, site: str | None = None) -> tuple[BackupMade, ...]:
        """What the repository holds of ours, or of one site, oldest first."""
        found = []
        for snapshot in self._snapshots():
            tags = dict(tag.partition("=")[::2] for tag in snapshot.tags)
            if site is not None and tags.get("site") != site:
                continue
            with contextlib.suppress(msgspec.ValidationError, ValueError):
                made = {
                    "id": tags.get("id"),
                    "snapshot": self._named(snapshot.id[:8]),
                    "bytes": int(tags.get("bytes", "")),
                    "digest": f"sha256:{tags.get('digest')}",
                    "created_at": _seconds(snapshot.time),
                }
                found.append(msgspec.convert(made, BackupMade))
        return tuple(sorted(found, key=lambda backup: backup.created_at))

    def store(self, id: str, site: str, spool: int, size: int, digest: str) -> BackupMade:
        """Take the archive that is open at its beginning. Raises ``ProgramFailed``, ``Temporary``."""
        snapshot = self._take((_TAG, f"id={id}", f"site={site}"), spool, size, digest)
        return BackupMade(id, self._named(snapshot), size, digest, datetime.datetime.now(datetime.UTC).timestamp())

    def _take(self, about: tuple[str, ...], spool: int, size: int, digest: str) -> str:
        tags = ",".join((*about, f"bytes={size}", f"digest={paths.hex_of(digest)}"))
        words = ("backup", "--json", "--quiet", "--host", "alveole", "--tag", tags, "--stdin", "--stdin-filename", FILE)
        with self._lock:
            done = self._restic(*words, stdin=spool)
        match = re.search(r'"snapshot_id":"([0-9a-f]{8,64})"', done.stdout)
        if match is None:
            raise Temporary("restic did not say under which name it stored the backup")
        return match[1]

    # --- beside the backups -------------------------------------------------------------------
    def held(self, by: str | None = None) -> dict[str, Held]:
        """Archives of what never changes, by name: no backup of anybody, and in no list of these. ``by``: of that
        machine alone."""
        found = {}
        for snapshot in self._snapshots(_HELD):
            tags = dict(tag.partition("=")[::2] for tag in snapshot.tags)
            if by is not None and tags.get("by") != by:
                continue
            with contextlib.suppress(KeyError, ValueError):
                named = self._named(snapshot.id[:8])
                found[tags["what"]] = Held(named, int(tags["bytes"]), f"sha256:{tags['digest']}")
        return found

    def hold(self, what: str, by: str, spool: int, size: int, digest: str) -> None:
        """Take such an archive, open at its beginning. ``what`` and ``by``: no comma, no blank."""
        self._take((_HELD, f"what={what}", f"by={by}"), spool, size, digest)

    def hold_of(self, source: Repository, held: Held) -> None:
        """Such an archive of another repository of the same key. Raises ``Refused``."""
        self._copy(source, held.snapshot)

    def let_go(self, held: Collection[Held]) -> None:
        """Forget them; their room is given back by the next :meth:`prune`."""
        if held:
            with self._lock:
                self._restic("unlock")
                self._restic("forget", *(each.snapshot.rpartition("/")[2] for each in held))

    def _named(self, snapshot: str) -> str:
        return snapshot if self.name == LOCAL else f"{self.name}/{snapshot}"

    def known(self, snapshot: str) -> BackupMade:
        if not _SNAPSHOT.match(snapshot.rpartition("/")[2]):
            raise NotFound("that is no name of a backup")
        for backup in self.list():
            if snapshot.startswith(backup.snapshot):
                return backup
        raise NotFound(f"the backup {snapshot} is not in the repository {self.name}", hint="alveole backup list")

    @contextlib.contextmanager
    def dump(self, snapshot: str) -> Iterator[IO[bytes]]:
        """The archive's bytes as restic gives them.

        Raises ``Refused`` when these are damaged, and ``Temporary`` when they could not be read for another reason.
        """
        with self._lock:
            process = start(
                self._argv("dump", snapshot.rpartition("/")[2], FILE),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**ENVIRONMENT, **self._environment()},
            )
            errors: list[bytes] = []
            reader = threading.Thread(target=lambda: errors.append(process.stderr.read()) if process.stderr else None)
            reader.start()
            try:
                if process.stdout is None:
                    raise ValueError("restic was started without a pipe")
                yield process.stdout
                status = process.wait(60)
            finally:
                process.kill()
                process.wait()
                reader.join()
                for stream in (process.stdout, process.stderr):
                    if stream is not None:
                        stream.close()
        if status != 0:
            lines = b"".join(errors).decode("utf-8", "replace").strip().splitlines()
            said = next((each for each in reversed(lines) if ": " in each and not each.startswith(_ASIDE)), "")
            if _CORRUPT.search(said):
                raise damaged(snapshot, f"restic cannot read it: {said}")
            raise Temporary(f"the backup {snapshot} could not be read: {said or f'restic ended with status {status}'}")

    def drop(self, snapshot: str, *, prune: bool = True) -> None:
        """Forget a backup and give its room back, at once or with the next :meth:`prune`; an absent one is fine."""
        try:
            known = self.known(snapshot)
        except NotFound:
            return
        with self._lock:
            self._restic("unlock")
            self._restic("forget", known.snapshot.rpartition("/")[2])
        if prune:
            self.prune()

    def prune(self) -> None:
        with self._lock:
            try:
                self._restic("prune")
            except ProgramFailed as error:
                # What was dropped is gone from the list all the same; a damaged repository must not keep it there.
                log.warning("the room of what was dropped in %s is not given back: %s", self.name, error)

    def check(self) -> int:
        """Have restic compare the repository's structure; gives how many backups it holds. Raises ``ProgramFailed``."""
        self.prepare()
        with self._lock:
            self._restic("check")
        return len(self.list())

    def copy_from(self, source: Repository, snapshot: str, id: str) -> str:
        """Copy a backup of another repository of the same key; gives its name here. Raises ``Refused``."""
        if there := self._called(id):
            return there
        self._copy(source, snapshot)
        if there := self._called(id):
            return there
        raise Temporary("restic did not say under which name it stored the copy")

    def _copy(self, source: Repository, snapshot: str) -> None:
        shared = source.way.environment.keys() & self.way.environment.keys()
        if shared or (source.way.options and self.way.options):
            raise Refused("restic cannot copy between two repositories of this kind", hint="copy by way of a local one")
        words = ("copy", "--from-repo", source.way.place, *source.way.options)
        password = ("--from-password-file", str(paths.backup_password(self._settings)))
        argv = self._argv(*words, *password, snapshot.rpartition("/")[2])
        with self._lock, source._lock:
            run(argv, env={**self._environment(), **source.way.environment}, timeout=_SECONDS)

    def _called(self, id: str) -> str:
        return next((each.snapshot for each in self.list() if each.id == id), "")


def _make_password(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    wholefile.write(path, secrets.token_urlsafe(32).encode() + b"\n")


def damaged(snapshot: str, why: str) -> Refused:
    return Refused(f"the backup {snapshot} is damaged: {why}", field="backup", hint="use another backup")


def _seconds(text: str) -> float:
    # restic writes nanoseconds, which Python 3.11 does not read.
    return datetime.datetime.fromisoformat(re.sub(r"\.(\d{6})\d*", r".\1", text)).timestamp()
