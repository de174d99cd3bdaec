"""Certificates by ACME: a real authority that comes to look at the real edge, and refuses where it may."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from acmekit import Pebble, Platform, pebble
from dnskit import ZONE, NameServer, name_server
from edgefixtures import World, world

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/usr/bin/pebble").exists(), reason="needs pebble"),
    pytest.mark.skipif(not Path("/usr/sbin/named").exists(), reason="needs named (package bind9)"),
]


@pytest.fixture(scope="module")
def zone() -> Iterator[NameServer]:
    with name_server(keyed=True) as made:
        yield made


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def authority(edge: World, zone: NameServer) -> Iterator[Pebble]:
    with pebble(edge.http, zone.address, environment={"PEBBLE_WFE_NONCEREJECT": "30"}) as made:
        yield made


@pytest.fixture
def platform(edge: World, zone: NameServer) -> Iterator[Platform]:
    made = Platform(edge, zone)
    try:
        yield made
    finally:
        made.close()


def test_a_name_gets_its_certificate_over_http(platform: Platform, authority: Pebble) -> None:
    """The internal one is shown until the other is there; nonces that are refused are asked for again."""
    name = f"www.{ZONE}"
    platform.own(name)
    platform.at(name)
    assert platform.shown(name).source == "internal"
    platform.services.set_acme(__import__("acmekit").ROOT, __import__("acmekit").cv.SetAcme(automatic=False))
    platform.add(authority)
    platform.done(platform.issue(name))
    found = platform.shown(name)
    assert (found.source, found.by) == ("acme", "pebble")
    assert ("DNS", name) in platform.chain(name, authority.root())["subjectAltName"]
