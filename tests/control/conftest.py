"""Fixtures of control's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from controlkit import Control, make_settings
from farkit import Machine

from alveole.testing import FakeAgent


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def control(directory: Path) -> Iterator[Control]:
    made = Control(make_settings(directory), FakeAgent())
    yield made
    made.services.close()
    assert not made.agent.violations


@pytest.fixture
def machine(control: Control, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What every other machine is to control."""
    made = Machine()
    monkeypatch.setattr(control.services, "_api_of", lambda _name: made)
    return made
