"""Trying a site out beside itself: a copy of its data under another number, and questions to an instance."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from alveole.actuators.releases import Releases
from alveole.agent.protocol import CheckHealth, CloneSite, Link
from alveole.backends.base import Say, Session, quiet
from alveole.backends.native import ready
from alveole.config import Settings
from alveole.errors import AlveoleError, NotFound, StepFailed
from alveole.host import disk, instances, mounts, paths, syscalls, userns
from alveole.host.run import run
from alveole.model.resource import WorkloadSpec
from alveole.model.site import HealthCheck

_COPY_SECONDS = 3600.0
#: The answer of a check is read so far.
_ANSWER_BYTES = 4 << 20
_SHOWN = 300


class Backend(Protocol):
    def frozen(self, site: str) -> AbstractContextManager[None]: ...
    def exec(self, site: str, slot: int, argv: tuple[str, ...], *, tty: bool, uid: int | None) -> Session: ...


class Trials:
    def __init__(self, settings: Settings, releases: Releases, backend: Backend) -> None:
        self._settings = settings
        self._releases = releases
        self._backend = backend

    def recover(self) -> None:
        """Take away the mounts of copies that were cut short. Once, at the start of the agent."""
        for point in self._mounts.glob("*"):
            mounts.detach(point)
            with contextlib.suppress(OSError):
                point.rmdir()

    @property
    def _mounts(self) -> Path:
        return self._settings.run / "clones"

    def clone(self, request: CloneSite, say: Say = quiet) -> None:
        """Carry out ``CloneSite``. Raises ``NotFound`` without the release, ``ProgramFailed`` when it does not fit."""
        settings = self._settings
        self._releases.prepare_site(request.to)
        if request.release is not None:
            source = paths.release(settings, request.site, request.release)
            target = paths.release(settings, request.to, request.release)
            if not source.is_dir():
                raise NotFound(f"release {request.release[:19]}… is missing", hint="deliver it again")
            if not target.exists():
                say("copying the content", None)
                with self._seen_as(request, source) as seen:
                    fresh = paths.staging(settings, request.to) / target.name
                    mounts.remove_tree(fresh)
                    _copy(seen, fresh)
                    fresh.rename(target)
        with contextlib.ExitStack() as stack:
            try:
                data = stack.enter_context(disk.borrowed(settings, request.site))
                own = stack.enter_context(disk.borrowed(settings, request.to))
            except FileNotFoundError:
                return
            volumes = paths.volumes(data, request.generation)
            if not volumes.is_dir():
                return
            say("copying the volumes", None)
            with self._seen_as(request, volumes) as seen, self._backend.frozen(request.site):
                _copy(seen, paths.volumes(own, 1))

    @contextlib.contextmanager
    def _seen_as(self, request: CloneSite, tree: Path) -> Iterator[Path]:
        """``tree`` of the one site with the owners it would have as the other's."""
        point = self._mounts / request.to
        point.mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts.detach(point)
        start = self._settings.uid_start
        space = userns.create(start(request.to_number), inside=start(request.number))
        try:
            attributes = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
            syscalls.mount_idmapped(tree, point, space, attributes=attributes)
            yield point
        finally:
            os.close(space)
            mounts.detach(point)
            with contextlib.suppress(OSError):
                point.rmdir()

    def check(self, request: CheckHealth) -> tuple[Link, ...]:
        """Carry out ``CheckHealth``. Raises ``NotFound`` when the instance does not run."""
        state = instances.load(self._settings, request.site, request.slot)
        if state is None or not state.running:
            raise NotFound(f"no instance {request.slot} of {request.site} runs", hint="start the site first")
        # Here and not above: an agent that is asked for no check does without it.
        import http.client

        found = []
        for check in request.checks:
            began = time.monotonic()
            try:
                asked, came, well = (
                    self._inside(state.spec, check, request.seconds)
                    if check.argv
                    else self._over_http(state.spec, check, request.seconds)
                )
            except (AlveoleError, OSError, http.client.HTTPException) as error:
                asked, came, well = (
                    " ".join(check.argv) or f"GET {check.path}",
                    str(error) or type(error).__name__,
                    False,
                )
            took = (time.monotonic() - began) * 1000
            found.append(Link(check.name, well, asked, came, "" if well else "see: alveole site logs", took))
        return tuple(found)

    def _inside(self, spec: WorkloadSpec, check: HealthCheck, seconds: float) -> tuple[str, str, bool]:
        session = self._backend.exec(spec.site, spec.slot, check.argv, tty=False, uid=check.uid)
        late = threading.Event()

        def end() -> None:
            late.set()
            session.kill(signal.SIGKILL)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            os.close(session.fds[0])
            text = _read(session.fds[1:])
            status = session.wait()
        finally:
            timer.cancel()
            for fd in session.fds[1:]:
                os.close(fd)
        # What ended well by itself just before it would have been killed did end well.
        if late.is_set() and status != 0:
            return " ".join(check.argv), f"no answer within {seconds:g} s", False
        shown = text.decode(errors="replace").strip()
        well = status == 0 and check.contains in shown
        missing = "" if check.contains in shown else f" without {check.contains!r}"
        return " ".join(check.argv), f"status {status}{missing}: {shown[-_SHOWN:]}".rstrip(": "), well

    def _over_http(self, spec: WorkloadSpec, check: HealthCheck, seconds: float) -> tuple[str, str, bool]:
        import http.client

        target = ready.target(self._settings, spec)
        link = socket.socket(socket.AF_UNIX if isinstance(target, str) else socket.AF_INET, socket.SOCK_STREAM)
        connection = http.client.HTTPConnection(spec.hostname)
        try:
            link.settimeout(seconds)
            link.connect(target)
            connection.sock = link
            connection.request("GET", check.path, headers={"User-Agent": "alveole", "Connection": "close"})
            answer = connection.getresponse()
            body = answer.read(_ANSWER_BYTES).decode(errors="replace")
        finally:
            connection.close()
            link.close()
        well = answer.status == check.status and check.contains in body
        missing = "" if check.contains in body else f" without {check.contains!r}"
        return f"GET {check.path}", f"status {answer.status}{missing}", well


def _read(fds: tuple[int, ...]) -> bytes:
    """What comes out of all of them until they end, the first bytes of it."""
    poll = select.poll()
    left = set(fds)
    for fd in left:
        poll.register(fd, select.POLLIN)
    found = b""
    while left:
        for fd, _ in poll.poll():
            data = os.read(fd, 65_536)
            if not data:
                poll.unregister(fd)
                left.discard(fd)
            found = (found + data)[-_ANSWER_BYTES:]
    return found


def _copy(source: Path, target: Path) -> None:
    """All of ``source`` as it is, links as links; what ``target`` holds already is written over."""
    argv = ("cp", "-a", "--sparse=always", "--reflink=auto", "-T", "--", str(source), str(target))
    done = run(argv, timeout=_COPY_SECONDS, check=False)
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()
        raise StepFailed(f"the data could not be copied: {lines[-1] if lines else 'cp printed nothing'}")
