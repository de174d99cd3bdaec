"""The working copy of a site, and the container in which people work on it.

``/site/work`` is an overlay: below it the release it began with, which never changes; above it what people have
changed, in a sparse file system with a hard size, beside the site's git repository. Nothing is copied to begin with,
a site that is stopped can be filled, and what runs needs nothing of the site's own base: the container stands on the
machine's own ``/usr``, which holds ``sftp-server``, ``rsync`` and ``git``. It has the site's ids, no capability, no
network, limits of its own, and ends a moment after its last visitor.

Everything it has on the machine hangs on one name, ``visit.<site>``, so that one sweep takes it away, after a death
of the agent too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from alveole.agent.protocol import Changes, DropWork, KeepWork, LookAtWork, Visit, Visited, WorkKept, WorkState
from alveole.backends.base import Say, Session, WorkCopy, quiet
from alveole.backends.native import exec as native_exec
from alveole.backends.native import lower
from alveole.backends.native.run import NativeBackend
from alveole.errors import AlveoleError, NoRoom, Refused, Temporary
from alveole.failpoints import hit
from alveole.host import disk, instances, mounts, paths, syscalls
from alveole.host.sandbox import Sandbox, as_user
from alveole.model.names import Digest
from alveole.model.resource import WorkloadSpec
from alveole.model.site import SITE_RELEASES, Limits, Process, Release

log = logging.getLogger("alveole.native")
WORK, GIT = "/site/work", "/site/git"
_PREFIX = "visit."
_ARGV = ("/usr/bin/sleep", "infinity")
#: A client that opens one connection after the other finds the container as it was.
LINGER_SECONDS = 3.0
_TICK_SECONDS = 0.5
#: Names of changed files that the journal takes.
_NAMES = 20
#: The kernel stamps files with the time of its last tick, at most 10 ms ago (CONFIG_HZ=100).
_TICK_OF_FILES = 0.02


class Releases(Protocol):
    """What a visit needs of ``actuators.releases``."""

    def prepare_site(self, site: str) -> None: ...
    def collect(self, site: str, number: int, tree: int, say: Say = quiet) -> Release: ...


class WorkRecord(msgspec.Struct, frozen=True):
    """``S/sites/<id>/work.json``."""

    release: Digest | None = None
    published: Digest | None = None
    published_at: float = 0.0
    kept: Digest | None = None
    """A release that was made of the copy and is perhaps not stored yet: see ``protocol.WorkKept``."""
    kept_at: float = 0.0
    half: bool = False
    """It is being given back from a backup: what lies there is worth nothing until that has ended."""


class _Room:
    """What of one site is mounted, and who is in it."""

    def __init__(self, record: WorkRecord) -> None:
        self.record = record
        self.users = 0
        self.idle_since = time.monotonic()
        self.held = contextlib.ExitStack()
        self.spec: WorkloadSpec | None = None
        self.machine: lower.Machine | None = None
        self.pid = 0
        self.started = 0

    @property
    def runs(self) -> bool:
        return self.pid > 0 and instances.is_running(self.pid, self.started)


class Visits:
    """``backend`` has the pieces that instances are made of; ``room(path)`` raises ``NoRoom`` on a full disk."""

    def __init__(
        self, backend: NativeBackend, releases: Releases, sandbox: Sandbox, room: Callable[[Path], object]
    ) -> None:
        self._backend = backend
        self._settings = backend.settings
        self._cgroups = backend.cgroups
        self._releases = releases
        self._sandbox = sandbox
        self._room = room
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._rooms: dict[str, _Room] = {}

    # Life of the agent

    def recover(self) -> None:
        """Take away what visits have that the death of an agent cut short. Once, at its start."""
        top = paths.visits(self._settings)
        top.mkdir(mode=0o711, parents=True, exist_ok=True)
        top.chmod(0o711)
        left = {name for name in self._cgroups.names() | self._backend._crun.known() if name.startswith(_PREFIX)}
        left |= {_PREFIX + entry.name for entry in os.scandir(top)}
        for name in sorted(left):
            log.warning("taking away what is left of %s", name)
            self._sweep(name.removeprefix(_PREFIX))

    def run(self, stopped: threading.Event) -> None:
        """Close what nobody is in any more, and end all visits while the state disk is full."""
        while not stopped.wait(_TICK_SECONDS):
            for site, held in list(self._rooms.items()):
                try:
                    if self._disk_is_short():
                        log.warning("the state disk is full: visitors of %s are sent away", site)
                        self._cgroups.kill(_PREFIX + site)
                    elif not held.users and time.monotonic() - held.idle_since > LINGER_SECONDS:
                        self._close(site)
                except (OSError, AlveoleError) as error:
                    log.warning("the working copy of %s could not be closed: %s", site, error)

    def close(self) -> None:
        for site in list(self._rooms):
            with contextlib.suppress(OSError, AlveoleError):
                self._cgroups.kill(_PREFIX + site)
                self._close(site, force=True)

    # Verbs

    def open(self, request: Visit) -> Session:
        """Start the program of ``request``. Raises ``NoRoom``, ``Refused``, ``Temporary``."""
        held = self._come_in(request.site, request.number, request.release)
        began = time.time()
        try:
            with self._locks[request.site]:
                if not held.runs:
                    self._start(request, held)
            if held.spec is None or held.machine is None:
                raise Temporary("the container of the working copy is not there")
            session = native_exec.open_session(
                self._settings, self._backend._crun, _PREFIX + request.site, self._process(held, request)
            )
        except BaseException:
            self._leave(request.site)
            raise

        def wait() -> Visited:
            try:
                status = session.wait()
                return Visited(status, self._changes(request.site, request.number, began))
            finally:
                self._leave(request.site)

        return Session(session.fds, wait, session.resize, session.kill)

    def look(self, request: LookAtWork) -> WorkState:
        if not paths.work_image(self._settings, request.site).exists():
            return WorkState()
        with self._mounted(request.site, request.number) as held:
            fresh = self._changes(request.site, request.number, held.record.published_at)
            record = held.record
            return WorkState(True, record.release, record.published, held.users - 1, fresh)

    def keep(self, request: KeepWork, say: Say = quiet) -> Release:
        """Raises ``Refused`` when there is none, ``InvalidInput`` for what cannot be content, ``NoRoom``."""
        if self._record(request.site) is None:
            raise Refused("nobody has worked on this site yet", field="site", hint="put files there by SFTP first")
        self._releases.prepare_site(request.site)
        with self._mounted(request.site, request.number) as held:
            at = time.time()
            tree = os.open(self._place(request.site) / "tree", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                release = self._releases.collect(request.site, request.number, tree, say)
            finally:
                os.close(tree)
            held.record = msgspec.structs.replace(held.record, kept=release.digest, kept_at=at)
            self._note(request.site, held.record)
        hit("work-kept")
        return release

    def kept(self, request: WorkKept) -> None:
        with self._locks[request.site]:
            held = self._rooms.get(request.site)
            record = held.record if held is not None else self._record(request.site)
            if record is None or record.kept != request.release:
                return
            record = WorkRecord(record.release, record.kept, record.kept_at)
            self._note(request.site, record)
            if held is not None:
                held.record = record

    def drop(self, request: DropWork) -> None:
        with self._locks[request.site]:
            held = self._rooms.get(request.site)
            if held is not None and held.users:
                raise Refused("somebody works on it at this moment", field="site", hint="ask them to leave first")
            self._close(request.site, force=True)
            paths.work_record(self._settings, request.site).unlink(missing_ok=True)
            if request.whole:
                paths.work_image(self._settings, request.site).unlink(missing_ok=True)

    def end(self, site: str) -> None:
        """End every visit of ``site`` and let go of its files."""
        self._cgroups.kill(_PREFIX + site)
        deadline = time.monotonic() + 10
        while (held := self._rooms.get(site)) is not None:
            with self._locks[site]:
                if not held.users or time.monotonic() > deadline:
                    self._close(site, force=True)
            time.sleep(0.02)

    def stands_on(self, site: str) -> str | None:
        """The release below the working copy, which must stay as long as it."""
        record = self._record(site)
        return record.release if record is not None else None

    # For backups

    @contextlib.contextmanager
    def saving(self, site: str, number: int) -> Iterator[WorkCopy | None]:
        record = self._record(site)
        if record is None or record.half or not paths.work_image(self._settings, site).exists():
            yield None
            return
        with self._mounted(site, number) as held:
            yield self._copy(site, number, held.record)

    @contextlib.contextmanager
    def still(self, site: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self._cgroups.pids(_PREFIX + site):
                stack.callback(self._cgroups.thaw, _PREFIX + site)
                self._cgroups.freeze(_PREFIX + site)
            yield

    def check_replaceable(self, site: str, number: int) -> None:
        state = self.look(LookAtWork(site, number))
        if state.visitors:
            raise Refused("somebody works on the site's files at this moment", field="site", hint="ask them to leave")
        if state.fresh.files:
            raise Refused(
                f"{state.fresh.files} files of the working copy were changed and not published; "
                "the one in the backup would take their place",
                field="site",
                hint="publish them, or drop them: alveole site work",
            )

    @contextlib.contextmanager
    def replacing(self, site: str, number: int, release: Digest | None) -> Iterator[WorkCopy]:
        with self._locks[site]:
            # Whoever wants to come in waits, so that nobody sees the half of it.
            self.check_replaceable(site, number)
            self._close(site, force=True)
            self._note(site, WorkRecord(half=True))
            held = self._come_in(site, number, release)
            self._note(site, WorkRecord(release, half=True))
            try:
                yield self._copy(site, number, held.record)
                self._note(site, held.record)
            except BaseException:
                self._leave(site)
                self._close(site, force=True)
                raise
            self._leave(site)

    def _copy(self, site: str, number: int, record: WorkRecord) -> WorkCopy:
        place = self._place(site)
        fresh = self._changed_since(place / "disk" / "layer" / "upper", number, record.published_at)["files"]
        return WorkCopy(place / "tree", place / "disk" / "git", record.release, record.published, bool(fresh))

    # Coming and going

    def _come_in(self, site: str, number: int, release: str | None) -> _Room:
        with self._locks[site]:
            held = self._rooms.get(site)
            if held is None:
                held = self._mount(site, number, release)
                self._rooms[site] = held
            held.users += 1
            return held

    def _leave(self, site: str) -> None:
        with self._locks[site]:
            if (held := self._rooms.get(site)) is not None:
                held.users -= 1
                held.idle_since = time.monotonic()

    @contextlib.contextmanager
    def _mounted(self, site: str, number: int) -> Iterator[_Room]:
        """The working copy as it is, for the block."""
        record = self._record(site)
        held = self._come_in(site, number, record.release if record is not None else None)
        try:
            yield held
        finally:
            self._leave(site)

    def _close(self, site: str, *, force: bool = False) -> None:
        with self._locks[site]:
            held = self._rooms.get(site)
            if held is None or (held.users and not force):
                return
            del self._rooms[site]
            held.held.close()

    # What it stands on

    def _place(self, site: str) -> Path:
        return paths.visits(self._settings) / site

    def _record(self, site: str) -> WorkRecord | None:
        try:
            return msgspec.json.decode(paths.work_record(self._settings, site).read_bytes(), type=WorkRecord)
        except (OSError, msgspec.DecodeError):
            return None

    def _note(self, site: str, record: WorkRecord) -> None:
        instances.write(paths.work_record(self._settings, site), msgspec.json.encode(record))

    def _mount(self, site: str, number: int, release: str | None) -> _Room:
        place, uid = self._place(site), paths.site_uid(self._settings, number)
        self._sweep(site)
        self._releases.prepare_site(site)
        self._room(paths.site(self._settings, site))
        with contextlib.ExitStack() as undo:
            undo.callback(self._sweep, site)
            place.mkdir(mode=0o711)
            place.chmod(0o711)
            hit("visit-begin")
            top = self._disk(site, place / "disk")
            record = self._record(site)
            layer = top / "layer"
            if record is None or self._is_done(site, number, layer, record):
                record = WorkRecord(release)
                mounts.prepare_layer(layer, uid, fresh=True)
                self._note(site, record)
            below = place / "nothing"
            if record.release is not None:
                below = paths.release(self._settings, site, record.release)
                if not below.is_dir():
                    raise Refused(
                        f"release {record.release[:19]}…, which the working copy stands on, is gone",
                        field="site",
                        hint="drop the working copy",
                    )
            else:
                below.mkdir(mode=0o755)
            git = top / "git"
            git.mkdir(mode=0o750, exist_ok=True)
            os.chown(git, uid, uid)
            tree = place / "tree"
            tree.mkdir(mode=0o755)
            data = f"lowerdir={below},upperdir={layer / 'upper'},workdir={layer / 'work'}"
            syscalls.mount("alveole", tree, "overlay", syscalls.MS_NODEV | syscalls.MS_NOSUID, data)
            hit("visit-mounted")
            held = _Room(record)
            held.held = undo.pop_all()
            return held

    def _is_done(self, site: str, number: int, layer: Path, record: WorkRecord) -> bool:
        """Whether nothing of the layer is wanted any more: all of it was published, or there is nothing."""
        upper = layer / "upper"
        if record.half or not upper.is_dir():
            return True
        return not self._changed_since(upper, number, record.published_at)["files"]

    def _disk(self, site: str, target: Path) -> Path:
        image, size = paths.work_image(self._settings, site), self._settings.ssh.work_bytes
        if not image.exists():
            disk.create(image, size)
        elif disk.size(image) < size:
            disk.resize(image, size)
        disk.attach(image, target)
        target.chmod(0o711)
        return target

    def _changes(self, site: str, number: int, since: float) -> Changes:
        upper = self._place(site) / "disk" / "layer" / "upper"
        try:
            return Changes(**self._changed_since(upper, number, since))
        except (AlveoleError, OSError) as error:
            log.warning("what was changed in the working copy of %s is not known: %s", site, error)
            return Changes()

    def _changed_since(self, upper: Path, number: int, since: float) -> dict[str, Any]:
        args = {"since": since - _TICK_OF_FILES if since else 0.0, "names": _NAMES}
        return self._sandbox.run("changes", upper, as_user(self._settings, number), args)

    def _sweep(self, site: str) -> None:
        """Take away all that a visit has on the machine but its disk, however far it had come. Idempotent."""
        self._backend.sweep(_PREFIX + site, self._place(site))

    def _disk_is_short(self) -> bool:
        try:
            # What is written is sparse: the disk below may fill up before the copy's own limit is reached.
            self._room(self._settings.state)
        except NoRoom:
            return True
        return False

    # The container

    def _start(self, request: Visit, held: _Room) -> None:
        name, place = _PREFIX + request.site, self._place(request.site)
        if held.pid:
            # Its first process was killed, by a shortage of memory say.
            self._cgroups.kill(name)
            self._backend._crun.forget(name)
            mounts.remove_tree(place / "bundle")
        limits = self._limits()
        self._cgroups.create(name, limits)
        spec = _spec(request, limits)
        machine = msgspec.structs.replace(self._backend._machine(spec), network="")
        volumes = self._volumes(request, held)
        bundle = self._bundle(request.site, lower.lower(spec, machine), volumes)
        self._backend._check_base(spec, bundle)
        self._backend._write_bundle(place, spec, bundle)
        output = os.memfd_create("output", os.MFD_CLOEXEC)
        try:
            self._backend._mount_root(place, spec, bundle)
            held.pid = self._backend._crun.run(name, place / "bundle", output)
        finally:
            os.close(output)
            mounts.detach(place / "root")
        held.started = instances.start_time(held.pid) or -1
        held.spec, held.machine = spec, machine
        self._cgroups.settle(name, limits)
        hit("visit-running")

    def _limits(self) -> Limits:
        ssh = self._settings.ssh
        return Limits(max(1000, (os.cpu_count() or 1) * 1000), ssh.memory_bytes, ssh.pids)

    def _volumes(self, request: Visit, held: _Room) -> list[lower.Mount]:
        """Those of the site that are there; its disk stays mounted as long as the visit."""
        if not request.volumes:
            return []
        try:
            data = held.held.enter_context(disk.borrowed(self._settings, request.site))
        except FileNotFoundError:
            return []  # nothing was kept yet: the site has never run
        found = []
        for volume in sorted(request.volumes, key=lambda each: each.path):
            place = paths.volume(data, request.generation, volume.name)
            if place.is_dir():
                found.append(lower.Mount(volume.path, "bind", str(place), ("bind", "nosuid", "nodev")))
        return found

    def _bundle(self, site: str, bundle: lower.Bundle, volumes: list[lower.Mount]) -> lower.Bundle:
        """The container of an instance, made one of a visit: other mounts, nothing of what is live."""
        config, place = bundle.config, self._place(site)
        kept = [
            mount
            for mount in config.mounts
            if mount.destination != lower.SOCKETS and not mount.destination.startswith("/etc/")
        ]
        own = (
            lower.Mount("/etc/hosts", "bind", str(place / "bundle" / "hosts"), ("bind", "ro", "nosuid", "nodev")),
            lower.Mount(WORK, "bind", str(place / "tree"), ("bind", "nosuid", "nodev")),
            lower.Mount(GIT, "bind", str(place / "disk" / "git"), ("bind", "nosuid", "nodev")),
            lower.Mount(
                SITE_RELEASES, "bind", str(paths.releases(self._settings, site)), ("bind", "ro", "nosuid", "nodev")
            ),
        )
        config = msgspec.structs.replace(
            config,
            root=lower.Root(str(place / "root"), readonly=True),
            mounts=(*kept, *own, *volumes),
        )
        generated = {"hosts": "127.0.0.1 localhost\n::1 localhost\n"}
        return msgspec.structs.replace(bundle, config=config, generated=generated, services=())

    def _process(self, held: _Room, request: Visit) -> lower.ProcessConfig:
        assert held.spec is not None and held.machine is not None  # noqa: S101  the caller has looked
        process = lower.process(held.spec, held.machine, request.argv, terminal=request.tty)
        env = tuple(each for each in process.env if not each.startswith(("PORT=", "ALVEOLE_SOCKET=")))
        return msgspec.structs.replace(process, cwd=WORK, env=env)


def _spec(request: Visit, limits: Limits) -> WorkloadSpec:
    return WorkloadSpec(
        site=request.site,
        number=request.number,
        slot=0,
        hostname=request.site,
        base=request.base.key,
        base_kind=request.base.kind,
        static=False,
        writable=False,
        processes=(Process("visit", _ARGV),),
        port=1,
        env={},
        volumes=(),
        data_generation=request.generation,
        limits=limits,
        health="/",
        ready_seconds=1,
        stop_seconds=1,
        incarnation=0,
    )
