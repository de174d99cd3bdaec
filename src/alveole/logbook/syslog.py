"""PURE. Syslog messages (RFC 5424) and how they follow each other on a stream (RFC 6587, RFC 5425).

Sent: octets are counted. Taken in: octets counted, or one message a line as many senders do. What is neither is
refused by ending the connection: after a wrong length nobody knows where the next message begins.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from alveole.logbook.model import LEVELS, Entry
from alveole.text import clean

#: RFC 5425, 4.3.1: receivers should take 8192 octets; a message that is longer than this is refused.
MESSAGE_MAX = 64 * 1024
#: RFC 5612: the number that is kept for examples; a private one would need IANA.
_ID = "alveole@32473"
_VERSION = re.compile(
    r"<(\d{1,3})>1 (\S{1,64}) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) "
    r"(-|(?:\[(?:[^\]\"\\]|\\.|\"(?:[^\"\\]|\\.)*\")*\])+)(?: (.*))?\Z",
    re.DOTALL,
)
#: With the stamp of RFC 3164, or with that of RFC 3339 which rsyslog and others send in its place (``ForwardFormat``).
_OLD = re.compile(
    r"<(\d{1,3})>(?:(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S{8,25}) (\S{1,255}) )?"
    r"(?:([^\s:\[]{1,48})(?:\[\d+\])?: ?)?(.*)\Z",
    re.DOTALL,
)
_HOSTILE = re.compile(r"[^\x21-\x7e]")


class Refused(ValueError):
    """What came is no syslog; the connection ends."""


class Message(NamedTuple):
    level: str
    host: str
    of: str
    text: str


class Frames:
    """Cuts a stream into messages. Holds one message at the most."""

    def __init__(self, most: int = MESSAGE_MAX) -> None:
        self._most = most
        self._rest = b""

    @property
    def waiting(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._rest)

    def feed(self, block: bytes) -> list[bytes]:
        """The messages that are whole by now. Raises :class:`Refused`."""
        data = self._rest + block
        found: list[bytes] = []
        at = 0
        while at < len(data):
            end = self._counted(data, at) if data[at : at + 1].isdigit() else self._line(data, at)
            if end is None:
                break
            begin, stop, after = end
            if stop > begin:
                found.append(data[begin:stop])
            at = after
        self._rest = data[at:]
        return found

    def _counted(self, data: bytes, at: int) -> tuple[int, int, int] | None:
        blank = data.find(b" ", at, at + 7)
        if blank < 0:
            if len(data) - at >= 7:
                raise Refused("a length without its end")
            if not data[at:].isdigit():
                raise Refused("a length that is no number")
            return None
        text = data[at:blank]
        # RFC 6587, 3.4.1: a length begins with no zero.
        if not text.isdigit() or text[:1] == b"0":
            raise Refused("a length that is no number")
        length = int(text)
        if length > self._most:
            raise Refused(f"a message of {length} octets")
        end = blank + 1 + length
        return (blank + 1, end, end) if end <= len(data) else None

    def _line(self, data: bytes, at: int) -> tuple[int, int, int] | None:
        if data[at : at + 1] in (b"\n", b"\r", b"\0"):
            return at, at, at + 1
        if data[at : at + 1] != b"<":
            raise Refused("neither a length nor a message")
        end = data.find(b"\n", at, at + self._most + 1)
        if end < 0:
            if len(data) - at > self._most:
                raise Refused("a line without end")
            return None
        return at, end, end + 1


def parse(raw: bytes) -> Message:
    """A message of RFC 5424, or of the older form (RFC 3164). Raises :class:`Refused`.

    The moment in it is the sender's word and is not taken: lines are kept by when they came.
    """
    text = raw.decode("utf-8", "replace").rstrip("\r\n\0")
    if found := _VERSION.match(text):
        number, _, host, of, _, _, _, said = found.groups()
        # RFC 5424, 6.4: a text that begins with the mark is UTF-8; clean() takes it out.
    elif found := _OLD.match(text):
        number, host, of, said = found.groups()
    else:
        raise Refused("no priority")
    if int(number) > 191:
        raise Refused(f"there is no priority {number}")
    # rsyslog keeps the blank after the program's name as part of the text.
    said = (said or "").removeprefix(" ")
    return Message(LEVELS[int(number) % 8], _word(host, 255), _word(of, 48), clean(said)[:16_384])


def _word(text: str | None, most: int) -> str:
    """One printable word without a blank; a colon would end it in our own lines."""
    return _HOSTILE.sub("", clean(text or "-")).replace(":", "-")[:most] or "-"


def render(entry: Entry, host: str, facility: int) -> bytes:
    """An RFC 5424 message with its length before it."""
    level = LEVELS.index(entry.level) if entry.level in LEVELS else 6
    at = entry.at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    of = _word("-".join(each for each in ("alveole", str(entry.source), entry.of) if each), 48)
    data = f'[{_ID} source="{entry.source}"' + (f' site="{_value(entry.site)}"' if entry.site else "") + "]"
    text = f"<{facility * 8 + level}>1 {at} {_word(host, 255)} {of} - - {data} {entry.text}".encode("utf-8", "replace")
    text = text[:MESSAGE_MAX]
    return b"%d %b" % (len(text), text)


def _value(text: str) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", clean(text))[:255]
