"""What ``alveole serve`` becomes when all is prepared: it keeps the roles running, and holds nothing else.

It lives as long as they do and does next to nothing, so it is run by itself, without the rest of Alvéole and without
what is installed beside Python: a third of the memory. What to start is read from an open file, :class:`Role` as JSON.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TypedDict

#: Names the open file with the roles.
PLAN = "ALVEOLE_ROLES"
#: A role that ends is started again after this long, doubled each time up to the second figure.
_RESTART_SECONDS = (0.2, 10.0)
#: A role that has run this long starts again without delay.
_STABLE_SECONDS = 30.0
#: A role that is wanted and ends by itself sooner than this has not done what it was wanted for.
_SHORT_SECONDS = 2.0


class Role(TypedDict):
    """``uid``: ``None`` for that of the supervisor itself. ``files`` stay open for it. It begins when one of them has
    something to read, unless one of ``keys`` is missing, and ends by itself, with status 0, when nothing has come for
    long. ``wanted``: a file; it begins when that is there, and likewise ends when that is gone. Where both are empty
    it always runs."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    uid: int | None
    gid: int
    groups: list[int]
    files: list[int]
    keys: list[str]
    wanted: str


class Keeper:
    def __init__(self, roles: list[Role]) -> None:
        self._roles = roles
        self._stop = threading.Event()

    def run(self) -> None:
        """Until SIGTERM or SIGINT, which is passed on to all."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._stop.set())
        loops = [threading.Thread(target=self._keep, args=(role,)) for role in self._roles]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()

    def _keep(self, role: Role) -> None:
        delay = _RESTART_SECONDS[0]
        while not self._stop.is_set():
            if not self._is_needed(role):
                return
            began = time.monotonic()
            try:
                process = _start(role)
            except (OSError, subprocess.SubprocessError) as error:
                # Too many processes, too little memory, or an upgrade that is half-way: it passes.
                _say(f"{role['name']} cannot be started: {error}; trying it again in {delay:.1f} s")
                delay = self._back_off(delay)
                continue
            while process.poll() is None and not self._stop.wait(0.2):
                pass
            if self._stop.is_set():
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                return
            ran = time.monotonic() - began
            if ran > _STABLE_SECONDS:
                delay = _RESTART_SECONDS[0]
            if (role["wanted"] or role["files"]) and process.returncode == 0:
                delay = self._back_off(delay) if ran < _SHORT_SECONDS else _RESTART_SECONDS[0]
                continue
            _say(f"{role['name']} ended with status {process.returncode}; starting it again in {delay:.1f} s")
            delay = self._back_off(delay)

    def _back_off(self, delay: float) -> float:
        """Wait; gives how long the next time."""
        self._stop.wait(delay)
        return min(delay * 2, _RESTART_SECONDS[1])

    def _is_needed(self, role: Role) -> bool:
        """Wait until there is something to do; false when all is to end."""
        while not self._stop.is_set():
            if role["files"]:
                if not all(map(os.path.exists, role["keys"])) or select.select(role["files"], [], [], 0.5)[0]:
                    return True
            elif not role["wanted"] or os.path.exists(role["wanted"]):  # noqa: PTH110  pathlib is memory it does without
                return True
            else:
                self._stop.wait(1.0)
        return False


def _start(role: Role) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **role["environment"]}
    if role["uid"] is None:
        return subprocess.Popen(
            role["argv"], stdin=subprocess.DEVNULL, pass_fds=role["files"], env=environment, cwd="/"
        )
    return subprocess.Popen(
        role["argv"],
        stdin=subprocess.DEVNULL,
        pass_fds=role["files"],
        env=environment,
        cwd="/",
        user=role["uid"],
        group=role["gid"],
        extra_groups=role["groups"],
        umask=0o077,
    )


def _say(text: str) -> None:
    now = time.time()
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    print(f"{moment},{int(now % 1 * 1000):03} ERROR alveole.app: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    with os.fdopen(int(os.environ.pop(PLAN))) as file:
        planned: list[Role] = json.load(file)
    Keeper(planned).run()
