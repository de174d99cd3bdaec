"""PURE. Rules that make personal data unreadable when an environment gets the data of another one.

A rule is one line: ``TABLE.COLUMN=KIND`` for a database, ``VOLUME/PATTERN=removed`` for files. The same value
becomes the same mask wherever it stands in one synchronisation, so that tables still fit together; the salt is made
inside the database server and ends with its session, so that nobody can try values afterwards.

``text:WORDS`` puts fixed words, ``null`` nothing, ``hash`` 32 hexadecimal digits. Masks of mail addresses end in
``.invalid`` (RFC 6761 §6.4: no such domain will ever be), telephone numbers begin with +999, which the ITU has not
given to anybody (E.164). What is NULL stays so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from alveole.catalogue.manifest import Format
from alveole.catalogue.quoting import identifier, quote
from alveole.errors import InvalidInput, Problem

MASKS_MAX = 200
_NAME = r"[A-Za-z0-9_$-]{1,64}"
_COLUMN = re.compile(rf"({_NAME}(?:\.{_NAME}){{1,2}})=([a-z]+)(?::(.*))?\Z", re.DOTALL)
_FILES = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?)/([^=\0]{1,200})=removed\Z")
_HINT = "write it like customers.email=email, customers.note=text:removed or uploads/*.pdf=removed"


class MaskKind(StrEnum):
    EMAIL = "email"
    NAME = "name"
    PHONE = "phone"
    TEXT = "text"
    NULL = "null"
    HASH = "hash"
    REMOVED = "removed"
    """Files: they do not come along."""


class Mask(msgspec.Struct, frozen=True):
    place: tuple[str, ...]
    """Table and column, perhaps a schema before them; or a volume and a pattern of paths in it."""
    kind: MaskKind
    text: str = ""


def mask_of(line: str) -> Mask:
    """One rule. Raises ``InvalidInput``."""
    line = line.strip()
    if found := _FILES.match(line):
        return Mask((found[1], found[2]), MaskKind.REMOVED)
    found = _COLUMN.match(line)
    kinds = [each for each in MaskKind if each is not MaskKind.REMOVED]
    if found is None or found[2] not in kinds:
        raise InvalidInput(f"{line!r} is no rule for masking", field="masks", hint=_HINT)
    kind = MaskKind(found[2])
    text = found[3] or ""
    if (kind is MaskKind.TEXT) != (found[3] is not None) or len(text) > 500 or re.search(r"[\0-\x1f]", text):
        raise InvalidInput(f"{line!r} is no rule for masking", field="masks", hint="only text has words: text:WORDS")
    return Mask(tuple(found[1].split(".")), kind, text)


def check_masks(lines: Iterable[str]) -> list[Problem]:
    """All that is wrong with rules."""
    problems: list[Problem] = []
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(lines):
        if number == MASKS_MAX:
            problems.append(Problem("masks", f"are more than {MASKS_MAX} rules"))
            break
        try:
            mask = mask_of(line)
        except InvalidInput as error:
            problems += error.problems
            continue
        if mask.place in seen:
            problems.append(Problem("masks", f"{'.'.join(mask.place)} has two rules", "give each column one"))
        seen.add(mask.place)
    return problems


def columns(lines: Iterable[str]) -> tuple[Mask, ...]:
    return tuple(mask for mask in map(mask_of, lines) if mask.kind is not MaskKind.REMOVED)


def patterns(lines: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Volume and pattern of the files that do not come along; ``*`` stands for slashes too."""
    return tuple((mask.place[0], mask.place[1]) for mask in map(mask_of, lines) if mask.kind is MaskKind.REMOVED)


def statements(format: Format, masks: Iterable[Mask]) -> tuple[str, ...]:
    """What masks, one statement a rule, after those that make the salt; all for one session."""
    if format is Format.SQL:
        # Strict, so that a mask that does not fit its column is an error and not half a mask.
        begin = ("SET SESSION sql_mode = 'STRICT_ALL_TABLES'", "SET @salt = HEX(RANDOM_BYTES(32))")
    else:
        # Triggers must not keep a copy of what is written over.
        salt = "gen_random_uuid()::text || gen_random_uuid()::text"
        begin = ("SET session_replication_role = replica", f"SELECT set_config('alveole.salt', {salt}, false)")
    return (*begin, *(_update(format, mask) for mask in masks))


def _update(format: Format, mask: Mask) -> str:
    *table, column = (identifier(format, each) for each in mask.place)
    value = _value(format, mask, column)
    # Every part went through the serializer of its format.
    return f"UPDATE {'.'.join(table)} SET {column} = {value} WHERE {column} IS NOT NULL"  # noqa: S608  see above


def _value(format: Format, mask: Mask, column: str) -> str:
    maria = format is Format.SQL
    digest = (
        f"SHA2(CONCAT(@salt, {column}), 256)"
        if maria
        else f"encode(sha256(convert_to(current_setting('alveole.salt') || {column}::text, 'UTF8')), 'hex')"
    )

    def joined(*parts: str) -> str:
        return f"CONCAT({', '.join(parts)})" if maria else " || ".join(parts)

    match mask.kind:
        case MaskKind.NULL:
            return "NULL"
        case MaskKind.TEXT:
            return quote(format, mask.text)
        case MaskKind.HASH:
            return f"LEFT({digest}, 32)"
        case MaskKind.EMAIL:
            return joined(quote(format, "m-"), f"LEFT({digest}, 16)", quote(format, "@example.invalid"))
        case MaskKind.NAME:
            return joined(quote(format, "Name "), f"LEFT({digest}, 8)")
        case MaskKind.PHONE:
            number = (
                f"CONV(LEFT({digest}, 8), 16, 10)"
                if maria
                else f"('x' || LPAD(LEFT({digest}, 8), 16, '0'))::bit(64)::bigint::text"
            )
            return joined(quote(format, "+999"), f"LPAD({number}, 10, '0')")
    raise ValueError(mask.kind)
