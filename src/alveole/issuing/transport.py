"""How an authority is asked: over HTTPS, only at hosts where it may lead us, and never for more bytes or more time than
an answer of its kind takes (threat 18, and a server that is broken or hostile).

The library's time runs between two reads, and its room is all there is; here both are of a whole answer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from alveole import outgoing

#: A chain of ten large certificates is a twentieth of it.
ANSWER_BYTES = 1 << 20
#: From the name's look-up to the answer's last byte.
WHOLE_SECONDS = 60.0
#: Connections are kept open, one for each host that is asked.
_HANDLES_MOST = 8


class _Turn:
    """One request: whether its time ran out, and whether it is over, after which nothing of it may be cut."""

    __slots__ = ("late", "over")

    def __init__(self) -> None:
        self.late = self.over = False


class Guarded(HTTPAdapter):
    """The authority's own host may be anywhere, for an administrator has named it; others must be public.

    For one thread. Raises what the library raises, and ``Refused``.
    """

    def __init__(self, inside: tuple[str, ...]) -> None:
        self._inside = inside
        self._handles: list[socket.socket] = []
        self._cutting = threading.Lock()
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        keep = self._keep

        class Connection(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                # Before the handshake, which may be slow as well; the socket itself belongs to TLS from there on.
                keep(made.dup())
                return made

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        self.poolmanager.pool_classes_by_scheme = {"https": Pool}

    def _keep(self, handle: socket.socket) -> None:
        self._handles.append(handle)
        while len(self._handles) > _HANDLES_MOST:
            self._handles.pop(0).close()

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        outgoing.addresses(parts.hostname or "", parts.port or 443, self._inside)
        # What is packed small may be large; nothing that an authority says is worth packing.
        request.headers["Accept-Encoding"] = "identity"
        turn = _Turn()
        timer = threading.Timer(WHOLE_SECONDS, self._cut, (turn,))
        timer.daemon = True
        timer.start()
        try:
            answer = super().send(request, *args, **{**more, "stream": True})
            content = answer.raw.read(ANSWER_BYTES + 1, decode_content=False)
        except (urllib3.exceptions.HTTPError, requests.exceptions.RequestException, OSError) as error:
            if turn.late:
                raise requests.exceptions.Timeout(f"no whole answer within {WHOLE_SECONDS:g} s") from None
            if isinstance(error, requests.exceptions.RequestException):
                raise
            raise requests.exceptions.ConnectionError(error) from None
        finally:
            timer.cancel()
            # It may have fired already; the next request goes over the same connections.
            with self._cutting:
                turn.over = True
        if turn.late:
            # What was cut may look like what has ended.
            answer.close()
            raise requests.exceptions.Timeout(f"no whole answer within {WHOLE_SECONDS:g} s")
        if len(content) > ANSWER_BYTES:
            answer.close()
            raise requests.exceptions.RequestException(f"it answers more than {ANSWER_BYTES >> 20} MiB")
        answer._content = content
        answer._content_consumed = True
        return answer

    def _cut(self, turn: _Turn) -> None:
        with self._cutting:
            if turn.over:
                return
            turn.late = True
            for handle in tuple(self._handles):
                with contextlib.suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        while self._handles:
            self._handles.pop().close()
