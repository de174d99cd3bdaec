"""Whether a name leads to this machine: what an authority would find out, without its budget being spent on it.

The name is looked up at the resolvers of the settings, and each of its addresses is asked for a challenge that was just
put there. Only addresses that are public, or this machine's own, are asked (threat 18): a name of somebody's may lead
anywhere.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from alveole.dns.rfc2136 import Updates
from alveole.errors import AlveoleError, Refused, Temporary
from alveole.issuing.model import OwnZone
from alveole.model.names import split_resolver
from alveole.origins import is_public
from alveole.outgoing import is_own

_ADDRESSES_MOST = 8
PATH = "/.well-known/acme-challenge/"


#: The most that is waited until secondary servers have fetched a zone; they are told within a second.
_FETCH_SECONDS = 30.0
_POLL_SECONDS = 0.2


class Astray(Refused):
    """The name does not lead here."""


def addresses(name: str, resolvers: Sequence[str], seconds: float) -> tuple[str, ...]:
    """What the DNS gives for a name, IPv6 first as authorities take them. Raises :class:`Astray`, ``Temporary``."""
    import dns.exception
    import dns.nameserver
    import dns.resolver

    found: list[str] = []
    try:
        resolver = dns.resolver.Resolver(configure=not resolvers)
        if resolvers:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(*split_resolver(each)) for each in resolvers]
        for kind in ("AAAA", "A"):
            try:
                answer: Any = resolver.resolve(f"{name}.", kind, search=False, lifetime=seconds)
                found += [str(each) for each in answer]
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
    except dns.exception.Timeout:
        raise Temporary(f"no name server answered within {seconds:g} s", field="name") from None
    except dns.resolver.NoNameservers as error:
        # Those of the library tell the question once more, and each server by the way that it was asked.
        said = [f"{str(each[0]).removeprefix('Do53:')}: {each[3]}" for each in error.kwargs.get("errors", ())]
        text = "; ".join(dict.fromkeys(said)) or str(error)
        raise Temporary(f"the name servers do not say: {text}"[:300], field="name") from None
    except (dns.exception.DNSException, OSError) as error:
        raise Temporary(f"the name servers do not say: {error}"[:300], field="name") from None
    if not found:
        raise Astray(f"{name} has no address", field="name", hint="let an A or AAAA record lead to this machine")
    return tuple(dict.fromkeys(found))


def check(name: str, port: int, token: str, answer: str, resolvers: Sequence[str], seconds: float) -> None:
    """Raise :class:`Astray` unless ``name`` answers ``answer`` for the challenge ``token``; ``Temporary``."""
    unreached = []
    answered = False
    for address in addresses(name, resolvers, seconds)[:_ADDRESSES_MOST]:
        if not is_public(address) and not is_own(address):
            raise Astray(f"{name} is at {address}, which is inside", field="name", hint="no authority comes there")
        try:
            came = _ask(address, port, name, token, seconds)
        except (OSError, http.client.HTTPException) as error:
            unreached.append(f"{address}: {getattr(error, 'strerror', None) or error or type(error).__name__}")
            continue
        if came != answer:
            raise Astray(
                f"{name} is at {address}, where somebody else answers", field="name", hint="change its records"
            )
        answered = True
    if not answered:
        raise Astray(
            f"{name} does not answer: {'; '.join(unreached)}",
            field="name",
            hint=f"open port {port}; where this machine cannot reach itself: alveole acme set --no-look",
        )


def fetched(zone: OwnZone, pause: Callable[[float], bool]) -> tuple[str, ...]:
    """Wait until the zone's secondary servers have what was written: an authority asks whichever it likes.

    Gives those that are behind still; one that does not answer is not waited for, nor is it asked by others with more
    success. ``pause`` waits, and says whether to give up.
    """
    end = time.monotonic() + _FETCH_SECONDS
    try:
        wanted = zone.updates().serial()
    except AlveoleError:
        return ()
    behind = list(zone.secondaries)
    while behind:
        behind = [each for each in behind if _behind(each, zone.zone, wanted)]
        if not behind or time.monotonic() > end or pause(_POLL_SECONDS):
            break
    return tuple(behind)


def _behind(address: str, zone: str, wanted: int) -> bool:
    try:
        there = Updates(*split_resolver(address), zone, None).serial()
    except AlveoleError:
        return False
    # Serial numbers go round (RFC 1982).
    return 0 < (wanted - there) % (1 << 32) < 1 << 31


def _ask(address: str, port: int, name: str, token: str, seconds: float) -> str:
    """``seconds``: for all of it, however slowly the answer comes."""
    connection = http.client.HTTPConnection(address, port, timeout=seconds)
    handle = socket.create_connection((address, port), seconds)
    timer = threading.Timer(seconds, _cut, (handle,))
    timer.daemon = True
    timer.start()
    try:
        connection.sock = handle.dup()
        connection.sock.settimeout(seconds)
        connection.request("GET", PATH + token, headers={"Host": name if port == 80 else f"{name}:{port}"})
        answer = connection.getresponse()
        text = answer.read(1024).decode("ascii", "replace").strip()
        return text if answer.status == 200 else f"status {answer.status}"
    finally:
        timer.cancel()
        connection.close()
        handle.close()


def _cut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)
