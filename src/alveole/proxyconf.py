"""The one serializer of nginx configuration, and the one of Apache's.

Everything that becomes configuration of a proxy goes through here, so that no value can end a
string, a directive or a block it was put in. A *word* is one argument: a plain ``str`` is literal;
:class:`Template` is literal text with the proxy's own variables and is only ever written by us.
What cannot be written so that it is read back the same raises ``InvalidInput``.

Standard library only: the agent renders the edge with it, control renders exports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from alveole.errors import InvalidInput

INDENT = "    "
# Read without quotes by both servers, whatever the position of the character in the word.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~^*-]+\Z")
# NUL ends C strings; line feeds end Apache's directives; the others have no use in a configuration.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]|[\ud800-\udfff]")


class Template(str):
    """A word in which ``$name`` (nginx) or ``%{name}`` (Apache) is meant as a variable.

    Values from outside never go into one: they come as words of their own, or as nginx variables.
    """

    __slots__ = ()


@dataclass(frozen=True)
class Directive:
    words: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    words: tuple[str, ...]
    body: tuple[Node, ...] = ()


@dataclass(frozen=True)
class LuaBlock:
    """``words { code }`` of ngx_lua. ``code`` is a constant of ours with balanced braces."""

    words: tuple[str, ...]
    code: str


@dataclass(frozen=True)
class Comment:
    """One or more lines for people; control characters in them are dropped."""

    text: str
    lines: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # Apache joins a line that ends in a backslash with the next one, in comments too.
        clean = (_CONTROL.sub(" ", line).rstrip(" \\") for line in self.text.split("\n"))
        object.__setattr__(self, "lines", tuple(clean))


Node = Directive | Block | LuaBlock | Comment


def directive(*words: str) -> Directive:
    return Directive(words)


def block(*words: str, body: Iterable[Node]) -> Block:
    return Block(words, tuple(body))


def nginx(nodes: Iterable[Node]) -> str:
    """The text of ``nodes`` in nginx's syntax. Raises ``InvalidInput`` for a word it cannot hold."""
    return "".join(f"{line}\n" for line in _nginx_lines(nodes, ""))


def _nginx_lines(nodes: Iterable[Node], indent: str) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Comment):
            yield from (f"{indent}# {line}".rstrip() for line in node.lines)
        elif isinstance(node, Directive):
            yield f"{indent}{' '.join(nginx_word(word) for word in node.words)};"
        elif isinstance(node, LuaBlock):
            yield f"{indent}{' '.join(nginx_word(word) for word in node.words)} {{"
            yield from (f"{indent}{INDENT}{line}" for line in node.code.strip().splitlines())
            yield f"{indent}}}"
        else:
            yield f"{indent}{' '.join(nginx_word(word) for word in node.words)} {{"
            yield from _nginx_lines(node.body, indent + INDENT)
            yield f"{indent}}}"


def nginx_word(word: str) -> str:
    """One argument. nginx has no way to write a literal dollar where it looks for variables."""
    _refuse_control(word)
    if "$" in word and not isinstance(word, Template):
        raise InvalidInput(f"{word!r} holds a dollar sign, which nginx cannot take literally")
    if _PLAIN.match(word) or (isinstance(word, Template) and _PLAIN.match(word.replace("$", ""))):
        return str(word)
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse_nginx(text: str) -> list[Node]:
    """What nginx reads: the inverse of :func:`nginx` for directives and blocks, comments dropped.

    Follows ``ngx_conf_read_token``. Raises ``InvalidInput`` where the text is no configuration.
    """
    stack: list[tuple[tuple[str, ...], list[Node]]] = [((), [])]
    words: list[str] = []
    for token in _nginx_tokens(text):
        match token:
            case _Word():
                words.append(str(token))
            case ";":
                stack[-1][1].append(Directive(tuple(words)))
                words = []
            case "{":
                stack.append((tuple(words), []))
                words = []
            case _:
                if words or len(stack) == 1:
                    raise InvalidInput("a closing brace where nginx expects none")
                head, body = stack.pop()
                stack[-1][1].append(Block(head, tuple(body)))
    if words or len(stack) != 1:
        raise InvalidInput("the configuration ends inside a directive or a block")
    return stack[0][1]


class _Word(str):
    __slots__ = ()


_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", '"': '"', "'": "'", "\\": "\\"}


def _nginx_tokens(text: str) -> Iterator[str]:
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char in " \t\r\n":
            at += 1
        elif char == "#":
            at = text.find("\n", at)
            if at < 0:
                return
        elif char in ";{}":
            at += 1
            yield char
        else:
            quote = char if char in "\"'" else ""
            at += len(quote)
            out: list[str] = []
            while True:
                if at >= end:
                    raise InvalidInput("the configuration ends inside a word")
                char = text[at]
                if char == "\\" and at + 1 < end:
                    following = text[at + 1]
                    known = _ESCAPES.get(following)
                    out.append(known or char)
                    at += 2 if known else 1
                elif quote and char == quote:
                    at += 1
                    break
                elif not quote and char in " \t\r\n;{":
                    break
                else:
                    out.append(char)
                    at += 1
            yield _Word("".join(out))


def apache(nodes: Iterable[Node]) -> str:
    """The text of ``nodes`` in Apache's syntax. Raises ``InvalidInput`` for a word it cannot hold."""
    return "".join(f"{line}\n" for line in _apache_lines(nodes, ""))


def _apache_lines(nodes: Iterable[Node], indent: str) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Comment):
            yield from (f"{indent}# {line}".rstrip() for line in node.lines)
        elif isinstance(node, Directive):
            yield f"{indent}{' '.join(apache_word(word) for word in node.words)}"
        elif isinstance(node, LuaBlock):
            raise InvalidInput("Apache's configuration holds no Lua blocks")
        else:
            head = " ".join([node.words[0], *(apache_word(word) for word in node.words[1:])])
            yield f"{indent}<{head}>"
            yield from _apache_lines(node.body, indent + INDENT)
            yield f"{indent}</{node.words[0]}>"


def apache_word(word: str) -> str:
    """One argument. ``${name}`` is replaced by Apache even inside quotes, so it cannot be literal."""
    _refuse_control(word)
    if "${" in word or (("%{" in word) and not isinstance(word, Template)):
        raise InvalidInput(f"{word!r} holds '${{' or '%{{', which Apache would replace")
    if _PLAIN.match(word):
        return str(word)
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def lua_string(text: str) -> str:
    """A Lua string literal whose value is the UTF-8 of ``text``, whatever it holds."""
    out = []
    for byte in text.encode("utf-8", "surrogateescape"):
        char = chr(byte)
        # Three digits always: "\1" followed by "2" would be read as "\12".
        out.append(char if 0x20 <= byte < 0x7F and char not in '"\\{}' else f"\\{byte:03d}")
    return f'"{"".join(out)}"'


def _refuse_control(word: str) -> None:
    found = _CONTROL.search(word)
    if found:
        raise InvalidInput(f"{word!r} holds the control character {found.group()!r}", hint="remove it")


def words_of(nodes: Sequence[Node]) -> list[tuple[str, ...]]:
    """Every directive's words in reading order, blocks opened; for tests and for comparisons."""
    found: list[tuple[str, ...]] = []
    for node in nodes:
        if isinstance(node, Directive):
            found.append(tuple(str(word) for word in node.words))
        elif isinstance(node, Block):
            found.append(tuple(str(word) for word in node.words))
            found.extend(words_of(node.body))
    return found
