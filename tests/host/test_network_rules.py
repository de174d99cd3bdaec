"""The text of the rules, and the messages to the kernel, without a kernel."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from netfixtures import settings_for_test

from alveole.config import Network, Settings
from alveole.host import netlink
from alveole.host.network import group_of
from alveole.host.rules import render
from alveole.host.run import run

GOLDEN = Path(__file__).parent / "network_rules.nft"


def test_the_rules_are_those_reviewed() -> None:
    assert render(settings_for_test()) == GOLDEN.read_text()


def test_nothing_of_one_instance_is_in_the_rules_of_another() -> None:
    one = render(Settings())
    other = render(Settings(network=Network(bridge="other0", table="other")))
    assert "alveole0" not in other and "table inet alveole " not in other
    assert str(group_of("alveole0")) in one and str(group_of("alveole0")) not in other


def test_only_port_53_of_named_resolvers_is_open() -> None:
    rules = render(Settings(network=Network(resolvers=("10.0.0.53", "fd00::53"))))
    assert "\t\tip saddr @out4 ip daddr { 10.0.0.53 } meta l4proto { tcp, udp } th dport 53 accept\n" in rules
    assert "\t\tip6 saddr @out6 ip6 daddr { fd00::53 } meta l4proto { tcp, udp } th dport 53 accept\n" in rules
    assert rules.index("10.0.0.53") > rules.index("goto refuse")
    assert "dport 53" not in render(Settings())


def test_the_kernel_takes_the_rules_of_named_resolvers() -> None:
    settings = Settings(network=Network(table="alvcheck", resolvers=("10.0.0.53", "192.168.1.1", "fd00::53")))
    run(["nft", "--check", "-f", "-"], stdin=render(settings).encode())


def test_groups_come_in_pairs_and_never_touch_the_default_one() -> None:
    groups = [group_of(f"br{number}") for number in range(200)]
    assert all(group % 2 == 0 and 0x4000_0000 <= group < 0x8000_0000 for group in groups)
    assert len(set(groups)) == 200


def test_a_message_is_padded_to_four_bytes_and_says_its_name() -> None:
    message = netlink.set_neighbour(3, IPv4Address("10.0.0.1"), "0a:58:0a:00:00:01")
    assert len(message.body) == 12 + 8 + 12
    assert message.what == "set neighbour 10.0.0.1"
    assert message.forgiving(2, 3).forgive == (2, 3)
