"""Control with both doors over a fake agent, and a shop behind TLS where the edge would be."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in ("api", "people", "web")]

from doorkit import Door, directory  # noqa: E402  found by the line above
from outsidekit import Shop, shop  # noqa: E402  likewise

from alveole.people.model import Role  # noqa: E402  likewise


@pytest.fixture(scope="module")
def outside() -> Iterator[Shop]:
    with shop("blog.localhost") as made:
        yield made


@pytest.fixture(scope="module")
def door(outside: Shop) -> Iterator[Door]:
    """One control for all tests of a file; a site ``blog`` of Ana's that the shop stands for."""
    from peoplekit import add

    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    edge = {"https_port": outside.port, "http_port": 1}
    try:
        made = Door(place, edge=edge, outgoing={"inside_hosts": ["localhost"]})
    except BaseException:
        shutil.rmtree(place)
        raise
    made.agent.authority = outside.authority
    try:
        for name in ("ana", "zoe"):
            add(made, name, Role.OWNER)
        made.site("blog", command=["serve"], port=8000, owner="ana")
        yield made
    finally:
        made.close()
        shutil.rmtree(place)
    assert not made.agent.violations


__all__ = ["directory", "door", "outside"]
