"""What of the machine itself is lent to a site: ports of its addresses, and directories of its own.

Only administrators lend (``Right.MACHINE_LEND``), and only what the settings allow. None of it goes with a site to
another machine, and none of it is in a backup.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from alveole.model.names import MountPath, Port

#: An absolute path in its one form: no ``.``, no ``..``, no double or last slash, no control characters.
HOST_PATH = r"^(?:/(?!\.{1,2}(?:/|\Z))[^/\x00-\x1f\x7f]{1,255})+\Z"
HostPath = Annotated[str, msgspec.Meta(pattern=HOST_PATH, max_length=1024)]


class Transport(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """A port of the machine's addresses, IPv4 and IPv6, that leads to a port of the site. The site's as long as it
    is there, started or not."""

    host: Port
    port: Port
    """Inside."""
    protocol: Transport = Transport.TCP

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.protocol}"


class Shared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """A directory of the machine, seen in the site at ``path``.

    Read-only it shows what everybody on the machine may read. ``writable``, the program of the site is its owner there,
    and can be nobody else.
    """

    source: HostPath
    path: MountPath
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.path}:{'rw' if self.writable else 'ro'}"
