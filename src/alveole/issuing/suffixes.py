"""Which names are registered by anybody, and below which everybody registers: the public suffix list of this machine.

Debian's ``publicsuffix``, in the format of https://publicsuffix.org/list/. It is read when something is asked and not
kept: 230 KB that are looked through in less than a millisecond, and what was found out is remembered.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

LIST = Path("/usr/share/publicsuffix/public_suffix_list.dat")
#: Where there is no list. Below a country's domain these are nobody's own: ``co.uk``. Counting too much together is
#: only stricter.
_SECOND = frozenset({"ac", "co", "com", "edu", "gob", "gouv", "gov", "ltd", "me", "mil", "net", "nom", "or", "org"})


def registered(name: str) -> str:
    """The domain that somebody has registered: of ``a.b.co.uk`` it is ``b.co.uk``. Of a suffix, itself."""
    labels = name.removeprefix("*.").split(".")
    return ".".join(labels[-_suffix_labels(".".join(labels)) - 1 :])


def is_suffix(name: str) -> bool:
    """Whether a registry has it, so that no authority issues for all names below (CA/Browser Forum 3.2.2.6)."""
    return _suffix_labels(name, of_registries=True) == name.count(".") + 1


@lru_cache(maxsize=1024)
def _suffix_labels(name: str, *, of_registries: bool = False) -> int:
    """How many labels of ``name`` are its suffix. Else those of companies that give names to others count too."""
    labels = name.split(".")
    try:
        # Lines between line feeds, so that a rule is found whole.
        rules = b"\n" + LIST.read_bytes() + b"\n"
        if of_registries:
            rules = rules.partition(b"===END ICANN DOMAINS===")[0]
    except OSError:
        return 2 if len(labels) > 1 and len(labels[-1]) == 2 and labels[-2] in _SECOND else 1
    shown = [_shown(each) for each in labels]
    for at in range(len(labels)):
        rest = ".".join(shown[at:])
        length = len(labels) - at
        # https://github.com/publicsuffix/list/wiki/Format: an exception goes first, then the longest rule.
        if _is_rule(rules, f"!{rest}"):
            return length - 1
        if _is_rule(rules, rest) or (at + 1 < len(shown) and _is_rule(rules, "*." + ".".join(shown[at + 1 :]))):
            return length
    return 1


def _is_rule(rules: bytes, rule: str) -> bool:
    return f"\n{rule}\n".encode() in rules


def _shown(label: str) -> str:
    """The list is written in letters, names in ASCII (RFC 5890)."""
    if not label.startswith("xn--"):
        return label
    try:
        return label.encode("ascii").decode("idna")
    except UnicodeError:
        return label
