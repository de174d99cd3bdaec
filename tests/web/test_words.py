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
from alveole.web import said, words
from alveole.web.pages import browser_of, environment
from alveole.web.ways import way_of

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
    for part in said.SAID:
        patterns = tomllib.loads((WEB / "translations" / f"{part}.toml").read_text(encoding="utf-8"))
        for english, text in patterns.items():
            # A command that pages have a link for may be left out at the end.
            assert english.count("{}") >= text.count("{}"), english
            # What has no part that varies is taken as it stands.
            if "{}" in english:
                text.format(*"x" * english.count("{}"))


def told() -> Iterator[str]:
    """What changes tell of themselves, as templates: each ``say`` and ``show`` of a live change in the code."""
    for file in sorted(WEB.parent.rglob("*.py")):
        if not {"web", "cli", "api"} & set(file.parts[-3:-1]):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
                if name in ("say", "show") and isinstance(node, ast.Call) and node.args:
                    yield from _templates(node.args[0])


def _templates(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from (*_templates(node.body), *_templates(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def test_every_step_of_a_change_is_said_in_french_too() -> None:
    """The journal keeps what was written; pages say it in the language of who reads."""
    french = words.ALL["fr"]
    # Values stand for the parts that vary; what says nothing by itself needs no words.
    every = {text for text in told() if len(re.findall("[a-z]{2,}", text.replace("{}", ""))) > 1}
    assert len(every) > 80
    assert [text for text in sorted(every) if french.step(text.replace("{}", "x1")) == text.replace("{}", "x1")] == []


def test_what_the_loop_does_is_said_in_words() -> None:
    english, french = words.ALL["en"], words.ALL["fr"]
    assert english.step("create certificate/a.example: missing") == "a certificate a.example: set up"
    assert french.step("create certificate/a.example: missing") == "un certificat a.example\u00a0: mise en place"
    assert french.step("replace workload/1 failed: no room") == "ses programmes\u00a0: échec (no room)"
    assert french.step("will make: release/current, workload/0") == "à faire\u00a0: son contenu, ses programmes"
    # Nobody's name is taken for a word of ours, and a sentence inside of another is said too.
    assert french.said("the name address is taken") == "le nom address est déjà pris"
    inside = french.said("check front fails: step 1 (list): 'x' is not in the answer")
    assert inside == "le contrôle front échoue\u00a0: étape 1 (list)\u00a0: 'x' n\u2019est pas dans la réponse"


def test_where_a_hint_is_followed() -> None:
    assert way_of("save it anew and prove that: alveole backup create blog") == "/site/blog/backups"
    assert way_of("nobody: no channel of theirs is for incidents (alveole notify add)") == "/channels"
    assert way_of("ask an administrator") == way_of("alveole notification") == ""


def test_a_browser_is_named() -> None:
    chromium = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
    assert browser_of(chromium) == "Chrome, Linux"
    assert browser_of("curl/8.5") == "curl/8.5"


def test_numbers_and_sizes() -> None:
    english, french = words.ALL["en"], words.ALL["fr"]
    assert english.size(1536) == "1.5\u00a0KiB" and french.size(1536) == "1,5\u00a0Kio"
    assert english.size(0) == "0\u00a0B" and english.size(None) == words.NONE
    assert english.n(1, "{count} site", "{count} sites") == "1 site"
    assert french.n(0, "{count} site", "{count} sites") == "0 site"
    assert french.number(12345) == "12\u202f345"
    assert french.seconds(0.0123) == "12\u00a0ms" and french.seconds(90) == "2\u00a0min"
    assert french.seconds(4 * 86_400) == "4 jours" and english.lasting(5400) == "1\u00a0h 30\u00a0min"
