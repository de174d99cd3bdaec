"""Messages on a Unix stream socket: JSON ended by a line feed, files beside a message."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from alveole.agent.protocol import MAX_MESSAGE
from alveole.errors import Temporary

#: More than a request ever carries; the kernel's own limit is 253 (SCM_MAX_FD).
MAX_FILES = 8
_encoder = msgspec.json.Encoder()


class Wire:
    """One end of a connection. Not for several threads at once in the same direction."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._pending = bytearray()
        self._files: list[int] = []

    def send(self, message: object, files: Sequence[int] = ()) -> None:
        """Send one message; the receiver gets duplicates of ``files``. Raises ``OSError``."""
        data = _encoder.encode(message) + b"\n"
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        sent = self.socket.sendmsg([data], ancillary)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def receive(self, decoder: msgspec.json.Decoder[Any]) -> Any:
        """The next message, or ``None`` when the other end has closed.

        Raises ``Temporary`` for a message that is cut or too long, ``msgspec.ValidationError`` for
        one that is not of the decoder's type.
        """
        end = self._pending.find(b"\n")
        while end < 0:
            data, ancillary, _flags, _address = self.socket.recvmsg(
                65_536, socket.CMSG_SPACE(MAX_FILES * struct.calcsize("i")), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    whole = len(payload) - len(payload) % struct.calcsize("i")
                    self._files.extend(array.array("i", payload[:whole]))
            if len(self._files) > MAX_FILES:
                raise Temporary(f"more than {MAX_FILES} files came with a message")
            if not data:
                if self._pending:
                    raise Temporary("the connection to the agent was cut in the middle of a message")
                return None
            start = len(self._pending)
            self._pending += data
            if len(self._pending) > MAX_MESSAGE:
                raise Temporary(f"a message is longer than {MAX_MESSAGE} bytes")
            end = self._pending.find(b"\n", start)
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return decoder.decode(line)

    def take_files(self) -> list[int]:
        """The files that came with the messages so far; the caller closes them."""
        files, self._files = self._files, []
        return files

    def close(self) -> None:
        for fd in self.take_files():
            os.close(fd)
        self.socket.close()
