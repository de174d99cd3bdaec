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
    """``port``: where the door is to listen. False too where nobody listens, another program does, or somebody who
    came is not served: the process may not be able to begin."""
    listening = _listening(port)
    sockets = {f"socket:[{inode}]" for inode in listening}
    if not sockets or any(listening.values()):
        return False
    holders = [words for pid, words in _of_ours() if _holds(pid, sockets)]
    return bool(holders) and all(_waits(words) for words in holders)


def _listening(port: int) -> dict[str, int]:
    """The inodes of the sockets that listen at a port of this machine, and how many wait at each to be let in."""
    found: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    # Of a socket that listens, the second of the two queues is that of connections nobody has taken.
                    found[fields[9]] = int(fields[4].rpartition(":")[2], 16)
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
