"""A client of the API: HTTP/1.1 over control's Unix socket, by hand. For the command line, and for other machines.

``http.client`` costs more to import than everything else a command does; what is spoken here is
a small and closed part of HTTP with a server of our own. One connection serves one request.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from alveole import __version__
from alveole.config import Settings
from alveole.errors import AlveoleError, Denied, InvalidInput, NotFound, Problem, Refused, Temporary, from_code

_BLOCK = 64 * 1024
_HEAD_MAX = 64 * 1024
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
#: Control answers everything that is no stream and no long poll at once; this is for a loaded machine.
_PATIENCE = 120.0
#: How long a refused connection is tried again: control is being started anew.
_GRACE = 1.5
_BY_STATUS: dict[int, type[AlveoleError]] = {
    400: InvalidInput,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Refused,
    412: Refused,
    413: InvalidInput,
    422: InvalidInput,
    429: Temporary,
    503: Temporary,
    507: Refused,
}

Query = Mapping[str, str | int | float | bool | None]


class Lost(Temporary):
    """The connection ended before the answer did; what was asked may or may not have happened."""

    code = "temporary"


class Answer:
    """Status and headers of an answer, and its body, at once or as it comes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file = connection.makefile("rb")
        self.status = 0
        self.headers: dict[str, str] = {}
        self._left: int | None = None
        self._chunked = False

    def begin(self) -> None:
        """Read the head of the answer. Raises :class:`Lost`."""
        while True:
            line = self._line()
            parts = line.split(" ", 2)
            if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
                raise Lost("Alvéole's answer is not HTTP", hint="is another program on its socket?")
            self.status = int(parts[1])
            self.headers = {}
            while line := self._line():
                name, _, value = line.partition(":")
                self.headers[name.strip().lower()] = value.strip()
            if self.status >= 200:
                break
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        self._left = int(length) if length is not None and not self._chunked else None
        if self.status in (204, 304):
            self._left = 0

    def _line(self) -> str:
        try:
            raw = self._file.readline(_HEAD_MAX)
        except OSError as error:
            raise _lost(error) from error
        if not raw.endswith(b"\n"):
            raise Lost("the connection to Alvéole ended too early", hint="try again")
        return raw.rstrip(b"\r\n").decode("latin-1")

    def blocks(self) -> Iterator[bytes]:
        """The body, in whatever pieces it comes. Raises :class:`Lost` when it is cut."""
        try:
            if self._chunked:
                yield from self._chunks()
                return
            while self._left is None or self._left > 0:
                block = self._file.read1(_BLOCK if self._left is None else min(self._left, _BLOCK))
                if not block:
                    if self._left is None:
                        return
                    raise Lost("the connection to Alvéole ended too early", hint="try again")
                if self._left is not None:
                    self._left -= len(block)
                yield block
        except OSError as error:
            raise _lost(error) from error

    def _chunks(self) -> Iterator[bytes]:
        while True:
            try:
                left = int(self._line().partition(";")[0], 16)
            except ValueError:
                raise Lost("Alvéole's answer is not HTTP", hint="try again") from None
            if left == 0:
                while self._line():
                    pass
                return
            while left > 0:
                block = self._file.read1(min(left, _BLOCK))
                if not block:
                    raise Lost("the connection to Alvéole ended too early", hint="try again")
                left -= len(block)
                yield block
            self._line()

    def body(self) -> bytes:
        return b"".join(self.blocks())

    def lines(self) -> Iterator[str]:
        """The body line by line, each as soon as it is whole."""
        rest = b""
        for block in self.blocks():
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")

    def documents(self) -> Iterator[Any]:
        """The body as NDJSON."""
        for line in self.lines():
            if line.strip():
                yield msgspec.json.decode(line)

    def json(self) -> Any:
        """Raises ``Temporary`` for what is no JSON."""
        body = self.body()
        try:
            return msgspec.json.decode(body) if body else None
        except msgspec.DecodeError as error:
            raise Temporary(f"Alvéole's answer is no JSON: {error}", hint="is another program on its socket?") from None

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """Calls to the API. Every method raises the errors of :mod:`alveole.errors` that the API answers."""

    def __init__(self, socket: Settings | Path) -> None:
        """``socket``: where the API is; of this machine, as the settings say."""
        self._path = socket if isinstance(socket, Path) else socket.api_socket

    def get(self, path: str, query: Query | None = None) -> Any:
        with self.open("GET", path, query=query) as answer:
            return answer.json()

    def raw(self, path: str, query: Query | None = None) -> msgspec.Raw:
        """The document as it came, for passing on."""
        with self.open("GET", path, query=query) as answer:
            return msgspec.Raw(answer.body())

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Query | None = None,
        version: int | None = None,
        patience: float | None = _PATIENCE,
        key: str = "",
    ) -> Any:
        """An unsafe request, with an idempotency key so that it can be repeated when the answer is lost."""
        headers = {"Idempotency-Key": key or os.urandom(16).hex()}
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        content = msgspec.json.encode(body) if body is not None else b""
        until = time.monotonic() + 10.0
        while True:
            try:
                with self.open(
                    method, path, query=query, headers=headers, content=content, patience=patience
                ) as answer:
                    return answer.json()
            except Lost:
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)

    def upload(self, blocks: Iterable[bytes], length: int | None) -> Any:
        """Send a file; ``length`` in bytes where it is known. Gives ``{id, bytes, digest}``."""
        headers = {"Content-Type": "application/octet-stream"}
        with self.open("POST", "/v1/uploads", headers=headers, stream=blocks, length=length) as answer:
            return answer.json()

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        stream: Iterable[bytes] | None = None,
        length: int | None = None,
        patience: float | None = _PATIENCE,
    ) -> Answer:
        """Send a request and read the head of its answer; errors are raised, else the body is the caller's."""
        connection = connect(self._path)
        answer: Answer | None = None
        try:
            connection.settimeout(patience)
            head = self._head(method, path, query, headers, content, stream, length)
            early = False
            try:
                connection.sendall(head + content)
                if stream is not None:
                    _pour(connection, stream, length)
            except (BrokenPipeError, ConnectionResetError):
                # The server may refuse before it has read everything: its answer says why.
                early = True
            except OSError as error:
                raise _lost(error) from error
            answer = Answer(connection)
            answer.begin()
            if early and answer.status < 400:
                raise Lost("the connection to Alvéole was cut", hint="try again")
            if answer.status >= 400:
                raise _error(answer)
            return answer
        except BaseException:
            if answer is not None:
                answer.close()
            connection.close()
            raise

    def _head(
        self,
        method: str,
        path: str,
        query: Query | None,
        headers: Mapping[str, str] | None,
        content: bytes,
        stream: Iterable[bytes] | None,
        length: int | None,
    ) -> bytes:
        asked = pairs((key, _text(value)) for key, value in (query or {}).items() if value is not None)
        target = f"{path}?{asked}" if asked else path
        lines = [
            f"{method} {target} HTTP/1.1",
            "Host: alveole",
            f"User-Agent: alveole/{__version__}",
            "Accept: application/json, application/problem+json, */*",
            "Connection: close",
        ]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if stream is not None:
            lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        elif content:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        elif method != "GET":
            lines.append("Content-Length: 0")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def segment(text: str) -> str:
    """One segment of a path, whatever a person typed."""
    # An empty segment would be the address of the collection.
    return escape(text) or "%20"


def escape(text: str) -> str:
    """Percent-encoding (RFC 3986 §2.1); ``urllib.parse`` takes long to import."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))


def pairs(query: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{escape(key)}={escape(value)}" for key, value in query)


def connect(path: Path) -> socket.socket:
    """A connection to control's socket. Raises ``Temporary`` when nobody is there, ``Denied`` when not allowed."""
    until = time.monotonic() + _GRACE
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
            return connection
        except OSError as error:
            connection.close()
            if error.errno == errno.ECONNREFUSED and time.monotonic() < until:
                time.sleep(0.1)
                continue
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Denied("only root may speak to Alvéole on this machine", hint="use sudo") from error
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
                raise Temporary(
                    f"Alvéole is not running (nobody listens at {path})",
                    hint="start it: systemctl start alveole-agent alveole-control, or alveole serve; "
                    "another instance needs --config FILE",
                ) from error
            raise Temporary(f"cannot reach Alvéole at {path}: {error.strerror}", hint="try again") from error


def _pour(connection: socket.socket, stream: Iterable[bytes], length: int | None) -> None:
    for block in stream:
        if not block:
            continue
        connection.sendall(block if length is not None else b"%x\r\n%b\r\n" % (len(block), block))
    if length is None:
        connection.sendall(b"0\r\n\r\n")


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lost(error: OSError) -> Lost:
    if isinstance(error, TimeoutError):
        return Lost("Alvéole did not answer in time", hint="try again; alveole status shows whether it is busy")
    return Lost(f"the connection to Alvéole was cut: {error.strerror or error}", hint="try again")


def _error(answer: Answer) -> AlveoleError:
    """The error that a problem document carries; what is no such document is told by its status."""
    try:
        found = msgspec.json.decode(answer.body())
        problems = [
            Problem(str(item.get("field", "")), str(item.get("message", "")), str(item.get("hint", "")))
            for item in found["problems"]
        ]
        error = from_code(str(found["code"]), problems)
        if type(error) is AlveoleError and answer.status in _BY_STATUS:
            error = _BY_STATUS[answer.status](problems=problems)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, Lost):
        error = _BY_STATUS.get(answer.status, AlveoleError)(f"Alvéole answered {answer.status}")
    error.http_status = answer.status
    return error
