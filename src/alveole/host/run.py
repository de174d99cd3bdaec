"""The one gate for programs the agent starts.

What is logged is a line that can be pasted; what fails carries the tail of what was printed.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from alveole.errors import Temporary

log = logging.getLogger("alveole.host")
#: What a program run by the agent sees of the environment, and nothing else.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class ProgramFailed(Temporary):
    """A program ended with a status other than 0. ``status`` and ``tail`` say how."""

    code = "program-failed"

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        self.argv = tuple(argv)
        self.status = status
        self.tail = tuple(output.splitlines()[-20:])
        last = self.tail[-1] if self.tail else "it printed nothing"
        super().__init__(f"{argv[0]} ended with status {status}: {last}", hint=f"run by hand: {shlex.join(argv)}")


def run(
    argv: Sequence[str],
    *,
    stdin: bytes | IO[bytes] | int | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    timeout: float | None = 60.0,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` to its end and give what it printed (``stdout`` holds stderr too).

    ``env`` is added to :data:`ENVIRONMENT`. Raises :class:`ProgramFailed` when ``check`` and the
    status is not 0, ``Temporary`` when the program is absent or ``timeout`` (seconds) has passed.
    """
    log.debug("run: %s", shlex.join(argv))
    source = {"input": stdin.decode()} if isinstance(stdin, bytes) else {"stdin": stdin or subprocess.DEVNULL}
    try:
        done = subprocess.run(
            list(argv),
            **source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**ENVIRONMENT, **(env or {})},
            pass_fds=tuple(pass_fds),
            cwd="/",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise Temporary(f"{argv[0]} is not installed", hint=f"apt-get install {Path(argv[0]).name}") from None
    except subprocess.TimeoutExpired:
        raise Temporary(
            f"{argv[0]} did not end within {timeout:g} s", hint=f"run by hand: {shlex.join(argv)}"
        ) from None
    if check and done.returncode != 0:
        raise ProgramFailed(argv, done.returncode, done.stdout)
    return done


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start ``argv`` and do not wait; ``options`` are those of ``subprocess.Popen``.

    Raises ``Temporary`` when the program is absent.
    """
    log.debug("start: %s", shlex.join(argv))
    options.setdefault("env", ENVIRONMENT)
    options.setdefault("cwd", "/")
    try:
        return subprocess.Popen(list(argv), **options)
    except FileNotFoundError:
        raise Temporary(f"{argv[0]} is not installed", hint=f"apt-get install {Path(argv[0]).name}") from None
