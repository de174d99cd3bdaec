"""Addresses, interface names and uid ranges of any two sites never meet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alveole.config import Settings
from alveole.model.addressing import Addressing

DEFAULT = Settings().addressing()
numbers = st.integers(1, DEFAULT.capacity())


def everything(plan: Addressing, number: int) -> set[object]:
    """All that belongs to one site and to nobody else."""
    nets = [plan.instance(number, slot) for slot in (0, 1)]
    return {value for net in nets for value in (net.interface, net.mac, net.own4, net.own6, net.life4, net.life6)}


@given(numbers, numbers)
def test_two_sites_share_nothing(one: int, other: int) -> None:
    if one != other:
        assert not everything(DEFAULT, one) & everything(DEFAULT, other)


@given(numbers)
def test_addresses_lie_in_the_network_and_are_not_the_gateways(number: int) -> None:
    for slot in (0, 1):
        net = DEFAULT.instance(number, slot)
        for address in (net.own4, net.life4):
            assert address in DEFAULT.network4
            assert address != DEFAULT.gateway4
            assert address.packed[3] not in (0, 254, 255)
        assert {net.own6, net.life6} <= set(
            map(DEFAULT.network6.__getitem__, (int(a) & (2**64 - 1) for a in (net.own6, net.life6)))
        )
        assert DEFAULT.gateway6 not in (net.own6, net.life6)
        assert len(net.interface) <= 15


def test_the_first_site_has_the_promised_address() -> None:
    assert DEFAULT.life4(1) == IPv4Address("10.1.1.1")
    assert DEFAULT.life4(253) == IPv4Address("10.1.1.253")
    assert DEFAULT.life4(254) == IPv4Address("10.1.2.1")
    assert DEFAULT.capacity() > 10_000


def test_beyond_the_capacity_there_is_no_address() -> None:
    for number in (0, DEFAULT.capacity() + 1):
        with pytest.raises(ValueError, match="outside"):
            DEFAULT.life4(number)


@given(st.integers(9, 26))
def test_every_network_size_keeps_its_quarters_apart(prefix: int) -> None:
    network = IPv4Network(("10.0.0.0", prefix))
    plan = Addressing(network, IPv6Network("fd00::/64"), network[-2], network[1], "x")
    last = plan.capacity()
    assert last >= 1
    assert not everything(plan, 1) & everything(plan, last) or last == 1
    assert plan.instance(last, 1).own4 in network
    assert plan.instance(last, 1).own4 < plan.gateway4
    assert plan.life4(last) < plan.instance(1, 0).own4


@given(numbers, numbers)
def test_uid_ranges_do_not_meet(one: int, other: int) -> None:
    settings = Settings()
    if one < other:
        assert settings.uid_start(one) + 65_536 <= settings.uid_start(other)
        assert settings.uid_start(other) + 65_536 < 2**32 - 1
