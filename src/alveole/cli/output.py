"""What the command line prints: documents, tables, units and colours.

Standard output carries the answer and nothing else; everything said on the way goes to standard
error. Text that may come from a site is cleaned of everything a terminal would obey.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import msgspec

from alveole.text import clean

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_COLOURS = {"green": 32, "red": 31, "yellow": 33, "dim": 2, "bold": 1, "cyan": 36}
_STATES = {
    "running": "green",
    "done": "green",
    "kept": "green",
    "failed": "red",
    "broken": "red",
    "stopped": "dim",
    "asleep": "dim",
}
#: JSON escapes C0 by itself; the rest of what a terminal obeys is legal in a JSON string as it is.
_TERMINAL = "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"


def emit(document: Any, *, indent: int = 2) -> None:
    """One JSON document on standard output; ``indent`` -1 puts it on one line."""
    text = msgspec.json.encode(document)
    if indent >= 0:
        text = msgspec.json.format(text, indent=indent)
    shown = text.decode()
    if not shown.isascii() or "\x7f" in shown:
        shown = re.sub(_TERMINAL, lambda found: f"\\u{ord(found[0]):04x}", shown)
    say(shown)


def say(text: str = "") -> None:
    """A line of the answer, on standard output."""
    _print(text, sys.stdout)


def note(text: str) -> None:
    """A line beside the answer, on standard error."""
    _print(text, sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    try:
        stream.write(text + "\n")
    except UnicodeEncodeError:
        # A terminal in the C locale: say it with what it has.
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()


def coloured(stream: TextIO) -> bool:
    """Colours: on a terminal only, and not where NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    if not colour or not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def state(word: str) -> str:
    """A state in its colour."""
    return paint(clean(word), _STATES.get(word, "yellow"))


def mark(ok: bool) -> str:
    return paint("✓", "green") if ok else paint("✗", "red")


def size(count: float) -> str:
    """``1536`` → ``1.5 KiB``."""
    value = float(count)
    for unit in _UNITS:
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def seconds(count: float) -> str:
    if count < 1:
        return f"{count * 1000:.0f} ms"
    if count < 120:
        return f"{count:.1f} s"
    minutes, rest = divmod(int(count), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 72:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def when(at: float | None, *, short: bool = False) -> str:
    """Local time, ISO 8601; ``short`` leaves out the offset."""
    if at is None:
        return "-"
    from datetime import datetime

    text = datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")
    return text[:19] if short else text


def stamp(at: str, known: dict[str, str]) -> str:
    """The stamp of a log line in local time; ``known`` remembers seconds already turned."""
    second = at[:19]
    if second not in known:
        if len(known) > 1000:
            known.clear()
        try:
            from datetime import datetime

            local = datetime.fromisoformat(f"{second}+00:00").astimezone()
            known[second] = local.isoformat(sep=" ", timespec="seconds")[:19]
        except ValueError:
            known[second] = "-" * 19
    return known[second]


def width() -> int:
    return shutil.get_terminal_size((80, 24)).columns


_ANSI = "\x1b\\[[0-9]*m"


def _length(text: str) -> int:
    return len(re.sub(_ANSI, "", text)) if "\x1b" in text else len(text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "", flexible: int = -1) -> None:
    """Aligned columns. ``right`` names heads of numbers; ``flexible`` is the column that gives way.

    A line is cut at the terminal's width only on a terminal: programs get everything.
    """
    lines = [list(row) for row in rows]
    numbers = {index for index, head in enumerate(heads) if head and head in right.split()}
    widths = [max([len(head), *(_length(row[index]) for row in lines)]) for index, head in enumerate(heads)]
    if sys.stdout.isatty():
        over = sum(widths) + 2 * (len(widths) - 1) - width()
        if over > 0:
            widths[flexible] = max(8, widths[flexible] - over)
    for number, row in enumerate([list(heads), *lines]):
        cells = []
        for index, cell in enumerate(row):
            if _length(cell) > widths[index]:
                cell = clean(cell)[: widths[index] - 1] + "…"
            fill = " " * (widths[index] - _length(cell))
            cells.append(fill + cell if index in numbers else cell + fill)
        text = "  ".join(cells).rstrip()
        say(paint(text, "bold") if number == 0 else text)


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Labels and values, one a line; a value of several lines is indented below itself."""
    shown = [(label, value) for label, value in pairs if value]
    wide = max((len(label) for label, _ in shown), default=0)
    for label, value in shown:
        first, *rest = value.split("\n")
        say(f"{paint(label.ljust(wide), 'dim')}  {first}")
        for line in rest:
            say(" " * (wide + 2) + line)
