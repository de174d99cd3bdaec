"""The form of a module's questions: which control each is, and from the form back to answers.

An answer that is as its default was shown is not given: so it goes on to follow what it is worked out from.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from alveole.catalogue.manifest import QuestionType
from alveole.model.site import Answer
from alveole.views import modules as module_views
from alveole.web.pages import Errors, Fields

_INPUTS = {
    QuestionType.INTEGER: "number",
    QuestionType.PORT: "number",
    QuestionType.EMAIL: "email",
    QuestionType.PASSWORD: "password",
    QuestionType.BOOLEAN: "boolean",
    QuestionType.CHOICE: "choice",
    QuestionType.CHOICES: "choices",
}
_LIST = "list"


class Control(msgspec.Struct, frozen=True):
    """One question as it stands in the form. ``key`` is ``module.question``, or ``.question`` for all modules."""

    key: str
    kind: str
    question: module_views.QuestionView
    value: str
    chosen: tuple[str, ...]
    was: str
    """The default as it was shown; the answer is given when it is another."""
    wrong: str

    @property
    def id(self) -> str:
        return "q-" + self.key.replace(".", "-")


class Group(msgspec.Struct, frozen=True):
    module: str
    controls: tuple[Control, ...]
    main: bool
    """Of a module that was asked for by name."""
    urgent: bool
    """Has a question without an answer, or one that is wrong."""


def answers(form: Fields) -> dict[str, Answer]:
    """What a person answered, as :class:`alveole.requests.CreateSite` takes it."""
    was = {key: values[0] for key, values in form.starting("d.").items()}
    found: dict[str, Answer] = {}
    for key, values in form.starting("a.").items():
        name = key.removeprefix(".")
        if form(f"k.{key}") == _LIST:
            chosen = tuple(value for value in values if value)
            if ",".join(chosen) != was.get(key, ""):
                found[name] = chosen
        elif values[-1] != was.get(key, ""):
            # Of a box that is ticked both the hidden "no" and its "yes" come.
            found[name] = values[-1]
    return found


def groups(
    asked: Iterable[str], questions: Iterable[module_views.QuestionView], errors: Errors, typed: dict[str, Answer]
) -> tuple[Group, ...]:
    """The questions by module: those asked for first, what they need after, what is asked once for all last."""
    wanted = tuple(asked)
    found: dict[str, list[Control]] = {}
    for question in questions:
        found.setdefault(question.module, []).append(_control(question, errors, typed))
    order = sorted(found, key=lambda name: (name == "", name not in wanted, list(found).index(name)))
    return tuple(
        Group(
            name,
            tuple(found[name]),
            name in wanted,
            any(each.wrong or each.question.must for each in found[name]),
        )
        for name in order
    )


def _control(question: module_views.QuestionView, errors: Errors, typed: dict[str, Answer]) -> Control:
    key = f"{question.module}.{question.name}"
    name = key.removeprefix(".")
    kind = _INPUTS.get(QuestionType(question.type), "text")
    given = typed.get(name)
    # A size is shown as a person writes it.
    shown = question.shown if question.type == QuestionType.SIZE else _text(question.default)
    value = _text(given) if given is not None else shown
    return Control(
        key=key,
        kind=kind,
        question=question,
        value=value,
        chosen=tuple(value.split(",")) if kind == "choices" else (),
        # What was typed already stays given, also when it is what the default would be.
        was=shown if given is None else "",
        wrong=errors.of(f"answers.{name}"),
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(str(each) for each in value)
    return str(value)
