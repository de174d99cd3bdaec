"""Every text of the code that a page may show, found by reading the code: what errors, hints, defects and changes say.

A text is followed from where it ends (the arguments of an error, of a :class:`Problem`, of what pages show of a site)
back to where it was written: through names, functions that return it, helpers that take it as a parameter, and
exceptions that carry it. What comes out are templates: ``{}`` stands for each part that varies.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

import alveole

SOURCE = Path(alveole.__file__).parent

#: What no page shows: what is said by the doors that speak English alone (the command line, the SSH server, the API
#: itself, the landing of a line), and what is said where no page can be shown: by what starts and keeps the processes,
#: reads their settings at the start or makes a lost machine again, by programs inside of sites, and by migrations; and
#: what is wrong with the text of a module, which its author is told by ``alveole module lint``.
NEVER_ON_A_PAGE = re.compile(
    r"(?:cli|api|ssh|data|store/migrations|incidents/news|catalogue/(?:lint|new|checks|contexts)|__main__|app|control|keeper|remote/landing|restoring|config|sections|wakedoor|testing)"
    r"(?:/|\.py)"
)

#: Where texts end that pages show: of each class the places of its arguments.
ENDS = {
    "Problem": (1, 2),
    "Defect": (1,),
    "Link": (0, 2, 3, 4),
    "Finding": (1, 2),
    "Waiting": (1,),
    "Wrong": (0, 1),
    "_Broken": (0, 1),
    "Failed": (0,),
    "NotReady": (0,),
    "Rejected": (0,),
    "Unwritable": (0,),
    "Astray": (0, 1),
    "Outcome": (1,),
    "Woken": (0, 1, 2),
}
#: The same for what is called by a method: the steps of a change.
STEPS = ("say", "show")
#: What is given by name says enough by its name.
NAMED = {"hint", "message", "cause", "came", "cure", "asked", "problem", "hindrance", "why_not", "reason", "text"}
_MOST = 12


class Place(NamedTuple):
    file: str
    line: int


class _File:
    def __init__(self, path: Path) -> None:
        self.name = str(path.relative_to(SOURCE))
        self.module = "alveole." + self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.above: dict[ast.AST, ast.AST] = {}
        self.imported: dict[str, str] = {}
        self.defined: dict[str, ast.AST] = {}
        self.given: dict[str, list[ast.expr]] = {}
        for node in ast.walk(self.tree):
            for child in ast.iter_child_nodes(node):
                self.above[child] = node
            if isinstance(node, ast.ImportFrom) and node.module:
                for each in node.names:
                    self.imported[each.asname or each.name] = f"{node.module}.{each.name}"
            elif isinstance(node, ast.Import):
                for each in node.names:
                    if each.asname:
                        self.imported[each.asname] = each.name
        for top in self.tree.body:
            if isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.defined[top.name] = top
            elif isinstance(top, ast.Assign):
                for target in top.targets:
                    if isinstance(target, ast.Name):
                        self.given.setdefault(target.id, []).append(top.value)
            elif isinstance(top, ast.AnnAssign) and isinstance(top.target, ast.Name) and top.value:
                self.given.setdefault(top.target.id, []).append(top.value)


_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Reader:
    """Reads the whole code once; ``found`` is each template with the places where it is written."""

    def __init__(self) -> None:
        paths = sorted(each for each in SOURCE.rglob("*.py") if "data" not in each.relative_to(SOURCE).parts)
        self.files = {made.module: made for made in map(_File, paths)}
        self.found: dict[str, set[Place]] = {}
        self._of: dict[ast.AST, _File] = {}
        self._methods: dict[str, list[_Function]] = {}
        self._calls: list[tuple[_File, ast.Call]] = []
        self._raised: set[str] = set()
        self._errors = {"AlveoleError"}
        self._sinks: dict[ast.AST, set[str]] = {}
        self._seen: set[tuple[int, bool]] = set()
        self._reached: dict[int, list[ast.AST]] = {}
        self._grown = True
        self._put: list[tuple[_File, ast.expr]] = []
        for file in self.files.values():
            if NEVER_ON_A_PAGE.match(file.name) or file.name == "web/words.py":
                continue
            for node in ast.walk(file.tree):
                if isinstance(node, ast.Call):
                    self._calls.append((file, node))
                elif isinstance(node, ast.Assign) and any(
                    isinstance(target, ast.Attribute) and target.attr.strip("_") in NAMED for target in node.targets
                ):
                    self._put.append((file, node.value))
                elif isinstance(node, _Function):
                    self._of[node] = file
                    if isinstance(file.above.get(node), ast.ClassDef):
                        self._methods.setdefault(node.name, []).append(node)
                elif isinstance(node, ast.ClassDef):
                    self._of[node] = file
        self._kinds()
        for file, value in self._put:
            self._whole(file, value)
        while self._grown:
            self._grown = False
            for file, call in self._calls:
                self._read(file, call)

    def _kinds(self) -> None:
        """All classes of errors: those below ``AlveoleError``."""
        classes = [each for each in self._of if isinstance(each, ast.ClassDef)]
        before = 0
        while before != len(self._errors):
            before = len(self._errors)
            for each in classes:
                if self._errors & {ast.unparse(base).rpartition(".")[2] for base in each.bases}:
                    self._errors.add(each.name)

    # --- where texts end --------------------------------------------------------------------------
    def _read(self, file: _File, call: ast.Call) -> None:
        name = _called(call)
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "log":
            return
        for keyword in call.keywords:
            if keyword.arg in (("hint", "message") if file.name.startswith("web/") else NAMED):
                self._whole(file, keyword.value)
        whole: tuple[int, ...] = ENDS.get(name, ())
        if name in self._errors | self._raised or (name in STEPS and isinstance(call.func, ast.Attribute)):
            whole = (0,)
        elif name == "__init__" and isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "super()":
            above = self._class(file, call)
            if above is not None and above.name in self._errors | self._raised:
                whole = (0,)
        for place in whole:
            if place < len(call.args):
                self._whole(file, call.args[place])
        if id(call) not in self._reached:
            self._reached[id(call)] = list(self._targets(file, call.func))
        for target in self._reached[id(call)]:
            wanted = self._sinks.get(target, set())
            function = target if isinstance(target, _Function) else _init(target)
            if not wanted or function is None:
                continue
            names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
            if names[:1] in (["self"], ["cls"]):
                names = names[1:]
            given = dict(zip(names, call.args, strict=False)) | {
                each.arg: each.value for each in call.keywords if each.arg
            }
            for each in wanted & given.keys():
                self._whole(file, given[each])
            if function.args.vararg and function.args.vararg.arg in wanted:
                for rest in call.args[len(names) :]:
                    self._whole(file, rest)

    def _targets(self, file: _File, func: ast.expr) -> Iterator[ast.AST]:
        """What a call may call."""
        if isinstance(func, ast.Name):
            node: ast.AST | None = func
            while (node := file.above.get(node)) if node is not None else None:
                if isinstance(node, _Function) and (inner := _inside(node).get(func.id)):
                    yield from inner
                    return
            if func.id in file.defined:
                yield file.defined[func.id]
            elif func.id in file.imported:
                yield from self._named(file.imported[func.id])
        elif isinstance(func, ast.Attribute):
            if isinstance(func.value, ast.Name) and func.value.id in file.imported:
                found = list(self._named(f"{file.imported[func.value.id]}.{func.attr}"))
                if found:
                    yield from found
                    return
            methods = self._methods.get(func.attr, [])
            own = [each for each in methods if self._of[each] is file]
            if isinstance(func.value, ast.Name) and func.value.id in ("self", "cls") and own:
                yield from own
            elif len(methods) <= 4:
                yield from methods

    def _named(self, path: str, depth: int = 0) -> Iterator[ast.AST]:
        module, _dot, name = path.rpartition(".")
        file = self.files.get(module)
        if file is not None and depth < 4:
            if name in file.defined:
                yield file.defined[name]
            elif name in file.imported:
                yield from self._named(file.imported[name], depth + 1)

    # --- from there back --------------------------------------------------------------------------
    def _whole(self, file: _File, node: ast.expr, inside: bool = False) -> None:
        """Note each text that ``node`` may be; ``inside``: it is a part of another, and counts when it has words."""
        marked = isinstance(node, ast.Call) and _called(node) in ("t", "n", "N_")
        if marked or (id(node), inside) in self._seen:
            return
        self._seen.add((id(node), inside))
        for written in self._texts(file, node):
            text = _framed(written)
            parts = text.split()
            told = [each for each in parts if re.fullmatch(r"[('\"]*[A-Za-z]+'?[a-z]*[,;:.)'\"…]*", each)]
            # What has %s is a line of the log.
            if "%s" not in text and (len(told) > 1 if inside else told and len(parts) > 1):
                self.found.setdefault(text, set()).add(Place(file.name, node.lineno))
                self._grown = True

    def _texts(self, file: _File, node: ast.expr) -> list[str]:
        match node:
            case ast.Constant(value=str() as text):
                return [text]
            case ast.JoinedStr():
                parts = [self._part(file, each) for each in node.values]
                return ["".join(each) for each in product(*parts)][:_MOST]
            case ast.IfExp():
                return [*self._texts(file, node.body), *self._texts(file, node.orelse)]
            case ast.BoolOp():
                return [text for each in node.values for text in self._texts(file, each)]
            case ast.BinOp(op=ast.Add()):
                left, right = self._texts(file, node.left) or ["{}"], self._texts(file, node.right) or ["{}"]
                return [one + two for one, two in product(left, right)][:_MOST]
            case ast.NamedExpr():
                return self._texts(file, node.value)
            case ast.Tuple() | ast.List() | ast.Set():
                for each in node.elts:
                    self._whole(file, each, inside=True)
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
                self._whole(file, node.elt, inside=True)
            case ast.Dict():
                for value in node.values:
                    self._whole(file, value, inside=True)
            case ast.Starred() | ast.Await():
                self._whole(file, node.value, inside=True)
            case ast.Subscript():
                self._whole(file, node.value, inside=True)
            case ast.Name():
                self._name(file, node)
            case ast.Call():
                self._call(file, node)
        return []

    def _part(self, file: _File, node: ast.expr) -> list[str]:
        if not isinstance(node, ast.FormattedValue):
            return self._texts(file, node)
        value = node.value
        if isinstance(value, ast.IfExp) and all(
            isinstance(each, ast.Constant | ast.JoinedStr) for each in (value.body, value.orelse)
        ):
            return self._texts(file, value)
        self._whole(file, value, inside=True)
        return ["{}"]

    def _call(self, file: _File, node: ast.Call) -> None:
        func = node.func
        if isinstance(func, ast.Name) and func.id in ("str", "repr", "sorted", "tuple", "list", "next", "iter"):
            for each in node.args[:1]:
                self._whole(file, each, inside=True)
            return
        if isinstance(func, ast.Attribute):
            if func.attr == "join" and isinstance(func.value, ast.Constant):
                for each in node.args:
                    self._whole(file, each, inside=True)
                return
            if func.attr in ("get", "format", "removeprefix", "removesuffix", "replace", "strip", "rstrip"):
                self._whole(file, func.value, inside=True)
                for each in node.args[1:] if func.attr == "get" else ():
                    self._whole(file, each, inside=True)
                return
        for target in self._targets(file, func):
            if isinstance(target, _Function) and target in self._of:
                for one in _own(target):
                    if isinstance(one, ast.Return | ast.Yield) and one.value is not None:
                        self._whole(self._of[target], one.value, inside=True)

    def _name(self, file: _File, node: ast.Name) -> None:
        above: ast.AST | None = node
        while (above := file.above.get(above)) if above is not None else None:
            if isinstance(above, ast.ExceptHandler) and above.name == node.id and above.type is not None:
                kinds = above.type.elts if isinstance(above.type, ast.Tuple) else [above.type]
                for kind in kinds:
                    name = ast.unparse(kind).rpartition(".")[2]
                    if name not in self._errors | self._raised | {"OSError", "Exception"}:
                        self._raised.add(name)
                        self._grown = True
                return
            if isinstance(above, ast.comprehension | ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
                loops = above.generators if not isinstance(above, ast.comprehension) else [above]
                for loop in loops:
                    if node.id in _names(loop.target):
                        self._whole(file, loop.iter, inside=True)
                        return
            if isinstance(above, _Function):
                arguments = above.args
                every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
                named = {each.arg for each in every} | {arguments.vararg.arg if arguments.vararg else ""}
                if node.id in named and node.id not in self._sinks.setdefault(above, set()):
                    self._sinks[above].add(node.id)
                    holder = file.above.get(above)
                    if above.name == "__init__" and holder is not None:
                        self._sinks.setdefault(holder, set()).add(node.id)
                    self._grown = True
                given = list(_given(above, node.id))
                for value in given:
                    self._whole(file, value)
                if given:
                    return
        if node.id in file.given:
            for value in file.given[node.id]:
                self._whole(file, value)
        elif node.id in file.imported:
            module, _dot, name = file.imported[node.id].rpartition(".")
            other = self.files.get(module)
            for value in other.given.get(name, []) if other is not None else []:
                assert other is not None
                self._whole(other, value)

    def written(self) -> set[str]:
        """Every text of the code, whatever it is for, as templates."""
        found: set[str] = set()
        for file in self.files.values():
            for node in ast.walk(file.tree):
                match node:
                    case ast.Constant(value=str() as text):
                        found.add(_framed(text))
                    case ast.JoinedStr():
                        parts = [
                            [str(x.value)] if isinstance(x, ast.Constant) else self._choices(x) for x in node.values
                        ]
                        found |= {_framed("".join(each)) for each in islice(product(*parts), _MOST)}
        return found

    @staticmethod
    def _choices(node: ast.expr) -> list[str]:
        value = node.value if isinstance(node, ast.FormattedValue) else node
        if isinstance(value, ast.IfExp):
            return ["{}", *(str(x.value) for x in (value.body, value.orelse) if isinstance(x, ast.Constant))]
        return ["{}"]

    def _class(self, file: _File, node: ast.AST) -> ast.ClassDef | None:
        above: ast.AST | None = node
        while (above := file.above.get(above)) if above is not None else None:
            if isinstance(above, ast.ClassDef):
                return above
        return None


def _framed(text: str) -> str:
    """A template that can stand by itself: what is put behind or before something else has a place for that, and
    places that touch are one."""
    if re.match(r"[ ;,:]", text):
        text = "{}" + text
    if re.search(r"[;:,] \Z", text):
        text += "{}"
    text = re.sub(r"(?:\{\})+(?=\{\})", "", text)
    # Nothing may stand there.
    return re.sub(r"\A\{\}(?=[a-z]{2})", "", text).strip()


def _called(call: ast.Call) -> str:
    func = call.func
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def _init(node: ast.AST) -> _Function | None:
    body = node.body if isinstance(node, ast.ClassDef) else []
    return next((each for each in body if isinstance(each, _Function) and each.name == "__init__"), None)


@cache
def _own(function: _Function) -> tuple[ast.AST, ...]:
    """The nodes of a function without those of functions inside of it."""
    rest: list[ast.AST] = list(function.body)
    found = []
    while rest:
        node = rest.pop()
        found.append(node)
        if not isinstance(node, _Function | ast.Lambda):
            rest.extend(ast.iter_child_nodes(node))
    return tuple(found)


@cache
def _inside(function: _Function) -> dict[str, list[_Function]]:
    found: dict[str, list[_Function]] = {}
    for node in ast.walk(function):
        if isinstance(node, _Function):
            found.setdefault(node.name, []).append(node)
    return found


def _names(target: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}


def _given(function: _Function, name: str) -> Iterator[ast.expr]:
    """What ``name`` is given in a function."""
    for node in _own(function):
        match node:
            case ast.Assign():
                for target in node.targets:
                    if isinstance(target, ast.Name) and target.id == name:
                        yield node.value
                    elif isinstance(target, ast.Tuple):
                        yield from _unpacked(target, node.value, name)
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                yield value
            case ast.AugAssign(target=ast.Name(id=found)) if found == name:
                yield node.value
            case ast.NamedExpr(target=ast.Name(id=found)) if found == name:
                yield node.value
            case ast.For() if name in _names(node.target):
                yield node.iter
            case ast.Call(func=ast.Attribute(value=ast.Name(id=found), attr="append" | "add"), args=[value]):
                if found == name:
                    yield value


def _unpacked(target: ast.Tuple, value: ast.expr, name: str) -> Iterator[ast.expr]:
    for place, each in enumerate(target.elts):
        if isinstance(each, ast.Name) and each.id == name:
            values = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            for one in values:
                if isinstance(one, ast.Tuple) and len(one.elts) == len(target.elts):
                    yield one.elts[place]
                else:
                    yield one
