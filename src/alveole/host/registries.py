"""The one way out of a build: a proxy that lets it speak TLS to named package registries and to nothing else.

A build runs in a network namespace that holds nothing but this proxy's listening socket; the proxy runs outside of
it, as an id of the site's own range, without any right. It takes ``CONNECT`` to port 443 of the hosts it was given,
resolves each name once, refuses what is no public address, and connects to the very address it looked at (threat 18).
It ends with the pipe on its standard input, so it cannot outlive who wanted it.

Standard library only, and nothing is imported after the ids are dropped: the package may lie where that id cannot read.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextlib
import ipaddress
import json
import os
import re
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from alveole.host import syscalls

PORT = 443
#: Where a build finds it, in its own network namespace.
LISTEN = ("127.0.0.1", 3128)
MOST_TUNNELS = 64
HEAD_BYTES = 8 * 1024
HEAD_SECONDS = 10.0
CONNECT_SECONDS = 15.0
#: A tunnel without a byte for so long is closed.
IDLE_SECONDS = 120.0
_CHUNK = 64 * 1024
_REQUEST = re.compile(rb"CONNECT ([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5}) HTTP/1\.[01]\Z")
#: Networks that carry an IPv4 address inside: NAT64, 6to4, Teredo. What they lead to is not what they look like.
_CARRIERS = tuple(ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
_BOOT = "import sys; sys.path.append(sys.argv[1]); from alveole.host.registries import main; main(sys.argv[2:])"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def argv(listener: int, uid: int, hosts: Sequence[str], networks: Sequence[str]) -> list[str]:
    """The program that serves the listening socket ``listener`` as ``uid``; it is to inherit that file."""
    rules = json.dumps({"uid": uid, "hosts": list(hosts), "networks": list(networks)})
    top = str(Path(syscalls.__file__).parents[2])
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, top, str(listener), rules]


def reachable(text: str, networks: Sequence[Network]) -> Address | None:
    """``text`` as an address that may be connected to: a public one, or one in ``networks``; else ``None``."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return reachable(str(address.ipv4_mapped), networks)
        if any(address in carrier for carrier in _CARRIERS if carrier.version == 6):
            return None
    if any(address.version == network.version and address in network for network in networks):
        return None if address.is_loopback or address.is_link_local or address.is_unspecified else address
    public = address.is_global and not address.is_multicast and not address.is_reserved
    return address if public else None


class Proxy:
    """``hosts``: exact names. ``networks``: allowed beside public addresses. ``say`` is told of refusals."""

    def __init__(self, hosts: Sequence[str], networks: Sequence[str], say: Callable[[str], None]) -> None:
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._say = say
        self._told = 0
        self._pinned: dict[str, list[str]] = {}
        self._room = asyncio.Semaphore(MOST_TUNNELS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._room:
            try:
                await self._one(reader, writer)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                pass
            finally:
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
        match = _REQUEST.match(head.partition(b"\r\n")[0])
        if match is None:
            await self._refuse(writer, "405 Method Not Allowed", "only https to package registries goes out of a build")
            return
        host, port = match[1].decode().lower().rstrip("."), int(match[2])
        if host not in self._hosts or port != PORT:
            await self._refuse(writer, "403 Forbidden", f"{host}:{port} is not among build.registries of the settings")
            return
        address = await self._address(host)
        if address is None:
            await self._refuse(writer, "403 Forbidden", f"{host} has no public address")
            return
        try:
            inner, outer = await asyncio.wait_for(asyncio.open_connection(address, PORT), CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            await self._refuse(writer, "502 Bad Gateway", f"{host} does not answer: {error or 'no connection in time'}")
            return
        try:
            if outer.get_extra_info("sockname")[0] == outer.get_extra_info("peername")[0]:
                await self._refuse(writer, "403 Forbidden", f"{host} is this machine")
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await asyncio.gather(_pump(reader, outer), _pump(inner, writer))
        finally:
            outer.close()

    async def _address(self, host: str) -> str | None:
        """The address of ``host``, the same for the whole build: what was looked at is what is connected to."""
        if host not in self._pinned:
            loop = asyncio.get_running_loop()
            # As bytes: a str would go through the codec "idna", which may not be loaded any more.
            wanted = loop.getaddrinfo(host.encode(), PORT, type=socket.SOCK_STREAM)
            try:
                found = await asyncio.wait_for(wanted, CONNECT_SECONDS)
            except (OSError, TimeoutError):
                return None
            seen = dict.fromkeys(str(each[4][0]) for each in found)
            self._pinned[host] = [str(good) for text in seen if (good := reachable(text, self._networks))]
        known = self._pinned[host]
        return known[0] if known else None

    async def _refuse(self, writer: asyncio.StreamWriter, status: str, why: str) -> None:
        if self._told < 20:
            self._told += 1
            self._say(f"alveole: {why}")
        body = f"{why}\n".encode()
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{length}".encode() + body)
        with contextlib.suppress(OSError):
            await writer.drain()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        while data := await asyncio.wait_for(source.read(_CHUNK), IDLE_SECONDS):
            target.write(data)
            await target.drain()
    with contextlib.suppress(OSError, RuntimeError):
        target.write_eof()


def drop_rights(uid: int) -> None:
    """Become ``uid`` for good, with no capability and few of everything."""
    # What is loaded at its first use, while it can still be read: the resolver's modules, and the threads it runs in.
    concurrent.futures.thread.ThreadPoolExecutor(1).submit(int).result()
    with contextlib.suppress(OSError):
        socket.getaddrinfo("localhost", PORT)
    "localhost".encode("idna")
    for which, limit in (
        (resource.RLIMIT_NOFILE, 4 * MOST_TUNNELS),
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(which)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (limit, limit))
    os.setgroups([])
    for capability in range(64):
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability)
        except OSError:
            break
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def main(words: Sequence[str]) -> None:
    """``LISTENER RULES``: serve until standard input is at its end."""
    rules = json.loads(words[1])
    listener = socket.socket(fileno=int(words[0]))
    drop_rights(int(rules["uid"]))
    asyncio.run(_serve(listener, rules["hosts"], rules["networks"]))


async def _serve(listener: socket.socket, hosts: Sequence[str], networks: Sequence[str]) -> None:
    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(1, f"{text}\n".encode("utf-8", "replace"))

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(0, ended.set)
    server = await asyncio.start_server(Proxy(hosts, networks, say).serve, sock=listener, limit=HEAD_BYTES)
    await ended.wait()
    server.close()
    # A tunnel in the middle of a transfer must not hold the end up.
    os._exit(0)


__all__ = ["LISTEN", "Proxy", "argv", "main", "reachable"]
