"""What each file of a first copy was when it was read, so that a second copy takes only what differs.

Runs inside a confined child (see ``host.confine``).
"""

from __future__ import annotations

import ctypes
import os
import time

from alveole.host import syscalls

_OFFSET_0 = ctypes.c_int64(0)
#: SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER: sync_file_range(2).
_WRITE_OUT = 7
#: Longer than a tick of any kernel: a second write within one leaves a file's times as they are.
_TICK_NS = 100_000_000


class Listing:
    """A file is as it was when inode, size and both times are: any write moves ``st_ctime``, and nobody sets that back.

    ``use``: ``write`` notes what is read; ``read`` knows what was noted, from the open file ``fd``; empty: neither.
    """

    def __init__(self, use: str, fd: int) -> None:
        self.use = use
        self._known: set[bytes] = set()
        self._lines: list[bytes] = []
        if use == "read":
            with open(fd, "rb", closefd=False) as file:
                file.seek(0)
                self._known = set(file.read().split(b"\0"))

    def is_same(self, fd: int, name: bytes) -> bool:
        """Look at the file that is open, before it is read; whether it is as it was in the copy that is known here."""
        if not self.use:
            return False
        # A mapped page that is dirty changes without a trace: once it is written out the next store is seen again.
        seen = self.use == "read" or syscalls._libc.sync_file_range(fd, _OFFSET_0, _OFFSET_0, _WRITE_OUT) == 0
        info = os.fstat(fd)
        line = b"%d %d %d %d %s" % (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, name)
        if info.st_nlink != 1:
            return False
        if self.use == "read":
            if line not in self._known:
                return False
            self._lines.append(name.partition(b"/")[2])
            return True
        if seen and time.time_ns() - info.st_ctime_ns > _TICK_NS:
            self._lines.append(line)
        return False

    def end(self) -> bytes:
        """What was noted, or the names of what is as it was; a zero byte ends each."""
        return b"".join(each + b"\0" for each in self._lines)
