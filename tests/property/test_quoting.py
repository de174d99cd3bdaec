"""Threat 11: whatever an answer holds, each format's own reader finds exactly that, or it is refused.

Here the readers are libraries; ``test_quoting_programs.py`` asks the programs themselves.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alveole.catalogue.lint import HOSTILE
from alveole.catalogue.manifest import Format
from alveole.catalogue.quoting import Unwritable, distinguished, quote
from alveole.catalogue.render import Names, RenderError, evaluate, render_argument, render_text
from alveole.proxyconf import Directive, parse_nginx
from apachewords import parse_apache_line

ODD = "'\"\\$`{}()[]<>&;:#=!|%@~^*?/, -+.\t\n\r\0\x1a\x1b\x7f\x85\u2028\ufeffaEn0é漢😀"
hostile = (
    st.text(alphabet=st.sampled_from(ODD), max_size=20)
    | st.text(max_size=30)
    | st.sampled_from(HOSTILE)
    | st.tuples(st.sampled_from(HOSTILE), st.sampled_from(HOSTILE)).map("".join)
)


def written(format: Format, template: str, value: object) -> str | None:
    """``template`` with ``a.v`` printed in it, or ``None`` when it is refused; nothing else may come of it."""
    try:
        return render_text(template, format, {"a": Names("a", {"v": value})})
    except RenderError as error:
        assert "cannot be written" in error.message
        assert error.value == value
        return None


@given(hostile)
def test_json(value: str) -> None:
    text = written(Format.JSON, '{"before": 1, "v": {{ a.v }}, "after": 2}', value)
    if text is not None:
        assert json.loads(text) == {"before": 1, "v": value, "after": 2}
        assert not re.search("[<>&\u2028]", text)  # may stand in a script element
    else:
        assert "\0" in value or not _encodes(value)


@given(hostile)
def test_toml(value: str) -> None:
    text = written(Format.TOML, "before = 1\nv = {{ a.v }}\nafter = 2\n", value)
    if text is not None:
        assert tomllib.loads(text) == {"before": 1, "v": value, "after": 2}


@given(hostile)
def test_yaml(value: str) -> None:
    yaml = pytest.importorskip("yaml")
    text = written(Format.YAML, "before: 1\nv: {{ a.v }}\nlist: [{{ a.v }}, 3]\nafter: 2\n", value)
    if text is not None:
        assert yaml.safe_load(text) == {"before": 1, "v": value, "list": [value, 3], "after": 2}


@given(hostile)
def test_xml(value: str) -> None:
    template = "<r x=\"{{ a.v }}\" y='{{ a.v }}'><b/>{{ a.v }}<c/></r>"
    text = written(Format.XML, template, value)
    if text is not None:
        root = ElementTree.fromstring(text.encode())  # noqa: S314  written a line above
        assert (root.get("x"), root.get("y"), root[0].tail) == (value, value, value or None)
        assert [each.tag for each in root] == ["b", "c"]


@given(hostile)
def test_shell_words(value: str) -> None:
    text = written(Format.SHELL, "before {{ a.v }} after", value)
    if text is not None:
        assert shlex.split(text) == ["before", value, "after"]
    else:
        assert "\0" in value or not _encodes(value)


@given(hostile)
def test_nginx(value: str) -> None:
    text = written(Format.NGINX, "before;\nv {{ a.v }} {{ a.v }};\nafter;\n", value)
    if text is not None:
        assert parse_nginx(text) == [Directive(("before",)), Directive(("v", value, value)), Directive(("after",))]


@given(hostile)
def test_apache(value: str) -> None:
    text = written(Format.APACHE, "Before\nV {{ a.v }} {{ a.v }}\nAfter\n", value)
    if text is not None:
        lines = [parse_apache_line(line) for line in text.split("\n")]
        assert lines == [("Before",), ("V", value, value), ("After",), ()]


@given(hostile)
def test_properties(value: str) -> None:
    text = written(Format.PROPERTIES, "before=1\nv={{ a.v }}\nafter=2\n", value)
    if text is not None:
        assert text.isascii() and text.count("\n") == 3
        line = text.split("\n")[1].removeprefix("v=")
        read = re.sub(r"\\(u[0-9a-f]{4}|.)", _unescape, line)
        assert read.encode("utf-16", "surrogatepass").decode("utf-16") == value


def _unescape(found: re.Match[str]) -> str:
    code = found.group(1)
    if code[0] == "u" and len(code) == 5:
        return chr(int(code[1:], 16))
    return {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}.get(code, code)


@given(hostile)
def test_ldif(value: str) -> None:
    text = written(Format.LDIF, "before: 1\nv:{{ a.v }}\nafter: 2\n", value)
    if text is not None:
        lines = text.split("\n")
        assert (lines[0], lines[2:]) == ("before: 1", ["after: 2", ""])
        found = re.fullmatch(r"v(::?) (.*)", lines[1])
        assert found is not None
        read = base64.b64decode(found[2]).decode() if found[1] == "::" else found[2]
        assert read == value


@given(hostile)
def test_plain_is_one_plain_word(value: str) -> None:
    text = written(Format.PLAIN, "{{ a.v }}", value)
    assert text is None or (text == value and re.fullmatch(r"[A-Za-z0-9._/:@+,-]+", text))


@given(hostile, hostile)
def test_one_value_inside_another_format(one: str, other: str) -> None:
    """A filter quotes first, the file's format after it: SQL in a shell script, JSON in PHP."""
    text = written(Format.SHELL, "run {{ a.v|json }} end", one)
    assert text is None or text == f"run {quote(Format.JSON, one)} end"
    nested = written(Format.SHELL, "run {{ a.v|json|shell }} end", other)
    if nested is not None:
        assert json.loads(shlex.split(nested)[1]) == other


@given(st.lists(hostile, max_size=4))
def test_lists(values: list[str]) -> None:
    for format, template, read in (
        (Format.JSON, "{{ a.v }}", json.loads),
        (Format.TOML, "v = {{ a.v }}", lambda text: tomllib.loads(text)["v"]),
        (Format.SHELL, "{{ a.v }}", shlex.split),
    ):
        try:
            text = render_text(template, format, {"a": Names("a", {"v": tuple(values)})})
        except RenderError:
            continue
        assert read(text) == values


@given(st.integers(-(2**63), 2**63), st.booleans())
def test_numbers_are_the_same_everywhere(number: int, yes: bool) -> None:
    for format in Format:
        assert quote(format, number).strip() == str(number)
        assert re.fullmatch(r"[A-Za-z0-1]+", quote(format, yes).strip())


@given(hostile)
def test_an_argument_is_what_was_answered(value: str) -> None:
    """An element of a vector is passed as it is; only what no argument can hold is refused."""
    try:
        assert render_argument("--x={{ a.v }}", {"a": Names("a", {"v": value})}) == f"--x={value}"
    except RenderError:
        assert "\0" in value or not _encodes(value)


@given(st.lists(hostile, min_size=1, max_size=4))
def test_a_name_of_a_directory_entry(values: list[str]) -> None:
    """RFC 4514: what is escaped ends no value."""
    try:
        name = ",".join(f"cn={distinguished(value)}" for value in values)
    except Unwritable:
        return
    parts = re.findall(r"cn=((?:\\.|[^\\,])*)(?:,|\Z)", name, re.DOTALL)
    assert [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts] == values


@given(hostile)
def test_an_answer_is_never_evaluated(value: str) -> None:
    """Threat 12: neither in a template nor in an expression nor in an argument."""
    seen = {"a": Names("a", {"v": value})}
    assert evaluate("a.v", seen) == value
    for braces in ("{{ 7 * 7 }}", "{% if 1 %}49{% endif %}", "{# 49 #}"):
        text = written(Format.JSON, "{{ a.v }}", f"{value}{braces}")
        assert text is None or json.loads(text) == f"{value}{braces}"


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
