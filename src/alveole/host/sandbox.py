"""Work on content of sites in children that the kernel confines (``host.confine`` is their side).

The agent never opens, lists, unpacks or removes anything that a site may have made: it hands an
open directory to a child that runs under the site's own ids and can reach nothing else.
"""

from __future__ import annotations

import array
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, Problem, Temporary, from_code
from alveole.host import confine, paths, syscalls
from alveole.host.run import ENVIRONMENT

log = logging.getLogger("alveole.host")
_BOOT = "import sys; sys.path.extend(sys.argv[2:]); from alveole.host.confine import serve; serve(int(sys.argv[1]))"


class As(NamedTuple):
    """Whose ids a child has: the one ``uid``, or, with ``start``, root of a namespace of 65,536 ids."""

    uid: int | None
    start: int | None


def as_user(settings: Settings, number: int) -> As:
    """The site's own user and nobody else: for content that comes from outside."""
    return As(paths.site_uid(settings, number), None)


def as_root(settings: Settings, number: int) -> As:
    """Root over the site's range of ids: for volumes, whose files may belong to any of them."""
    return As(None, settings.uid_start(number))


class Sandbox:
    """Runs jobs of ``confine.JOBS``. One a process; safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the helper ahead of the first job; else that one waits some 60 ms for it."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """End the helper and every job that runs."""
        with self._lock:
            if self._control is not None:
                self._control.close()
            if self._process is not None:
                try:
                    self._process.wait(5)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._control = self._process = None

    def _started(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        if self._control is not None:
            log.warning("the sandbox helper has ended; starting it again")
            self._control.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        search = [str(Path(confine.__file__).parents[2])]
        found = importlib.util.find_spec("zstandard")
        if found is not None and found.origin is not None:
            search.append(str(Path(found.origin).parents[1]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, str(theirs.fileno()), *search],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=ENVIRONMENT,
                pass_fds=(theirs.fileno(),),
                cwd="/",
            )
        self._control = ours
        return ours

    def run(
        self,
        job: str,
        directory: str | os.PathLike[str] | int,
        ids: As,
        args: dict[str, Any],
        *,
        fds: Sequence[int] = (),
        say: Say = quiet,
        timeout: float = 1800.0,
    ) -> dict[str, Any]:
        """Run ``job`` with ``directory`` (a path of ours or an open directory) as its whole world.

        ``fds`` are the only files it has besides. Raises what the child rejected as the error of
        its code, and ``Temporary`` when it was killed or took longer than ``timeout`` seconds.
        Returns only when the child is gone.
        """
        opened = directory if isinstance(directory, int) else os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            order = {"job": job, "args": args, "uid": ids.uid, "mapped": ids.start and [ids.start, syscalls.RANGE]}
            if (ids.uid is None) == (ids.start is None) or ids.uid == 0:
                raise ValueError("a child runs as one uid or in one range, and never as root")
            with self._send(order, [opened, *fds]) as reply:
                reply.settimeout(timeout)
                return _follow(job, reply, say)
        finally:
            if opened is not directory:
                os.close(opened)

    def _send(self, order: dict[str, Any], fds: list[int]) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        message = json.dumps(order).encode()
        with theirs:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno(), *fds]))]
            for attempt in (1, 2):
                with self._lock:
                    control = self._started()
                try:
                    control.sendmsg([message], rights)
                    return ours
                except (BrokenPipeError, ConnectionResetError):
                    if attempt == 2:
                        break
        ours.close()
        raise Temporary("the sandbox helper does not take work", hint="see the agent's log")


def _follow(job: str, reply: socket.socket, say: Say) -> dict[str, Any]:
    result: dict[str, Any] | None = None
    error: AlveoleError | None = None
    while True:
        try:
            data = reply.recv(confine.MESSAGE_BYTES)
        except TimeoutError:
            raise Temporary(f"{job} did not end in time") from None
        except ConnectionResetError:
            data = b""
        if not data:
            raise error or Temporary(f"{job} was cut off", hint="see the agent's log")
        message = json.loads(data)
        if "say" in message:
            say(message["say"], message["share"])
        elif "result" in message:
            result = message["result"]
        elif "rejected" in message:
            found = message["rejected"]
            error = from_code(found["code"], [Problem(found["field"], found["message"], found["hint"])])
        elif "fault" in message:
            log.error("%s failed in its sandbox: %s", job, message["trace"])
            error = Temporary(f"{job} failed: {message['fault']}")
        elif "ended" in message:
            if result is not None and message["ended"] == 0 and error is None:
                return result
            raise error or Temporary(f"{job} was ended by signal {-message['ended']}", hint="is memory short?")
