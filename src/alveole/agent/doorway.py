"""Whether the SSH door rests: somebody listens for it, and its own process is not there.

To ask at its port would wake it. The kernel tells instead which socket listens there and who holds it open
(``Documentation/networking/proc_net_tcp.rst``; ``/proc/PID/fd`` in proc(5)).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from alveole import keeper

#: include/net/tcp_states.h
_LISTENS = "0A"


def rests(port: int) -> bool:
    """``port``: where the door is to listen. False too where nobody listens, or another program does."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if not sockets:
        return False
    holders = [words for pid, words in _of_ours() if _holds(pid, sockets)]
    return bool(holders) and all(_waits(words) for words in holders)


def _listening(port: int) -> set[str]:
    """The inodes of the sockets that listen at a port of this machine."""
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _of_ours() -> list[tuple[str, list[bytes]]]:
    """Processes that wait for a role, or are the door's, with their command lines."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")[:-1]
                if b"serve" in words and (_waits(words) or words[-2:] == [b"--role", b"ssh"]):
                    found.append((entry.name, words))
    return found


def _waits(words: list[bytes]) -> bool:
    return os.fsencode(keeper.__file__) in words


def _holds(pid: str, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(entry.path) in sockets:  # noqa: PTH115  what a socket's link says is no path
                    return True
    return False
