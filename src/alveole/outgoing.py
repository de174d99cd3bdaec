"""Where Alvéole itself may connect to on behalf of people: checks that call web services, webhooks (threat 18).

A name is resolved once, every address that it has is looked at, and the connection goes to an address that was looked
at: what the name says a moment later does not matter.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from alveole import __version__
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


def post(
    url: str, headers: Mapping[str, str], body: bytes, inside: Iterable[str], patience: float, method: str = "POST"
) -> int:
    """POST (or ``method``) once, and give the status; nothing is followed.

    Raises ``Refused``, ``Temporary``, ``OSError``.
    ``patience``: seconds for all of it, however slowly the answer comes. Only over https, but to hosts of ``inside``.
    """
    return asyncio.run(_post(url, headers, body, tuple(inside), patience, method))


def check_url(url: str, inside: Iterable[str]) -> tuple[str, int, str, bool]:
    """Host, port, path and whether it is https. Raises ``Refused`` for an address that is not to be posted to."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"it is no address: {error}", field="to") from None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("https", "http") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise Refused("it is no web address", field="to", hint="https://HOST/PATH")
    if "@" in parts.netloc:
        raise Refused("a name or password in an address is not taken", field="to")
    if parts.scheme == "http" and host not in {each.lower() for each in inside}:
        hint = f"or an administrator adds {host!r} to outgoing.inside_hosts in the settings"
        raise Refused("what is told goes over https", field="to", hint=hint)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return host, port or (443 if parts.scheme == "https" else 80), path, parts.scheme == "https"


async def _post(
    url: str, headers: Mapping[str, str], body: bytes, inside: tuple[str, ...], patience: float, method: str
) -> int:
    host, port, path, secure = check_url(url, inside)
    try:
        async with asyncio.timeout(patience):
            found = await asyncio.get_running_loop().run_in_executor(None, addresses, host, port, inside)
            context = ssl.create_default_context() if secure else None
            reader, writer = await asyncio.open_connection(
                found[0], port, ssl=context, server_hostname=host if secure else None
            )
            try:
                sent = {"host": urlsplit(url).netloc, "user-agent": f"alveole/{__version__}", "connection": "close"}
                heads = (f"{key}: {value}" for key, value in {**sent, **headers}.items())
                lines = [f"{method} {path} HTTP/1.1", *heads]
                if not all(map(str.isprintable, lines)):
                    raise Refused("what is to be sent holds the end of a line where there is one line", field="to")
                lines += [f"content-length: {len(body)}", "", ""]
                writer.write("\r\n".join(lines).encode("ascii") + body)
                await writer.drain()
                while True:
                    words = (await reader.readline()).split(b" ", 2)
                    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
                        raise Temporary("the receiver does not speak HTTP")
                    if int(words[1]) >= 200:
                        return int(words[1])
                    while (await reader.readline()).strip():
                        pass
            finally:
                writer.close()
    except TimeoutError:
        raise Temporary(f"the receiver did not answer within {patience:g} s") from None
    except ssl.SSLError as error:
        raise Refused(
            f"the TLS connection was refused: {getattr(error, 'verify_message', '') or error.reason}"
        ) from None
