"""PURE. Hide secrets in rendered text, however the format of the text writes them.

A template writes a value quoted for its format: ``a"b`` is ``a\\"b`` in one and ``a&quot;b`` in
another. So each secret is looked for character by character, in every way that the formats of the
catalogue have to write it, and as base64 (LDIF).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

HIDDEN = "***"
#: How a character that is neither letter nor digit may stand in a text: as itself, escaped or doubled
#: in quotes of either kind, as an entity, percent-encoded, or by its number.
_WRITTEN = (
    r"(?:\\{{0,3}}{c}{{1,2}}|'\\''|'\"'\"'|&[a-z]{{2,6}};|&#x?[0-9a-fA-F]{{1,6}};"
    r"|(?:%[0-9a-fA-F]{{2}})+|\\[nrtbf0]|(?:\\x[0-9a-fA-F]{{2}})+|(?:\\u[0-9a-fA-F]{{4}})+|(?:\\[0-7]{{3}})+)"
)


def _pattern(secret: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else _WRITTEN.format(c=re.escape(char)) for char in secret)


def mask(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret replaced by ``***``; empty secrets are none."""
    # Long ones first: one may be the start of another.
    found = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
    patterns = [_pattern(secret) for secret in found]
    for secret in found:
        raw = secret.encode()
        digests = [hashlib.new(kind, raw, usedforsecurity=False).hexdigest() for kind in ("md5", "sha1", "sha256")]
        patterns += [re.escape(base64.b64encode(raw).decode()), *digests]
    # Salted, so that it cannot be worked out here; no text but a password's digest looks like it.
    patterns.append(r"\{SSHA\}[A-Za-z0-9+/=]{28,}")
    return re.sub("|".join(patterns), HIDDEN, text)


_NAMED = re.compile(
    r"(?im)^(.*?(?:passw|passphrase|secret|token|api_?key|private_?key|salt)[\w-]*['\"]?\s*(?:=>|[=:,(]|\s)\s*)\S.*$"
)


def mask_by_name(text: str) -> str:
    """``text``, which a person typed, with the rest of each line hidden that seems to set a secret."""
    return _NAMED.sub(rf"\g<1>{HIDDEN}", text)
