"""Where Alvéole itself may connect to on behalf of people: checks that call web services, webhooks (threat 18).

A name is resolved once, every address that it has is looked at, and the connection goes to an address that was looked
at: what the name says a moment later does not matter.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from alveole.errors import Refused, Temporary
from alveole.origins import is_public


def addresses(host: str, port: int, inside: Iterable[str] = ()) -> tuple[str, ...]:
    """Where ``host`` is. Raises ``Refused`` when any of it is not public or is this machine itself, unless ``host`` is
    one of ``inside``; ``Temporary`` when it has no address."""
    name = host.lower().rstrip(".")
    try:
        infos = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Temporary(f"{name} has no address: {getattr(error, 'strerror', None) or error}", field="host") from error
    found = tuple(dict.fromkeys(str(info[4][0]) for info in infos))
    if name in {each.lower().rstrip(".") for each in inside}:
        return found
    for text in found:
        if not is_public(text) or is_own(text):
            raise Refused(
                f"{name} is at {text}, which is inside",
                field="host",
                hint="an administrator can allow the host: outgoing.inside_hosts in the settings",
            )
    return found


def is_own(text: str) -> bool:
    """Whether an address is one of this machine's."""
    address = ipaddress.ip_address(text.partition("%")[0])
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # The kernel binds to its own addresses only (unless net.ipv4.ip_nonlocal_bind says otherwise).
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
