"""Templates and expressions of modules, in a sandbox that reaches nothing but the values given to it.

The language is Jinja2's ``if``, ``for``, ``set``, comments, ``raw`` and expressions; there are no
includes, imports, macros or blocks. Attributes, filters and globals are on allow-lists, and loops,
texts and numbers have ceilings, so that a template can neither leave the sandbox (threat 12) nor
exhaust what renders it.

**Every value is quoted where it is printed**, by the serializer of the file's format, unless a
filter named after another format did so already (see :mod:`alveole.catalogue.quoting`).
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alveole.catalogue.manifest import Format
from alveole.catalogue.quoting import Quoted, Unwritable, argument, distinguished, quote

T = TypeVar("T")
#: Characters of a text, rendered or in between.
MOST_TEXT = 1024 * 1024
#: Turns of all loops of one template together.
MOST_TURNS = 100_000
MOST_SOURCE = 256 * 1024
_MOST_NUMBER = 1 << 64


class RenderError(Exception):
    """A template or an expression cannot be rendered; ``line`` is 0 where it is not known.

    ``value`` is what could not be written, for who wants to know where it comes from; it may be a secret.
    """

    def __init__(self, message: str, line: int = 0, value: object = None) -> None:
        super().__init__(message)
        self.message, self.line, self.value = message, line, value


class Names:
    """A read-only set of named values: ``a.title``. No value is ever mistaken for a method."""

    __slots__ = ("label", "values")

    def __init__(self, label: str, values: Mapping[str, object]) -> None:
        self.label, self.values = label, dict(values)

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)


TEXT_METHODS = {
    "lower",
    "upper",
    "startswith",
    "endswith",
    "split",
    "splitlines",
    "strip",
    "lstrip",
    "rstrip",
    "isdigit",
}
_LOOP = {"index", "index0", "revindex", "revindex0", "first", "last", "length", "depth"}
_STATEMENTS = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.For,
    nodes.If,
    nodes.Assign,
    nodes.Scope,
    nodes.Break,
    nodes.Continue,
)
#: Prints what is harmless wherever it stands.
SAFE_FILTERS = frozenset({"plain", "int", "length", "count", "abs", "round", "float", "md5", "sha1", "sha256"})


class _Failed(Exception):
    def __init__(self, reason: str, value: object) -> None:
        super().__init__(reason)
        self.value = value


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | tuple | list) else 0


def _bounded(value: Any) -> Any:
    if _size(value) > MOST_TEXT:
        raise SecurityError(f"a text is longer than {MOST_TEXT:,} characters")
    if isinstance(value, int) and abs(value) > _MOST_NUMBER:
        raise SecurityError("a number is larger than 64 bits")
    return value


def _concat(*values: object) -> str:
    """``a ~ b``: of values, not of what is quoted already, whose quotes would end up inside."""
    out = []
    for value in values:
        if isinstance(value, Quoted):
            raise SecurityError("a quoted value is joined with another: join first, quote last")
        out.append(argument(value))
    return str(_bounded("".join(out)))


def _join(values: Iterable[object], between: str = "") -> str:
    parts = [_concat(value) for value in values]
    if sum(map(len, parts)) + len(between) * len(parts) > MOST_TEXT:
        raise SecurityError(f"a text is longer than {MOST_TEXT:,} characters")
    return between.join(parts)


def _replace(text: object, old: str, new: str) -> str:
    source = argument(text)
    if not old:
        raise SecurityError("nothing cannot be replaced")
    if len(source) + source.count(old) * len(new) > MOST_TEXT:
        raise SecurityError(f"a text is longer than {MOST_TEXT:,} characters")
    return source.replace(old, new)


def _range(*ends: int) -> range:
    made = range(*ends)
    if len(made) > 1000:
        raise SecurityError("a range has more than 1,000 numbers")
    return made


def _digest(kind: str) -> Callable[[object], str]:
    return lambda value: hashlib.new(kind, argument(value).encode(), usedforsecurity=False).hexdigest()


def _ssha(password: object, salt: object) -> str:
    """``{SSHA}`` of RFC 2307. The salt is given, so that the same answers give the same text."""
    grain = hashlib.sha256(f"{argument(salt)}\0{argument(password)}".encode()).digest()[:8]
    digest = hashlib.sha1(argument(password).encode() + grain, usedforsecurity=False).digest()
    return "{SSHA}" + base64.b64encode(digest + grain).decode()


def _quoter(format: Format) -> Callable[[object], Quoted]:
    def as_format(value: object) -> Quoted:
        if isinstance(value, jinja2.Undefined):
            str(value)
        try:
            return Quoted(_bounded(quote(format, value)))
        except Unwritable as error:
            raise _Failed(f"cannot be written as {format}: {error}", value) from None

    return as_format


def _base64(value: object) -> str:
    return str(_bounded(base64.b64encode(argument(value).encode()).decode()))


KEPT_FILTERS = (
    *("default", "d", "lower", "upper", "title", "capitalize", "trim", "length", "count", "int", "float", "round"),
    *("abs", "first", "last", "sort", "unique", "min", "max", "list", "reverse", "select", "reject"),
)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 with allow-lists. ``format`` ``None``: values are printed as they are (arguments, expressions)."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self, format: Format | None) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            extensions=[loopcontrols],
            finalize=self._printed,
            loader=None,
            cache_size=0,
        )
        self.printed_format = format
        filters: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in KEPT_FILTERS}
        filters.update({str(each): _quoter(each) for each in Format})
        filters.update(
            join=_join,
            replace=_replace,
            dn=lambda value: _bounded(distinguished(argument(value))),
            base64=_base64,
            ssha=_ssha,
            **{kind: _digest(kind) for kind in ("md5", "sha1", "sha256")},
            _joined=lambda values: _concat(*values),
            _counted=_counted,
        )
        self.filters = filters
        self.globals = {"range": _range}

    def _printed(self, value: object) -> str:
        if isinstance(value, jinja2.Undefined):
            return str(value)  # StrictUndefined raises, with the name
        if self.printed_format is None:
            try:
                return argument(value)
            except Unwritable as error:
                raise _Failed(f"cannot be an argument: {error}", value) from None
        if isinstance(value, Quoted):
            return value.text
        try:
            return quote(self.printed_format, value)
        except Unwritable as error:
            raise _Failed(f"cannot be written as {self.printed_format}: {error}", value) from None

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return self.limited(super()._parse(source, name, filename))

    def preprocess(self, source: str, name: str | None = None, filename: str | None = None) -> str:
        if len(source) > MOST_SOURCE:
            raise jinja2.TemplateSyntaxError(f"is longer than {MOST_SOURCE:,} characters", 1)
        return super().preprocess(source, name, filename)

    def checked(self, tree: nodes.Template) -> nodes.Template:
        """``tree``, which holds only what is part of the language. Raises ``TemplateSyntaxError``."""
        for node in tree.find_all(nodes.Node):
            _check_node(node)
            if isinstance(node, nodes.Filter | nodes.Test):
                kind, known = ("filter", self.filters) if isinstance(node, nodes.Filter) else ("test", self.tests)
                if node.name not in known or node.name.startswith("_"):
                    raise jinja2.TemplateSyntaxError(f"there is no {kind} {node.name!r}", node.lineno)
        return tree

    def limited(self, tree: nodes.Template) -> nodes.Template:
        """``tree``, checked, with its ceilings. Raises ``TemplateSyntaxError``."""
        self.checked(tree)
        _with_ceilings(tree)
        tree.set_environment(self)
        return tree

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self._named(obj, attribute, super().getattr)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, str) or isinstance(obj, Names):
            return self._named(obj, argument, super().getitem)
        return super().getitem(obj, argument)

    def _named(self, obj: Any, name: Any, otherwise: Callable[[Any, Any], Any]) -> Any:
        if isinstance(obj, Names):
            if isinstance(name, str) and name in obj.values:
                return obj.values[name]
            return self.undefined(hint=f"there is no {obj.label}.{name}")
        return otherwise(obj, name)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, LoopContext):
            return attr in _LOOP
        return isinstance(obj, str) and attr in TEXT_METHODS

    def is_safe_callable(self, obj: Any) -> bool:
        of = getattr(obj, "__self__", None)
        return obj is _range or (isinstance(of, str) and getattr(obj, "__name__", "") in TEXT_METHODS)

    def call(self, context: Any, called: Any, /, *args: Any, **options: Any) -> Any:
        if isinstance(called, jinja2.Undefined):
            str(called)
        if not self.is_safe_callable(called):
            raise SecurityError(
                "only range() and some methods of texts can be called: " + ", ".join(sorted(TEXT_METHODS))
            )
        return super().call(context, called, *args, **options)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, Quoted) or isinstance(right, Quoted):
            raise SecurityError("a quoted value is joined with another: join first, quote last")
        texts = isinstance(left, str | list | tuple) or isinstance(right, str | list | tuple)
        if operator == "**" or (operator != "+" and texts):
            raise SecurityError(f"{operator!r} is for numbers only" if operator != "**" else "there are no powers")
        return _bounded(super().call_binop(context, operator, _bounded(left), _bounded(right)))


def _check_node(node: nodes.Node) -> None:
    if isinstance(node, nodes.Expr | nodes.Helper) or type(node) in _STATEMENTS:
        if isinstance(node, nodes.Filter) and node.node is None:
            raise jinja2.TemplateSyntaxError("filter blocks are not part of the language", node.lineno)
        if isinstance(node, nodes.Getattr | nodes.Name):
            name = node.attr if isinstance(node, nodes.Getattr) else node.name
            if name == "self" and isinstance(node, nodes.Name):
                raise jinja2.TemplateSyntaxError("there is no 'self'", node.lineno)
            if name.startswith("_"):
                raise jinja2.TemplateSyntaxError(f"{name!r}: no name begins with an underscore", node.lineno)
        if isinstance(node, nodes.For) and node.recursive:
            raise jinja2.TemplateSyntaxError("loops are not recursive", node.lineno)
        return
    what = type(node).__name__.lower()
    raise jinja2.TemplateSyntaxError(f"{what!r} is not part of the language of modules", node.lineno)


def _with_ceilings(node: nodes.Node) -> nodes.Node:
    """``~`` and loops go through functions that count."""
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(node, name, _with_ceilings(value))
        elif isinstance(value, list):
            setattr(node, name, [_with_ceilings(each) if isinstance(each, nodes.Node) else each for each in value])
    if isinstance(node, nodes.Concat):
        joined = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(joined, "_joined", [], [], None, None, lineno=node.lineno)
    if isinstance(node, nodes.For):
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
    return node


@jinja2.pass_context
def _counted(context: Any, values: Iterable[object]) -> list[object]:
    if isinstance(values, jinja2.Undefined):
        str(values)
    turns = context.parent["_turns"]
    items = list(values)
    turns.append(turns.pop() + len(items))
    if turns[0] > MOST_TURNS:
        raise SecurityError(f"the loops turn more than {MOST_TURNS:,} times")
    return items


@functools.lru_cache(maxsize=32)
def _sandbox(format: Format | None) -> Sandbox:
    return Sandbox(format)


@functools.lru_cache(maxsize=2048)
def _compiled(format: Format | None, source: str) -> jinja2.Template:
    return _sandbox(format).from_string(source)


def _parsed(box: Sandbox, source: str) -> nodes.Expr:
    parser = Parser(box, source, state="variable")
    tree = parser.parse_expression()
    if not parser.stream.eos:
        raise jinja2.TemplateSyntaxError("something follows the expression", parser.stream.current.lineno)
    return tree


@functools.lru_cache(maxsize=2048)
def _expression(source: str) -> jinja2.Template:
    box = _sandbox(None)
    result = nodes.Assign(nodes.Name("result", "store", lineno=1), _parsed(box, source), lineno=1)
    return box.from_string(box.limited(nodes.Template([result], lineno=1)))


def _line(error: BaseException) -> int:
    found = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(error.message or "is not a template", error.lineno) from None
    except _Failed as error:
        raise RenderError(str(error), _line(error), error.value) from None
    except RecursionError:
        raise RenderError("is nested too deeply") from None
    except jinja2.TemplateError as error:
        raise RenderError(error.message or type(error).__name__, _line(error)) from None
    # Whatever else the author's expression does wrong: a division by zero, a sort of what cannot be compared.
    # Its text is left out: it may hold a value.
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise RenderError(f"cannot be worked out ({type(error).__name__})", _line(error)) from None


def render_text(source: str, format: Format, variables: Mapping[str, object]) -> str:
    """The text of a template; every value it prints is quoted for ``format``. Raises :class:`RenderError`."""
    return _guarded(lambda: _rendered(_compiled(format, source), variables))


def render_argument(source: str, variables: Mapping[str, object]) -> str:
    """One element of an argument vector or one value of the environment, not quoted: it is passed as it is."""
    if "{" not in source:
        return source
    return _guarded(lambda: _rendered(_compiled(None, source), variables))


def evaluate(source: str, variables: Mapping[str, object]) -> object:
    """The value of an expression. Raises :class:`RenderError`."""

    def work() -> object:
        context = _expression(source).new_context({**variables, "_turns": [0]})
        for _ in _expression(source).root_render_func(context):
            pass
        value = context.vars["result"]
        if isinstance(value, jinja2.Undefined):
            str(value)
        return value.text if isinstance(value, Quoted) else value

    return _guarded(work)


def holds(source: str, variables: Mapping[str, object]) -> bool:
    """Whether a condition is met; an empty one is."""
    return not source or bool(evaluate(source, variables))


@functools.lru_cache(maxsize=8)
def parse(source: str, format: Format | None) -> nodes.Template:
    """The tree of a template, for who looks at it and changes nothing. Raises :class:`RenderError`."""
    box = _sandbox(format)
    return _guarded(lambda: box.checked(Parser(box, source).parse()))


def parse_expression(source: str) -> nodes.Template:
    """An expression, as the tree of a template that prints it. Raises :class:`RenderError`."""
    box = _sandbox(None)

    def work() -> nodes.Template:
        printed = nodes.Template([nodes.Output([_parsed(box, source)], lineno=1)], lineno=1)
        printed.set_environment(box)
        return box.checked(printed)

    return _guarded(work)


def _rendered(template: jinja2.Template, variables: Mapping[str, object]) -> str:
    out: list[str] = []
    size = 0
    for piece in template.generate({**variables, "_turns": [0]}):
        size += len(piece)
        if size > MOST_TEXT:
            raise SecurityError(f"the text is longer than {MOST_TEXT:,} characters")
        out.append(piece)
    return "".join(out)
