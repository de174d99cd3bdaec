"""The page of threats and faults names tests that are there."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "threats.md"
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "Shown by" not in line]


@functools.cache
def named_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return frozenset(each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=[row.split(" | ")[0][2:50] for row in ROWS])
def test_each_row_is_shown_by_tests_that_are_there(row: str) -> None:
    what, how, shown = (cell.strip() for cell in row.strip("|").split(" | "))
    assert what and how
    for part in shown.split("<br>"):
        file, *names = re.findall(r"`([^`]+)`", part)
        missing = set(names) - named_in(file)
        assert not missing, f"{file} has no {', '.join(sorted(missing))}"


def test_there_are_rows() -> None:
    assert len(ROWS) > 40
