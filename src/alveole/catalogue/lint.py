"""Everything wrong or unwise with a module, for its author: ``alveole module lint DIR``.

On top of what keeps a module out of the catalogue (:mod:`alveole.catalogue.checks`), it is composed
here with the modules it needs: in development and production, with each of its choices, and with
hostile answers to every question that takes a text.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import nodes

from alveole.catalogue.answers import SiteContext
from alveole.catalogue.checks import Checker, check, expressions, references, texts, vectors
from alveole.catalogue.compose import Composition, compose
from alveole.catalogue.grammar import USERS, alternatives
from alveole.catalogue.manifest import Format, Module, Question, QuestionType
from alveole.catalogue.questions import Wrong, read
from alveole.catalogue.reading import MANIFEST, Finding, Reading, read_module
from alveole.catalogue.render import RenderError, parse, parse_expression
from alveole.catalogue.solve import solve
from alveole.catalogue.sources import OWN, OWN_FOLDER, Catalogue, load
from alveole.errors import InvalidInput, Problem
from alveole.model.site import BUILT_IN_PLANS, Kept, UpdateMode, When
from alveole.proxyconf import parse_nginx

#: Answers that end strings, lines, blocks and comments of one format or another, and templates.
HOSTILE = (
    "it's",
    'a "b" c',
    "back\\slash\\",
    "$HOME ${HOME} $(id) `id`",
    "a; b # c // d -- e",
    "<b>&amp;</b> ]]> --> ?>",
    "{{ ''.__class__ }} {% include '/etc/passwd' %}",
    "%{x} @y !z *",
    "[section]",
    "é ü 漢字 😀",
    "=",
)
_TEXTS = {QuestionType.STRING, QuestionType.PASSWORD, QuestionType.PATH, QuestionType.EMAIL}


def _parse_xml(text: str) -> Any:
    # Large, and wanted only by who writes modules.
    from xml.etree import ElementTree

    try:
        return ElementTree.fromstring(text.encode())  # noqa: S314  made by us
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error


_PARSERS: dict[Format, Callable[[str], Any]] = {
    Format.TOML: tomllib.loads,
    Format.NGINX: parse_nginx,
    Format.XML: _parse_xml,
}


def lint(folder: Path, catalogue: Catalogue | None = None) -> list[Finding]:
    """What is wrong (``warning`` false) or unwise with the module in ``folder``, by file and line.

    ``catalogue``: the modules it may need; by default those of this machine. Never raises for what is in it.
    """
    folder = folder.resolve()
    origin = OWN if folder.parent == OWN_FOLDER else str(folder.parent)
    reading = read_module(folder, origin)
    findings = list(reading.findings)
    for name in reading.unused:
        findings.append(Finding(name, 0, "", "is named by no [[file]]", "name it, or take it away"))
    module = reading.module
    if module is not None:
        own = check(module, reading.source)
        findings += own
        others = (catalogue or load()).modules.values()
        known = Catalogue([module, *(each for each in others if each.name != module.name)])
        checker = Checker(module, reading.source)
        _beside(checker, known)
        _unwise(checker)
        if not any(not each.warning for each in findings):
            _composed(checker, reading, known)
        findings += checker.findings
    return sorted(set(findings))


def _trees(checker: Checker) -> Iterator[tuple[str, str, nodes.Template]]:
    """Every template and expression as file, key and tree."""
    manifest = checker.manifest
    for key, text in expressions(manifest):
        if text:
            yield from _tree(MANIFEST, key, lambda text=text: parse_expression(text))
    for key, argv in vectors(manifest):
        for at, text in enumerate(argv):
            yield from _tree(MANIFEST, f"{key}[{at}]", lambda text=text: parse(text, None))
    for key, text in texts(manifest):
        yield from _tree(MANIFEST, key, lambda text=text: parse(text, None))
    for entry in manifest.files:
        source = checker.module.templates.get(entry.template)
        if source is not None:
            place, format = f"templates/{entry.template}", entry.format
            yield from _tree(place, "", lambda source=source, format=format: parse(source, format))


def _tree(file: str, key: str, work: Callable[..., nodes.Template]) -> Iterator[tuple[str, str, nodes.Template]]:
    try:
        yield file, key, work()
    except RenderError:
        return  # told already


def _beside(checker: Checker, catalogue: Catalogue) -> None:
    """What names other modules: their accounts, processes and answers."""
    manifest = checker.manifest
    needed = _reachable(checker.module, catalogue)
    users = set(USERS) | {each.name for module in needed for each in module.manifest.accounts}
    for kind, entries in (
        ("process", [(each.user, "user") for each in manifest.processes]),
        ("volume", [(each.user, "user") for each in manifest.volumes]),
        ("file", [(each.user, "user") for each in manifest.files]),
        ("task", [(each.user, "user") for each in manifest.tasks]),
        ("check", [(each.user, "user") for each in manifest.checks]),
        ("log", [(each.user, "user") for each in manifest.logs]),
    ):
        for at, (user, key) in enumerate(entries):
            if user not in users:
                checker.add(
                    f"{kind}[{at}].{key}", f"there is no user {user!r}", "known are " + ", ".join(sorted(users))
                )
    processes = {each.name for module in catalogue.modules.values() for each in module.manifest.processes}
    for at, entry in enumerate(manifest.files):
        for name in entry.restarts:
            if name not in processes:
                checker.add(f"file[{at}].restarts", f"there is no process {name!r} in any module")
    for need in manifest.needs.mandatory:
        for name in alternatives(need):
            if catalogue.get(name) is None and not catalogue.providers(name):
                checker.add("needs.mandatory", f"there is no module {name!r}", "see: alveole module list")
    for name in manifest.needs.optional:
        if catalogue.get(name) is None and not catalogue.providers(name):
            checker.warn("needs.optional", f"there is no module {name!r}", "see: alveole module list")
    for file, key, tree in _trees(checker):
        for section, name, line in references(tree):
            if not section.startswith("answers."):
                continue
            other = catalogue.modules.get(section.removeprefix("answers."))
            line = 0 if file == MANIFEST else line
            asked = {each.name: each for each in other.manifest.questions} if other else {}
            if other is None:
                checker.add(key, f"there is no module {section.removeprefix('answers.')!r}", file=file, line=line)
            elif name not in asked:
                hint = "it asks " + (", ".join(asked) or "nothing")
                checker.add(key, f"module {other.name!r} has no question {name!r}", hint, file=file, line=line)
            elif ".argv[" in key and asked[name].type is QuestionType.PASSWORD:
                checker.add(key, f"shows the password of {other.name!r} to everybody who lists processes", _FILE)


_FILE = "put it into a file of mode 0600 that the program reads"


def _reachable(module: Module, catalogue: Catalogue) -> list[Module]:
    """The module and all that it needs or may come with."""
    found: dict[str, Module] = {}
    todo = [module]
    while todo:
        each = todo.pop()
        if each.name in found:
            continue
        found[each.name] = each
        for name in (
            *each.manifest.needs.optional,
            *(n for need in each.manifest.needs.mandatory for n in alternatives(need)),
        ):
            other = catalogue.get(name)
            todo += [other] if other else [catalogue.modules[one] for one in catalogue.providers(name)]
    return list(found.values())


def _unwise(checker: Checker) -> None:
    manifest = checker.manifest
    for at, process in enumerate(manifest.processes):
        if not process.ready and process.order < 90:
            message = f"nothing says when {process.name!r} is ready, so what comes after may be too early"
            checker.warn(f"process[{at}]", message, "add ready = […], a program that succeeds once it is")
    if manifest.web is not None and "health" not in _table(checker.source, "web"):
        checker.warn("web", "no health path is given, so '/' is asked", "name a path that answers quickly")
    if manifest.description.fr == manifest.description.en:
        checker.warn("description.fr", "is the English text", "translate it")
    for at, question in enumerate(manifest.questions):
        same = question.title.fr == question.title.en and " " in question.title.en
        if same or (question.description and question.description.fr == question.description.en):
            checker.warn(f"question[{at}]", "its French text is the English one", "translate it")
    cold = [each.name for each in manifest.volumes if each.backup is Kept.COLD]
    points = {each.when for each in manifest.tasks}
    if cold and manifest.update is UpdateMode.BLUE_GREEN:
        message = f"two instances would share the volume {cold[0]!r} during an update"
        checker.warn("update", message, 'write update = "stop-start"')
    if cold and not {When.BACKUP, When.RESTORE} <= points:
        message = f"a backup of a running site leaves out {cold[0]!r}, and nothing stands in for it"
        checker.warn("volume", message, 'add tasks with when = "backup" and when = "restore"')
    secret = {f"a.{each.name}" for each in manifest.questions if each.type is QuestionType.PASSWORD}
    for at, entry in enumerate(manifest.files):
        source = checker.module.templates.get(entry.template, "")
        used = {
            f"{section}.{name}"
            for _, _, tree in _tree("", "", lambda s=source, f=entry.format: parse(s, f))
            for section, name, _ in references(tree)
        }
        if used & secret and int(entry.mode, 8) & 0o004:
            message = f"every user of the container may read the password in {entry.path}"
            checker.warn(f"file[{at}].mode", message, "0600 and the user who reads it, or 0640")


def _table(source: str, name: str) -> Mapping[str, Any]:
    found = tomllib.loads(source).get(name, {})
    return found if isinstance(found, dict) else {}


# -- composing ---------------------------------------------------------------------------------------------------


def _context() -> SiteContext:
    return SiteContext(
        name="my-site",
        domain="my-site.example.org",
        domains=("my-site.example.org", "www.example.org"),
        url="https://my-site.example.org",
        limits=BUILT_IN_PLANS[1].limits,
    )


def _composed(checker: Checker, reading: Reading, catalogue: Catalogue) -> None:
    module = checker.module
    context = _context()
    base: dict[str, Any] = {}
    # Someone will answer what has no default; for a composition any answer that fits will do.
    for question in module.manifest.questions:
        made_up = question.default is not None or question.default_from or question.type is QuestionType.PASSWORD
        if question.required and not made_up and not question.when:
            value = _some(question)
            if value is None:
                at = module.manifest.questions.index(question)
                message = "no answer that fits comes to mind, so the module was not composed"
                checker.warn(f"question[{at}]", message, "give it a default, if only for this check")
                return
            base[question.name] = value

    def attempt(asked: list[str], generic: dict[str, Any], own: dict[str, Any], what: str, mild: bool = True) -> None:
        try:
            made = compose(catalogue, asked, {"": generic, module.name: own}, context)
        except InvalidInput as error:
            for problem in error.problems:
                # That an answer is refused is as it should be, unless it is one that nobody gave.
                if not (mild and problem.field.startswith(f"answers.{module.name}.")):
                    _tell(checker, problem, what)
            return
        for finding in _parsed(made, module):
            checker.findings.append(
                msgspec.structs.replace(finding, message=f"{finding.message} ({what})") if what else finding
            )

    for version in ("prod", "dev"):
        attempt([module.name], {"version": version}, base, f"with version = {version}", False)
    if checker.findings and any(not each.warning for each in checker.findings):
        return
    for optimisation in ("big", "huge"):
        attempt([module.name], {"optimisation": optimisation}, base, f"with optimisation = {optimisation}")
    for question in module.manifest.questions:
        for value in _each(question):
            said = "yes" if value is True else "no" if value is False else value
            attempt([module.name], {}, {**base, question.name: value}, f"with {question.name} = {said}")
    for need in module.manifest.needs.mandatory:
        for name in alternatives(need):
            other = catalogue.get(name)
            if other is not None and other.name not in _names(catalogue, module.name):
                attempt([module.name, other.name], {}, base, f"together with {other.name}")
    for version in ("prod", "dev"):
        for question in module.manifest.questions:
            for text in HOSTILE if question.type in _TEXTS else ():
                own = {**base, question.name: text}
                attempt([module.name], {"version": version}, own, f"with {question.name} = {text!r}")


def _names(catalogue: Catalogue, name: str) -> tuple[str, ...]:
    try:
        return solve(catalogue, [name]).names
    except InvalidInput:
        return ()


def _some(question: Question) -> Any:
    """An answer for a question that has no default; ``None`` when none comes to mind."""
    tries: tuple[Any, ...] = (
        *(each.value for each in question.choices),
        *("https://example.org/example", "example", "example.org", "me@example.org", "/data/example", "Example"),
        *("example-example-example", True, question.min, 1, 8, 64, 1024, 8080, "64M"),
    )
    for value in tries:
        try:
            read(question, value)
        except Wrong:
            continue
        return value
    return None


def _each(question: Question) -> tuple[Any, ...]:
    if question.type is QuestionType.BOOLEAN:
        return (True, False)
    if question.type is QuestionType.CHOICE:
        return tuple(each.value for each in question.choices)
    if question.type is QuestionType.CHOICES:
        return tuple((each.value,) for each in question.choices)
    return ()


def _tell(checker: Checker, problem: Problem, what: str) -> None:
    place = problem.field.removeprefix(f"{checker.module.name}: ")
    file, _, line = place.partition(":")
    message = f"{problem.message} ({what})" if what else problem.message
    if place != problem.field and file.startswith("templates/"):
        checker.add("", message, file=file, line=int(line) if line.isdigit() else 0)
    elif place != problem.field:
        checker.add(place, message)
    else:
        checker.add("", f"{problem.field}: {message}", problem.hint)


def _parsed(made: Composition, module: Module) -> Iterator[Finding]:
    """Files of formats that can be read here are read back."""
    texts_of = {each.path: each.text for each in made.files}
    for entry in module.manifest.files:
        parser = _PARSERS.get(entry.format)
        if entry.format is Format.JSON and entry.path.endswith(".json"):
            parser = json.loads
        text = texts_of.get(entry.path)
        if parser is None or text is None or not entry.template:
            continue
        if entry.format is Format.XML and not text.lstrip().startswith("<?xml"):
            continue  # HTML, or a part of a document
        try:
            parser(text)
        except (ValueError, InvalidInput) as error:
            yield Finding(f"templates/{entry.template}", 0, "", f"what it gives is not {entry.format}: {error}")
