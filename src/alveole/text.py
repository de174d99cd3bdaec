"""Make text that comes from sites inert for terminals and pages."""

from __future__ import annotations

import re

# ECMA-48: CSI, OSC and the other strings ended by BEL or ST, then the two-byte escapes.
_ESCAPES = (
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c|\\Z)"
    "|\x1b[ -/]*[0-~]"
)
# C0 (but for the tab), DEL, C1, line separators, and the marks that reorder text (UAX #9).
_CONTROLS = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"


def clean(text: str) -> str:
    """``text`` with nothing left that a terminal would obey: one line, no escapes, no controls."""
    if text.isascii() and text.isprintable():
        return text
    # The patterns are compiled when they are first needed: the command line imports this at every start.
    return re.sub(_CONTROLS, "", re.sub(_ESCAPES, "", text))
