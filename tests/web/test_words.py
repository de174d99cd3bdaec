"""Both languages are whole: every sentence of the pages is in the catalogue, and nothing else is."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import nodes

from alveole.errors import Problem
from alveole.web import words
from alveole.web.pages import environment

WEB = Path(words.__file__).parent
_PLACE = re.compile(r"\{(\w*)\}")


def sentences() -> Iterator[tuple[str, str]]:
    """What ``t``, ``n`` and ``N_`` are called with, and where."""
    for file in sorted(WEB.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                given = {"t": node.args[:1], "N_": node.args[:1], "n": node.args[1:3]}.get(name, [])
                yield from ((each.value, file.name) for each in given if isinstance(each, ast.Constant))
    made = environment()
    assert made.loader is not None
    for name in made.list_templates():
        tree = made.parse(made.loader.get_source(made, name)[0])
        for call in tree.find_all(nodes.Call):
            word = call.node.name if isinstance(call.node, nodes.Name) else ""
            given = {"t": call.args[:1], "n": call.args[1:3]}.get(word, [])
            yield from ((each.value, name) for each in given if isinstance(each, nodes.Const))


def test_every_sentence_is_there_in_french() -> None:
    french = words.catalogue("fr")
    used = dict(sentences())
    assert len(used) > 300
    assert {text: place for text, place in used.items() if text not in french} == {}
    assert french.keys() - used.keys() == set(), "in the catalogue, but nowhere in the pages"


def test_the_same_values_go_into_both() -> None:
    for english, french in words.catalogue("fr").items():
        assert sorted(_PLACE.findall(english)) == sorted(_PLACE.findall(french)), english
        assert french.strip() and french == french.strip()


def test_no_sentence_stands_in_a_template_outside_of_the_catalogue() -> None:
    """Words between tags must come through ``t``; names and units may stand as they are."""
    plain = {"Alvéole", "· Alvéole", "HTML", "PDF", "cgroup", "ms", "narrow", "sftp", "ssh"}
    for file in sorted((WEB / "templates").rglob("*.html")):
        text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", "\0", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"<[^>]*>", "\0", text)
        found = {part.strip() for part in text.split("\0")}
        # What holds a "=" is an attribute that a macro writes.
        words_of = {each for each in found if re.search(r"[A-Za-z]{2}", each) and "=" not in each}
        assert words_of <= plain, file.name


@pytest.mark.parametrize(
    ("chosen", "header", "code"),
    [
        ("", "", "en"),
        ("", "fr", "fr"),
        ("", "de, fr-CA;q=0.8, en;q=0.5", "fr"),
        ("", "fr;q=0.1, en", "en"),
        ("", "de", "en"),
        ("", "fr;q=x", "en"),
        ("fr", "en", "fr"),
        ("xx", "fr", "fr"),
    ],
)
def test_the_language(chosen: str, header: str, code: str) -> None:
    assert words.negotiate(chosen, header).code == code


def test_what_the_services_say_is_said_in_french_too() -> None:
    french = words.ALL["fr"]
    told = french.problem(Problem("name", "the name 'blog' is taken", "choose another name"))
    assert told.startswith("Le nom 'blog' est déjà pris")
    assert french.said("something that nobody translated") == "something that nobody translated"
    patterns = tomllib.loads((WEB / "translations" / "fr-problems.toml").read_text(encoding="utf-8"))
    for english, text in patterns.items():
        assert english.count("{}") >= text.count("{}") and (english.count("{}") == text.count("{}") or "{0}" in text)


def test_numbers_and_sizes() -> None:
    english, french = words.ALL["en"], words.ALL["fr"]
    assert english.size(1536) == "1.5\u00a0KiB" and french.size(1536) == "1,5\u00a0Kio"
    assert english.size(0) == "0\u00a0B" and english.size(None) == words.NONE
    assert english.n(1, "{count} site", "{count} sites") == "1 site"
    assert french.n(0, "{count} site", "{count} sites") == "0 site"
    assert french.number(12345) == "12\u202f345"
