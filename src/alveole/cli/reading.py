"""Files that a person names on the command line, read whole: text, TOML, and the PEM files that a TOML file names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from alveole.errors import InvalidInput

#: Characters. All that is read here is a few pages; a disk or a log file named by mistake is not read to its end.
MOST = 1 << 20


def text(file: str, field: str = "file", *, hint: str = "") -> str:
    """What is in ``file``; ``-`` is standard input. Raises ``InvalidInput`` for ``field``, with ``hint`` when it is no
    text."""
    try:
        if file == "-":
            found = sys.stdin.read(MOST + 1)
        else:
            with Path(file).open(encoding="utf-8") as opened:
                found = opened.read(MOST + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}", field=field) from error
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not text", field=field, hint=hint) from None
    if len(found) > MOST:
        raise InvalidInput(f"{file} is larger than {MOST} characters", field=field)
    return found


def toml(file: str, field: str = "file") -> dict[str, Any]:
    """The table in ``file``; ``-`` is standard input. Raises ``InvalidInput`` for ``field``."""
    import tomllib

    found = text(file, field)
    try:
        return tomllib.loads(found)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{file} is not TOML: {error}", field=field) from error


def pems(table: dict[str, Any], *names: str) -> dict[str, Any]:
    """``table`` with the text of a file as ``authority`` where it names one as ``authority_file``; so for all names."""
    found = dict(table)
    for name in names:
        if (place := found.pop(f"{name}_file", None)) is not None:
            found[name] = text(str(place), f"{name}_file")
    return found
