"""Which instances the edge is connected to at this moment: asked of the kernel, one question for all.

A request is in the log only when it has been answered, which for a WebSocket is hours later. An accepted Unix
socket belongs to the namespace of whoever connected, the edge, and carries the file it was bound to
(``unix_stream_connect`` in ``net/unix/af_unix.c``), which is the instance's own. Layouts: ``linux/unix_diag.h``,
``linux/netlink.h``; ``Documentation/networking/proc_net_tcp.rst``.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

_SOCK_DIAG, _BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_ESTABLISHED = 1
_SHOW_VFS, _VFS = 0x2, 1
_HEAD, _BODY = struct.Struct("=IHHII"), struct.Struct("=BBHIIIII")
#: Type, state, padding, number of the socket and its cookie; attributes follow.
_ANSWER = 16

File = tuple[int, int]
"""Device, as the kernel numbers it, and inode."""


def count(unix: Iterable[Path], tcp: Iterable[tuple[IPv4Address, int]]) -> tuple[dict[Path, int], Counter[str]]:
    """Open connections to each path of ``unix`` and to each ``ADDRESS:PORT`` of ``tcp``. Raises ``OSError``."""
    files: dict[Path, File] = {}
    for path in unix:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        files[path] = (os.major(status.st_dev) << 20 | os.minor(status.st_dev), status.st_ino & 0xFFFFFFFF)
    open_files = _bound_files() if files else Counter[File]()
    wanted = {f"{address}:{port}" for address, port in tcp}
    return (
        {path: open_files[file] for path, file in files.items()},
        _tcp(wanted) if wanted else Counter(),
    )


def _bound_files() -> Counter[File]:
    found: Counter[File] = Counter()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as link:
        link.settimeout(5.0)
        body = _BODY.pack(socket.AF_UNIX, 0, 0, 1 << _ESTABLISHED, 0, _SHOW_VFS, 0, 0)
        link.send(_HEAD.pack(_HEAD.size + len(body), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while True:
            data = link.recv(1 << 18)
            at = 0
            while at + _HEAD.size <= len(data):
                length, kind, _flags, _sequence, _port = _HEAD.unpack_from(data, at)
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    (number,) = struct.unpack_from("=i", data, at + _HEAD.size)
                    raise OSError(-number, os.strerror(-number))
                file = _file_of(data[at + _HEAD.size + _ANSWER : at + length])
                if file is not None:
                    found[file] += 1
                at += (length + 3) & ~3


def _file_of(attributes: bytes) -> File | None:
    at = 0
    while at + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, at)
        if length < 4:
            return None
        if kind == _VFS:
            inode, device = struct.unpack_from("=II", attributes, at + 4)
            return device, inode
        at += (length + 3) & ~3
    return None


def _tcp(wanted: set[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    with Path("/proc/net/tcp").open(encoding="ascii") as table:
        next(table)
        for line in table:
            words = line.split()
            address, _, port = words[2].partition(":")
            if int(words[3], 16) != _ESTABLISHED:
                continue
            # As the machine keeps it in memory: reversed on all that Alvéole runs on.
            name = f"{IPv4Address(bytes.fromhex(address)[::-1])}:{int(port, 16)}"
            if name in wanted:
                found[name] += 1
    return found
