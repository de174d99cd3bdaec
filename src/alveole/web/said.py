"""What the services say, in French: sentences that the journal and the errors hold in English, with ``{}`` where a part
varies.

There are some two thousand of them, and a page may show a hundred: a sentence is compared with those alone that have
one of its words, the rarest of each. Nothing is read before somebody wants French.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache, lru_cache
from importlib.resources import files

#: The files of them, below ``translations``.
SAID = (
    "fr-problems",
    "fr-steps",
    "fr-said-content",
    "fr-said-delivery",
    "fr-said-machine",
    "fr-said-people",
    "fr-said-platform",
    "fr-said-sites",
)
#: One line of such a file. The files are plain TOML; reading them as that takes twenty times as long.
_LINE = re.compile(r'"((?:[^"\\]|\\.)*)" = "((?:[^"\\]|\\.)*)"$', re.MULTILINE)
_WORD = re.compile("[A-Za-z]+")
_INCIDENT = re.compile(r"i[a-z2-7]{12}\Z")
#: A name, which may stand between quotation marks.
_NAME = re.compile(r"""\S+|'[^']*'|"[^"]*\"""")
#: What French sets apart.
_APART = re.compile(" (?=[:;!?»](?![\\w/]))|(?<=«) ")


def spaced(french: str) -> str:
    """With spaces that do not break before what French sets apart, so that no line begins with a colon."""
    return _APART.sub("\u00a0", french)


def read(part: str) -> dict[str, str]:
    """One of the files: English, and the French of it."""
    text = (files("alveole") / "web" / "translations" / f"{part}.toml").read_text(encoding="utf-8")
    return {_plain(english): spaced(_plain(french)) for english, french in _LINE.findall(text)}


def _plain(text: str) -> str:
    return str(json.loads(f'"{text}"')) if "\\" in text else text


def found_in(template: str, sentence: str) -> list[str] | None:
    """What stands in ``sentence`` at each place of ``template``, each as short as can be; ``None``: it does not fit."""
    first, *others = template.split("{}")
    if not sentence.startswith(first):
        return None
    at, found = len(first), []
    for number, part in enumerate(others, 1):
        end = sentence.find(part, at + 1) if number < len(others) else len(sentence) - len(part)
        if end <= at or not sentence.startswith(part, end):
            return None
        found.append(sentence[at:end])
        at = end + len(part)
    return found


class _Index:
    """Templates by a word that each of them has."""

    def __init__(self) -> None:
        self.whole: dict[str, str] = {}
        self.by_word: dict[str, list[tuple[str, str]]] = {}
        varying: list[tuple[str, str, list[str]]] = []
        for part in SAID:
            for english, french in read(part).items():
                if "{}" in english:
                    varying.append((english, french, _own(english)))
                else:
                    self.whole[english] = french
        count = Counter(word for _, _, own in varying for word in own)
        for english, french, own in varying:
            # "" is a word of every sentence.
            rarest = min(own, key=count.__getitem__, default="")
            self.by_word.setdefault(rarest, []).append((english, french))

    def near(self, sentence: str) -> list[tuple[str, str]]:
        """Those that may fit, what says most itself first."""
        found = [each for word in {"", *_WORD.findall(sentence)} for each in self.by_word.get(word, ())]
        return sorted(found, key=lambda each: (-says(each[0]), each[0]))


def _is_weak(template: str) -> bool:
    return len(_own(template)) < 3 and ":" not in template


def says(template: str) -> int:
    """How much of a template is not a place."""
    return len(template) - 2 * template.count("{}")


def _own(template: str) -> list[str]:
    """The words of a template, without those that touch a place: they may be parts of words there."""
    return _WORD.findall(re.sub(r"\w*\{\}\w*", "\0", template))


@cache
def _index() -> _Index:
    return _Index()


def fitting(sentence: str, loose: bool = False) -> tuple[str, str, list[str]] | None:
    """The template of a sentence, its French, and what varies.

    ``loose``: also where it is less sure. A template of few words fits by chance: only names may stand in it, or what
    is known itself. And a value before the last that goes on behind a colon is rather a sentence before this one.
    """
    for english, french in _index().near(sentence):
        found = found_in(english, sentence)
        if found is None:
            continue
        if not _is_weak(english) and (loose or not any(": " in each for each in found[:-1])):
            return english, french, found
        if loose and all(_NAME.fullmatch(each) or french_of(each) != each for each in found):
            return english, french, found
    return None


@lru_cache(maxsize=2048)
def french_of(sentence: str) -> str:
    """``sentence`` in French, or as it is."""
    whole = _index().whole
    if sentence in whole:
        return whole[sentence]
    return _put(fitting(sentence)) or _parts(sentence) or _put(fitting(sentence, loose=True)) or sentence


def _put(fits: tuple[str, str, list[str]] | None) -> str:
    if fits is None:
        return ""
    _, french, found = fits
    # One word is a name of something; several may be a sentence that was put into this one.
    return french.format(*(french_of(each) if " " in each else each for each in found))


def _parts(sentence: str) -> str:
    """Of several sentences that are strung together, as an error shows its problems: each by itself; or nothing."""
    # The journal names an incident by its number and its title.
    number, _, title = sentence.partition(" ")
    if title and _INCIDENT.match(number):
        return f"{number} {french_of(title)}"
    if "; " in sentence:
        before, _, rest = sentence.partition("; ")
        between, end = "\u00a0; ", ""
    elif sentence.endswith(")") and " (" in sentence:
        before, _, rest = sentence[:-1].partition(" (")
        between, end = " (", ")"
    elif ": " in sentence:
        before, _, rest = sentence.partition(": ")
        between, end = "\u00a0: ", ""
    else:
        return ""
    one, other = french_of(before), french_of(rest)
    return "" if (one, other) == (before, rest) else one + between + other + end
