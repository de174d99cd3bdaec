"""Space that control keeps for itself, so that a full disk keeps nobody from stopping and deleting.

A few files of no meaning beside the database. When the disk is nearly full they are given up, and
what makes room can still be written down; when there is room again they are made anew.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from alveole.model.site import MIB

#: Several files, because inodes run out too. Together some thousand transactions' worth of pages.
FILES = 8
FILE_BYTES = MIB
#: Under this the disk counts as full: what one checkpoint of the journal may need at once.
SHORT_BYTES = 1 * MIB
SHORT_FILES = 8
#: So much is free when the reserve is taken back.
_PLENTY = (4 * FILES * FILE_BYTES, 4 * FILES + SHORT_FILES)


class Reserve:
    """The files ``directory``/0 to 7. Not safe to call from two threads at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._spent = True

    def short(self) -> bool:
        """Whether the disk is full but for what this gave up. Costs one statvfs(2)."""
        # Given up, there has to be room for taking it back too: the next write does that.
        return not (self._room(*_PLENTY) if self._spent else self._room(SHORT_BYTES, SHORT_FILES))

    def keep(self) -> None:
        """Call before each write: give the space up when the disk is nearly full, take it back when it is not."""
        if not self._room(SHORT_BYTES, SHORT_FILES):
            self._give_up()
        elif self._spent and self._room(*_PLENTY):
            self._take()

    def _room(self, size: int, files: int) -> bool:
        try:
            found = os.statvfs(self._directory.parent)
        except OSError:
            return True
        # Some file systems have no fixed number of files and say 0.
        return found.f_bavail * found.f_frsize >= size and (found.f_files == 0 or found.f_favail >= files)

    def _give_up(self) -> None:
        self._spent = True
        for number in range(FILES):
            with contextlib.suppress(OSError):
                (self._directory / str(number)).unlink()

    def _take(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for number in range(FILES):
                with (self._directory / str(number)).open("ab") as file:
                    os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
            self._spent = False
        except OSError:
            self._give_up()
