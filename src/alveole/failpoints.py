"""Named places where a test lets the process die as if the power went.

``ALVEOLE_FAILPOINT=name`` (or ``name:3`` for the third passage) makes :func:`hit` kill this process
with SIGKILL there. Without the variable a passage costs one comparison.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("ALVEOLE_FAILPOINT", "").partition(":")
_left = int(_count) if _count.isdigit() else 1


def hit(name: str) -> None:
    """Die here when the test asked for it."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
