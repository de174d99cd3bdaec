"""The doors of the API's tests, with people who come in."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "api"))

from doorkit import directory, door

__all__ = ["directory", "door"]
