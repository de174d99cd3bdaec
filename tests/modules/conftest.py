"""One running Alvéole for all tests of this directory (one a worker of xdist), and sites of modules in it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from modkit import SHARED, Ground, ModuleSites, shelve

import registrykit
from instance import Instance

#: A base may have to be built first: packages are fetched, and two cores do it.
SECONDS = 1500


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and {"alveole", "site"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.slow)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(SECONDS))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def alveole() -> Iterator[Instance]:
    more = registrykit.settings()
    with tempfile.TemporaryDirectory(prefix="altm", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        if SHARED:
            shelve(Path(folder))
            more += f'\n[modules]\ndirectory = "{folder}"\n'
        with Ground(more=more) as made:
            yield made


@pytest.fixture
def site(alveole: Instance) -> Iterator[ModuleSites]:
    """``site("apache", "php", content={…}, title="…")`` makes a site; it is destroyed after the test."""
    made = ModuleSites(alveole)
    yield made
    made.end()
