"""One serializer for each format a template may print a value in.

Each takes any text and gives what a reader of the format takes for exactly that text, or raises
:class:`Unwritable`. So no answer can end the string, the line or the block it is printed in
(threat 11). ``tests/property/test_quoting.py`` reads everything back with the real programs.

Values are ``str``, ``int``, ``float``, ``bool``, lists of them, or ``None``.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable, Sequence

from alveole.catalogue.manifest import Format
from alveole.errors import InvalidInput
from alveole.proxyconf import apache_word, nginx_word

Value = object
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[A-Za-z0-9._/:@+,-]+\Z")
# XML 1.0 §2.2: what a document may hold at all.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# XML 1.0 §2.4 and §3.3.3: blanks as references, or a reader of an attribute makes spaces of them.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}) | str.maketrans(
    {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)
# RFC 2849: SAFE-STRING, and no blank at the end, which a reader may lose.
_LDIF_SAFE = re.compile(r"(?:[\x21-\x39\x3b\x3d-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?\Z")
#: MariaDB reads a line of an option file into 4096 bytes, and takes what follows for another line.
INI_BYTES = 3500


class Unwritable(Exception):
    """The value has no form in the format. The message never holds the value: it may be a secret."""


class Quoted:
    """Text that is written as it is, because a filter quoted it. Not a ``str``: it joins with nothing."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Quoted(...)"


def _ini(text: str) -> str:
    found = _CONTROL.search(text)
    if found:
        raise Unwritable(f"it holds the control character {found.group()!r}")
    if "${" in text or "$pool" in text:
        raise Unwritable("it holds '${' or '$pool', which PHP replaces")
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if len(quoted.encode()) > INI_BYTES:
        raise Unwritable(f"it is longer than {INI_BYTES} bytes, and MariaDB would cut the line")
    return quoted


def _php(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _escaped(text: str, named: dict[str, str]) -> str:
    """In double quotes, as YAML and TOML read it: ASCII only, ``\\uXXXX`` and ``\\UXXXXXXXX``."""
    out = []
    for char in text:
        code = ord(char)
        if char in named:
            out.append(named[char])
        elif 0x20 <= code < 0x7F:
            out.append(char)
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


_NAMED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _yaml(text: str) -> str:
    # Not JSON's form: its pairs of surrogates are two characters to YAML.
    return _escaped(text, _NAMED)


def _toml(text: str) -> str:
    return _escaped(text, _NAMED)


def _json(text: str) -> str:
    # "<" and "&" too, so that the value may stand in a script element of a page.
    return json.dumps(text).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _xml(text: str) -> str:
    found = _NOT_XML.search(text)
    if found:
        raise Unwritable(f"it holds the character {found.group()!r}, which XML has no way to write")
    return text.translate(_ENTITIES)


def _nginx(text: str) -> str:
    try:
        return nginx_word(text)
    except InvalidInput:
        raise Unwritable("it holds a dollar sign or a control character, which nginx cannot take literally") from None


def _apache(text: str) -> str:
    try:
        return apache_word(text)
    except InvalidInput:
        raise Unwritable("it holds '${', '%{' or a control character, which Apache cannot take literally") from None


def _sql(text: str) -> str:
    # '' and not \': it ends no string under NO_BACKSLASH_ESCAPES either. A line feed in a literal would end
    # a statement of `mariadbd --bootstrap`.
    named = {"\\": "\\\\", "'": "''", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"}
    return "'" + "".join(named.get(char, char) for char in text) + "'"


def _pgsql(text: str) -> str:
    doubled = text.replace("'", "''")
    if not re.search(r"[\\\n\r]", text):
        return f"'{doubled}'"
    # E'' means the same whatever standard_conforming_strings is; an empty line would end a statement of
    # `postgres --single -j`.
    return "E'" + doubled.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") + "'"


def _ldif(text: str) -> str:
    """What follows ``attribute:``, its blank or its second colon included."""
    if _LDIF_SAFE.match(text):
        return f" {text}"
    return f": {base64.b64encode(text.encode()).decode()}"


def _properties(text: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", "\\": "\\\\"}
    out = []
    for char in text:
        if char in named:
            out.append(named[char])
        elif char in ":=#! ":
            out.append(f"\\{char}")
        elif 0x20 < ord(char) < 0x7F:
            out.append(char)
        else:
            units = char.encode("utf-16-be")
            out.extend(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    return "".join(out)


def _plain(text: str) -> str:
    if not _PLAIN.match(text):
        raise Unwritable("only letters, digits and ._/:@+,- can be written here" if text else "it is empty")
    return text


class _Rules:
    """How a format writes what is no text. ``array``: before, between and after; empty: it has no lists."""

    def __init__(
        self,
        text: Callable[[str], str],
        yes: str = "true",
        no: str = "false",
        none: str = "",
        array: tuple[str, str, str] | None = None,
    ) -> None:
        self.text, self.yes, self.no, self.none, self.array = text, yes, no, none, array


_RULES: dict[Format, _Rules] = {
    Format.INI: _Rules(_ini, "1", "0"),
    Format.SHELL: _Rules(shlex.quote, "1", "0", array=("", " ", "")),
    Format.PHP: _Rules(_php, none="null", array=("[", ", ", "]")),
    Format.YAML: _Rules(_yaml, none="null", array=("[", ", ", "]")),
    Format.JSON: _Rules(_json, none="null", array=("[", ", ", "]")),
    Format.XML: _Rules(_xml),
    Format.NGINX: _Rules(_nginx, "on", "off", array=("", " ", "")),
    Format.APACHE: _Rules(_apache, "On", "Off", array=("", " ", "")),
    Format.SQL: _Rules(_sql, "TRUE", "FALSE", "NULL", ("", ", ", "")),
    Format.PGSQL: _Rules(_pgsql, "TRUE", "FALSE", "NULL", ("", ", ", "")),
    Format.LDIF: _Rules(_ldif, " TRUE", " FALSE"),
    Format.TOML: _Rules(_toml, array=("[", ", ", "]")),
    Format.PROPERTIES: _Rules(_properties),
    Format.PLAIN: _Rules(_plain),
}


def quote(format: Format, value: Value) -> str:
    """``value`` as ``format`` writes it; raises :class:`Unwritable`."""
    rules = _RULES[format]
    if isinstance(value, Quoted):
        value = value.text
    if isinstance(value, str):
        if "\0" in value or _SURROGATE.search(value):
            raise Unwritable("it holds a NUL or half a character")
        return rules.text(value)
    if isinstance(value, bool):
        return rules.yes if value else rules.no
    if isinstance(value, int | float):
        # Digits, a sign and a point mean the same everywhere.
        return f" {value}" if format is Format.LDIF else str(value)
    if value is None:
        if rules.none:
            return rules.none
        raise Unwritable("there is no value; print it only where there is one, or use 'default'")
    if isinstance(value, Sequence):
        if any(isinstance(each, list | tuple) for each in value):
            raise Unwritable("it is a list of lists")
        if rules.array is None:
            raise Unwritable(f"{format} has no lists; print each in a loop")
        if not value and not rules.array[0]:
            raise Unwritable("the list is empty; print it only where it is not")
        before, between, after = rules.array
        return before + between.join(quote(format, each) for each in value) + after
    raise Unwritable(f"a {type(value).__name__} cannot be printed")


def argument(value: Value) -> str:
    """``value`` as it is, inside one element of an argument vector or one value of the environment."""
    if isinstance(value, Quoted):
        value = value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        what = "nothing" if value is None else "a list"
        raise Unwritable(f"it is {what}, and an argument is one text")
    if "\0" in value or _SURROGATE.search(value):
        raise Unwritable("it holds a NUL or half a character")
    return value


def distinguished(text: str) -> str:
    """One value of a distinguished name (RFC 4514 §2.4); the result is text to be quoted as LDIF."""
    out = []
    for at, char in enumerate(text):
        if char == "\0":
            raise Unwritable("it holds a NUL")
        edge = (at == 0 and char in " #") or (at == len(text) - 1 and char == " ")
        out.append(f"\\{char}" if edge or char in '"+,;<>\\=' else char)
    return "".join(out)


def identifier(format: Format, name: str) -> str:
    """The name of a table or a column as ``format`` (``sql``, ``pgsql``) quotes it; raises :class:`Unwritable`."""
    if not name or "\0" in name or _SURROGATE.search(name):
        raise Unwritable("it is no name")
    mark = {Format.SQL: "`", Format.PGSQL: '"'}[format]
    return mark + name.replace(mark, mark * 2) + mark
