"""One control over a fake agent for the tests of a file, with a site of Ana's and nothing that goes round by itself."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [
    str(Path(__file__).resolve().parent.parent / name) for name in ("", "api", "people", "web", "scenarios")
]

from incidentkit import Incidents  # noqa: E402  found by the line above

from alveole.people.model import Role  # noqa: E402  likewise


@pytest.fixture(scope="module")
def world() -> Iterator[Incidents]:
    from peoplekit import add

    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    try:
        made = Incidents(place)
    except BaseException:
        shutil.rmtree(place)
        raise
    try:
        for name, role in (("ana", Role.OWNER), ("zoe", Role.OWNER), ("olga", Role.OPERATOR), ("ada", Role.ADMIN)):
            add(made.door, name, role)
        made.door.site("blog", command=["serve"], port=8000, owner="ana")
        made.door.site("shop", command=["serve"], port=8000, owner="zoe")
        yield made
    finally:
        made.close()
        shutil.rmtree(place)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    yield path
    shutil.rmtree(path)
