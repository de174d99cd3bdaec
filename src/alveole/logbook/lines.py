"""PURE. The forms of lines: when one was written, how grave it is, and what a person reads of it.

All that stands after the stamp of a line may be hostile: sites, visitors and other machines have written it. The stamp
is never theirs: it was put before the line by ``s6-log``, by the proxy or by Alvéole.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import Enum

import msgspec

from alveole.logbook.model import LEVELS
from alveole.text import clean

TEXT_MAX = 16 * 1024
"""A longer text is cut (characters)."""


class Form(Enum):
    PLAIN = "plain"
    """``2026-11-21 06:51:26.123456789  text``, in UTC: what ``s6-log`` writes (its ``T``)."""
    LEVELLED = "levelled"
    """The same, and the text is ``LEVEL OF: text``: what Alvéole gathers."""
    REQUEST = "request"
    """``{"time":"2026-11-21T06:51:26+00:00",…}``: a request, as the proxy writes it."""
    PROXY = "proxy"
    """``2026/11/21 06:51:26 [error] …`` in local time: the proxy's own."""


class Request(msgspec.Struct):
    time: str = ""
    client: str = ""
    scheme: str = ""
    method: str = ""
    host: str = ""
    uri: str = ""
    status: str = ""
    bytes: str = ""
    seconds: str = ""
    referer: str = ""
    agent: str = ""


_STAMP = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
_REQUEST = re.compile(rb'\{"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d)"')
_PROXY = re.compile(rb"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d) \[(\w+)\] ")
_LEVELLED = re.compile(r"(emerg|alert|crit|err|warning|notice|info|debug) ([^\s:]{1,64}): ?")
_requests = msgspec.json.Decoder(Request)
#: What programs write for how grave it is, near the beginning of a line, by the word of syslog.
_WORDS = {
    "emerg": "emerg emergency panic",
    "alert": "alert",
    "crit": "crit critical fatal",
    "err": "err error errors severe exception traceback",
    "warning": "warn warning",
    "notice": "notice",
    "info": "info information",
    "debug": "debug trace fine",
}
_GRAVE = {word: level for level, words in _WORDS.items() for word in words.split()}
_WORD = re.compile(r"\b(" + "|".join(_GRAVE) + r")\b", re.IGNORECASE)
#: A line shows it in its head, if at all (characters).
_HEAD = 160


def at_of(raw: bytes, form: Form) -> float | None:
    """Seconds since the epoch; ``None`` when the line begins in another way."""
    try:
        if form in (Form.PLAIN, Form.LEVELLED):
            if _STAMP.match(raw) is None:
                return None
            return datetime.fromisoformat(raw[:26].decode() + "+00:00").timestamp()
        if form is Form.REQUEST:
            found = _REQUEST.match(raw)
            return datetime.fromisoformat(found[1].decode()).timestamp() if found else None
        proxy = _PROXY.match(raw)
        return datetime(*map(int, proxy.groups()[:6])).timestamp() if proxy else None  # type: ignore[arg-type]  # six
    except (ValueError, OverflowError, OSError):
        return None


def stamp(at: float) -> str:
    """ISO 8601 in UTC with microseconds: compares as text. Empty for a moment that no calendar has."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, OverflowError, OSError):
        return ""


def read(raw: bytes, form: Form) -> tuple[str, str, str, str]:
    """``at``, level, what has written it, text: of one line without its line feed."""
    at = at_of(raw, form)
    when = stamp(at) if at is not None else ""
    if form is Form.REQUEST:
        return (when, *_read_request(raw))
    text = clean((raw if at is None else raw[_start(raw, form) :])[: 4 * TEXT_MAX].decode("utf-8", "replace"))
    if form is Form.PROXY:
        proxy = _PROXY.match(raw)
        word = proxy[7].decode().lower() if proxy else ""
        return when, _GRAVE.get(word, ""), "proxy", text[:TEXT_MAX]
    if form is Form.LEVELLED and (found := _LEVELLED.match(text)):
        return when, found[1], found[2], text[found.end() :][:TEXT_MAX]
    return when, level_in(text), "", text[:TEXT_MAX]


def _start(raw: bytes, form: Form) -> int:
    if form is Form.PROXY:
        return 20
    # The stamp has nine digits after the point, and two blanks follow it.
    return 31 if raw[29:31] == b"  " else min(len(raw), 30)


def _read_request(raw: bytes) -> tuple[str, str, str]:
    try:
        line = _requests.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", "", clean(raw[: 4 * TEXT_MAX].decode("utf-8", "replace"))[:TEXT_MAX]
    level = {"5": "err", "4": "warning"}.get(line.status[:1], "info")
    where = f"{line.scheme}://{line.host}{line.uri}" if line.host else line.uri
    text = f'{line.client} "{line.method} {where}" {line.status} {line.bytes} B {line.seconds} s'
    text += "".join(f' "{each}"' for each in (line.referer, line.agent) if each)
    return level, "", clean(text)[:TEXT_MAX]


def request_of(raw: bytes) -> Request | None:
    """One line of the proxy's by its fields, as they came; ``None`` for what is none."""
    try:
        return _requests.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def level_in(text: str) -> str:
    """How grave a line says it is, by the first word in its head that says so; empty: it says nothing."""
    found = _WORD.search(text, 0, _HEAD)
    return _GRAVE[found[1].lower()] if found else ""


def severity(level: str) -> int:
    """The number of RFC 5424; a line that does not say is ``info``."""
    return LEVELS.index(level) if level in LEVELS else 6


def words_for(level: int, form: Form) -> re.Pattern[bytes] | None:
    """What every line that is as grave as ``level`` holds somewhere, for a first look; ``None``: nothing sure."""
    if level >= 6:
        return None
    if form is Form.REQUEST:
        return re.compile(rb'"status":"5' if level < 4 else rb'"status":"[45]')
    words = [word for word, name in _GRAVE.items() if LEVELS.index(name) <= level]
    if form is Form.LEVELLED:
        words = list(LEVELS[: level + 1])
    return re.compile(rb"\b(?:" + "|".join(words).encode() + rb")\b", re.IGNORECASE)


def split_words(text: str) -> tuple[str, ...]:
    """What is asked for: words, each of which a line must hold, in any order; ``"so much"`` is one."""
    found = re.findall(r'"([^"]+)"|(\S+)', text[:1000])
    return tuple(quoted or plain.strip('"') for quoted, plain in found if quoted or plain.strip('"'))[:16]
