"""Make text that comes from sites inert for terminals and pages."""

from __future__ import annotations

import re

# ECMA-48: CSI, OSC and the other strings ended by BEL or ST, then the two-byte escapes.
_ESCAPES = (
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c|\\Z)"
    "|\x1b[ -/]*[0-~]"
)
# C0 (but for the tab), DEL, C1, line separators, the marks that reorder text (UAX #9), and what no XML may hold
# (XML 1.0, 2.2): halves of pairs and the two last places of the plane.
_CONTROLS = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"


_SPAN_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def read_span(text: str) -> int:
    """Seconds, of ``30m``, ``1d12h`` or ``90``; ``never`` is 0. Raises ``ValueError``."""
    if text == "never":
        return 0
    found = re.fullmatch(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s?)?", text)
    if not text or found is None:
        raise ValueError(f"{text!r} is not a time")
    parts = zip(found.groups(), _SPAN_UNITS, strict=True)
    return sum(int(count) * seconds for count, (_unit, seconds) in parts if count)


def span(seconds: int) -> str:
    """The inverse of :func:`read_span`."""
    words = []
    for unit, size in _SPAN_UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            words.append(f"{count}{unit}")
    return "".join(words) or "never"


def clean(text: str) -> str:
    """``text`` with nothing left that a terminal would obey: one line, no escapes, no controls."""
    if text.isascii() and text.isprintable():
        return text
    # The patterns are compiled when they are first needed: the command line imports this at every start.
    return re.sub(_CONTROLS, "", re.sub(_ESCAPES, "", text))
