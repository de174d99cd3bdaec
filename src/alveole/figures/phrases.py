"""The sentences of reports in French, by their English ones, and the names of months."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

MONTHS = {
    "en": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
    "fr": (
        *("janvier", "février", "mars", "avril", "mai", "juin"),
        *("juillet", "août", "septembre", "octobre", "novembre", "décembre"),
    ),
}


@cache
def french() -> Mapping[str, str]:
    found: dict[str, str] = tomllib.loads((files("alveole.figures") / "report-fr.toml").read_text(encoding="utf-8"))
    return found
