"""Fixtures of the command line's tests: the same running API as that of ``tests/api``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

from doorkit import directory, door

__all__ = ["directory", "door"]
