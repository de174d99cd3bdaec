"""Threat 11: a template that would put a value between quotes or into the middle of a word never gets an answer."""

from __future__ import annotations

import pytest

from alveole.catalogue.contexts import misplaced
from alveole.catalogue.manifest import Format

BAD = {
    Format.SHELL: [
        'x="{{ a.b }}"',
        "x='{{ a.b }}'",
        "x=`echo {{ a.b }}`",
        "true # {{ a.b }}",
        "cat <<EOF\n{{ a.b }}\nEOF\n",
        "x=${{ a.b }}",
        "x=\\{{ a.b }}",
        'x="{% if a.c %}{{ a.b }}{% endif %}"',
        "x='it'; y='{% for z in a.c %}{{ z }}{% endfor %}'",
    ],
    Format.SQL: [
        "SELECT '{{ a.b }}'",
        "SELECT 'it''s {{ a.b }}'",
        "SELECT 1 -- {{ a.b }}\n",
        "SELECT x{{ a.b }}",
        "SELECT `{{ a.b }}`",
        "/* {{ a.b }} */",
        "SELECT {{ a.b }}{{ a.c }}",
        "SELECT 'x'{{ a.b }}",
    ],
    Format.PGSQL: ["SELECT E{{ a.b }}", "DO $$ BEGIN {{ a.b }} END $$", "SELECT '{{ a.b }}'", "-- {{ a.b }}"],
    Format.PHP: [
        "<p>{{ a.b }}</p>",
        '<?php $x = "{{ a.b }}";',
        "<?php // {{ a.b }}\n",
        "<?php /* {{ a.b }} */",
        "<?php $x = <<<E\n{{ a.b }}\nE;",
        "<?php ?>{{ a.b }}",
    ],
    Format.NGINX: [
        "root /x{{ a.b }};",
        'root "{{ a.b }}";',
        "# {{ a.b }}\n",
        "root {{ a.b }}/x;",
        "x {{ a.b }}{{ a.c }};",
    ],
    Format.APACHE: ["ServerName x{{ a.b }}", 'ServerName "{{ a.b }}"', "# {{ a.b }}", "Define x y={{ a.b }}"],
    Format.INI: ["x = foo {{ a.b }}", "x = {{ a.b }}M", "# {{ a.b }}", 'x = "{{ a.b }}"', "[{{ a.b }}]", "{{ a.b }}"],
    Format.LDIF: ["cn: {{ a.b }}", "cn:{{ a.b }} x", "{{ a.b }}", "cn:x{{ a.b }}"],
    Format.YAML: ["x: abc {{ a.b }}", 'x: "{{ a.b }}"', "# {{ a.b }}", "x: {{ a.b }} y", "x: '{{ a.b }}'"],
    Format.TOML: ['x = "{{ a.b }}"', "x = 1 {{ a.b }}", "# {{ a.b }}"],
    Format.JSON: ['{"x": "{{ a.b }}"}', "x = '{{ a.b }}';", "// {{ a.b }}", '{"x": 1{{ a.b }}}'],
    Format.XML: [
        "<a {{ a.b }}>",
        "<!-- {{ a.b }} -->",
        "<a b={{ a.b }}>",
        '<a b="{{ a.b|json }}">',
        "<![CDATA[{{ a.b }}]]>",
        "<?x {{ a.b }}?>",
    ],
    Format.PLAIN: ["x = '{{ a.b|shell }}'", "x = {{ a.b|ini }}M"],
}
GOOD = {
    Format.SHELL: [
        "x={{ a.b }}\n# don't\ny={{ a.b }}",
        'x="{{ a.b|plain }}"',
        "cat <<E\nit's\nE\nx={{ a.b }}",
        'echo "it\'s" {{ a.b }}',
        'x="a\\"b" {{ a.b }} {{ "on" if a.b else "off" }}',
        'echo "$#" {{ a.b }}; x=${1:-{{ a.b }}}',
        'x="{{ a.n }} {{ plan.memory_mb // 2 }}M {{ a.b|length }}"',
    ],
    Format.SQL: ["SELECT {{ a.b }}, ({{ a.c }}); -- don't\nSELECT 'it''s', {{ a.b }}", "SELECT `x` = {{ a.b }};"],
    Format.PGSQL: ["CREATE ROLE x PASSWORD {{ a.b }};", "DO $x$ it's $x$; SELECT {{ a.b }}"],
    Format.PHP: [
        "<?php\n// don't\n$x = {{ a.b }};\n$y = ['a' => {{ a.c }}];\n",
        "<p>it's <?= {{ a.b }} ?></p>",
        "<?php /* it's */ define('X', {{ a.b }});",
    ],
    Format.NGINX: [
        "listen {{ 'unix:' ~ socket }};\n# don't\nroot {{ a.b }};",
        "x {{ a.b }} {{ a.c }};",
        "proxy_pass http://x:{{ a.n }};\nclient_max_body_size {{ a.n // 2 }}m;",
        "{% set n = 4 if a.b else 8 %}x {{ n }}k;",
        "{% for n in range(3) %}x{{ n }};{% endfor %}",
        "timeout {{ {'x': 1, 'y': 2}[a.b] }}s;",
    ],
    Format.APACHE: ["<Directory {{ a.b }}>\n# don't\nServerName {{ a.b }}\n"],
    Format.INI: ["x = {{ a.b }}\ny={{ a.c }}\n; {{ a.d|plain }}\n[{{ a.b|plain }}]", "requirepass {{ a.b }}\n"],
    Format.LDIF: ["dn:{{ 'ou=x,' ~ a.b }}\ncn:{{ a.b }}\n"],
    Format.YAML: ["x: {{ a.b }}\ny: [{{ a.b }}, {{ a.c }}]\n- {{ a.b }}\nz: don't\nw: {{ a.b }} # it's\nq: {{ a.b }}"],
    Format.TOML: ["x = {{ a.b }}\ny = [{{ a.b }}]\n[{{ a.b }}]\n"],
    Format.JSON: ['{"x": {{ a.b }}, {{ a.c }}: 1}', "// it's\nmodule.exports = {x: {{ a.b }}};\nf({{ a.b }});"],
    Format.XML: [
        "<a b=\"{{ a.b }}\" c='{{ a.c }}'>{{ a.d }}</a><!-- it's --><b/>{{ a.e }}",
        "<script>x = {{ a.b|json }}</script>",
        '<!doctype html><p title="{{ a.b }}">it\'s {{ a.b }}</p>',
    ],
    Format.PLAIN: ["x = {{ a.b|shell }} {{ a.c }}", "'{{ a.b }}'"],
    Format.PROPERTIES: ["url=jdbc:{{ a.b }}/x"],
}


@pytest.mark.parametrize(("format", "source"), [(each, text) for each, texts in BAD.items() for text in texts])
def test_refused(format: Format, source: str) -> None:
    found = misplaced(source, format, ["a.n"])
    assert len(found) == 1 and found[0].line and found[0].message and found[0].hint


@pytest.mark.parametrize(("format", "source"), [(each, text) for each, texts in GOOD.items() for text in texts])
def test_taken(format: Format, source: str) -> None:
    assert misplaced(source, format, ["a.n"]) == []


def test_every_format_is_looked_at() -> None:
    assert BAD.keys() | {Format.PROPERTIES} == set(Format) == GOOD.keys()


def test_every_line_is_told_once() -> None:
    found = misplaced("x='{{ a.b }}' '{{ a.c }}'\ny={{ a.d }}\nz='{{ a.e }}'\n", Format.SHELL)
    assert [each.line for each in found] == [1, 3]
