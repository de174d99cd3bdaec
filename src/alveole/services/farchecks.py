"""What is asked around a switch on another machine: the scenarios that are written here, and the secrets they name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from alveole.errors import InvalidInput, NotFound
from alveole.requests.checks import CheckSecret, CheckText
from alveole.scenarios.model import CheckView, Scenario, Use
from alveole.scenarios.reading import read, secrets_of
from alveole.services.forwarding import understood
from alveole.services.scenarios import BROUGHT
from alveole.views import CheckState

if TYPE_CHECKING:
    from alveole.remote.apiclient import Client

#: Its second line: the secrets that came with it, so that those of the people there are known from them.
_SECRETS = "# Brought by it with: "


def is_for_switch(scenario: Scenario) -> bool:
    """What only watches a site has nothing to say of a version."""
    return bool({Use.GATE, Use.VERIFY} & set(scenario.use))


def bring_checks(client: Client, node: str, path: str, texts: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """Have these scenarios at the site ``path`` of ``node``, and of ``secrets`` those that they name.

    Scenarios and secrets of the people there stay as they are; what came earlier and is none any more goes.
    """
    there: dict[str, str] = {}
    for state in understood(node, client.get(f"{path}/checks"), list[CheckState]):
        there[state.name] = understood(node, client.get(f"{path}/checks/{state.name}"), CheckView).text
    earlier = {name: text for name, text in there.items() if text.startswith(BROUGHT)}
    own = {name: text for name, text in there.items() if name not in earlier}
    known = frozenset(understood(node, client.get(f"{path}/check-secrets"), list[str]))
    came = frozenset[str]().union(*map(_came_with, earlier.values()))
    needed = {name: (_named(text) & secrets.keys()) - (known - came) for name, text in texts.items() if name not in own}
    used = frozenset[str]().union(*needed.values(), *map(_named, own.values()))
    for name in sorted((came & known) - used):
        with contextlib.suppress(NotFound):
            client.send("DELETE", f"{path}/check-secrets/{name}")
    for name in sorted(earlier.keys() - needed.keys()):
        client.send("DELETE", f"{path}/checks/{name}")
    # The texts first: they say which secrets are ours, should we die before these are there.
    for name, names in sorted(needed.items()):
        text = f"{BROUGHT}{_SECRETS}{' '.join(sorted(names))}\n{texts[name]}"
        if there.get(name) != text:
            client.send("PUT", f"{path}/checks/{name}", msgspec.to_builtins(CheckText(text=text, watch=False)))
    for name in sorted(frozenset[str]().union(*needed.values())):
        client.send("PUT", f"{path}/check-secrets/{name}", msgspec.to_builtins(CheckSecret(value=secrets[name])))


def _came_with(text: str) -> frozenset[str]:
    line = text.removeprefix(BROUGHT).partition("\n")[0]
    # Of an earlier version, which brought all that there were: those that it names.
    return frozenset(line.removeprefix(_SECRETS).split()) if line.startswith(_SECRETS) else _named(text)


def _named(text: str) -> frozenset[str]:
    with contextlib.suppress(InvalidInput):
        return secrets_of(read(text))
    return frozenset()
