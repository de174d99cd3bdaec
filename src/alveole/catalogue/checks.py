"""What can be said of one module by itself, once its manifest has the right shape.

:func:`check` finds everything that keeps a module out of the catalogue; what is only unwise is a
warning, and ``alveole module lint`` tells both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from jinja2 import nodes

from alveole.catalogue.contexts import dotted, misplaced
from alveole.catalogue.grammar import PATH_HINT, PLANS, USERS, alternatives, check_link, script_places
from alveole.catalogue.manifest import (
    MODULE_NAME,
    OTHER_IDS,
    OWN_IDS,
    FileEntry,
    Format,
    Manifest,
    Module,
    OperationEntry,
    Question,
    QuestionType,
)
from alveole.catalogue.questions import GENERIC, PASSWORD_LENGTH, Wrong, is_empty, read
from alveole.catalogue.quoting import Unwritable, quote
from alveole.catalogue.reading import MANIFEST, Finding, line_of
from alveole.catalogue.render import RenderError, parse, parse_expression
from alveole.model.names import ENV_FORBIDDEN, check_mount_path
from alveole.model.operation import check as check_operation
from alveole.model.site import CONFIG_PATH

OWN_ORIGIN = "alveole"
SITE_KEYS = frozenset({"name", "domain", "domains", "url", "https_only", "content"})
PLAN_KEYS = frozenset({"memory_mb", "cpus", "disk_mb"})
TOP = frozenset({"a", "answers", "generic", "modules", "logs", "site", "plan", "socket", "range"})
_NUMBERS = {QuestionType.INTEGER, QuestionType.PORT, QuestionType.SIZE, QuestionType.BOOLEAN}
_CHOOSING = {QuestionType.CHOICE, QuestionType.CHOICES}
_INTERPRETERS = re.compile(r"(?:python|perl|php|node|ruby|lua|mariadb|mysql|psql|sqlite|redis-cli|awk)[\w.-]*\Z")
_PROGRAM_TEXT = re.compile(r"-{1,2}(?:c|e|r|eval|execute|command)\Z")
_SEE = "docs/reference/module.md"


class Checker:
    """Collects findings. ``source`` is the text of the manifest, for the lines."""

    def __init__(self, module: Module, source: str = "") -> None:
        self.module, self.manifest, self.source = module, module.manifest, source
        self.findings: list[Finding] = []
        self.questions = {each.name: each for each in module.manifest.questions}

    def add(self, key: str, message: str, hint: str = "", *, file: str = MANIFEST, line: int = 0) -> None:
        line = line or (line_of(self.source, key) if file == MANIFEST else 0)
        self.findings.append(Finding(file, line, key, message, hint))

    def warn(self, key: str, message: str, hint: str = "", *, file: str = MANIFEST, line: int = 0) -> None:
        line = line or (line_of(self.source, key) if file == MANIFEST else 0)
        self.findings.append(Finding(file, line, key, message, hint, True))


def check(module: Module, source: str = "") -> list[Finding]:
    """Everything wrong with ``module`` by itself, and warnings. Reads nothing."""
    checker = Checker(module, source)
    _names(checker)
    for at, question in enumerate(module.manifest.questions):
        _question(checker, question, f"question[{at}]")
    _accounts(checker)
    _places(checker)
    _web(checker)
    for at, operation in enumerate(module.manifest.operations):
        _operation(checker, operation, f"operation[{at}]")
    for at, entry in enumerate(module.manifest.files):
        _file(checker, entry, f"file[{at}]")
    for key, text in expressions(module.manifest):
        _expression(checker, key, text)
    for key, argv in vectors(module.manifest):
        _vector(checker, key, argv)
    for key, text in texts(module.manifest):
        _argument(checker, key, text, None)
    return sorted(checker.findings)


def expressions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Every expression of a manifest with its key."""
    for at, question in enumerate(manifest.questions):
        yield f"question[{at}].default_from", question.default_from
        yield f"question[{at}].when", question.when
    for at, optional in enumerate(manifest.packages.optional):
        yield f"packages.optional[{at}].when", optional.when
    for at, optional in enumerate(manifest.build.optional if manifest.build is not None else ()):
        yield f"build.optional[{at}].when", optional.when
    for kind, entries in (
        ("process", manifest.processes),
        ("volume", manifest.volumes),
        ("file", manifest.files),
        ("link", manifest.links),
        ("check", manifest.checks),
        ("operation", manifest.operations),
    ):
        for at, entry in enumerate(entries):
            yield f"{kind}[{at}].when", getattr(entry, "when")  # noqa: B009  six types with one field
    for at, task in enumerate(manifest.tasks):
        yield f"task[{at}].only", task.only


def vectors(manifest: Manifest) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every argument vector."""
    for at, process in enumerate(manifest.processes):
        yield f"process[{at}].argv", process.argv
        yield f"process[{at}].ready", process.ready
    for at, task in enumerate(manifest.tasks):
        yield f"task[{at}].argv", task.argv
    for at, check_entry in enumerate(manifest.checks):
        yield f"check[{at}].argv", check_entry.argv
    for at, operation in enumerate(manifest.operations):
        yield f"operation[{at}].argv", operation.argv


def texts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Every other text that is a template of its own."""
    for name, value in manifest.env.items():
        yield f"env.{name}", value
    own = [(f"process[{at}]", each.env) for at, each in enumerate(manifest.processes)]
    own += [(f"task[{at}]", each.env) for at, each in enumerate(manifest.tasks)]
    for key, env in own:
        for name, value in env.items():
            yield f"{key}.env.{name}", value
    for at, check_entry in enumerate(manifest.checks):
        yield f"check[{at}].path", check_entry.path
        yield f"check[{at}].contains", check_entry.contains


def _twice(checker: Checker, key: str, names: Iterable[object], what: str) -> None:
    for at, name in _repeated(names):
        checker.add(f"{key}[{at}]", f"there are two {what} {name!r}", "each needs a name of its own")


def _repeated(names: Iterable[object]) -> Iterator[tuple[int, object]]:
    seen: Counter[object] = Counter()
    for at, name in enumerate(names):
        seen[name] += 1
        if seen[name] == 2:
            yield at, name


def _names(checker: Checker) -> None:
    manifest = checker.manifest
    _twice(checker, "question", (each.name for each in manifest.questions), "questions")
    _twice(checker, "process", (each.name for each in manifest.processes), "processes")
    _twice(checker, "task", (each.name for each in manifest.tasks), "tasks")
    _twice(checker, "check", (each.name for each in manifest.checks), "checks")
    _twice(checker, "operation", (each.name for each in manifest.operations), "operations")
    _twice(checker, "volume", (each.name for each in manifest.volumes), "volumes")
    _twice(checker, "account", (each.uid for each in manifest.accounts), "accounts with the id")
    _twice(checker, "account", (each.name for each in manifest.accounts), "accounts")
    _twice(checker, "file", ((each.path, each.when) for each in manifest.files), "files for path and condition")
    if manifest.least_plan not in PLANS:
        checker.add("least_plan", f"{manifest.least_plan!r} is not a plan", "one of " + ", ".join(PLANS))
    for need in manifest.needs.mandatory:
        found = alternatives(need)
        if not found or not all(re.match(MODULE_NAME, each) for each in found):
            checker.add("needs.mandatory", f"{need!r} names no modules", "write it like 'apache | nginx'")
    for key, names in (("conflicts", manifest.conflicts), ("needs.optional", manifest.needs.optional)):
        if manifest.name in names:
            checker.add(key, f"{manifest.name!r} names itself")
    if any(manifest.name in alternatives(need) for need in manifest.needs.mandatory):
        checker.add("needs.mandatory", f"{manifest.name!r} names itself")
    for name in sorted(set(manifest.env) & ENV_FORBIDDEN):
        checker.add(f"env.{name}", "is set by Alvéole itself", "choose another name")


def _question(checker: Checker, question: Question, key: str) -> None:
    if question.name in {each.name for each in GENERIC}:
        checker.add(f"{key}.name", f"{question.name!r} is asked once for every site", f"use generic.{question.name}")
    if (question.type in _CHOOSING) != bool(question.choices):
        message = "has no choices" if question.type in _CHOOSING else f"choices are not for a {question.type}"
        checker.add(f"{key}.choices", message, _SEE)
    values = [each.value for each in question.choices]
    for value in values:
        if not value or value != value.strip() or "," in value or not value.isprintable():
            checker.add(f"{key}.choices", f"{value!r} is not a choice", "no blanks at the ends, no commas")
    if len(set(values)) < len(values):
        checker.add(f"{key}.choices", "one of them is there twice")
    if question.min is not None and question.max is not None and question.min > question.max:
        checker.add(f"{key}.min", "is larger than max")
    if question.pattern:
        try:
            re.compile(question.pattern)
        except re.error as error:
            checker.add(f"{key}.pattern", f"is no regular expression: {error}")
            return
        if question.pattern_says is None:
            checker.warn(f"{key}.pattern", "nobody is told what it means", "add pattern_says")
    if question.type is QuestionType.PASSWORD and not is_empty(question.default):
        checker.add(f"{key}.default", "a password has no default", "one is made up when nobody gives one")
    elif question.type is QuestionType.PASSWORD:
        try:
            read(question, "A1b2" * (PASSWORD_LENGTH // 4))
        except Wrong:
            checker.add(key, f"a password that is made up, {PASSWORD_LENGTH} letters and digits, does not fit", _SEE)
    elif not is_empty(question.default):
        try:
            read(question, question.default)
        except Wrong as error:
            checker.add(f"{key}.default", error.message, error.hint)


def _accounts(checker: Checker) -> None:
    own = checker.module.origin == OWN_ORIGIN
    ids = OWN_IDS if own else OTHER_IDS
    for at, entry in enumerate(checker.manifest.accounts):
        if entry.name in USERS or not re.match(r"^[a-z][a-z0-9-]{0,30}\Z", entry.name):
            checker.add(f"account[{at}].name", f"{entry.name!r} is not the name of an account", "such as 'mariadb'")
        if entry.uid not in ids:
            checker.add(
                f"account[{at}].uid",
                f"{entry.uid} is not one of {'our' if own else 'your'} ids",
                f"take one from {ids.start} to {ids.stop - 1} that no other module has",
            )


def _places(checker: Checker) -> None:
    manifest = checker.manifest
    for at, volume in enumerate(manifest.volumes):
        for problem in check_mount_path(volume.path, ""):
            checker.add(f"volume[{at}].path", problem.message, problem.hint)
    for at, link in enumerate(manifest.links):
        for problem in check_link(link.path, link.target):
            checker.add(f"link[{at}].{problem.field}", problem.message, problem.hint)
    for at, log in enumerate(manifest.logs):
        if not re.match(r"(?:/[A-Za-z0-9._-]{1,64}){2,10}\Z", log.path) or "/../" in f"{log.path}/":
            checker.add(f"log[{at}].path", f"{log.path!r} is not a plain absolute path")


def _web(checker: Checker) -> None:
    manifest = checker.manifest
    web = manifest.web
    if web is not None:
        if not web.health.startswith("/") or not web.health.isprintable() or " " in web.health:
            checker.add("web.health", f"{web.health!r} is not a path", "write it like /health")
        if not manifest.processes:
            checker.add("web", "answers requests, and the module has no process", "add a [[process]]")
    for at, entry in enumerate(manifest.checks):
        if bool(entry.argv) == bool(entry.path):
            checker.add(f"check[{at}]", "needs either argv or path", _SEE)
        if entry.path and not entry.path.startswith(("/", "{")):
            checker.add(f"check[{at}].path", f"{entry.path!r} is not a path", "write it like /login")


def _operation(checker: Checker, entry: OperationEntry, key: str) -> None:
    for problem in check_operation(entry.made(entry.argv, 0, checker.module.name)):
        checker.add(f"{key}.{problem.field}", problem.message, problem.hint)


def _file(checker: Checker, entry: FileEntry, key: str) -> None:
    if not re.match(CONFIG_PATH, entry.path) or len(entry.path) > 200:
        checker.add(f"{key}.path", f"{entry.path!r} is no path below /config", PATH_HINT)
    if bool(entry.template) == bool(entry.file):
        checker.add(key, f"{entry.path!r} needs either template or file", _SEE)
    if int(entry.mode, 8) & 0o022 or int(entry.mode, 8) > 0o777:
        checker.add(f"{key}.mode", f"{entry.mode} lets others write", "0644, 0640, 0600, or 0755 for a script")
    source = checker.module.templates.get(entry.template)
    if entry.template and source is not None:
        place = f"templates/{entry.template}"
        try:
            tree = parse(source, entry.format)
            for wrong in misplaced(source, entry.format, harmless_names(checker.module, entry.format)):
                checker.add("", wrong.message, wrong.hint, file=place, line=wrong.line)
        except RenderError as error:
            checker.add("", error.message, file=place, line=error.line)
            return
        _known(checker, tree, "", place)


def _expression(checker: Checker, key: str, text: str) -> None:
    if text:
        try:
            tree = parse_expression(text)
        except RenderError as error:
            checker.add(key, error.message, "write an expression, without braces" if "{{" in text else "")
            return
        _known(checker, tree, key, MANIFEST)


def _vector(checker: Checker, key: str, argv: tuple[str, ...]) -> None:
    scripts = script_places(argv)
    for at, element in enumerate(argv):
        _argument(checker, f"{key}[{at}]", element, Format.SHELL if at in scripts else None)
        for secret in sorted(_secrets_in(checker, element)):
            checker.add(
                f"{key}[{at}]",
                f"shows the password {secret!r} to everybody who lists processes",
                "put it into a file of mode 0600 that the program reads",
            )
        before, program = argv[at - 1] if at else "", argv[0].rsplit("/", 1)[-1]
        if "{{" in element and _INTERPRETERS.match(program) and _PROGRAM_TEXT.match(before):
            checker.add(
                f"{key}[{at}]",
                f"puts a value into what {program} runs as a program",
                "pass it as an argument of its own, or in a file",
            )


def _secrets_in(checker: Checker, text: str) -> set[str]:
    if "{" not in text:
        return set()
    try:
        tree = parse(text, None)
    except RenderError:
        return set()
    return {
        name
        for section, name, _ in references(tree)
        if section in ("a", f"answers.{checker.module.name}")
        and name in checker.questions
        and checker.questions[name].type is QuestionType.PASSWORD
    }


def _argument(checker: Checker, key: str, text: str, format: Format | None) -> None:
    if "{" not in text:
        return
    try:
        tree = parse(text, format)
        if format is not None:
            for wrong in misplaced(text, format, harmless_names(checker.module, format)):
                checker.add(key, wrong.message, wrong.hint)
    except RenderError as error:
        checker.add(key, error.message)
        return
    _known(checker, tree, key, MANIFEST)


def _known(checker: Checker, tree: nodes.Template, key: str, file: str) -> None:
    """Every name that ``tree`` uses exists."""

    def unknown(message: str, hint: str, line: int) -> None:
        checker.add(key, message, hint, file=file, line=0 if file == MANIFEST else line)

    names = list(tree.find_all(nodes.Name))
    made = {each.name for each in names if each.ctx == "store"} | (
        {"loop"} if list(tree.find_all(nodes.For)) else set()
    )
    for name in sorted({each.name for each in names} - made - TOP):
        line = next(each.lineno for each in names if each.name == name)
        hint = f"did you mean a.{name}?" if name in checker.questions else "known are " + ", ".join(sorted(TOP))
        unknown(f"there is no {name!r}", hint, line)
    known: dict[str, Iterable[str]] = {
        "a": checker.questions,
        f"answers.{checker.module.name}": checker.questions,
        "generic": [each.name for each in GENERIC],
        "site": SITE_KEYS,
        "plan": PLAN_KEYS,
    }
    for section, name, line in references(tree):
        if section in known and name not in known[section]:
            others = ", ".join(sorted(known[section])) or "nothing: this module asks no questions"
            unknown(f"there is no {section}.{name}", f"known are {others}", line)


def references(tree: nodes.Template) -> Iterator[tuple[str, str, int]]:
    """What of the answers a template uses: ``("a", "title", 3)``, ``("answers.mariadb", "password", 7)``."""
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        name = dotted(node)
        section, _, last = name.rpartition(".")
        if section and section.count(".") == (1 if name.startswith("answers.") else 0):
            yield section, last, node.lineno


def harmless_names(module: Module, format: Format) -> frozenset[str]:
    """The answers of ``module`` that print a number, a boolean or a word that ``format`` leaves as it is."""
    found = set()
    for question in module.manifest.questions:
        if question.type in _NUMBERS or (
            question.type is QuestionType.CHOICE and all(_bare(format, each.value) for each in question.choices)
        ):
            found |= {f"a.{question.name}", f"answers.{module.name}.{question.name}"}
    return frozenset(found)


def _bare(format: Format, value: str) -> bool:
    try:
        return quote(format, value) == value
    except Unwritable:
        return False
