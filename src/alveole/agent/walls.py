"""Rules of others on this machine that stop what Alvéole lets through.

Every base chain of a hook decides for itself: a packet that ours accepts is still dropped by a chain of
Docker or ufw whose policy is to drop (nft(8), "CHAINS"). Such a chain can only be told, not overruled.
"""

from __future__ import annotations

from typing import Any

import msgspec

from alveole.config import Settings
from alveole.host.run import run

_HOOKS = {
    "forward": "sites may not reach the internet",
    "input": "the proxy may not hear from sites that listen on a port",
}


def foreign_drops(settings: Settings) -> list[tuple[str, str]]:
    """Each as ``("ip filter FORWARD (forward)", what suffers)``. Raises ``Temporary``."""
    return drops(msgspec.json.decode(run(["nft", "-j", "list", "chains"]).stdout)["nftables"], settings.network.table)


def drops(rules: list[dict[str, Any]], own: str) -> list[tuple[str, str]]:
    """PURE. The same from what ``nft -j list chains`` prints; ``own`` is the name of our tables."""
    found = []
    for chain in (entry["chain"] for entry in rules if "chain" in entry):
        suffers = _HOOKS.get(chain.get("hook", ""))
        if (
            suffers
            and chain.get("policy") == "drop"
            and chain["table"] != own
            and chain["family"] in ("ip", "ip6", "inet")
        ):
            found.append((f"{chain['family']} {chain['table']} {chain['name']} ({chain['hook']})", suffers))
    return found
