"""One running Alvéole with an open SSH door, and people who have keys, for all tests of this directory."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from e2ekit import Sites
from sshkit import Client

from instance import Instance

NEEDED = ("/usr/lib/openssh/sftp-server", "/usr/bin/sftp", "/usr/bin/rsync", "/usr/bin/git", "/usr/bin/sshpass")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = [each for each in NEEDED if not Path(each).exists()]
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))
            if absent:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(absent)}"))


@pytest.fixture(scope="session")
def alveole() -> Iterator[Instance]:
    with Instance(ssh=True) as made:
        yield made


@pytest.fixture(scope="session")
def client(alveole: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    place = tmp_path_factory.mktemp("client")
    made = Client(alveole, place)
    for name, role in (("ana", "owner"), ("ben", "owner"), ("rea", "reader"), ("olga", "operator")):
        made.person(name, role)
    yield made
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def sites(alveole: Instance) -> Iterator[Sites]:
    made = Sites(alveole)
    yield made
    made.end()
