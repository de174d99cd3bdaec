"""Bytes between control and an instance that the edge does not lead to: for scenarios before the switch.

Control names a site, its number and a slot, never an address: it reaches what that site's instance serves and
nothing else.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

from alveole.agent.reaching import Reach
from alveole.config import Settings
from alveole.errors import InvalidInput, Refused, Temporary
from alveole.host import instances, paths

#: More than a scenario takes.
_SECONDS = 90.0
_MOST = 32
_BLOCK = 65_536


class Reaches:
    """Safe from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._room = threading.Semaphore(_MOST)

    def open(self, request: Reach, files: list[int]) -> None:
        """Connect and give the bytes on. Raises ``Refused``, ``Temporary``."""
        if len(files) != 1:
            raise InvalidInput("needs exactly one file", field="files")
        found = instances.load(self._settings, request.site, request.slot)
        # The address follows from the number: it must be that site's.
        if found is None or found.spec.number != request.number:
            raise Refused("the site has no such instance", field="slot")
        if not self._room.acquire(blocking=False):
            raise Refused("too many are open already", hint="try again in a moment")
        try:
            theirs = socket.socket(fileno=files.pop())
            try:
                ours = self._connect(request)
            except BaseException:
                theirs.close()
                raise
        except BaseException:
            self._room.release()
            raise
        threading.Thread(target=self._relay, args=(theirs, ours), name="reach", daemon=True).start()

    def _connect(self, request: Reach) -> socket.socket:
        settings = self._settings
        try:
            if request.port is None:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                made.settimeout(5.0)
                made.connect(str(paths.web_socket(settings, request.site, request.slot)))
                return made
            net = settings.addressing().instance(request.number, request.slot)
            return socket.create_connection((str(net.own4), request.port), 5.0)
        except OSError as error:
            raise Temporary(f"the instance does not answer: {error.strerror or error}") from error

    def _relay(self, theirs: socket.socket, ours: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError), theirs, ours:
                pump(theirs, ours, _SECONDS)
        finally:
            self._room.release()


def pump(one: socket.socket, other: socket.socket, seconds: float) -> None:
    """Give bytes on both ways until both sides have ended, or the time is over. Raises ``OSError``."""
    until = time.monotonic() + seconds
    ways = {one: other, other: one}
    for each in ways:
        each.setblocking(True)
        each.settimeout(10.0)
    while ways and (left := until - time.monotonic()) > 0:
        for each in select.select(list(ways), [], [], left)[0]:
            block = each.recv(_BLOCK)
            if block:
                ways[each].sendall(block)
            else:
                with contextlib.suppress(OSError):
                    ways[each].shutdown(socket.SHUT_WR)
                del ways[each]
