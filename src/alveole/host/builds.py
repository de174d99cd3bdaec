"""Which programs of a build a tree calls for."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from alveole.model.site import BuildCommand

_MOST_NAMES = 10_000


def applies(command: BuildCommand, tree: Path) -> bool:
    """Whether ``command`` is to run on ``tree``, whose top alone is looked at; no link is followed."""
    return (not command.file or _is_there(tree, command.file)) and not (
        command.unless and _is_there(tree, command.unless)
    )


def _is_there(tree: Path, pattern: str) -> bool:
    if not any(char in pattern for char in "*?["):
        return "/" not in pattern and os.path.lexists(tree / pattern)
    with os.scandir(tree) as entries:
        names = (entry.name for entry, _ in zip(entries, range(_MOST_NAMES), strict=False))
        return any(fnmatch.fnmatchcase(name, pattern) for name in names)
