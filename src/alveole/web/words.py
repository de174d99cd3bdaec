"""French and English. English sentences are the keys, as with gettext; ``translations/fr.toml`` holds the French ones,
with those of some pages in files beside it.

``t`` translates, ``N_`` only marks a sentence for the catalogue. A test reads every call of both in the code and the
templates and compares them with the file, in both directions.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from alveole.errors import Problem
from alveole.module_views import TextView

LANGUAGES = {"en": "English", "fr": "Français"}
#: Stands where there is no value: an en dash.
NONE = "\u2013"
_UNITS = {"en": ("B", "KiB", "MiB", "GiB", "TiB"), "fr": ("o", "Kio", "Mio", "Gio", "Tio")}
_MONTHS = {
    "en": ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
    "fr": ["janv.", "févr.", "mars", "avr.", "mai", "juin", "juil.", "août", "sept.", "oct.", "nov.", "déc."],
}


def N_(sentence: str) -> str:
    """Mark ``sentence`` for the catalogue; it is translated where it is shown."""
    return sentence


#: The catalogue of one language: its own file, and those of pages with many sentences of their own.
_PARTS = {
    "fr": (
        "fr",
        "fr-apps",
        "fr-backups",
        "fr-certificates",
        "fr-checks",
        "fr-dns",
        "fr-doors",
        "fr-environments",
        "fr-figures",
        "fr-files",
        "fr-fleet",
        "fr-incidents",
        "fr-logs",
        "fr-operations",
        "fr-outside",
        "fr-sleep",
        "fr-syslog",
    )
}


@cache
def catalogue(name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in _PARTS.get(name, (name,)):
        text = (files("alveole") / "web" / "translations" / f"{part}.toml").read_text(encoding="utf-8")
        found |= tomllib.loads(text)
    return found


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What the services say, with ``{}`` for a part that varies."""
    found = []
    for english, french in catalogue("fr-problems").items():
        parts = [re.escape(part) for part in english.split("{}")]
        found.append((re.compile("(.+?)".join(parts) + r"\Z", re.DOTALL), french))
    return tuple(found)


class Words:
    """One language. ``code`` is ``en`` or ``fr``."""

    def __init__(self, code: str) -> None:
        self.code = code

    def t(self, sentence: str, **values: Any) -> str:
        """``sentence`` in this language, with ``values`` put in."""
        found = catalogue("fr").get(sentence, sentence) if self.code == "fr" else sentence
        return found.format(**values) if values else found

    def n(self, count: int, one: str, many: str, **values: Any) -> str:
        """``one`` or ``many``, both with ``{count}``. In French nothing is singular too."""
        single = count < 2 if self.code == "fr" else count == 1
        return self.t(one if single else many, count=self.number(count), **values)

    def text(self, text: TextView | None) -> str:
        """What a manifest says in both languages."""
        return "" if text is None else str(getattr(text, self.code))

    def said(self, sentence: str) -> str:
        """What the services say, translated where the catalogue has it; else as it is."""
        if self.code == "fr":
            for pattern, french in _patterns():
                if found := pattern.match(sentence):
                    return french.format(*found.groups())
        return sentence

    def problem(self, problem: Problem) -> str:
        text = self.said(problem.message)
        text = text[:1].upper() + text[1:]
        return f"{text} ({self.said(problem.hint)})" if problem.hint else text

    # --- values -----------------------------------------------------------------------------------
    def number(self, value: float, digits: int = 0) -> str:
        text = f"{value:,.{digits}f}"
        return text.replace(",", "\u202f").replace(".", ",") if self.code == "fr" else text

    def share(self, value: float | None) -> str:
        """Of 1, as per cent, cut and not rounded: 99.996 % is not 100 %."""
        if value is None:
            return NONE
        return f"{self.number(int(value * 10_000 + 1e-6) / 100, 2)}\u00a0%"

    def size(self, count: int | None) -> str:
        """Bytes in binary units, with three digits at most."""
        if count is None:
            return NONE
        value, place = float(count), 0
        while value >= 1000 and place < 4:
            value, place = value / 1024, place + 1
        digits = 1 if 0 < value < 10 and place else 0
        return f"{self.number(value, digits)}\u00a0{_UNITS[self.code][place]}"

    def moment(self, at: float | None) -> str:
        """A moment in the server's own time."""
        if not at:
            return NONE
        when = time.localtime(at)
        month = _MONTHS[self.code][when.tm_mon - 1]
        return f"{when.tm_mday} {month} {when.tm_year}, {when.tm_hour:02d}:{when.tm_min:02d}"

    def month(self, month: str) -> str:
        """``November 2026``, of ``2026-11``."""
        from alveole.figures.phrases import MONTHS

        year, _dash, number = month.partition("-")
        return f"{MONTHS[self.code][int(number) - 1]} {year}"

    def seconds(self, value: float | None) -> str:
        if value is None:
            return NONE
        if value < 60:
            return f"{self.number(value, 1 if value < 10 else 0)}\u00a0s"
        minutes = round(value / 60)
        return f"{minutes}\u00a0min" if minutes < 120 else f"{round(minutes / 60)}\u00a0h"


ALL: Mapping[str, Words] = {code: Words(code) for code in LANGUAGES}


def negotiate(wanted: str, header: str) -> Words:
    """By what was chosen, else by ``Accept-Language`` (RFC 9110 §12.5.4), else English."""
    if wanted in ALL:
        return ALL[wanted]
    best, weight = "en", 0.0
    for part in header.split(",")[:20]:
        tag, _, quality = part.strip().partition(";q=")
        code = tag.strip().lower().partition("-")[0]
        try:
            value = float(quality) if quality else 1.0
        except ValueError:
            continue
        if code in ALL and value > weight:
            best, weight = code, value
    return ALL[best]
