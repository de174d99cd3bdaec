"""One running Alvéole for all tests of this directory that do it no harm (one a worker of xdist)."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from instance import GUNICORN, ApiError, Instance, one_at_a_time, until

_turn = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def alveole() -> Iterator[Instance]:
    with Instance() as made:
        yield made


class Sites:
    """Makes sites with names of their own and destroys them at the end of the test."""

    def __init__(self, alveole: Instance) -> None:
        self.alveole = alveole
        self.made: list[str] = []

    def name(self, stem: str = "site") -> str:
        name = f"{stem}{next(_turn)}"
        self.made.append(name)
        return name

    def create(self, content: bytes | None = None, *, stem: str = "site", **more: Any) -> str:
        name = self.name(stem)
        self.alveole.create(name, content, **more)
        return name

    def end(self) -> None:
        there = {each["name"]: each for each in self.alveole.api("GET", "/v1/sites")}
        for name in self.made:
            if name in there:
                with contextlib.suppress(ApiError):
                    until(lambda name=name: self.alveole.site(name)["change"] is None, 20)  # type: ignore[misc]
                    self.alveole.destroy(name)


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
