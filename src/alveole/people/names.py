"""Grammars of what names a person or a team."""

from __future__ import annotations

import re

from alveole.errors import Problem

#: What SSH and LDAP take for a user, and no character that a door gives a meaning of its own (``+``, ``@``, ``:``).
PERSON_NAME = r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z"
_HINT = "use a-z, 0-9, '.', '-' and '_'; begin and end with a letter or a digit"
#: Names that stand for something else wherever a person could stand.
_RESERVED = frozenset({"root", "control", "reconciler", "nobody", "all", "each-person", "each-team"})


def check_person_name(name: str, field: str = "name") -> tuple[Problem, ...]:
    """Also of teams."""
    if not re.match(PERSON_NAME, name):
        return (Problem(field, f"{name[:80]!r} is not a name", _HINT),)
    if name in _RESERVED:
        return (Problem(field, f"{name!r} is reserved", "choose another name"),)
    return ()


def check_text(text: str, field: str, most: int) -> tuple[Problem, ...]:
    """A title or an address of mail: one printable line."""
    if len(text) > most or not text.isprintable():
        return (Problem(field, f"is longer than {most} characters or not printable"),)
    return ()
