"""The supervisor's side of an instance on this machine: its directories, its marks, and calls into it.

``supervise`` says what is written; here it is written, and the script inside is called.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from alveole.backends.base import Say, Session, quiet
from alveole.backends.native import exec as native_exec
from alveole.backends.native import lower, ready, supervise
from alveole.backends.native.supervise import Service
from alveole.config import Settings
from alveole.errors import StepFailed, Temporary
from alveole.host import bases, configstamp, instances, mounts, paths, runtime, syscalls
from alveole.host.configstamp import Readers
from alveole.host.instances import InstanceState
from alveole.host.output import Output
from alveole.model.resource import WorkloadSpec
from alveole.model.site import When

#: What of a program's output is kept for the journal.
TAIL_BYTES, TAIL_LINES = 16_384, 20
#: So many ends after a start anew are not those of a process that will answer.
DEATHS = 3
_PROGRAMS = frozenset({"run", "finish", "check", "SIGTERM"})


def write(where: Path, found: tuple[Service, ...], uid: int) -> None:
    """The supervisor's directories: in memory and bounded, because who runs as ``uid`` may write there."""
    flags = syscalls.MS_NOSYMFOLLOW | syscalls.MS_NOSUID | syscalls.MS_NODEV
    mounts.tmpfs(where, size=1024 * 1024, inodes=4096, mode=0o755, uid=uid, gid=uid, flags=flags)
    for service in found:
        files = service.files | ({"init": supervise.script()} if service.name == supervise.OWN else {})
        for name, text in files.items():
            file = where / service.name / name
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            file.write_text(text)
            # The supervisor alone starts them, and values of the environment are in there.
            file.chmod(0o700 if file.name in _PROGRAMS else 0o644)
    for top, directories, names in os.walk(where):
        for name in (".", *directories, *names):
            os.chown(Path(top) / name, uid, uid, follow_symlinks=False)


def is_up(place: Path) -> bool:
    """Whether everything of the instance at ``place`` was started once."""
    return os.path.lexists(place / "services" / supervise.UP)


def wait_up(place: Path, pidfd: int, seconds: float) -> None:
    """Wait until everything of the instance was started. Raises ``NotReady``."""
    ready.wait_until(lambda: is_up(place), pidfd, seconds, (place / "services" / supervise.UP).parent)


def _deaths(place: Path, name: str) -> int:
    """How often a process has ended by itself since it was last asked to start anew."""
    count = _plain_text(place / "services" / name / "deaths").partition(" ")[0]
    return int(count) if count.isdecimal() else 0


def ensure_state(settings: Settings, spec: WorkloadSpec) -> None:
    """The volume in which the instance remembers its tasks; it belongs to the container's root."""
    data = paths.data_dir(settings, spec.site, spec.limits.disk_bytes is not None)
    volume = paths.volume(data, spec.data_generation, paths.STATE_VOLUME)
    with contextlib.suppress(FileExistsError):
        volume.mkdir(mode=0o755)
    start = settings.uid_start(spec.number)
    if volume.lstat().st_uid != start:
        os.chown(volume, start, start, follow_symlinks=False)


def base_users(trees: Sequence[Path]) -> tuple[str, str]:
    """``/etc/passwd`` and ``/etc/group`` of a base, empty where there is none. No link is followed."""
    if not mounts.is_plain_directory(trees, "/etc"):
        return "", ""
    return _plain_text(bases.find(trees, "etc/passwd")), _plain_text(bases.find(trees, "etc/group"))


def _plain_text(file: Path) -> str:
    return plain_file(file).decode(errors="replace")


def plain_file(file: Path, most: int = 1 << 20) -> bytes:
    """The first bytes of a regular file that a site may have made; empty for anything else. No link is followed."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as opened:
        return opened.read(most) if stat.S_ISREG(os.fstat(fd).st_mode) else b""


class Inside:
    """Calls the script of running instances. ``lock`` gives what keeps others off a site meanwhile."""

    def __init__(
        self,
        settings: Settings,
        crun: runtime.Crun,
        output: Output,
        machine: Callable[[WorkloadSpec], lower.Machine],
        lock: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self._settings = settings
        self._crun = crun
        self._output = output
        self._machine = machine
        self._lock = lock

    def refresh(self, site: str, readers: Readers, forced: Collection[str] = (), say: Say = quiet) -> Failure | None:
        """Run the change tasks of every instance that is ready, and start anew who has read something else.

        ``readers``: what each process reads now; ``forced``: processes that start anew in any case.
        """
        with self._lock(site):
            for state in self._running(site):
                if state.spec.config and state.ready and (failure := self._refresh_one(state, readers, forced, say)):
                    return failure
        return None

    def _refresh_one(self, state: InstanceState, readers: Readers, forced: Collection[str], say: Say) -> Failure | None:
        if failure := self._tasks(state, When.CHANGE, say):
            return failure
        site, slot = state.spec.site, state.spec.slot
        before = configstamp.read_by(self._settings, site, slot)
        names = [
            each.name
            for each in supervise.in_order(state.spec)
            if each.name in forced or before.get(each.name, {}) != readers.get(each.name, {})
        ]
        if names:
            # Noted before: what has been asked to start anew may have read anything.
            unsure = {name: files for name, files in before.items() if name not in names}
            configstamp.note_read_by(self._settings, site, slot, unsure | {name: {"": ""} for name in names})
            say(f"starting {', '.join(names)} anew", None)
            seconds = supervise.restart_seconds(state.spec, names)
            failure = self._call(state, ("restart", *names), seconds) or self._answers_again(state, names)
            if failure:
                return failure
            configstamp.note_read_by(self._settings, site, slot, readers)
        return None

    def _answers_again(self, state: InstanceState, names: Collection[str]) -> Failure | None:
        """Wait until the site answers as it must when it starts; not for one that ends again and again."""
        place = paths.instance(self._settings, state.spec.site, state.spec.slot)
        dying: list[str] = []

        def cancelled() -> bool:
            dying[:] = [name for name in names if _deaths(place, name) >= DEATHS]
            return bool(dying)

        pidfd = instances.open_process(state.pid, state.started)
        try:
            if pidfd is None:
                return Failure("the instance ended")
            ready.wait(self._settings, state.spec, pidfd, cancelled)
        except ready.NotReady as error:
            what = f"process {dying[0]} ends again and again" if dying else f"{', '.join(names)}: {error}"
            return Failure(what, self._output.tail(state.spec.site))
        finally:
            if pidfd is not None:
                os.close(pidfd)
        mounts.open_to_group(paths.web_socket(self._settings, state.spec.site, state.spec.slot))
        return None

    def restart(self, site: str, slot: int, name: str) -> Failure | None:
        """Start one process anew, whatever it has read, and wait until the site answers again."""
        with self._lock(site):
            state = instances.load(self._settings, site, slot)
            if state is None or not state.running or not state.ready:
                return Failure("the instance is not running")
            seconds = supervise.restart_seconds(state.spec, (name,))
            return self._call(state, ("restart", name), seconds) or self._answers_again(state, (name,))

    @contextmanager
    def saving(self, site: str, say: Say = quiet) -> Iterator[tuple[WorkloadSpec, ...]]:
        """Run the backup tasks of what runs, and let nothing of the site start or stop during the block.

        Gives the workloads that run. Raises ``StepFailed`` with what a task printed last, and
        ``Temporary`` while an instance is not ready: its data may be half made.
        """
        with self._lock(site):
            states = self._running(site)
            if not all(state.ready for state in states):
                raise Temporary("the site is starting", hint="try again when it runs")
            for state in states:
                if failure := self._tasks(state, When.BACKUP, say):
                    printed = [line for line in failure.tail if not line.startswith("alveole: ")]
                    raise StepFailed(f"{failure.message}: {printed[-1]}" if printed else failure.message)
            yield tuple(state.spec for state in states)

    def _running(self, site: str) -> list[InstanceState]:
        states = (instances.load(self._settings, site, slot) for slot in instances.of_site(self._settings, site))
        return [state for state in states if state is not None and state.running]

    def _tasks(self, state: InstanceState, when: When, say: Say) -> Failure | None:
        names = [task.name for task in state.spec.tasks if task.when is when]
        if not names:
            return None
        say(f"running {', '.join(names)}", None)
        return self._call(state, ("call", str(when)), supervise.call_seconds(state.spec, when))

    def _call(self, state: InstanceState, words: tuple[str, ...], seconds: float) -> Failure | None:
        argv = ("/bin/sh", supervise.INIT, *words)
        process = lower.process(state.spec, self._machine(state.spec), argv, supervisor=True)
        output = self._output.open(state.spec.site)
        try:
            session = native_exec.open_session(self._settings, self._crun, state.name, process)
            called = follow(session, output, seconds)
        finally:
            os.close(output)
        if called.status == 0:
            return None
        said = message(called.tail) or f"{' '.join(words)} ended with status {called.status}"
        return Failure(said, called.tail)


class Failure(msgspec.Struct, frozen=True):
    message: str
    tail: tuple[str, ...] = ()


class Called(msgspec.Struct, frozen=True):
    status: int
    tail: tuple[str, ...]


def follow(session: Session, output: int, seconds: float) -> Called:
    """Wait for a program started inside; what it prints goes to the site's log and, its end, to the caller.

    After ``seconds`` it is killed, and its status is 137.
    """
    writer, *readers = session.fds
    os.close(writer)
    deadline = time.monotonic() + seconds
    kept = b""
    poll = select.poll()
    for fd in readers:
        poll.register(fd, select.POLLIN)
    try:
        left = set(readers)
        while left:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                session.kill(signal.SIGKILL)
                break
            for fd, _ in ready:
                part = os.read(fd, 65_536)
                if not part:
                    poll.unregister(fd)
                    left.discard(fd)
                    continue
                kept = (kept + part)[-TAIL_BYTES:]
                _log(output, part)
    finally:
        for fd in readers:
            os.close(fd)
    status = session.wait()
    return Called(status, tuple(kept.decode("utf-8", "replace").splitlines()[-TAIL_LINES:]))


def _log(output: int, part: bytes) -> None:
    """To the site's log as well, unless that is full: nothing waits for a log."""
    poll = select.poll()
    poll.register(output, select.POLLOUT)
    view = memoryview(part)
    # A write of up to PIPE_BUF bytes to a pipe that takes some never waits (pipe(7)).
    while view and poll.poll(0):
        view = view[os.write(output, view[: select.PIPE_BUF]) :]


def message(tail: tuple[str, ...]) -> str:
    """Of what was printed the last line of ours, which says what failed."""
    found = [line for line in tail if line.startswith("alveole: ")]
    return found[-1].removeprefix("alveole: ") if found else ""
