"""The answers of a site: those given, those kept, those worked out, and all that is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from alveole.catalogue.manifest import Module, Question, QuestionType
from alveole.catalogue.questions import GENERIC, Wrong, is_empty, new_password, nothing, read, shown
from alveole.catalogue.render import Names, RenderError, evaluate, holds
from alveole.catalogue.solve import Solution
from alveole.errors import Problem
from alveole.model.site import MIB, SITE_CONTENT, SITE_SOCKET, Answer, Application, Limits

Given = Mapping[str, Mapping[str, Any]]


class SiteContext(msgspec.Struct, frozen=True, kw_only=True):
    """What templates see of the site."""

    name: str
    domain: str
    domains: tuple[str, ...] = ()
    url: str
    https_only: bool = False
    content: bool = False
    """Whether the site has files of its own, at ``SITE_CONTENT``."""
    limits: Limits


class Asked(msgspec.Struct, frozen=True):
    """One question as a terminal or a form shows it."""

    module: str
    """Empty for the generic ones."""
    question: Question
    value: Answer
    """The answer given or kept, else the default worked out now; of a password nobody gave, empty."""
    answered: bool
    """A person gave it, now or before."""
    problem: str = ""
    """Why the answer, or the default, cannot be taken as it is."""

    @property
    def field(self) -> str:
        return field_of(self.module, self.question.name)

    @property
    def shown(self) -> str:
        return shown(self.question, self.value)

    @property
    def must(self) -> bool:
        """There is no going on without a person's answer."""
        empty = is_empty(self.value) and self.question.type is not QuestionType.PASSWORD
        return bool(self.problem) or (self.question.required and empty)


class Worked(msgspec.Struct):
    """``values``: what templates see. ``kept``: what is stored. ``given``: which of those a person gave."""

    values: dict[str, dict[str, Answer]]
    kept: dict[str, dict[str, Answer]]
    given: dict[str, tuple[str, ...]]
    asked: list[Asked]
    problems: list[Problem]


def field_of(module: str, question: str) -> str:
    return f"answers.{module}.{question}" if module else f"answers.{question}"


def sections(solution: Solution) -> Iterator[tuple[str, Module | None, tuple[Question, ...]]]:
    """The generic questions, then those of each module in order of need."""
    yield "", None, GENERIC
    for module in solution.modules:
        yield module.name, module, module.manifest.questions


def resolve(
    solution: Solution, given: Given, aliases: Mapping[str, str]
) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """``given`` by the real names of modules and questions.

    A name in ``given[""]`` may be that of a generic question, ``module.question``, or the bare name of
    a question that only one module of the site has. Problems: unknown and ambiguous names.
    """
    owners: dict[str, list[str]] = {}
    for module, _, asked in sections(solution):
        for question in asked:
            owners.setdefault(question.name, []).append(module)
    known = {module: {question.name for question in asked} for module, _, asked in sections(solution)}
    found: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []

    def put(module: str, name: str, value: Any, field: str) -> None:
        if name in found.setdefault(module, {}):
            problems.append(Problem(field, "is answered twice", "give one of the answers"))
        found[module][name] = value

    for section, values in given.items():
        for name, value in values.items():
            module, bare = section, name
            if not section and "." in name:
                module, bare = name.split(".", 1)
            module = aliases.get(module, module)
            field = field_of(module, bare)
            if module and module not in known:
                near = difflib.get_close_matches(module, [each for each in known if each], 1)
                hint = f"did you mean {near[0]!r}?" if near else "its modules: " + ", ".join(solution.names)
                problems.append(Problem(field, f"the site has no module {module!r}", hint))
            elif bare in known[module]:
                put(module, bare, value, field)
            elif module or bare not in owners:
                names = known[module] if module else owners
                problems.append(Problem(field, "is not a question", _did_you_mean(bare, names, module)))
            elif len(owners[bare]) == 1:
                put(owners[bare][0], bare, value, field)
            else:
                ways = " or ".join(f"{owner}.{bare}" for owner in owners[bare])
                problems.append(Problem(field, "is a question of several modules", f"say {ways}"))
    return found, problems


def _did_you_mean(name: str, names: Iterable[str], module: str) -> str:
    known = sorted(names)
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    of = f"of {module!r}" if module else "of its modules"
    return f"the questions {of}: " + ", ".join(known) if known else f"{module!r} asks nothing"


def variables(
    module: str, values: Mapping[str, Mapping[str, Answer]], solution: Solution, context: SiteContext, content: bool
) -> dict[str, object]:
    """What the templates and expressions of ``module`` see; see :mod:`alveole.catalogue.manifest`."""
    limits = context.limits
    names = {name: Names(f"answers.{name}", own) for name, own in values.items() if name}
    return {
        "a": Names("a", values.get(module, {})),
        "answers": Names("answers", names),
        "generic": Names("generic", values.get("", {})),
        "modules": solution.names,
        "logs": tuple(
            Names("log", {"path": each.path, "user": each.user})
            for other in solution.modules
            for each in other.manifest.logs
            if not each.bounded
        ),
        "site": Names(
            "site",
            {
                "name": context.name,
                "domain": context.domain,
                "domains": context.domains or (context.domain,),
                "url": context.url,
                "https_only": context.https_only,
                "content": SITE_CONTENT if content else "",
            },
        ),
        "plan": Names(
            "plan",
            {
                "memory_mb": limits.memory_bytes // MIB,
                "cpus": limits.cpu_millis / 1000,
                "disk_mb": (limits.disk_bytes or 0) // MIB,
            },
        ),
        "socket": SITE_SOCKET,
    }


def work_out(
    solution: Solution,
    given: Given,
    aliases: Mapping[str, str],
    context: SiteContext,
    content: bool,
    before: Application | None,
) -> Worked:
    """Every answer, in order: a question sees those before it.

    An answer given now wins; then one that a person gave before, and a password made before; the rest is
    worked out anew. Giving ``None`` takes an earlier answer back.
    """
    new, problems = resolve(solution, given, aliases)
    worked = Worked({}, {}, {}, [], problems)
    for section, _, asked in sections(solution):
        worked.values[section] = {}
        old = dict(before.answers.get(section, {})) if before else {}
        old_given = set(before.given.get(section, ())) if before else set()
        fresh = new.get(section, {})
        kept: dict[str, Answer] = {}
        by_person: list[str] = []
        for question in asked:
            name, field = question.name, field_of(section, question.name)
            seen = variables(section, worked.values, solution, context, content)
            try:
                wanted = holds(question.when, seen)
            except RenderError as error:
                problems.append(Problem(field, f"its condition 'when' fails: {error.message}", _AUTHOR))
                wanted = False
            if not wanted:
                worked.values[section][name] = None
                if not is_empty(fresh.get(name)):
                    problems.append(Problem(field, "is not asked here", f"only when {question.when}"))
                if question.type is QuestionType.PASSWORD and name in old:
                    kept[name] = old[name]  # a database may still go by it when the question comes back
                    by_person += [name] if name in old_given else []
                continue
            person, value, problem = _answer(question, seen, fresh, old, old_given)
            if person:
                by_person.append(name)
            if problem:
                problems.append(Problem(field, problem.message, problem.hint))
            worked.values[section][name] = kept[name] = value
            hidden = question.type is QuestionType.PASSWORD and not person
            note = str(problem.message) if problem else ""
            worked.asked.append(Asked(section, question, "" if hidden else value, person, note))
        if kept:
            worked.kept[section] = kept
        if by_person:
            worked.given[section] = tuple(by_person)
    return worked


_AUTHOR = "this is a mistake of the module: see 'alveole module lint'"


def _answer(
    question: Question,
    seen: Mapping[str, object],
    fresh: Mapping[str, Any],
    old: Mapping[str, Answer],
    old_given: set[str],
) -> tuple[bool, Answer, Wrong | None]:
    """Whether a person gave it, the value, and what is wrong with it."""
    name = question.name
    taken_back = name in fresh and fresh[name] is None
    if name in fresh and not taken_back:
        return _try(question, fresh[name], True)
    if not taken_back and name in old and name in old_given:
        return _try(question, old[name], True)
    if question.type is QuestionType.PASSWORD and not taken_back and not is_empty(old.get(name)):
        return False, old[name], None
    raw: object = question.default
    if question.default_from:
        try:
            raw = evaluate(question.default_from, seen)
        except RenderError as error:
            wrong = Wrong(f"its default cannot be worked out: {error.message}", _AUTHOR)
            return False, nothing(question), wrong
    if is_empty(raw) and question.type is QuestionType.PASSWORD and question.required:
        return False, new_password(), None
    if is_empty(raw) and question.required:
        return False, nothing(question), Wrong("needs an answer", f"{question.title.en}: give it with --set")
    person, value, wrong_default = _try(question, raw, False)
    if wrong_default:
        wrong_default = Wrong(f"the default does not fit: {wrong_default.message}", "give an answer")
    return person, value, wrong_default


def _try(question: Question, raw: object, person: bool) -> tuple[bool, Answer, Wrong | None]:
    try:
        return person, read(question, raw), None
    except Wrong as error:
        return person, nothing(question), error


def secrets_of(modules: Sequence[Module], values: Mapping[str, Mapping[str, Answer]]) -> tuple[str, ...]:
    """The passwords among ``values``, the longest first: none of them may be shown."""
    found = {
        str(values[module.name][question.name])
        for module in modules
        for question in module.manifest.questions
        if question.type is QuestionType.PASSWORD and values.get(module.name, {}).get(question.name)
    }
    return tuple(sorted(found, key=lambda text: (-len(text), text)))
