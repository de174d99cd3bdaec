"""The SSH door before anybody knocks: who listens, and what speaks SSH while somebody is there.

Machines stand for days without a connection, and those libraries hold a quarter of the memory of all else. So what
keeps the roles running (:mod:`alveole.keeper`) holds the sockets that listen, and starts the door's process when a
connection is pending; when nobody has been there for a while the process ends. Who comes at that moment waits in the
socket's backlog and is served by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import signal
import socket
from typing import Any

from alveole.config import Settings
from alveole.errors import Refused

log = logging.getLogger("alveole.ssh")
#: Files of the host keys, with their kinds and how they are made.
HOST_KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ssh_host_ed25519_key": ("ssh-ed25519", {}),
    "ssh_host_rsa_key": ("ssh-rsa", {"key_size": 3072}),
}
#: Names the inherited files of the listening sockets.
LISTENERS = "ALVEOLE_SSH_LISTENERS"
_BACKLOG = 128
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_door(settings: Settings) -> None:
    """Serve who comes until SIGTERM or SIGINT, or until nobody has come for ``ssh.rest_seconds``.

    Raises ``AlveoleError``.
    """
    check_door(settings)
    # The listeners would outlive whoever starts this process again, and be in the way of the next one.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    with contextlib.ExitStack() as stack:
        inherited = os.environ[LISTENERS].split(",")
        listeners = [stack.enter_context(socket.socket(fileno=int(number))) for number in inherited]
        from alveole.ssh.front import run_front

        run_front(settings, listeners, settings.ssh.rest_seconds if has_keys(settings) else 0)


def check_door(settings: Settings) -> None:
    """Raise ``Refused`` where the door may not be opened by this process."""
    if os.geteuid() == 0:
        raise Refused(
            "the SSH door does not run as root",
            hint=f"start it as the user {settings.users.ssh}, or use 'alveole serve'",
        )
    if not settings.ssh.enabled:
        raise Refused("the SSH door is closed", field="ssh.enabled", hint="set ssh.enabled in the settings")


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
