"""What a program inside a site printed, read to its end by control."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from alveole.ports import Program

_PIECE = 1 << 18
#: Bytes of what a program complains of; people are shown less.
_COMPLAINT = 4096
#: For a child that lives on and holds the standard error.
_LAST_SECONDS = 2.0


class Printed(NamedTuple):
    status: int
    #: Standard output, as far as it was kept.
    text: bytes
    #: The beginning of standard error.
    complaint: str


def read_out(program: Program, *, most: int = 0, take: Callable[[bytes], None] | None = None) -> Printed:
    """Let a program run to its end without any input, and close its files.

    Of its output the first ``most`` bytes are kept; with ``take`` each piece is given to that instead. What ``take``
    raises ends the program. Raises ``AlveoleError`` when it was cut.
    """
    stdin, stdout, stderr = program.fds
    os.close(stdin)
    kept, complaint = bytearray(), bytearray()

    def listen() -> None:
        with contextlib.suppress(OSError):
            while piece := os.read(stderr, _COMPLAINT):
                complaint.extend(piece[: _COMPLAINT - len(complaint)])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        while piece := os.read(stdout, _PIECE):
            if take is not None:
                take(piece)
            else:
                kept.extend(piece[: most - len(kept)])
        status = program.ended().status
    finally:
        program.hang_up()
        listener.join(_LAST_SECONDS)
        os.close(stdout)
        os.close(stderr)
    return Printed(status, bytes(kept), complaint.decode("utf-8", "replace").strip())
