"""PURE. Access lines as goaccess(1) reads them, without what would tell one person from another.

An IPv4 address becomes its /24 and an IPv6 address its /48, and what stands after the question mark of an address
is left out, of the page asked for as of the one that led there. What the browser says of itself stays: it is counted
by family.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address, ip_network

#: A value as nginx writes it with ``escape=json``: quotes and backslashes have a backslash before them.
_VALUE = rb'"((?:[^"\\]|\\.)*)"'
_FIELDS = ("client", "scheme", "method", "host", "uri", "protocol", "status", "bytes", "seconds")
_LINE = re.compile(
    rb'^\{"time":"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)[^"]*"'
    + b"".join(rb',"' + name.encode() + rb'":' + _VALUE for name in _FIELDS)
    + rb',"site_seconds":"[^"]*","referer":'
    + _VALUE
    + rb',"agent":'
    + _VALUE,
    re.MULTILINE,
)
_FIELD_MAX = 1024


@lru_cache(maxsize=20_000)
def network_of(address: bytes) -> bytes:
    """``203.0.113.7`` → ``203.0.113.0``, ``2001:db8:1:2::3`` → ``2001:db8:1::``; what is no address → ``0.0.0.0``."""
    try:
        found = ip_address(address.decode())
        mapped = getattr(found, "ipv4_mapped", None)
        found = mapped or found
        width = 24 if found.version == 4 else 48
        return str(ip_network(f"{found}/{width}", strict=False).network_address).encode()
    except ValueError:
        return b"0.0.0.0"  # an address of nobody, for the count


def shorten(block: bytes, *, addresses: bool = True, queries: bool = True) -> bytes:
    """The requests of a block of whole lines, tab-separated, one a line; what is no request is left out."""
    found = []
    for day, hour, client, _, method, _, uri, protocol, status, size, took, referer, agent in _LINE.findall(block):
        if addresses:
            client = network_of(client)
        if queries:
            uri, referer = uri.partition(b"?")[0], referer.partition(b"?")[0]
        fields = (client, day, hour, method, uri[:_FIELD_MAX], protocol, status, size, took, referer, agent)
        found.append(b"\t".join(each[:_FIELD_MAX] or b"-" for each in fields))
    found.append(b"")
    return b"\n".join(found)
