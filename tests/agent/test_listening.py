"""Whether a program hears what a port of the machine leads to: by the kernel's own tables of its network."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from alveole.agent.lending import LookAtPorts
from alveole.agent.listening import look
from alveole.agent.protocol import Link
from alveole.model.lent import Published, Transport

SITE = "saaaaaaaaaaab"


@contextlib.contextmanager
def bound(address: str, kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    with socket.socket(family, kind) as one:
        one.bind((address, 0))
        if kind is socket.SOCK_STREAM:
            one.listen()
        yield int(one.getsockname()[1])


def seen(port: int, transport: Transport = Transport.TCP) -> Link:
    (link,) = look(LookAtPorts(SITE, 0, (Published(2222, port, transport),)), os.getpid())
    return link


@pytest.mark.parametrize(
    ("kind", "transport"), [(socket.SOCK_STREAM, Transport.TCP), (socket.SOCK_DGRAM, Transport.UDP)]
)
def test_who_listens(kind: socket.SocketKind, transport: Transport) -> None:
    with bound("0.0.0.0", kind) as port:  # noqa: S104  for a moment, and nobody is answered
        assert seen(port, transport).ok and seen(port, transport).name == f"port 2222/{transport}"
    with bound("::", kind, socket.AF_INET6) as port:
        assert seen(port, transport).ok
    for address, family in (("127.0.0.1", socket.AF_INET), ("127.8.8.8", socket.AF_INET), ("::1", socket.AF_INET6)):
        with bound(address, kind, family) as port:
            link = seen(port, transport)
            assert not link.ok and "only the site itself" in link.came and "at 0.0.0.0" in link.cure
    link = seen(1, transport)
    assert not link.ok and "nobody" in link.came and "Unix socket" in link.came


def test_what_does_not_run_is_not_looked_at() -> None:
    assert look(LookAtPorts(SITE, 0, (Published(2222, 80),)), None) == ()
    # Ended meanwhile: nobody listens.
    (link,) = look(LookAtPorts(SITE, 0, (Published(2222, 80),)), 2**22)
    assert not link.ok
