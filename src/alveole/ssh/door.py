"""The SSH door before anybody knocks: who listens, and what speaks SSH only from the first connection on.

Machines stand for days without one, and those libraries hold a quarter of the memory of all else. ``alveole serve``
listens itself and starts the door's process when somebody comes; started alone, the process waits with nothing loaded.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from alveole.config import Settings
from alveole.errors import Refused

log = logging.getLogger("alveole.ssh")
#: Files of the host keys, with their kinds and how they are made.
HOST_KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ssh_host_ed25519_key": ("ssh-ed25519", {}),
    "ssh_host_rsa_key": ("ssh-rsa", {"key_size": 3072}),
}
#: Names the inherited files of the listening sockets, where somebody else has made them.
LISTENERS = "ALVEOLE_SSH_LISTENERS"
_BACKLOG = 128


def run_door(settings: Settings, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called once it listens. Raises ``AlveoleError``."""
    if os.geteuid() == 0:
        raise Refused(
            "the SSH door does not run as root",
            hint=f"start it as the user {settings.users.ssh}, or use 'alveole serve'",
        )
    if not settings.ssh.enabled:
        raise Refused("the SSH door is closed", field="ssh.enabled", hint="set ssh.enabled in the settings")
    with contextlib.ExitStack() as stack:
        inherited = os.environ.get(LISTENERS, "")
        if inherited:
            found = [socket.socket(fileno=int(number)) for number in inherited.split(",")]
        else:
            found = open_listeners(settings)
        listeners = [stack.enter_context(each) for each in found]
        waits = has_keys(settings) and not inherited
        if waits:
            ready()
            if not _somebody_knocks(listeners):
                return
        from alveole.ssh.front import run_front

        run_front(settings, listeners, (lambda: None) if waits else ready)


def has_keys(settings: Settings) -> bool:
    """Whether the host keys have been made; until then there is something to start for."""
    return all((settings.ssh_keys / name).exists() for name in HOST_KEYS)


def open_listeners(settings: Settings) -> list[socket.socket]:
    """Sockets that listen at the door's addresses. Raises ``Refused``."""
    found: list[socket.socket] = []
    for address in dict.fromkeys(filter(None, (settings.ssh.ipv4, settings.ssh.ipv6))):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listener = socket.create_server((address, settings.ssh.port), family=family, backlog=_BACKLOG)
        except OSError as error:
            if family is socket.AF_INET6 and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                log.warning("this machine has no IPv6: the door listens on IPv4 only")
                continue
            for each in found:
                each.close()
            reason = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
            raise Refused(
                f"cannot listen at {address} port {settings.ssh.port}: {reason}",
                field="ssh.port",
                hint="choose another ssh.port in the settings",
            ) from error
        listener.setblocking(False)
        found.append(listener)
    log.info("the SSH door listens on port %d", settings.ssh.port)
    return found


def _somebody_knocks(listeners: Sequence[socket.socket]) -> bool:
    """Wait for a connection; false when it is time to end."""
    ending, asked = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        for number in numbers:
            signal.signal(number, lambda *_: os.write(asked, b"."))
        watched: list[Any] = [*listeners, ending]
        found, _, _ = select.select(watched, [], [])
        return ending not in found
    finally:
        # Until the front has handlers of its own, these end the process at once: nobody is in it yet.
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        os.close(ending)
        os.close(asked)
