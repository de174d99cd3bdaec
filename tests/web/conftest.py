"""The doors of the API's tests, seen by people with a browser."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "api"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "people"))

from browserkit import alveole, axe, browser
from doorkit import directory, door

__all__ = ["alveole", "axe", "browser", "directory", "door"]
