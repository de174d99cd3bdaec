"""Where in a file may a quoted value stand? Said of a template when it is read, before any answer is known.

A value that was quoted is safe only where its format begins a value: between quotes that stand in the
template already, ``"{{ a.title }}"``, the quotes of the value would end them, and the rest of it
would be read as code. Such a template is refused, with the line (threat 11). Values made harmless
by ``|plain`` or ``|int`` may stand anywhere.

The text is read once, branches one after the other, so quotes must be closed in the branch that opens them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from jinja2 import nodes

from alveole.catalogue.manifest import Format
from alveole.catalogue.quoting import Unwritable, quote
from alveole.catalogue.render import SAFE_FILTERS, parse

#: Formats whose serializer is right at any place of a file.
ANYWHERE = frozenset({Format.PLAIN, Format.PROPERTIES})
_FORMATS = {str(each): each for each in Format}


@dataclass(frozen=True)
class Misplaced:
    line: int
    message: str
    hint: str


@dataclass(frozen=True)
class _Mark:
    """A printed expression. ``format``: how it is quoted."""

    line: int
    format: Format


@dataclass
class _Text:
    """The template with expressions as marks; harmless ones are a letter."""

    items: list[str | _Mark]

    def at(self, place: int) -> str | _Mark:
        return self.items[place] if 0 <= place < len(self.items) else ""

    def starts(self, place: int, word: str) -> bool:
        return self.items[place : place + len(word)] == list(word)

    def line_before(self, place: int) -> str:
        """What stands before ``place`` on its line; marks as ``\\ue000``."""
        out: list[str] = []
        while place > 0:
            place -= 1
            item = self.items[place]
            if item == "\n":
                break
            out.append(item if isinstance(item, str) else "\ue000")
        return "".join(reversed(out))

    def line_after(self, place: int) -> str:
        out: list[str] = []
        for item in self.items[place + 1 :]:
            if item == "\n":
                break
            out.append(item if isinstance(item, str) else "\ue000")
        return "".join(out)


def misplaced(source: str, format: Format, numbers: Collection[str] = ()) -> list[Misplaced]:
    """The expressions of ``source`` that stand where a value of ``format`` cannot. Raises ``RenderError``.

    ``numbers``: names such as ``a.port`` whose value is known to be a number, a boolean or a plain word.
    """
    tree = parse(source, format)
    items = list(_flat(tree, _Harmless(tree, format, frozenset(numbers))))
    found: dict[int, Misplaced] = {}
    formats = {format} | {item.format for item in items if isinstance(item, _Mark) and format is Format.PLAIN}
    for each in sorted(formats - ANYWHERE):
        for wrong in _SCANNERS[each](_Text(_for_format(items, each, format)), each):
            found.setdefault(wrong.line, wrong)
    return [found[line] for line in sorted(found)]


def _for_format(items: list[str | _Mark], format: Format, main: Format) -> list[str | _Mark]:
    """In a file without a format of its own, each format minds its own values only."""
    if format is main:
        return items
    return ["x" if isinstance(item, _Mark) and item.format is not format else item for item in items]


def _flat(node: nodes.Node, harmless: _Harmless) -> Iterator[str | _Mark]:
    if isinstance(node, nodes.TemplateData):
        yield from node.data
    elif isinstance(node, nodes.Output):
        for each in node.nodes:
            if isinstance(each, nodes.TemplateData):
                yield from each.data
            elif harmless(each):
                yield "x"
            else:
                named = _FORMATS.get(each.name) if isinstance(each, nodes.Filter) else None
                yield _Mark(each.lineno, named or harmless.format)
    elif isinstance(node, nodes.If):
        for branch in (*node.body, *node.elif_, *node.else_):
            yield from _flat(branch, harmless)
    elif isinstance(node, nodes.For):
        for turn in (*node.body, *node.else_):
            yield from _flat(turn, harmless)
    elif isinstance(node, nodes.Template):
        for part in node.body:
            yield from _flat(part, harmless)


class _Harmless:
    """Whether an expression prints only what means the same with quotes and without: numbers, plain words."""

    def __init__(self, tree: nodes.Template, format: Format, numbers: frozenset[str]) -> None:
        self.format, self.numbers = format, numbers
        self.sets: dict[str, list[nodes.Node | None]] = {}
        for assign in tree.find_all(nodes.Assign):
            self._made(assign.target, assign.node)
        for loop in tree.find_all(nodes.For):
            self._made(loop.target, _items(loop.iter))
        self.asking: set[str] = set()

    def _made(self, target: nodes.Node, source: nodes.Node | None) -> None:
        if isinstance(target, nodes.Name):
            self.sets.setdefault(target.name, []).append(source)
        for part in target.find_all(nodes.Name):
            self.sets.setdefault(part.name, []).append(None)

    def __call__(self, node: nodes.Node | None) -> bool:
        if isinstance(node, nodes.Const):
            return self._const(node.value)
        if isinstance(node, nodes.CondExpr):
            return self(node.expr1) and (node.expr2 is None or self(node.expr2))
        if isinstance(node, nodes.Filter):
            if node.name in ("max", "min", "first", "last"):
                return self(_items(node.node))
            if node.name in ("default", "d"):
                return self(node.node) and all(map(self, node.args[:1]))
            return node.name in SAFE_FILTERS
        if isinstance(node, nodes.List | nodes.Tuple):
            return bool(node.items) and all(map(self, node.items))
        if isinstance(node, nodes.And | nodes.Or):
            return self(node.left) and self(node.right)
        if isinstance(node, nodes.Name):
            return self._name(node.name)
        if isinstance(node, nodes.Getattr | nodes.Getitem):
            return self._attribute(node)
        return self._number(node)

    def _number(self, node: nodes.Node | None) -> bool:
        """Arithmetic gives numbers; of the operators only ``+`` takes texts, and then no number beside them."""
        if isinstance(node, nodes.Sub | nodes.Mul | nodes.Div | nodes.FloorDiv | nodes.Mod | nodes.Neg):
            return True
        if isinstance(node, nodes.Compare | nodes.Not | nodes.Test):
            return self.format is not Format.LDIF
        if isinstance(node, nodes.Add):
            return any(
                isinstance(each, nodes.Const) and isinstance(each.value, int) for each in (node.left, node.right)
            )
        return isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "range"

    def _const(self, value: object) -> bool:
        try:
            return quote(self.format, value) == str(value)
        except Unwritable:
            return False

    def _name(self, name: str) -> bool:
        if name in self.asking or name not in self.sets:
            return False
        self.asking.add(name)
        try:
            return all(map(self, self.sets[name]))
        finally:
            self.asking.discard(name)

    def _attribute(self, node: nodes.Getattr | nodes.Getitem) -> bool:
        if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Dict):
            return all(self(pair.value) for pair in node.node.items)
        name = dotted(node)
        return name in self.numbers or name.startswith(("plan.", "loop."))


def _items(node: nodes.Node | None) -> nodes.Node | None:
    """What a loop over ``node`` goes through, where it is written down."""
    written = isinstance(node, nodes.List | nodes.Tuple)
    return node if written or (isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name)) else None


def dotted(node: nodes.Node) -> str:
    """``answers.php.seconds`` for the node of that name; empty for anything else."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        before = dotted(node.node)
        return f"{before}.{node.attr}" if before else ""
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        before = dotted(node.node)
        return f"{before}.{node.arg.value}" if before else ""
    return ""


_PGSQL_COMMENTS: tuple[str, ...] = ("--",)
_SQL_COMMENTS: tuple[str, ...] = ("-- ", "--\t", "#")
_QUOTES = "write {{ … }} without quotes around it: they are added; or make the value harmless with |plain or |int"
# What a value follows: `key =`, or `key` and a blank as Redis has it.
_INI_KEY = re.compile(r"(?:=\s*|^\s*[\w.-]+[ \t]+)\Z")
_COMMENT = "take it out of the comment, or write {{ … |plain }}"


def _code(
    text: _Text,
    format: Format,
    *,
    quotes: str,
    line_comments: tuple[str, ...] = (),
    block: tuple[str, str] | None = None,
    escapes: str = "",
    word_comments: bool = False,
    doubled: bool = False,
) -> Iterator[tuple[int, str]]:
    """Each mark with the state it stands in: ``""``, a quote, ``comment``. The states most languages share."""
    state = ""
    place, end = 0, len(text.items)
    while place < end:
        item = text.items[place]
        if isinstance(item, _Mark):
            yield place, state
        elif state == "comment":
            if item == "\n":
                state = ""
        elif state == "block":
            if block and text.starts(place, block[1]):
                state, place = "", place + len(block[1]) - 1
        elif state:
            if item == "\\" and state in escapes:
                place += 0 if isinstance(text.at(place + 1), _Mark) else 1
            elif item == state:
                if doubled and text.at(place + 1) == state:
                    place += 1
                else:
                    state = ""
        elif item == "\\" and escapes:
            if isinstance(text.at(place + 1), _Mark):
                yield place + 1, "\\"
            place += 1
        elif item in quotes:
            state = item
        elif block and text.starts(place, block[0]):
            state, place = "block", place + len(block[0]) - 1
        elif any(text.starts(place, mark) for mark in line_comments) and (
            not word_comments or text.at(place - 1) in ("", " ", "\t", "\n", ";", "(", "&", "|")
        ):
            state = "comment"
        place += 1


def _wrong(text: _Text, place: int, state: str) -> Misplaced | None:
    item = text.items[place]
    line = item.line if isinstance(item, _Mark) else 0
    if state in ("comment", "block"):
        return Misplaced(line, "a value is printed inside a comment", _COMMENT)
    if state == "\\":
        return Misplaced(line, "a backslash stands before a printed value", "take it away")
    if state:
        return Misplaced(line, f"a value is printed between quotes ({state})", _QUOTES)
    return None


def _shell(text: _Text, format: Format) -> Iterator[Misplaced]:
    text, bodies = _without_heredocs(text)
    for mark in bodies:
        yield Misplaced(mark.line, "a value is printed in a here-document", "write it into a file of its own")
    for place, state in _code(text, format, quotes="'\"`", line_comments=("#",), escapes='"`', word_comments=True):
        wrong = _wrong(text, place, state)
        if wrong is None and text.at(place - 1) == "$":
            wrong = Misplaced(_line(text, place), "a dollar sign stands before a printed value", "take it away")
        if wrong:
            yield wrong


def _without_heredocs(text: _Text) -> tuple[_Text, list[_Mark]]:
    """The script without the bodies of its here-documents, and the marks in those."""
    kept: list[str | _Mark] = []
    marks: list[_Mark] = []
    ends: list[str] = []
    line: list[str | _Mark] = []
    for item in [*text.items, "\n"]:
        line.append(item)
        if item != "\n":
            continue
        plain = "".join(each if isinstance(each, str) else "\ue000" for each in line)
        if ends:
            marks += [each for each in line if isinstance(each, _Mark)]
            if plain.strip() == ends[0]:
                ends.pop(0)
        else:
            kept += line
            ends = [found[1] for found in re.findall(r"(?<!<)<<-?\s*(['\"]?)(\w+)\1", plain)]
        line = []
    return _Text(kept), marks


def _sql(text: _Text, format: Format) -> Iterator[Misplaced]:
    if format is Format.PGSQL:
        quotes, comments = "'\"", _PGSQL_COMMENTS
        text, bodies = _without_dollars(text)
        for mark in bodies:
            yield Misplaced(mark.line, "a value is printed between dollar quotes", "write the body without answers")
    else:
        quotes, comments = "'\"`", _SQL_COMMENTS
    escapes = "" if format is Format.PGSQL else "'\""
    found = _code(
        text, format, quotes=quotes, line_comments=comments, block=("/*", "*/"), escapes=escapes, doubled=True
    )
    for place, state in found:
        wrong = _wrong(text, place, state)
        before, after = text.at(place - 1), text.at(place + 1)
        if wrong is None and (
            isinstance(before, _Mark)
            or re.match(r"[\w'\"`$@]", before)
            or (isinstance(after, str) and after in "'\"`" and after)
        ):
            hint = "put a blank or an operator between, or join the parts: {{ 'a' ~ b }}"
            wrong = Misplaced(_line(text, place), "a literal stands right beside something else", hint)
        if wrong:
            yield wrong


def _without_dollars(text: _Text) -> tuple[_Text, list[_Mark]]:
    plain = "".join(each if isinstance(each, str) else "\ue000" for each in text.items)
    kept: list[str | _Mark] = []
    marks: list[_Mark] = []
    last = 0
    for found in re.finditer(r"(\$(?:[A-Za-z_]\w*)?\$).*?(?:\1|\Z)", plain, re.DOTALL):
        kept += text.items[last : found.start()]
        marks += [each for each in text.items[found.start() : found.end()] if isinstance(each, _Mark)]
        last = found.end()
    return _Text([*kept, *text.items[last:]]), marks


def _php(text: _Text, format: Format) -> Iterator[Misplaced]:
    plain = "".join(each if isinstance(each, str) else "\ue000" for each in text.items)
    spans = [found.span() for found in re.finditer(r"<\?(?:php\b|=).*?(?:\?>|\Z)", plain, re.DOTALL)]
    for place, item in enumerate(text.items):
        if isinstance(item, _Mark) and not any(start <= place < end for start, end in spans):
            yield Misplaced(item.line, "a value is printed outside of <?php … ?>", "put it inside, or use |xml")
    for start, end in spans:
        inner = _Text(text.items[start + 2 : end])
        here = re.search(r"<<<\s*['\"]?(\w+)", plain[start:end])
        if here and any(isinstance(each, _Mark) for each in inner.items[here.end() - 2 :]):
            marks = [each for each in inner.items[here.end() - 2 :] if isinstance(each, _Mark)]
            yield Misplaced(marks[0].line, "a value is printed after a here-document began", "use ordinary strings")
        for place, state in _code(
            inner, format, quotes="'\"`", line_comments=("//", "#"), block=("/*", "*/"), escapes="'\"`"
        ):
            wrong = _wrong(inner, place, state)
            if wrong:
                yield wrong


def _words(text: _Text, format: Format) -> Iterator[Misplaced]:
    """nginx and Apache: a value is one whole word."""
    after_ok = " \t\n;)" if format is Format.NGINX else " \t\n>"
    for place, state in _code(text, format, quotes="'\"", line_comments=("#",), escapes="'\"", word_comments=True):
        wrong = _wrong(text, place, state)
        before, after = text.at(place - 1), text.at(place + 1)
        alone = before in ("", " ", "\t", "\n") and isinstance(after, str) and (not after or after in after_ok)
        if wrong is None and not alone:
            hint = "a value is a whole word: join its parts, {{ 'unix:' ~ socket }}, or make it |plain"
            wrong = Misplaced(_line(text, place), "a value is printed in the middle of a word", hint)
        if wrong:
            yield wrong


def _ini(text: _Text, format: Format) -> Iterator[Misplaced]:
    for place, item in enumerate(text.items):
        if isinstance(item, _Mark):
            before, after = text.line_before(place), text.line_after(place)
            if before.lstrip().startswith((";", "#")):
                yield Misplaced(item.line, "a value is printed inside a comment", _COMMENT)
            elif not (_INI_KEY.search(before) and not after.strip()) and (before.strip() or after.strip() != "{"):
                hint = "a value is all that follows its key: join its parts, {{ a.size ~ 'M' }}, or make it |plain"
                yield Misplaced(item.line, "a value is printed beside other text", hint)


def _ldif(text: _Text, format: Format) -> Iterator[Misplaced]:
    for place, item in enumerate(text.items):
        if isinstance(item, _Mark):
            before, after = text.line_before(place), text.line_after(place)
            if not re.match(r"[A-Za-z0-9][A-Za-z0-9.;-]*:\Z", before) or after:
                hint = "write the attribute, a colon and the expression: cn:{{ a.title }}, with no blank"
                yield Misplaced(item.line, "a value is printed elsewhere than right behind 'attribute:'", hint)


def _flow(text: _Text, format: Format) -> Iterator[Misplaced]:
    """YAML, TOML and JSON: a value stands where a value begins. JSON's rules serve JavaScript as well."""
    json = format is Format.JSON
    found = _code(
        # An apostrophe inside a plain YAML word is no quote; one after a blank is.
        _plain_apostrophes(text, format),
        format,
        quotes="'\"`" if json else "'\"",
        line_comments=("//",) if json else ("#",),
        block=("/*", "*/") if json else None,
        escapes="'\"`" if json else '"',
    )
    begins, ends = (":[,{=(", ",]}:;)") if json else (":[,{=.?-", ",]}:#=.")
    for place, state in found:
        wrong = _wrong(text, place, state)
        before, after = text.line_before(place).rstrip(), text.line_after(place).lstrip()
        fits = (not before or before[-1] in begins) and (not after or after[0] in ends)
        if wrong is None and not fits:
            hint = "join its parts: {{ 'a' ~ b }}"
            wrong = Misplaced(_line(text, place), "a value is printed beside other text", hint)
        if wrong:
            yield wrong


def _plain_apostrophes(text: _Text, format: Format) -> _Text:
    if format is not Format.YAML:
        return text
    items: list[str | _Mark] = []
    for place, item in enumerate(text.items):
        before = text.at(place - 1)
        inside = item == "'" and isinstance(before, str) and before.isalnum() and str(text.at(place + 1)).isalnum()
        items.append("x" if inside else item)
    return _Text(items)


def _xml(text: _Text, format: Format) -> Iterator[Misplaced]:
    state = ""
    ends = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>", "<!": ">"}
    place, end = 0, len(text.items)
    while place < end:
        item = text.items[place]
        if isinstance(item, _Mark):
            if state == "tag":
                yield Misplaced(item.line, "a value is printed inside a tag without quotes", 'write name="{{ … }}"')
            elif state in ends:
                yield Misplaced(item.line, f"a value is printed inside {state}", _COMMENT)
            elif state and item.format is not Format.XML:
                yield Misplaced(item.line, "a value of another format is printed into an attribute", "add |xml")
        elif state in ends:
            if text.starts(place, ends[state]):
                place, state = place + len(ends[state]) - 1, ""
        elif state == "tag":
            state = item if item in "'\"" else "" if item == ">" else state
        elif state:
            state = "tag" if item == state else state
        elif item == "<":
            state = next((mark for mark in ends if text.starts(place, mark)), "tag")
        place += 1


def _line(text: _Text, place: int) -> int:
    item = text.items[place]
    return item.line if isinstance(item, _Mark) else 0


_SCANNERS = {
    Format.SHELL: _shell,
    Format.SQL: _sql,
    Format.PGSQL: _sql,
    Format.PHP: _php,
    Format.NGINX: _words,
    Format.APACHE: _words,
    Format.INI: _ini,
    Format.LDIF: _ldif,
    Format.YAML: _flow,
    Format.TOML: _flow,
    Format.JSON: _flow,
    Format.XML: _xml,
}
