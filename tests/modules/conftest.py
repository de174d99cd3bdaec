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


#: ``TURN/TURNS``: of every fourth file the first test that has a site, but for those marked ``turn`` (a registry is
#: asked, or minutes are waited for), and of the others every so many-th; the whole suite says so. Without it: all.
PART = os.environ.get("ALVEOLE_TEST_MODULES", "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if PART:
        _take_part(config, items)
    for item in items:
        if Path(__file__).parent in item.path.parents and {"alveole", "site"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.slow)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(SECONDS))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


def _take_part(config: pytest.Config, items: list[pytest.Item]) -> None:
    turn, turns = map(int, PART.split("/"))
    long = [item for item in items if {"alveole", "site", "machine"} & set(getattr(item, "fixturenames", ()))]
    # pytest gives every test function its fixtures' names; the class of any item does not say so.
    short = [item for item in long if not item.get_closest_marker("turn") and "machine" not in item.fixturenames]
    first = {item.path: item for item in reversed(short)}
    others = [item for item in long if first.get(item.path) is not item]
    left_out = {item for number, item in enumerate(others) if number % turns != turn % turns}
    left_out |= {first[path] for number, path in enumerate(sorted(first)) if number % 4 != turn % 4}
    for item in others:
        # Told in the report, so that one sees which they were.
        item.user_properties.append(("turn", PART))
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


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
