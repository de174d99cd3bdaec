"""Every type of question: what is taken, as what, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from alveole.catalogue.manifest import Choice, CleanUp, Question, QuestionType, Text
from alveole.catalogue.questions import GENERIC, Wrong, new_password, nothing, read, shown, size_text

SAID = Text(en="What?", fr="Quoi ?")
CHOICES = tuple(Choice(value=value, title=SAID) for value in ("One", "two", "three"))


def question(kind: str, **more: Any) -> Question:
    return Question(name="q", type=QuestionType(kind), title=SAID, **more)


@pytest.mark.parametrize(
    ("kind", "more", "given", "taken"),
    [
        ("string", {}, "  a  b ", "a  b"),
        ("string", {}, "a\n", "a"),
        ("string", {}, 3, "3"),
        ("string", {"clean": (CleanUp.STRIP, CleanUp.COLLAPSE)}, " a \t b ".replace("\t", " "), "a b"),
        ("string", {"clean": (CleanUp.LOWER,)}, "AbÉ", "abé"),
        ("string", {"clean": (CleanUp.SLUG,)}, "Été à la Mer!", "ete-a-la-mer"),
        ("string", {"clean": (CleanUp.NO_SLASH,)}, "a/b//", "a/b"),
        ("string", {"pattern": "[a-z]+"}, "abc", "abc"),
        ("string", {"required": False}, "", ""),
        ("integer", {}, "42", 42),
        ("integer", {}, -3, -3),
        ("integer", {"required": False}, "", None),
        ("port", {}, "8080", 8080),
        ("boolean", {}, "yes", True),
        ("boolean", {}, "Non", False),
        ("boolean", {}, True, True),
        ("choice", {"choices": CHOICES}, "ONE", "One"),
        ("choices", {"choices": CHOICES}, "three, one", ("One", "three")),
        ("choices", {"choices": CHOICES}, ["two", "two"], ("two",)),
        ("choices", {"choices": CHOICES, "required": False}, "", ()),
        ("password", {}, " blanks stay ", " blanks stay "),
        ("email", {}, "Ada@example.org", "Ada@example.org"),
        ("email", {}, "root@localhost", "root@localhost"),
        ("domain", {}, "WWW.Example.org", "www.example.org"),
        ("path", {}, "/data/my files", "/data/my files"),
        ("path", {"clean": (CleanUp.NO_SLASH,)}, "/data/", "/data"),
        ("size", {}, "64M", 64 << 20),
        ("size", {}, "1 GiB", 1 << 30),
        ("size", {}, 4096, 4096),
    ],
)
def test_what_is_taken(kind: str, more: dict[str, Any], given: object, taken: object) -> None:
    answer = read(question(kind, **more), given)
    assert answer == taken and type(answer) is type(taken)


@pytest.mark.parametrize(
    ("kind", "more", "given", "said"),
    [
        ("string", {}, "", "needs an answer"),
        ("string", {}, "  ", "needs an answer"),
        ("string", {}, None, "needs an answer"),
        ("string", {}, "a\nb", "control character '\\n'"),
        ("string", {}, "a\x00b", "control character '\\x00'"),
        ("string", {}, "a\u202eb", "control character"),
        ("string", {}, "\ud800", "control character"),
        ("string", {}, True, "is not a text"),
        ("string", {}, ["a"], "is not a text"),
        ("string", {}, "x" * 10_001, "the limit is 10,000"),
        ("string", {"max": 3}, "abcd", "has 4 characters (give at most 3 characters)"),
        ("string", {"min": 3}, "ab", "has 2 characters (give at least 3 characters)"),
        ("string", {"pattern": "[a-z]+"}, "ab1", "'ab1' does not fit"),
        ("string", {"pattern": "[a-z]+"}, "ab!\n", "does not fit"),
        ("integer", {}, "4.2", "not a whole number"),
        ("integer", {}, "٣", "not a whole number"),
        ("integer", {}, "9" * 19, "too large"),
        ("integer", {"min": 1, "max": 9}, 10, "10 is out of range (give at most 9)"),
        ("port", {}, 0, "give at least 1"),
        ("port", {}, "65536", "give at most 65535"),
        ("boolean", {}, "perhaps", "neither yes nor no"),
        ("choice", {"choices": CHOICES}, "four", "choose 'One' or 'two' or 'three'"),
        ("choices", {"choices": CHOICES}, "two,four", "'four' is not one"),
        ("choices", {"choices": CHOICES, "max": 1}, "two,three", "has 2 choices"),
        ("email", {}, "nobody", "not a mail address"),
        ("email", {}, "a@b@c.org", "not a mail address"),
        ("email", {}, "a b@example.org", "not a mail address"),
        ("email", {}, "a@example", "not a mail address"),
        ("domain", {}, "example", "has no dot"),
        ("domain", {}, "*.example.org", "wildcard"),
        ("path", {}, "data", "not an absolute path"),
        ("path", {}, "/data/../etc", "not an absolute path"),
        ("path", {}, "/a//b", "not an absolute path"),
        ("size", {}, "64X", "not a size"),
        ("size", {}, -1, "not a size"),
        ("size", {"min": 1 << 20}, "1k", "give at least 1M"),
    ],
)
def test_what_is_refused(kind: str, more: dict[str, Any], given: object, said: str) -> None:
    with pytest.raises(Wrong) as caught:
        read(question(kind, **more), given)
    assert said in f"{caught.value.message} ({caught.value.hint})"


def test_a_wrong_password_is_never_repeated() -> None:
    for given in ("Secr3t!", "Secr3t!\n", ["Secr3t!"]):
        with pytest.raises(Wrong) as caught:
            read(question("password", pattern="[a-z]+", min=40), given)
        assert "Secr3t" not in f"{caught.value.message} {caught.value.hint}"


def test_patterns_match_the_whole_answer() -> None:
    """Threat 11: nothing can follow what the pattern allows."""
    with pytest.raises(Wrong):
        read(question("string", pattern="a|b"), "a; rm")


def test_no_answer_is_empty_of_its_type() -> None:
    empty = {kind: nothing(question(kind)) for kind in ("string", "choice", "integer", "size", "choices", "boolean")}
    assert empty == {"string": "", "choice": "", "integer": None, "size": None, "choices": (), "boolean": None}


def test_passwords_are_long_and_differ() -> None:
    made = {new_password() for _ in range(50)}
    assert len(made) == 50 and all(len(each) == 24 and each.isascii() and each.isalnum() for each in made)


def test_what_a_person_sees() -> None:
    assert shown(question("password"), "secret") == "********"
    assert shown(question("size"), 1 << 30) == "1G"
    assert shown(question("boolean"), False) == "no"
    assert shown(question("choices"), ("a", "b")) == "a, b"
    assert [size_text(each) for each in (0, 1000, 1024, 3 << 20)] == ["0", "1000", "1K", "3M"]


def test_generic_questions_are_in_both_languages() -> None:
    assert [each.name for each in GENERIC] == ["admin_mail", "version", "optimisation"]
    for each in GENERIC:
        assert each.title.fr and each.title.en != each.title.fr
