"""Rules of others that drop what Alvéole lets through are told by ``alveole doctor``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from alveole.agent.walls import drops

PROGRAM = """
import json, subprocess, sys
from alveole.agent.walls import foreign_drops
from alveole.config import Settings
for line in sys.argv[1:]:
    subprocess.run(["nft", *line.split()], check=True)
print(json.dumps(foreign_drops(Settings())))
"""
DOCKER = ("add table ip filter", "add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")
OURS = ("add table inet alveole", "add chain inet alveole in { type filter hook input priority 0 ; policy drop ; }")
OPEN = ("add table inet f", "add chain inet f input { type filter hook input priority 0 ; policy accept ; }")


@pytest.mark.root
@pytest.mark.parametrize(
    ("rules", "told"), [((), []), ((*OURS, *OPEN), []), ((*OURS, *DOCKER), ["ip filter FORWARD (forward)"])]
)
def test_a_chain_of_others_that_drops_is_told(rules: tuple[str, ...], told: list[str]) -> None:
    """In a network namespace of the test's own, with the real nft."""
    done = subprocess.run(
        ["unshare", "--net", "--", sys.executable, "-c", PROGRAM, *rules], capture_output=True, text=True, check=True
    )
    assert [chain for chain, _suffers in json.loads(done.stdout)] == told


def test_what_suffers_is_said_of_each_hook() -> None:
    def chain(hook: str) -> dict[str, dict[str, str]]:
        return {"chain": {"family": "inet", "table": "ufw", "name": "x", "hook": hook, "policy": "drop"}}

    found = dict(drops([chain("input"), chain("forward"), chain("output"), {"table": {}}], "alveole"))
    assert "internet" in found["inet ufw x (forward)"] and "port" in found["inet ufw x (input)"] and len(found) == 2
