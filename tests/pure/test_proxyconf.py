"""The serializer of nginx's and Apache's configuration, form by form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alveole.config import parse
from alveole.errors import InvalidInput
from alveole.proxyconf import (
    Comment,
    LuaBlock,
    Template,
    apache,
    apache_word,
    block,
    directive,
    lua_string,
    nginx,
    nginx_word,
    parse_nginx,
    words_of,
)
from apachewords import parse_apache_line


def test_nginx_golden() -> None:
    nodes = [
        Comment("made by\nthe test"),
        directive("user", "www-data"),
        block(
            "http",
            body=[
                directive("log_format", "x", Template('"$uri"')),
                block("location", "=", "/a b", body=[directive("return", "200", "it's; {fine}")]),
                LuaBlock(("init_by_lua_block",), 'x = "y"\nz = 1'),
            ],
        ),
    ]
    assert nginx(nodes) == (
        "# made by\n"
        "# the test\n"
        "user www-data;\n"
        "http {\n"
        '    log_format x "\\"$uri\\"";\n'
        '    location = "/a b" {\n'
        '        return 200 "it\'s; {fine}";\n'
        "    }\n"
        "    init_by_lua_block {\n"
        '        x = "y"\n'
        "        z = 1\n"
        "    }\n"
        "}\n"
    )


def test_apache_golden() -> None:
    nodes = [
        Comment("a comment that ends in a backslash \\"),
        block("VirtualHost", "*:80", body=[directive("ServerName", "a.test"), directive("ErrorLog", "/a b/c\\")]),
    ]
    assert apache(nodes) == (
        "# a comment that ends in a backslash\n"
        "<VirtualHost *:80>\n"
        "    ServerName a.test\n"
        '    ErrorLog "/a b/c\\\\"\n'
        "</VirtualHost>\n"
    )


@pytest.mark.parametrize("word", ["a\nb", "a\0b", "a\rb", "\x7f", "a\u2028b", "$host", "a$b", "${x}"])
def test_what_nginx_cannot_hold_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput):
        nginx_word(word)


@pytest.mark.parametrize("word", ["a\nb", "a\0b", "${PATH}", "%{HTTP_HOST}"])
def test_what_apache_cannot_hold_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput):
        apache_word(word)


@pytest.mark.parametrize("text", ["a", "a {", "}", "a; }", '"a', "a { b; "])
def test_half_a_configuration_is_none(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_nginx(text)


def test_comments_end_at_the_line() -> None:
    assert words_of(parse_nginx('a b; # c; {\n# d "\ne { f; }')) == [("a", "b"), ("e",), ("f",)]


def test_lua_strings_are_plain_text() -> None:
    assert lua_string('a"b\\c\n1{}') == '"a\\034b\\092c\\0101\\123\\125"'


def test_apache_words_as_apache_reads_them() -> None:
    assert parse_apache_line('A "b c" \'d "e\' f\\g "h\\"i\\\\"') == ("A", "b c", 'd "e', "f\\g", 'h"i\\')


def test_the_edges_configuration_is_read_back_whole() -> None:
    from alveole.actuators.edge_config import Machine, render

    settings = parse({"domain": "alv.test", "edge": {"trusted_proxies": ["10.0.0.0/8", "fd00::/8"]}})
    rendered = render(settings, Machine(open_files=20_000))
    text = rendered.text
    # Lua blocks are not nginx's syntax: each is one call here.
    plain = "\n".join(line for line in text.splitlines() if "alveole_edge" not in line and "alveole_tls" not in line)
    words = words_of(parse_nginx(plain))
    assert ("server_tokens", "off") in words
    assert sum(word[0] == "server" and len(word) == 1 for word in words) == 2
    assert ("set_real_ip_from", "fd00::/8") in words
    assert rendered.digest in text
    again = render(settings, Machine(open_files=20_000))
    assert again == rendered
    assert render(settings, Machine(open_files=20_000, ipv6=False)).digest != rendered.digest
