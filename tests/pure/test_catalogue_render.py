"""Threat 12: templates see the values given to them and nothing else, and cannot exhaust what renders them."""

from __future__ import annotations

import time

import pytest

from alveole.catalogue.manifest import Format
from alveole.catalogue.render import Names, RenderError, evaluate, render_argument, render_text

SEEN = {
    "a": Names("a", {"title": "it's", "items": ("x", "y"), "values": "v", "none": None, "number": 7, "yes": True}),
    "modules": ("nginx", "php"),
}


def text(source: str, format: Format = Format.JSON) -> str:
    return render_text(source, format, SEEN)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ a.__class__ }}",
        "{{ a['__init__'] }}",
        "{{ a.title.__class__.__mro__[1].__subclasses__() }}",
        "{{ ('a'|upper).__class__ }}",
        "{{ a.title.format(a) }}",
        "{{ '{0.__class__}'.format(a) }}",
        "{{ '%s'|format(a) }}",
        "{{ a.title.upper.__globals__ }}",
        "{{ a.title.encode() }}",
        "{{ range.__self__ }}",
        "{{ self }}",
        "{{ self.__init__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum() }}",
        "{{ namespace() }}",
        "{{ dict() }}",
        "{{ loop }}",
        "{% for x in a.items %}{{ loop.__class__ }}{% endfor %}",
        "{% for x in a.items %}{{ loop._iterable }}{% endfor %}",
        "{{ _turns }}",
        "{{ a.items.append(1) }}",
        "{{ a.items.count }}",
        "{{ {'a': 1}.items() }}",
        "{{ [].__class__ }}",
        "{{ (1).__class__ }}",
        "{{ true.__class__ }}",
        "{{ none.__class__ }}",
        "{{ undefined_name }}",
        "{{ a.nothing }}",
        "{% set a.title = 'x' %}",
        "{% include 'x' %}",
        "{% include '/etc/passwd' %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block x %}{% endblock %}",
        "{% macro x() %}{% endmacro %}",
        "{% call x() %}{% endcall %}",
        "{% filter upper %}x{% endfilter %}",
        "{% set x %}y{% endset %}",
        "{% do 1 %}",
        "{% autoescape false %}{% endautoescape %}",
        "{% for x in a.items recursive %}{{ loop(x) }}{% endfor %}",
        "{{ a.title|safe }}",
        "{{ a.title|escape }}",
        "{{ a.title|map('upper') }}",
        "{{ a.title|pprint }}",
        "{{ a|tojson }}",
        "{{ 1 }} {{",
        "{% if %}",
        "{{ 1 // 0 }}",
        "{{ 'a' - 1 }}",
        "{{ a }}",
        "{{ a.title.upper }}",
    ],
)
def test_there_is_no_way_out(source: str) -> None:
    """Threat 12: every known escape of a template, and every name that is not given."""
    with pytest.raises(RenderError) as caught:
        text(source)
    assert caught.value.message and "0x" not in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 1000000000 }}",
        "{{ 'a' ~ 'b' * 99999999 }}",
        "{{ [1] * 100000000 }}",
        "{{ 2 ** 999999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ range(1000000000) }}",
        "{% for x in range(1000000) %}{% endfor %}",
        "{% for x in range(1000) %}" * 3 + "{% endfor %}" * 3,
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 40,
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x + x %}" * 40,
        "{% set x = ['aaaaaaaaaa'] %}" + "{% set x = x + x %}" * 40,
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x|replace('a', 'aaaaaaaaaa') %}" * 12,
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x = [x, x, x, x, x, x]|join %}" * 20,
        "{% set x = 10 %}" + "{% set x = x * x %}" * 40,
        "{% set x = 'é' %}" + "{% set x = x|base64 %}" * 80,
        "{% for x in range(999) %}{{ 'a' * 1 }}{% endfor %}",
        "{% for x in range(1000) %}" + "x" * 2000 + "{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "x" * 300_000,
    ],
)
def test_there_is_no_way_to_exhaust(source: str) -> None:
    """Threat 12: it ends, soon, and says why."""
    start = time.perf_counter()
    with pytest.raises(RenderError):
        text(source, Format.PLAIN)
    assert time.perf_counter() - start < 5


def test_the_language() -> None:
    source = "{% for x in a.items if x != 'y' %}{{ loop.index }}{{ x }}{% else %}none{% endfor %}"
    assert text(source, Format.SHELL) == "1x"
    assert text("{% set n = a.number + 1 %}{{ n }} {{ 'php' in modules }}") == "8 true"
    assert text("{% for x in range(9) %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}") == "01"
    assert text("{% raw %}{{ x }}{% endraw %}{# gone #}") == "{{ x }}"
    assert text("{{ a.values }} {{ a['values'] }}") == '"v" "v"'
    assert text("{{ a.nothing|default('d') }} {{ a.none|default('e', true) }}") == '"d" "e"'
    assert text("{% if a.yes %}\nyes\n{% endif %}\nend\n") == "yes\nend\n"
    assert text("{{ a.title.upper().startswith('IT') }}") == "true"
    assert text("{{ a.items|join('-') }} {{ a.items|length }}") == '"x-y" 2'


def test_what_is_quoted_is_quoted_once() -> None:
    assert text("{{ a.title|shell }}", Format.PLAIN) == "'it'\"'\"'s'"
    assert text("{{ a.title|json|shell }}", Format.PLAIN) == "'\"it'\"'\"'s\"'"
    with pytest.raises(RenderError, match="join first, quote last"):
        text("{{ a.title|shell ~ 'x' }}")
    with pytest.raises(RenderError, match="join first, quote last"):
        text("{{ a.title|shell + 'x' }}")
    with pytest.raises(RenderError, match="join first, quote last"):
        text("{{ [a.title|shell]|join }}")


def test_errors_say_the_line_and_never_the_value() -> None:
    with pytest.raises(RenderError) as caught:
        render_text("a\nb\n{{ a.title }}\n", Format.PLAIN, SEEN)
    assert (caught.value.line, caught.value.value) == (3, "it's")
    assert "it's" not in caught.value.message
    with pytest.raises(RenderError) as caught:
        render_text("a\n{% if %}\n", Format.PLAIN, SEEN)
    assert caught.value.line == 2
    with pytest.raises(RenderError, match=r"there is no a\.nothing"):
        evaluate("a.nothing", SEEN)


def test_digests_and_names() -> None:
    assert text("{{ 'a'|sha1 }}", Format.PLAIN) == "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"
    assert text("{{ 'é'|base64 }}") == '"w6k="'
    first = text("{{ 'pw'|ssha('site') }}")
    assert first == text("{{ 'pw'|ssha('site') }}") != text("{{ 'pw'|ssha('other') }}")
    assert first.startswith('"{SSHA}')
    assert text("dn:{{ 'cn=' ~ ('a,b+c'|dn) ~ ',dc=x' }}", Format.LDIF) == "dn: cn=a\\,b\\+c,dc=x"


def test_arguments_and_expressions() -> None:
    assert render_argument("--x={{ a.title }} {{ a.number }} {{ a.yes }}", SEEN) == "--x=it's 7 true"
    assert render_argument("plain", SEEN) == "plain"
    with pytest.raises(RenderError, match="nothing"):
        render_argument("{{ a.none }}", SEEN)
    assert evaluate("a.items", SEEN) == ("x", "y")
    assert evaluate("a.number if 'php' in modules else 0", SEEN) == 7
    for wrong in ("a.title }}{{ 1", "1 2", "", "{% if 1 %}", "__import__('os')"):
        with pytest.raises(RenderError):
            evaluate(wrong, SEEN)
