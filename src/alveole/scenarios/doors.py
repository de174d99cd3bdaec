"""Where the requests of a scenario go: to the site as the outside reaches it, or to a web service that was allowed.

Nothing else can be reached (threat 18). A name of the site is never resolved: what is asked of it goes to the edge's
own address. A web service must be among ``outgoing.check_hosts``, and is connected to at the address that was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec

from alveole import outgoing
from alveole.errors import Refused

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
#: A connected socket to an instance that is not live.
Connect = Callable[[], Awaitable[socket.socket]]


class Address(msgspec.Struct, frozen=True):
    """A web address in its parts. ``target`` is path and query, as a request line has them."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        usual = 443 if self.scheme == "https" else 80
        return self.host if self.port == usual else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse(text: str) -> Address:
    """Raises ``Refused`` for what is no web address."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise Refused(f"{text[:200]!r} is no address: {error}") from None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("http", "https") or not host or not host.isascii() or "@" in parts.netloc:
        raise Refused(f"{text[:200]!r} is no web address")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), target)


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """What of the outside a scenario of one site may reach."""

    names: tuple[str, ...]
    """The site's own, the first of which stands before a path."""
    prefix: tuple[str, str] = ("", "")
    """The main domain and the path of it that is the site's, when it has one."""
    edge: str
    http_port: int
    https_port: int
    trust: Callable[[], ssl.SSLContext]
    """Authorities for the site's names: the machine's, and the internal one."""
    hosts: tuple[str, ...] = ()
    """``outgoing.check_hosts``."""
    inside_hosts: tuple[str, ...] = ()
    instance: Connect | None = None
    """Instead of the edge: an instance that is not live. Web services stay as they are."""
    label: str = "public"

    @property
    def start(self) -> str:
        """The address that paths are relative to."""
        port = "" if self.https_port == 443 else f":{self.https_port}"
        return f"https://{self.names[0]}{port}/"

    def is_own(self, address: Address) -> bool:
        """Whether it is the site's, at the ports of the edge."""
        if address.port != (self.https_port if address.scheme == "https" else self.http_port):
            return False
        if address.host in self.names:
            return True
        domain, prefix = self.prefix
        path = address.target.partition("?")[0]
        return bool(prefix) and address.host == domain and (path == prefix or path.startswith(f"{prefix}/"))

    async def open(self, address: Address) -> Streams:
        """A connection over which ``address`` can be asked. Raises ``Refused``, ``Temporary``, ``OSError``."""
        if self.is_own(address):
            if self.instance is not None:
                return await asyncio.open_connection(sock=await self.instance(), limit=_LIMIT)
            return await self._connect(self.edge, address, self.trust)
        if address.host not in self.hosts:
            raise Refused(
                f"{address.host} port {address.port} is neither the site's nor a web service that was allowed",
                hint="outgoing.check_hosts in the settings",
            )
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, outgoing.addresses, address.host, address.port, self.inside_hosts)
        for where in found[:-1]:
            with contextlib.suppress(OSError):
                return await self._connect(where, address, ssl.create_default_context)
        return await self._connect(found[-1], address, ssl.create_default_context)

    @staticmethod
    async def _connect(where: str, address: Address, trust: Callable[[], ssl.SSLContext]) -> Streams:
        context = trust() if address.scheme == "https" else None
        name = address.host if context is not None else None
        return await asyncio.open_connection(where, address.port, ssl=context, server_hostname=name, limit=_LIMIT)


_LIMIT = 128 * 1024
