"""Where backups are kept: the repository that is always there, and further ones that people have added.

How one is reached lies in a file of root's, with what is secret about it; none of that is ever given out again, put
into an argument or logged. All repositories of a machine are sealed with one key, so that restic copies between them
as they are, and a copy can be opened by whoever has kept that key.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from alveole import wholefile
from alveole.actuators.repository import Repository, Way
from alveole.agent.saving import LOCAL, BackupMade, Kind, PutRepository, RepositoryState
from alveole.config import Settings
from alveole.errors import AlveoleError, InvalidInput, NotFound, Refused
from alveole.host import paths
from alveole.host.run import ProgramFailed, run

T = TypeVar("T")
_SFTP = re.compile(
    r"(?P<user>[a-z_][a-z0-9._-]{0,31})@(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])"
    r"(?::(?P<port>\d{1,5}))?(?P<path>(?:/[A-Za-z0-9._-]+)+)\Z"
)
_S3 = re.compile(r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?(?:/[A-Za-z0-9._-]+)+\Z")
_PLAIN = re.compile(r"(?:/[A-Za-z0-9._-]+)+\Z")
#: Before each line of ssh that restic passes on.
_BY_SSH = "subprocess ssh: "
_HOST_KEY = re.compile(r"(?:ssh-[a-z0-9-]+|ecdsa-[a-z0-9-]+) [A-Za-z0-9+/]+={0,3}\Z")
#: Nothing that is asked of a person reaches S3 in the clear, but on this machine itself.
_HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Repositories:
    """Safe from several threads. Where a backup is said by the beginning of its snapshot's name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._known: dict[str, Repository] = {}
        self._asked: dict[str, tuple[float, str, int | None]] = {}

    # --- which there are ----------------------------------------------------------------------
    @property
    def _place(self) -> Path:
        return paths.secrets(self._settings) / "repositories"

    def _file(self, name: str) -> Path:
        return self._place / name / "repository.json"

    def _own(self, name: str) -> PutRepository:
        try:
            return msgspec.json.decode(self._file(name).read_bytes(), type=PutRepository)
        except FileNotFoundError:
            raise NotFound(f"there is no repository {name!r}", hint="see: alveole backup repository list") from None

    def used(self) -> str:
        """The name of the one that new backups go into."""
        with contextlib.suppress(FileNotFoundError):
            name = (self._place / "used").read_text()
            if self._file(name).exists():
                return name
        return LOCAL

    def of(self, name: str) -> Repository:
        with self._lock:
            if name not in self._known:
                self._known[name] = Repository(self._settings, name, self._way(name))
            return self._known[name]

    def _of_snapshot(self, snapshot: str) -> Repository:
        return self.of(snapshot.rpartition("/")[0] or LOCAL)

    def _way(self, name: str) -> Way:
        if name == LOCAL:
            named = self._settings.backups.repository
            place = paths.backup_repository(self._settings)
            return Way(place, None if named else Path(place))
        own = self._own(name)
        if own.kind is Kind.LOCAL:
            return Way(own.place, Path(own.place))
        if own.kind is Kind.S3:
            environment = {"AWS_ACCESS_KEY_ID": own.user, "AWS_SECRET_ACCESS_KEY": own.secret}
            if own.region:
                environment["AWS_DEFAULT_REGION"] = own.region
            return Way(f"s3:{own.place}", environment=environment)
        found = _SFTP.match(own.place)
        if found is None:
            raise Refused(f"{name} has no place that is one")
        return Way(f"sftp:{found['user']}@{found['host']}:{found['path']}", options=("-o", self._ssh(name, found)))

    def _ssh(self, name: str, found: re.Match[str]) -> str:
        folder = self._place / name
        # restic splits this itself, at blanks; none of the parts can hold one.
        words = (
            *("ssh", "-F", "/dev/null", "-p", found["port"] or "22", "-i", str(folder / "key")),
            *("-o", f"UserKnownHostsFile={folder / 'known_hosts'}", "-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ClearAllForwardings=yes"),
            *(f"{found['user']}@{found['host'].strip('[]')}", "-s", "sftp"),
        )
        return f"sftp.command={' '.join(words)}"

    # --- what people decide -------------------------------------------------------------------
    def states(self) -> tuple[RepositoryState, ...]:
        """The one that is always there first. Nobody is asked for it."""
        names = sorted(each.parent.name for each in self._place.glob("*/repository.json"))
        return tuple(self._state(name) for name in (LOCAL, *names))

    def _state(self, name: str) -> RepositoryState:
        kind, place = Kind.LOCAL, paths.backup_repository(self._settings)
        if name != LOCAL:
            own = self._own(name)
            kind, place = own.kind, own.place
        elif self._settings.backups.repository:
            kind = Kind.OTHER
        at, problem, count = self._asked.get(name, (None, "", None))
        public = self._place / name / "key.pub"
        key = public.read_text().strip() if kind is Kind.SFTP and public.exists() else ""
        return RepositoryState(name, kind, place, name == self.used(), problem, at, key, count)

    def put(self, request: PutRepository, *, anywhere: bool = False) -> RepositoryState:
        """Keep how a repository is reached, and reach it. What was kept before stays when that fails.

        ``anywhere``: root itself names the directory, on this machine.
        """
        if not (anywhere and request.kind is Kind.LOCAL and _PLAIN.match(request.place)):
            self._check(request)
        if request.kind is Kind.SFTP:
            self.new_key(request.name)
        file = self._file(request.name)
        before = file.read_bytes() if file.exists() else None
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        wholefile.write(file, msgspec.json.encode(request))
        if request.kind is Kind.SFTP:
            found = _SFTP.match(request.place)
            host = found["host"].strip("[]") if found else ""
            port = found["port"] if found else None
            known = host if port in (None, "22") else f"[{host}]:{port}"
            wholefile.write(file.with_name("known_hosts"), f"{known} {request.host_key}\n".encode())
        with self._lock:
            self._known.pop(request.name, None)
        try:
            count = len(_told(request.name, self.of(request.name).list))
            self._asked[request.name] = (time.time(), "", count)
            return self._state(request.name)
        except AlveoleError:
            with self._lock:
                self._known.pop(request.name, None)
            if before is None:
                file.unlink(missing_ok=True)
            else:
                wholefile.write(file, before)
            raise

    def _check(self, request: PutRepository) -> None:
        place = request.place
        if request.name == LOCAL:
            raise InvalidInput("is the name of the one that is always there", field="name")
        if "/../" in f"{place}/" or "/./" in f"{place}/":
            raise InvalidInput("leads elsewhere by '..'", field="place")
        if request.kind is Kind.LOCAL:
            allowed = self._settings.backups.places
            if not _PLAIN.match(place) or not any(place.startswith(f"{each.rstrip('/')}/") for each in allowed):
                hint = f"below {', '.join(allowed)} (backups.places in the settings)"
                raise InvalidInput("is no directory that a repository may be in", field="place", hint=hint)
        elif request.kind is Kind.SFTP:
            if not _SFTP.match(place):
                raise InvalidInput("is not USER@HOST:PORT/PATH", field="place")
            if not _HOST_KEY.match(request.host_key):
                hint = "as in /etc/ssh/ssh_host_ed25519_key.pub there: TYPE BASE64"
                raise InvalidInput("is no key of a host", field="host_key", hint=hint)
        elif request.kind is Kind.S3:
            found = _S3.match(place)
            if found is None or (found["scheme"] == "http" and found["host"] not in _HERE):
                raise InvalidInput("is not https://HOST/BUCKET/PREFIX", field="place")
            if not request.user or not request.secret:
                raise InvalidInput("is needed: the id and the secret of an access key", field="secret")
        else:
            raise InvalidInput("is local, sftp or s3", field="kind")

    def new_key(self, name: str) -> str:
        """The public key that a repository signs in with over SSH; made once."""
        folder = self._place / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = folder / "key"
        if not key.exists():
            fresh = folder / f".{secrets.token_hex(4)}"
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"alveole-{name}", "-f", str(fresh)])
            fresh.with_name(f"{fresh.name}.pub").rename(folder / "key.pub")
            fresh.rename(key)
            wholefile.sync_directory(folder)
        return (folder / "key.pub").read_text().strip()

    def check(self, name: str) -> RepositoryState:
        """Reach it and compare its structure; the state says what came."""
        try:
            count = _told(name, self.of(name).check)
            self._asked[name] = (time.time(), "", count)
        except AlveoleError as error:
            self._asked[name] = (time.time(), str(error)[:500], None)
            raise
        return self._state(name)

    def use(self, name: str) -> None:
        if name != LOCAL:
            self._own(name)
        _told(name, self.of(name).prepare)
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        wholefile.write(self._place / "used", name.encode())

    def forget(self, name: str) -> None:
        self._own(name)
        if self.used() == name:
            raise Refused(f"new backups go to {name}", field="repository", hint="use another one first")
        for file in sorted((self._place / name).iterdir()):
            file.unlink()
        (self._place / name).rmdir()
        with self._lock:
            self._known.pop(name, None)
        self._asked.pop(name, None)

    def key(self) -> str:
        """What all of them are sealed with; made with the first repository."""
        self.of(LOCAL).prepare_key()
        return paths.backup_password(self._settings).read_text().strip()

    # --- what they hold -----------------------------------------------------------------------
    def prepare(self) -> None:
        self.of(self.used()).prepare()

    @property
    def is_local(self) -> bool:
        """Whether new backups take room on this machine's own disk."""
        return self.used() == LOCAL and not self._settings.backups.repository

    def list(self, site: str | None = None) -> tuple[BackupMade, ...]:
        return self.of(self.used()).list(site)

    def store(self, id: str, site: str, spool: int, size: int, digest: str) -> BackupMade:
        return self.of(self.used()).store(id, site, spool, size, digest)

    def known(self, snapshot: str) -> BackupMade:
        return self._of_snapshot(snapshot).known(snapshot)

    @contextlib.contextmanager
    def dump(self, snapshot: str) -> Iterator[IO[bytes]]:
        with self._of_snapshot(snapshot).dump(snapshot) as stream:
            yield stream

    def drop(self, snapshot: str, *, prune: bool = True) -> None:
        try:
            repository = self._of_snapshot(snapshot)
        except NotFound:
            # Its repository was forgotten: what it holds is nobody's affair here any more.
            return
        repository.drop(snapshot, prune=prune)

    def prune(self) -> None:
        for state in self.states():
            with contextlib.suppress(AlveoleError):
                self.of(state.name).prune()

    def copy(self, id: str, snapshot: str, to: str) -> str:
        target, source = self.of(to), self._of_snapshot(snapshot)
        if target is source:
            return snapshot
        return target.copy_from(source, snapshot, id)


def _told(name: str, work: Callable[[], T]) -> T:
    """What ``work`` gives; what restic says of a repository that it cannot use, as a refusal that names it."""
    for last in (False, True):
        try:
            return work()
        except ProgramFailed as error:
            told = "\n".join(error.tail)
            # restic may end before it has passed on why ssh did, and is asked once more then.
            if not last and "unable to start the sftp session" in told and _BY_SSH not in told:
                continue
            said = [line.split(_BY_SSH)[-1].strip() for line in error.tail if line.strip()]
            # ssh speaks first, and says why; restic only that nothing came.
            text = said[0] if _BY_SSH in told else said[-1] if said else "restic printed nothing"
            raise Refused(f"{name} cannot be used: {text[:400]}", field="repository") from None
    raise AssertionError("it is done, or refused")
