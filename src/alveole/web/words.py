"""French and English. English sentences are the keys, as with gettext; ``translations/fr.toml`` holds the French ones,
with those of some pages in files beside it. What the services say is in :mod:`alveole.web.said`.

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
from alveole.views.modules import TextView
from alveole.web.said import french_of, spaced

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
        found |= {english: spaced(french) for english, french in tomllib.loads(text).items()}
    return found


#: The kinds of resources, and what is done with them, in words.
KINDS = {
    "release": N_("its content"),
    "workload": N_("its programs"),
    "address": N_("its inner address"),
    "certificate": N_("a certificate"),
    "route": N_("the way of requests to it"),
    "storage": N_("its data"),
    "config": N_("its configuration"),
    "base": N_("a base"),
    "network": N_("the network of the sites"),
    "firewall": N_("walls between the sites"),
    "edge": N_("the proxy"),
    "panel": N_("these pages"),
}
ACTIONS = {
    "create": N_("set up"),
    "replace": N_("made anew"),
    "repair": N_("repaired"),
    "delete": N_("taken away"),
}
_NAMED = ("certificate", "route", "base")
_STEP = re.compile(rf"({'|'.join(ACTIONS)}) ({'|'.join(KINDS)})/(\S+?)( failed)?: (.*)\Z", re.DOTALL)
#: What needs no saying beside what was done.
_PLAIN = ("missing", "differs", "not wanted")
_PLANNED = "will make: "

#: The words of a weekly silence.
_DAYS = {"mon": "lun.", "tue": "mar.", "wed": "mer.", "thu": "jeu.", "fri": "ven.", "sat": "sam.", "sun": "dim."}
_DAYS["for"] = "pendant"


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

    @property
    def colon(self) -> str:
        """Between what is named and what is said of it."""
        return "\u00a0:" if self.code == "fr" else ":"

    def text(self, text: TextView | None) -> str:
        """What a manifest says in both languages."""
        return "" if text is None else str(getattr(text, self.code))

    def said(self, sentence: str) -> str:
        """What the services say, translated where the catalogue has it; else as it is."""
        return french_of(sentence) if self.code == "fr" else sentence

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
        if value < 1:
            return f"{self.number(value * 1000)}\u00a0ms" if value else "0\u00a0s"
        if value < 60:
            return f"{self.number(value, 1 if value < 10 else 0)}\u00a0s"
        minutes = round(value / 60)
        if minutes < 120:
            return f"{minutes}\u00a0min"
        hours = round(minutes / 60)
        return f"{hours}\u00a0h" if hours < 72 else self.n(round(hours / 24), "{count} day", "{count} days")

    def weekly(self, text: str) -> str:
        """When a silence comes again, such as ``sat sun 22:00 for 6 h``."""
        if self.code == "en":
            return text
        return " ".join(_DAYS.get(word, word) for word in text.split())

    def lasting(self, seconds: int) -> str:
        """A time that somebody has set, whole: ``1 h 30 min``."""
        found = []
        for size, unit in ((86_400, ""), (3600, "h"), (60, "min"), (1, "s")):
            count, seconds = divmod(seconds, size)
            if count:
                found.append(f"{count}\u00a0{unit}" if unit else self.n(count, "{count} day", "{count} days"))
        return " ".join(found)

    def step(self, text: str) -> str:
        """A step of a change. What the loop says of a resource, its kind and its name, is said in words; the journal
        and its readers elsewhere keep it as it was written."""
        if made := _STEP.match(text):
            action, what, name, failed, why = made.groups()
            done = self.t(ACTIONS[action])
            kind = self.t(KINDS[what])
            told = f"{kind} {name}" if what in _NAMED else kind
            if failed:
                done = self.t("it failed")
            because = "" if why in _PLAIN else f" ({self.said(why)})"
            return self.t("{what}: {done}", what=told, done=done) + because
        if text.startswith(_PLANNED):
            each = (part.partition("/") for part in text.removeprefix(_PLANNED).split(", "))
            kinds = (self.t(KINDS.get(one, one)) + (f" {name}" if one in _NAMED else "") for one, _, name in each)
            return self.t("to be made: {what}", what=", ".join(kinds))
        return self.said(text)


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
