"""Fixtures of the API's tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "people"))
from doorkit import directory, door

__all__ = ["directory", "door"]
