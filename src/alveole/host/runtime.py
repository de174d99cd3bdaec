"""crun: start a bundle, start a program inside, forget what has ended.

The runtime is not asked to kill or to manage cgroups: ``host.cgroups`` does both, and what crun
remembers of a container is one directory below ``R/crun`` that nobody else looks at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from alveole.config import Settings
from alveole.errors import Temporary
from alveole.host import instances, mounts, paths, syscalls
from alveole.host.cgroups import Cgroups
from alveole.host.run import ProgramFailed

CRUN = "/usr/bin/crun"
_TIMEOUT = 30.0
log = logging.getLogger("alveole.agent")


def allow_core_limit() -> None:
    """Have ``RLIMIT_CORE`` where instances need it (1: see :mod:`alveole.host.seccomp`).

    sudo starts everything with 0 (sudoers(5), ``rlimit_core``), and the runtime in a user namespace cannot raise it.
    Where root itself may not either, no instance starts: with 0, crashes in them would run a program of the machine's.
    """
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        except (OSError, ValueError):
            log.error("no site starts: the limit of core files is 0 here, and may not be raised (CAP_SYS_RESOURCE)")


def prepare_mount_namespace(settings: Settings) -> None:
    """What the agent does first, before any thread; see :func:`alveole.host.mounts.prepare_namespace`."""
    mounts.prepare_namespace(settings.run, paths.sites(settings))


def become_reaper() -> None:
    """Have the instances' first processes handed to this process when crun leaves them.

    Their exit status is told to a parent only. An instance that was started by an agent before
    this one belongs to the machine's own init, and its status is not known.
    """
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


class Crun:
    def __init__(self, settings: Settings, cgroups: Cgroups) -> None:
        self._root = settings.run / "crun"
        self._cgroups = cgroups

    def run(self, name: str, bundle: Path, output: int) -> int:
        """Start the container ``name`` of ``bundle`` in its cgroup; gives the process id of its first process.

        ``output`` is the file it prints to. Its input is at its end from the start. Raises
        :class:`ProgramFailed` with what crun said.
        """
        self._root.mkdir(mode=0o700, exist_ok=True)
        errors, pid_file = bundle / "crun.log", bundle / "pid"
        errors.unlink(missing_ok=True)
        argv = [*self._argv(errors), "run", "--detach", "--bundle", str(bundle), "--pid-file", str(pid_file), name]
        with _empty() as stdin:
            process = self._cgroups.spawn(name, argv, stdin=stdin, stdout=output, stderr=output)
        # Popen.wait with a time limit sleeps between looks, up to 50 ms too long.
        pidfd = os.pidfd_open(process.pid)
        try:
            if not instances.wait_end(pidfd, _TIMEOUT):
                process.kill()
                process.wait()
                raise Temporary(f"crun did not start {name} within {_TIMEOUT:g} s")
        finally:
            os.close(pidfd)
        status = process.wait()
        if status != 0:
            raise ProgramFailed(argv, status, _said(errors))
        return int(pid_file.read_text())

    def exec(
        self,
        name: str,
        process: Path,
        *,
        console: Path | None = None,
        stdio: Sequence[int] = (),
        pid_file: Path,
        errors: Path,
    ) -> subprocess.Popen[bytes]:
        """Start the process described by the file ``process`` inside the running container ``name``.

        Its output is ``stdio`` (three files), or the pseudo-terminal whose master crun sends to the
        Unix socket ``console``. The exit status of what is returned is the program's own.
        """
        argv = [*self._argv(errors), "exec", "--process", str(process), "--pid-file", str(pid_file)]
        with contextlib.ExitStack() as stack:
            if console is not None:
                argv += ["--console-socket", str(console)]
                stdio = (stack.enter_context(_empty()),) + (stack.enter_context(_sink()),) * 2
            return self._cgroups.spawn(
                name, [*argv, name], stdin=stdio[0], stdout=stdio[1], stderr=stdio[2], start_new_session=True
            )

    def forget(self, name: str) -> None:
        """Drop what crun remembers of a container whose processes have all ended. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root / name)

    def known(self) -> set[str]:
        """The containers that crun remembers, running or not."""
        with contextlib.suppress(FileNotFoundError):
            return {entry.name for entry in os.scandir(self._root) if not entry.name.startswith(".")}
        return set()

    def _argv(self, errors: Path) -> list[str]:
        return [
            CRUN,
            f"--root={self._root}",
            "--cgroup-manager=disabled",
            f"--log={errors}",
            "--log-format=json",
        ]


def failure(errors: Path) -> str:
    """What crun wrote to its log, in a line a person can read; empty when nothing."""
    return _said(errors)


def _said(errors: Path) -> str:
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for line in errors.read_text(errors="replace").splitlines():
            try:
                lines.append(str(msgspec.json.decode(line)["msg"]))
            except (msgspec.DecodeError, KeyError, TypeError):
                lines.append(line)
    return "\n".join(lines)


@contextlib.contextmanager
def _empty() -> Iterator[int]:
    """A file that is at its end.

    Never ``/dev/null``: crun before 1.9 gives what it finds on 0, 1 and 2 to the container's user
    with fchown(2), devices included, and the host's ``/dev/null`` would belong to a site.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)


@contextlib.contextmanager
def _sink() -> Iterator[int]:
    """A file for output that nobody reads; see :func:`_empty` for why it is no device."""
    fd = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
