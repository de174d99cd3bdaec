"""Tests marked ``turn`` take minutes together: a whole run takes a part of them, and the next run the next part.

``ALVEOLE_TEST_PART`` is ``TURN/TURNS``; without it all are taken. The modules have parts of their own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PART = os.environ.get("ALVEOLE_TEST_PART", "")
_MODULES = Path(__file__).parent / "modules"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not PART:
        return
    turn, turns = map(int, PART.split("/"))
    marked = [item for item in items if item.get_closest_marker("turn") and _MODULES not in item.path.parents]
    left_out = {item for number, item in enumerate(marked) if number % turns != turn % turns}
    for item in marked:
        # Told in the report, so that one sees which they were.
        item.user_properties.append(("turn", PART))
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]
