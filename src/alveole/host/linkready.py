"""Waiting for what the kernel does some time after it has said yes.

A link that is up and has a carrier is made to send by a worker (net/core/link_watch.c), and an IPv6
address is taken in only when another worker has come to it (net/ipv6/addrconf.c, also without duplicate
address detection). Until then packets are dropped without a word: whoever connects at that moment waits
a whole second before the first packet is sent again, and an instance's first question to a name server is lost.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable

from alveole.host import netlink

#: It takes a millisecond, and some tens on a busy machine. What is not ready then is ready soon after.
_SECONDS = 1.0
_STEP_SECONDS = 0.0005


def wait_running(socket: netlink.Socket, name: str) -> None:
    """Return when the link ``name`` sends and forwards, at once when it is down or gone."""

    def ready() -> bool:
        link = socket.link(name)
        return link is None or not link.up or link.running

    _wait(ready)


def wait_local(socket: netlink.Socket, addresses: Iterable[netlink.Address]) -> None:
    """Return when what comes for ``addresses`` is taken in."""
    for address in addresses:
        _wait(functools.partial(socket.is_local, address))


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not ready() and time.monotonic() < deadline:
        time.sleep(_STEP_SECONDS)
