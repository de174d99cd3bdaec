"""PURE. Operations: named commands of a site with typed arguments, declared by modules or by the people of a site.

An argument vector, never a shell. An element may hold ``${name}``, the value of an argument; each element stays one
argument, and one that names an argument without a value is left out. A ``secret`` never stands in the vector, where
everybody who lists processes would read it: secrets are written to the standard input, one a line, in the order of
their declaration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from alveole.errors import InvalidInput, Problem
from alveole.model.names import ProcessName

#: Longest values; the kernel takes 128 KiB for one argument (``MAX_ARG_STRLEN``, execve(2)).
VALUE_MAX = 4096
ARGUMENTS_MAX = 20
ELEMENTS_MAX = 64
OUTPUT_MAX = 1024 * 1024
USED = re.compile(r"\$\{([^}]*)\}")
_TEXT_MAX = 500
_PATH = re.compile(r"/(?:[^/\0]+(?:/[^/\0]+)*)?\Z")
_YES = {"yes": True, "true": True, "no": False, "false": False, "": False}
Argv = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=ELEMENTS_MAX)]
ArgumentName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,40}\Z")]


class Least(StrEnum):
    """Who may run it: everybody of the role, as near to the site as that."""

    CHANGE = "change"
    """Whoever may change the site."""
    OWN = "own"
    """Its owner (of a team: its members)."""
    OPERATOR = "operator"
    """Who looks after the machine."""
    ADMINISTRATOR = "administrator"
    """And nobody else."""


class ArgumentType(StrEnum):
    STRING = "string"
    """One line; the whole of it matches ``pattern``."""
    INTEGER = "integer"
    """Between ``min`` and ``max``."""
    CHOICE = "choice"
    """One of ``choices``."""
    BOOLEAN = "boolean"
    """``yes`` gives ``flag``, ``no`` nothing."""
    PATH = "path"
    """An absolute path in the container, below ``below``."""
    SECRET = "secret"  # noqa: S105  a type's name
    """On standard input, never shown and never kept."""


class Argument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    name: ArgumentName
    type: ArgumentType
    title: str = ""
    title_fr: str = ""
    default: str = ""
    required: bool = True
    """Without a value and a default it is asked for; else the elements that name it are left out."""
    pattern: str = ""
    """RE2."""
    min: int | None = None
    max: int | None = None
    choices: tuple[str, ...] = ()
    flag: str = ""
    below: str = "/"


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    name: ProcessName
    argv: Argv
    uid: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    """Inside the container; ``None``: the site's own user."""
    title: str = ""
    title_fr: str = ""
    description: str = ""
    description_fr: str = ""
    arguments: tuple[Argument, ...] = ()
    least: Least = Least.CHANGE
    seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """How long it may take; then it is killed."""
    output_bytes: Annotated[int, msgspec.Meta(ge=1024, le=OUTPUT_MAX)] = 256 * 1024
    """What it may print; then it is killed."""
    confirm: bool = False
    """It changes something that cannot be taken back: ask first."""
    module: str = ""
    """Which declared it; empty: the people of the site."""


class Filled(msgspec.Struct, frozen=True):
    """What is run. ``shown``: the arguments as the journal tells of them."""

    argv: tuple[str, ...]
    stdin: bytes
    shown: dict[str, str]
    secrets: tuple[str, ...]


# --- declared -----------------------------------------------------------------------------------
def check(operation: Operation) -> Iterator[Problem]:
    """Everything that is wrong with a declaration. Fields are those of :class:`Operation`."""
    names = [each.name for each in operation.arguments]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem("argument", f"there are two arguments {name!r}", "each needs a name of its own")
    if len(names) > ARGUMENTS_MAX:
        yield Problem("argument", f"has {len(names)}; the most is {ARGUMENTS_MAX}")
    for field in ("title", "title_fr", "description", "description_fr"):
        text = getattr(operation, field)
        if len(text) > _TEXT_MAX or not text.isprintable():
            yield Problem(field, f"is longer than {_TEXT_MAX} characters or not printable")
    yield from _check_argv(operation)
    for at, each in enumerate(operation.arguments):
        yield from (_at(f"argument[{at}]", problem) for problem in _check_argument(each))


def _at(place: str, problem: Problem) -> Problem:
    return Problem(f"{place}.{problem.field}" if problem.field else place, problem.message, problem.hint)


def _check_argv(operation: Operation) -> Iterator[Problem]:
    known = {each.name: each for each in operation.arguments}
    used: set[str] = set()
    if not operation.argv or len(operation.argv) > ELEMENTS_MAX:
        yield Problem("argv", f"does not have 1 to {ELEMENTS_MAX} elements", "a program and its arguments")
        return
    if USED.search(operation.argv[0]) or not operation.argv[0]:
        yield Problem("argv", "the program itself is not an argument", "name it")
    for at, element in enumerate(operation.argv):
        found = USED.findall(element)
        used.update(found)
        if "\0" in element or len(element) > VALUE_MAX:
            yield Problem(f"argv[{at}]", f"holds a NUL byte or is longer than {VALUE_MAX} characters")
        for name in found:
            if name not in known:
                yield Problem(f"argv[{at}]", f"there is no argument {name[:40]!r}", "declare it as an argument")
            elif known[name].type is ArgumentType.SECRET:
                hint = "the program reads it from its standard input"
                yield Problem(f"argv[{at}]", f"shows the secret {name!r} to everybody who lists processes", hint)
        if found and any(char.isspace() for char in element):
            # A value in the middle of a text is a value in the middle of a program.
            hint = "give the value as an element of its own"
            yield Problem(f"argv[{at}]", "holds a value and blanks: what a program reads as a text takes none", hint)
    for name, each in known.items():
        if name not in used and each.type is not ArgumentType.SECRET:
            yield Problem("argument", f"{name!r} is used nowhere in argv", f"write ${{{name}}} where it belongs")


def _check_argument(each: Argument) -> Iterator[Problem]:
    of = each.type
    if len(each.title) > _TEXT_MAX or len(each.title_fr) > _TEXT_MAX:
        yield Problem("title", f"is longer than {_TEXT_MAX} characters")
    if bool(each.choices) != (of is ArgumentType.CHOICE):
        yield Problem("choices", "are for a choice, and a choice has some")
    if any(not choice or not choice.isprintable() or choice.startswith("-") for choice in each.choices):
        yield Problem("choices", "one of them is empty, not printable or begins with '-'")
    if bool(each.flag) != (of is ArgumentType.BOOLEAN):
        yield Problem("flag", "is for a boolean, and a boolean has one", "what stands in argv when it is yes")
    if (each.min is not None or each.max is not None) and of is not ArgumentType.INTEGER:
        field = "min" if each.min is not None else "max"
        yield Problem(field, "is for an integer alone", "leave it out, or make the argument an integer")
    if each.min is not None and each.max is not None and each.min > each.max:
        yield Problem("min", "is larger than max")
    if each.pattern and of is not ArgumentType.STRING:
        yield Problem("pattern", "is for a string")
    elif each.pattern:
        try:
            _matches(each.pattern, "")
        except ValueError as error:
            yield Problem("pattern", f"is no expression of RE2: {error}")
            return
    if not _PATH.match(each.below) or ".." in each.below.split("/"):
        yield Problem("below", f"{each.below[:80]!r} is not an absolute path")
    if of is ArgumentType.SECRET and each.default:
        yield Problem("default", "a secret has none")
    elif each.default and (wrong := _wrong(each, each.default)):
        yield Problem("default", wrong)


# --- filled in ----------------------------------------------------------------------------------
def fill(operation: Operation, given: Mapping[str, str | int | bool]) -> Filled:
    """What is run for these arguments. Raises ``InvalidInput`` with all that is wrong: fields ``arguments.NAME``."""
    known = {each.name: each for each in operation.arguments}
    hint = f"it has {', '.join(known) or 'none'}"
    problems = [
        Problem(f"arguments.{name[:80]}", f"{operation.name} has no such argument", hint)
        for name in given
        if name not in known
    ]
    values: dict[str, str] = {}
    for name, each in known.items():
        text = _text(given.get(name)) or each.default
        if each.type is ArgumentType.BOOLEAN and text.lower() in _YES:
            text = each.flag if _YES[text.lower()] else ""
        elif not text:
            if each.required and each.type is not ArgumentType.BOOLEAN:
                problems.append(Problem(f"arguments.{name}", "is needed"))
            continue
        elif wrong := _wrong(each, text):
            problems.append(Problem(f"arguments.{name}", wrong))
        values[name] = text
    if problems:
        raise InvalidInput(problems=problems)
    secrets = [name for name, each in known.items() if each.type is ArgumentType.SECRET]
    return Filled(
        argv=tuple(_elements(operation.argv, values)),
        stdin="".join(f"{values.get(name, '')}\n" for name in secrets).encode(),
        shown={name: "***" if name in secrets else values[name] for name in known if values.get(name)},
        secrets=tuple(values[name] for name in secrets if values.get(name)),
    )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _elements(argv: tuple[str, ...], values: Mapping[str, str]) -> Iterator[str]:
    for element in argv:
        names = USED.findall(element)
        if all(values.get(name) for name in names):
            yield USED.sub(lambda found: values[found[1]], element)


def _wrong(each: Argument, text: str) -> str:
    """What is wrong with a value, or nothing."""
    if len(text) > VALUE_MAX or not text.isprintable():
        return f"is longer than {VALUE_MAX} characters or not one printable line"
    match each.type:
        case ArgumentType.BOOLEAN:
            return "" if text.lower() in _YES else f"{text[:40]!r} is neither yes nor no"
        case ArgumentType.CHOICE:
            return "" if text in each.choices else f"{text[:40]!r} is none of {', '.join(each.choices)}"
        case ArgumentType.INTEGER:
            return _wrong_number(each, text)
        case ArgumentType.PATH:
            return _wrong_path(each, text)
        case ArgumentType.STRING:
            if text.startswith("-"):
                return "begins with '-', which a program would take for an option"
            if each.pattern and not _matches(each.pattern, text):
                return f"{text[:80]!r} does not match {each.pattern}"
    return ""


def _wrong_number(each: Argument, text: str) -> str:
    if not re.match(r"-?[0-9]{1,18}\Z", text):
        return f"{text[:40]!r} is not a whole number"
    if (each.min is not None and int(text) < each.min) or (each.max is not None and int(text) > each.max):
        low, high = ("…" if bound is None else str(bound) for bound in (each.min, each.max))
        return f"{text} is outside {low} to {high}"
    return ""


def _wrong_path(each: Argument, text: str) -> str:
    parts = text.split("/")
    if not _PATH.match(text) or any(part in (".", "..") for part in parts):
        return f"{text[:80]!r} is not a plain absolute path"
    if each.below != "/" and text != each.below and not text.startswith(f"{each.below}/"):
        return f"is not below {each.below}"
    return ""


def _matches(pattern: str, text: str) -> bool:
    """Whether all of ``text`` does, in time that grows with its length alone. Raises ``ValueError``."""
    import re2

    if len(pattern) > _TEXT_MAX:
        raise ValueError(f"longer than {_TEXT_MAX} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(pattern, options).fullmatch(text) is not None
    except re2.error as error:
        said = error.args[0] if error.args else "not understood"
        raise ValueError(said.decode() if isinstance(said, bytes) else str(said)) from None
