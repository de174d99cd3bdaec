"""Operations: what a declaration may say, and from arguments to what is run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alveole.errors import InvalidInput
from alveole.model.operation import Argument, ArgumentType, Operation, check, fill


def operation(*argv: str, **arguments: dict[str, Any]) -> Operation:
    made = tuple(
        Argument(name=name, **{**fields, "type": ArgumentType(fields["type"])}) for name, fields in arguments.items()
    )
    return Operation(name="op", argv=argv, arguments=made)


def wrong(made: Operation) -> str:
    return "; ".join(map(str, check(made)))


def refused(made: Operation, **given: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        fill(made, given)
    return "; ".join(f"{each.field}: {each.message}" for each in caught.value.problems)


@pytest.mark.parametrize(
    ("argv", "arguments", "said"),
    [
        (("tail", "${lines}"), {}, "no argument 'lines'"),
        (("tail",), {"lines": {"type": "integer"}}, "used nowhere"),
        (("${program}",), {"program": {"type": "string"}}, "the program itself"),
        (("sh", "-c", "rm ${file}"), {"file": {"type": "path"}}, "holds a value and blanks"),
        (("login", "${word}"), {"word": {"type": "secret"}}, "shows the secret"),
        (("x", "${a}"), {"a": {"type": "choice"}}, "a choice has some"),
        (("x", "${a}"), {"a": {"type": "boolean"}}, "a boolean has one"),
        (("x", "${a}"), {"a": {"type": "integer", "min": 3, "max": 1}}, "larger than max"),
        (("x", "${a}"), {"a": {"type": "integer", "max": 1, "default": "7"}}, "outside"),
        (("x", "${a}"), {"a": {"type": "string", "pattern": "("}}, "no expression of RE2"),
        (("x", "${a}"), {"a": {"type": "path", "below": "/a/../b"}}, "not an absolute path"),
        (("x", "a\0"), {}, "NUL"),
    ],
)
def test_what_a_declaration_may_not_say(argv: tuple[str, ...], arguments: dict[str, Any], said: str) -> None:
    assert said in wrong(operation(*argv, **arguments))


def test_values_stay_one_argument_each() -> None:
    made = operation(
        "prog",
        "--lines=${lines}",
        "${all}",
        "${file}",
        "${name}",
        lines={"type": "integer", "min": 1, "max": 9, "default": "5"},
        all={"type": "boolean", "flag": "--all"},
        file={"type": "path", "below": "/data", "required": False},
        name={"type": "string", "pattern": "[a-z ;]+"},
    )
    assert wrong(made) == ""
    assert fill(made, {"name": "a; rm x"}).argv == ("prog", "--lines=5", "a; rm x")
    filled = fill(made, {"name": "a", "all": True, "lines": 7, "file": "/data/x y"})
    assert filled.argv == ("prog", "--lines=7", "--all", "/data/x y", "a")
    assert filled.shown == {"lines": "7", "all": "--all", "file": "/data/x y", "name": "a"}
    told = refused(made, lines=10, file="/data/../etc", name="-rf", other="x", all="perhaps")
    for part in (
        "lines: 10 is outside 1 to 9",
        "not a plain absolute path",
        "begins with '-'",
        "no such argument",
        "neither",
    ):
        assert part in told, told
    assert "is not below /data" in refused(made, name="a", file="/database")
    assert "is needed" in refused(made)
    assert "does not match" in refused(made, name="UPPER")


def test_secrets_come_on_standard_input_alone() -> None:
    made = operation("login", word={"type": "secret"}, other={"type": "secret", "required": False})
    assert wrong(made) == ""
    filled = fill(made, {"word": "correct horse"})
    assert filled.argv == ("login",) and filled.stdin == b"correct horse\n\n"
    assert filled.shown == {"word": "***"} and filled.secrets == ("correct horse",)


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_no_text_becomes_an_option_or_another_argument(text: str) -> None:
    made = operation("prog", "${a}", "--", a={"type": "string"})
    try:
        filled = fill(made, {"a": text})
    except InvalidInput:
        return
    assert filled.argv == ("prog", text, "--") and not text.startswith("-") and "\n" not in text
