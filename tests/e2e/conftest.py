"""One running Alvéole for all tests of this directory that do it no harm (one a worker of xdist)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from e2ekit import Sites

from instance import GUNICORN, Instance
from instancekit import one_at_a_time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def alveole() -> Iterator[Instance]:
    # Nothing is proved by waiting ten seconds for a round.
    with Instance(more="[incidents]\nevery_seconds = 1\n") as made:
        yield made


@pytest.fixture
def sites(alveole: Instance) -> Iterator[Sites]:
    made = Sites(alveole)
    yield made
    made.end()


@pytest.fixture(scope="session")
def debian(alveole: Instance) -> str:
    """The key of a Debian base with gunicorn (and so Python), built once and kept for later runs."""
    with one_at_a_time("debian"):
        alveole.seed_bases()
        alveole.create("first-debian", None, base="debian", packages=[GUNICORN], command=["true"], stopped=True)
        key = str(alveole.site("first-debian")["base_key"])
        if not (alveole.state / "bases" / key).exists():
            alveole.create("second", None, base="debian", packages=[GUNICORN], command=APP_COMMAND, port=8000)
            alveole.destroy("second")
        alveole.destroy("first-debian")
        alveole.keep_base(key)
    return key


APP_COMMAND = ["/usr/bin/python3", "-m", "http.server", "8000"]
