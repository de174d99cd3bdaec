"""What the services say has French: each text of the code that a page may show, found by reading the code."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from saidkit import NEVER_ON_A_PAGE, Reader

from alveole.web import said, words

TRANSLATIONS = Path(words.__file__).parent / "translations"
#: What machines read is the same in every language: a command and its options, a script, a query, a line of a file.
FOR_MACHINES = re.compile(
    r"(?:alveole|apt|apt-get|apt-cache|npm|openssl|minisign|gpg|chmod|echo|test|for|import|SELECT|--\S+) "
    r"|# Brought by |\{\} ALL=|\{\} \"\{\} \{\}\""
)
#: As much as this of a template must be its own, so that a sentence which fits it is one of its kind.
_ENOUGH = 5
#: What is put together where no reader of code can see it, or comes from a program that we start.
PUT_TOGETHER = {
    # A change without a reason holds an environment.
    "{} is held by {}: {}",
    # How much of a budget is used, and of what.
    "{} of {} certificates of this week for {} are used",
    "{} of {} certificates of this week for these very names are used",
    "{} of {} failed validations of this hour for {} are used",
    # A name server's answer by its code.
    "the name server {} (port {}) refuses ({})",
    "the name server {} (port {}) does not hold the zone {}, or not as the primary (NOTAUTH)",
    "answered by {} and {}",
    "Active connections: {}",
    "prove-backup {}: check/{}: {}",
    # Pages have a link for the command that stands behind these.
    "it waits: {}",
    "kept; make it live with: {}",
    "modules would render {} differently now: {}",
    "save it anew and prove that: {}",
    "no mail server is set up ({})",
    "see: {}",
}
_PLACE = re.compile(r"\{(\d*)\}")


@cache
def reader() -> Reader:
    return Reader()


@cache
def french() -> dict[str, str]:
    return {english: text for part in said.SAID for english, text in said.read(part).items()}


def filled(template: str) -> str:
    """A template with a name at each of its places."""
    for number in range(template.count("{}")):
        template = template.replace("{}", f"x{number}", 1)
    return template


def test_every_text_that_a_page_may_show_has_french() -> None:
    found = reader().found
    assert len(found) > 2000, "the reader has lost its way"
    assert not [place for places in found.values() for place in places if NEVER_ON_A_PAGE.match(place.file)]
    varying = [english for english in french() if "{}" not in english or said.says(english) > _ENOUGH]
    left = {}
    for text, places in sorted(found.items()):
        if text in french() or FOR_MACHINES.match(text) or _but_for_a_command(text):
            continue
        # Where few words can stand in it, each whole sentence may be there instead.
        if not any(said.found_in(text, each) for each in varying if "{}" in text):
            left[text] = "{}:{}".format(*min(places))
    assert left == {}, "these can be shown on a page and have no French: add it to translations/fr-said-*.toml"


def _but_for_a_command(text: str) -> bool:
    fits = said.fitting(text)
    return fits is not None and all(each == "{}" or FOR_MACHINES.match(each) for each in fits[2])


def test_nothing_is_there_that_nobody_says() -> None:
    # What stands right behind a word may be nothing.
    found = {text for each in reader().found for text in (each, re.sub(r"(?<=[A-Za-z])\{\}", "", each))}
    written = reader().written() | found | PUT_TOGETHER
    kinds = [text for text in reader().found if "{}" in text and said.says(text) > _ENOUGH]
    left = [each for each in french() if each not in written and not any(said.found_in(kind, each) for kind in kinds)]
    assert left == []


def test_each_gets_its_own_french() -> None:
    """No other template takes a sentence away from its own, unless both say the same."""
    for english, text in french().items():
        sentence = filled(english)
        if "{}" not in english:
            assert said.french_of(sentence) == text
            # Nothing is put into it, so a brace is written once.
            assert "{{" not in text and "}}" not in text, english
            continue
        fits = said.fitting(sentence) or said.fitting(sentence, loose=True)
        assert fits is not None, english
        values = [f"x{number}" for number in range(english.count("{}"))]
        assert fits[1].format(*fits[2]) == text.format(*values), f"{fits[0]!r} takes {english!r}"


def test_no_two_templates_say_as_much_of_one_sentence() -> None:
    """Of two that fit, the one with more words of its own is meant; with as many nobody could tell which."""
    index = said._index()
    for english, text in french().items():
        if "{}" in english:
            sentence = filled(english)
            rivals = [each for each in index.near(sentence) if said.found_in(each[0], sentence) is not None]
            same = [other for other, theirs in rivals if said.says(other) == said.says(english) and theirs != text]
            assert same == [], english


def test_the_files_are_what_they_seem() -> None:
    seen: dict[str, str] = {}
    for part in said.SAID:
        plain = tomllib.loads((TRANSLATIONS / f"{part}.toml").read_text(encoding="utf-8"))
        assert said.read(part) == {english: said.spaced(text) for english, text in plain.items()}, part
        assert {english: seen[english] for english in plain.keys() & seen.keys()} == {}, "twice"
        seen |= dict.fromkeys(plain, part)
    assert {f"{each}.toml" for each in said.SAID} >= {each.name for each in TRANSLATIONS.glob("fr-said-*.toml")}


def test_the_french_is_french() -> None:
    for english, text in french().items():
        assert text == text.strip() and text, english
        assert not re.search(r"[A-Za-zé]'[a-zéèêà]", text), f"a typewriter's apostrophe: {text}"
        if "{}" in english:
            assert len(_PLACE.findall(text)) <= english.count("{}"), english


def test_sentences_inside_of_sentences() -> None:
    say = words.ALL["fr"].said
    assert say("module blog: the disk is full") == "module blog\u00a0: le disque est plein"
    waits = (
        "workload/0: failed 4 times in a row, next try in 2 s: not ready: it ended before it answered: its process {}"
    )
    assert say(waits.format("ended with status 1")) == (
        "workload/0\u00a0: 4 échecs de suite, prochain essai dans 2 s\u00a0: pas prêt\u00a0: "
        "il s\u2019est terminé avant de répondre\u00a0: son processus s\u2019est terminé avec le statut 1"
    )
    # What an error with several problems says of itself.
    told = "name: the name blog is taken (choose another name); plan: there is no plan 'big'"
    assert say(told) == (
        "nom\u00a0: le nom blog est déjà pris (choisissez un autre nom)\u00a0; "
        "plan\u00a0: il n\u2019y a pas d\u2019offre 'big'"
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "the walk from home to the sea",
        "curl: (6) host is not known (try it: later)",
        "one thing; another thing",
        "x" * 100_000,
        "{} and {0}",
        "",
    ],
)
def test_what_strangers_say_stays(sentence: str) -> None:
    """What programs print is not taken for words of ours because it has one of them."""
    assert words.ALL["fr"].said(sentence) == sentence


def test_a_place_takes_as_little_as_can_be() -> None:
    assert said.found_in("{} is {} and not {}", "a is b is c and not d") == ["a", "b is c", "d"]
    assert said.found_in("{} is gone", " is gone") is None
    assert said.found_in("to {}", "to ") is None
    assert said.found_in("a {} b {} b", "a b b b b") == ["b", "b"]
    assert said.found_in("all", "all") == []


def test_a_long_sentence_is_read_quickly() -> None:
    """Every template with its places is looked at once, forwards: nothing here grows with the square of the length."""
    sentence = "is a {} in to of on " * 5000
    assert said.french_of(sentence + "!") == sentence + "!"
