"""What Debian's sshd wants of the machine, for tests that start one of their own beside others that do the same."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from instancekit import CACHE

_RUN = Path("/run/sshd")


@contextlib.contextmanager
def run_directory() -> Iterator[None]:
    """``/run/sshd``, which Debian's unit makes where there is one. It goes with the last test that needs it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "sshd").open("a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with contextlib.suppress(FileExistsError):
            _RUN.mkdir(0o755)
            lock.write(b"made")
            lock.flush()
        try:
            yield
        finally:
            # flock(2): who asks for the other kind in vain has lost the first, so the last of several always gets it.
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.seek(0)
                if lock.read():
                    lock.truncate(0)
                    with contextlib.suppress(OSError):
                        _RUN.rmdir()
