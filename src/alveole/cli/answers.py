"""Answers to the questions of modules: from options, from a file, or asked for on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from alveole.cli import parse, reading
from alveole.cli.output import note, paint
from alveole.cli.verbs import Here
from alveole.errors import InvalidInput, Problem
from alveole.text import clean


def language() -> str:
    """``fr`` or ``en``, as the locale of whoever sits there says (locale(7))."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "fr" if value.lower().startswith("fr") else "en"
    return "en"


def words(text: dict[str, str] | None) -> str:
    """A text of the catalogue in that language."""
    return clean((text or {}).get(language()) or (text or {}).get("en") or "")


def given(pairs: Sequence[str], files: Sequence[str], problems: parse.Problems) -> dict[str, Any]:
    """``--set-file`` first, in order, then ``--set``; the last one of a name counts."""
    found: dict[str, Any] = {}
    for file in files:
        found.update(_from_file(file, problems))
    for pair in pairs:
        name, equal, value = pair.partition("=")
        if not equal or not name:
            # The value is not repeated: it may be a password.
            problems.add("set", f"{name!r} has no '='", "write it like title='My blog'")
            continue
        found[name.strip()] = value
    return found


def _from_file(file: str, problems: parse.Problems) -> dict[str, Any]:
    """TOML: ``title = "…"`` at the top, or tables of modules. ``-`` is standard input."""
    try:
        raw = reading.toml(file, "set_file")
    except InvalidInput as error:
        problems.extend(error.problems)
        return {}
    found: dict[str, Any] = {}
    for name, value in raw.items():
        below = value.items() if isinstance(value, dict) else ((None, value),)
        for question, answer in below:
            key = name if question is None else f"{name}.{question}"
            if _plain(answer):
                found[key] = answer
            else:
                problems.add("set_file", f"{file}: {key} is no answer", "a text, a number, true, false, or a list")
    return found


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    return isinstance(value, str | int | bool)


def ask(here: Here, body: dict[str, Any]) -> dict[str, Any]:
    """Ask every question that is open; gives all answers. ``body``: of :class:`alveole.requests.AskModules`.

    An empty answer takes what is in brackets. Raises ``InvalidInput`` for answers that were given before.
    """
    answers: dict[str, Any] = dict(body["answers"])
    typed: set[str] = set()
    passed: set[str] = set()
    told = False
    while True:
        found = here.client.send("POST", "/v1/modules/questions", {**body, "answers": answers})
        wrong = {_key(each): each for each in found["questions"] if each["answered"] and each["problem"]}
        problems = {each["field"]: Problem(**each) for each in found["problems"]}
        said = {key: problems.get(f"answers.{key}", Problem("", wrong[key]["problem"])) for key in wrong}
        if early := [said[key] for key in wrong if key not in typed]:
            raise InvalidInput(problems=early)
        for key in wrong:
            about = said[key]
            hint = f" ({clean(about.hint)})" if about.hint else ""
            note(f"  {paint(clean(about.message) + hint, 'red', sys.stderr)}")
            del answers[key]
            typed.discard(key)
        if wrong:
            continue
        question = next(
            (each for each in found["questions"] if not each["answered"] and _key(each) not in passed), None
        )
        if question is None:
            return answers
        if not told:
            told = True
            note(f"Modules: {', '.join(map(clean, found['modules']))}. Enter takes what is in brackets.")
        key = _key(question)
        answer = _prompt(question)
        if answer:
            answers[key] = answer
            typed.add(key)
        elif question["must"]:
            note(f"  {paint('needs an answer', 'red', sys.stderr)}")
        else:
            passed.add(key)


def _key(question: dict[str, Any]) -> str:
    return f"{question['module']}.{question['name']}" if question["module"] else str(question["name"])


def _prompt(question: dict[str, Any]) -> str:
    title = paint(words(question["title"]), "bold", sys.stderr)
    if about := words(question["description"]):
        note(f"  {paint(about, 'dim', sys.stderr)}")
    choices = question["choices"]
    for choice in choices:
        note(f"    {clean(choice['value'])}  {paint(words(choice['title']), 'dim', sys.stderr)}")
    if question["secret"]:
        default = "made up" if question["required"] else "none"
        return str(click.prompt(f"{title} [{default}]", default="", show_default=False, hide_input=True, err=True))
    kinds = {"boolean": "yes or no", "choices": "several, with commas", "size": "like 64M"}
    kind = f" ({kinds[question['type']]})" if question["type"] in kinds else ""
    default = f" [{clean(question['shown'])}]" if question["shown"] else ""
    return str(click.prompt(f"{title}{kind}{default}", default="", show_default=False, err=True)).strip()
