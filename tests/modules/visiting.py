"""WebSockets and logins that lead from one site to another, for tests of modules; beside the kit."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
from collections.abc import Mapping
from types import TracebackType

from modkit import ModuleSite

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class WebSocket:
    """A client of RFC 6455 that knows text, ping and close; through the edge, over TLS, by the site's name."""

    def __init__(self, site: ModuleSite, path: str, headers: Mapping[str, str] | None = None, seconds: float = 20.0):
        host = f"{site.name}.localhost"
        raw = socket.create_connection(("127.0.0.1", site.alveole.https), timeout=seconds)
        self.link = site.alveole.trust().wrap_socket(raw, server_hostname=host)
        self.rest = b""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {
            "Host": f"{host}:{site.alveole.https}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
            "Origin": f"https://{host}:{site.alveole.https}",
            **(headers or {}),
        }
        self.link.sendall(
            f"GET {path} HTTP/1.1\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in lines.items()) + b"\r\n"
        )
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101"), head
        proof = base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest())
        assert b"sec-websocket-accept: " + proof.lower() in head.lower(), head

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.link.close()

    def _more(self) -> None:
        found = self.link.recv(65536)
        assert found, "the connection was closed"
        self.rest += found

    def _take(self, count: int) -> bytes:
        while len(self.rest) < count:
            self._more()
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def send(self, text: str, kind: int = 1) -> None:
        body, mask = text.encode(), os.urandom(4)
        size = len(body)
        if size < 126:
            head = struct.pack(">BB", 0x80 | kind, 0x80 | size)
        else:
            head = struct.pack(">BBH", 0x80 | kind, 0x80 | 126, size)
        self.link.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(body)))

    def message(self) -> str:
        """The next text, whatever pings come before it."""
        whole = b""
        while True:
            first, size = self._take(2)
            size &= 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._take(8))
            body = self._take(size)
            kind = first & 0x0F
            if kind == 9:
                self.send(body.decode(), 10)
            elif kind == 8:
                raise AssertionError(f"closed: {body!r}")
            elif kind in (0, 1):
                whole += body
                if first & 0x80:
                    return whole.decode()
