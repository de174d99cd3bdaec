"""From modules and answers to everything a site is made of. Pure, and the same each time but for new passwords.

::

    solution = solve(catalogue, asked)      which modules, in which order      solve.py
    worked   = work_out(solution, given)    every answer                       answers.py
    compose  = both, rendered               processes, files, volumes, tasks   here
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from alveole.catalogue.answers import Asked, Given, SiteContext, Worked, field_of, secrets_of, variables, work_out
from alveole.catalogue.grammar import PATH_HINT, PLANS, USERS, check_link, script_places
from alveole.catalogue.manifest import FileEntry, Format, Module, OptionalPackage
from alveole.catalogue.render import RenderError, holds, render_argument, render_text
from alveole.catalogue.solve import Solution, solve
from alveole.catalogue.sources import Catalogue
from alveole.errors import InvalidInput, Problem
from alveole.model.names import check_env, check_mount_path
from alveole.model.operation import Operation
from alveole.model.site import (
    CONFIG_PATH,
    SITE_UID,
    Account,
    Application,
    BuildCommand,
    Building,
    ConfigFile,
    FileLink,
    HealthCheck,
    Process,
    Run,
    Task,
    UpdateMode,
    VolumeMount,
    When,
)

__all__ = ["Asked", "Composition", "SiteContext", "compose", "questions"]

T = TypeVar("T")
#: How long a site may take to start and to stop, in seconds.
READY_SECONDS, MOST_SECONDS, STOP_SECONDS = 60, 600, 10
_AUTHOR = "this is a mistake of the module: see 'alveole module lint'"


class Composition(msgspec.Struct, frozen=True):
    application: Application
    packages: tuple[str, ...]
    """Of the base, sorted."""
    run: Run
    volumes: tuple[VolumeMount, ...]
    files: tuple[ConfigFile, ...]
    env: dict[str, str]
    least_plan: str
    update: UpdateMode
    content: str
    """The folder on this machine with what the site serves when nobody brings content; empty: none."""
    secrets: tuple[str, ...] = ()
    """Every password among the answers, never to be shown."""


def compose(
    catalogue: Catalogue,
    asked: Sequence[str],
    given: Given,
    context: SiteContext,
    before: Application | None = None,
) -> Composition:
    """Everything the modules ``asked`` and the answers ``given`` make of a site.

    ``given`` is by module (``""``: generic ones, and names that say their module themselves), then by
    question; an answer of ``None`` takes back one given earlier. ``before`` is what the site was composed of
    until now: its answers stay, its passwords and the files changed by hand are kept. Raises
    ``InvalidInput`` with all problems: fields ``modules``, ``answers.MODULE.QUESTION``, ``MODULE: FILE``.
    """
    solution = solve(catalogue, asked)
    content, problems = _content(solution)
    has_content = context.content or bool(content)
    worked = work_out(solution, given, catalogue.aliases, context, has_content, before)
    problems += worked.problems
    if problems:
        raise InvalidInput(problems=problems)
    build = _Build(solution, worked, context, has_content)
    for module in solution.modules:
        build.add(module)
    build.finish(before)
    if build.problems:
        raise InvalidInput(problems=build.problems)
    application = Application(
        modules={module.name: module.digest for module in solution.modules},
        asked=solution.asked,
        answers=worked.kept,
        given=worked.given,
        kept_files=build.kept_files,
        why=before.why if before else "",
        building=_building(solution, build.for_building, before),
    )
    front = solution.front.manifest.web
    update = UpdateMode.STOP_START if build.stop_start else UpdateMode.BLUE_GREEN
    run = Run(
        processes=tuple(build.processes.values()),
        port=front.port if front else None,
        health=front.health if front else "/",
        ready_seconds=_patience(build.processes.values(), build.tasks.values()),
        stop_seconds=_grace(build.processes.values()),
        tasks=tuple(build.tasks.values()),
        accounts=tuple(sorted(build.accounts.values(), key=lambda each: each.uid)),
        links=tuple(build.links.values()),
        checks=tuple(build.checks.values()),
        operations=tuple(build.operations.values()),
        logs=tuple(dict.fromkeys(build.logs)),
        update=update,
    )
    return Composition(
        application=application,
        packages=tuple(sorted(build.packages)),
        run=run,
        volumes=tuple(build.volumes.values()),
        files=tuple(build.files.values()),
        env=build.env,
        least_plan=PLANS[build.least],
        update=update,
        content="" if context.content else content,
        secrets=secrets_of(solution.modules, worked.values),
    )


def questions(
    catalogue: Catalogue,
    asked: Sequence[str],
    given: Given,
    context: SiteContext,
    before: Application | None = None,
) -> tuple[Asked, ...]:
    """Every question of the site in the order of asking, with its answer or default worked out so far.

    Call it again with each new answer: what is asked next may hang on it. A wrong answer is told in its
    ``problem``; raises ``InvalidInput`` only for unknown modules and names of questions.
    """
    solution = solve(catalogue, asked)
    content, problems = _content(solution)
    worked = work_out(solution, given, catalogue.aliases, context, context.content or bool(content), before)
    told = {each.field for each in worked.asked}
    problems += [problem for problem in worked.problems if problem.field not in told]
    if problems:
        raise InvalidInput(problems=problems)
    return tuple(worked.asked)


def _content(solution: Solution) -> tuple[str, list[Problem]]:
    """The folder of a module's own content: of several that of the one asked for."""
    having = [module for module in solution.modules if module.content]
    named = [module for module in having if module.name in solution.asked] or having
    if len(named) > 1:
        names = " and ".join(repr(module.name) for module in named)
        return "", [Problem("modules", f"{names} both bring content", "ask for one of them")]
    return (named[0].content if named else ""), []


def _building(solution: Solution, packages: Mapping[str, set[str]], before: Application | None) -> Building | None:
    """What is done with content that is delivered, the modules in order of need; ``None``: nothing.

    ``packages``: by module, those that its builds need. The base of a build holds what its own modules have: a
    database server beside them would only make another base, as large as the compilers, of every combination.
    """
    builds = {each.name: each.manifest.build for each in solution.modules if each.manifest.build is not None}
    builds = {name: build for name, build in builds.items() if build.steps}
    commands = tuple(
        BuildCommand(step.argv, step.file, step.unless, step.network)
        for build in builds.values()
        for step in build.steps
    )
    if not commands:
        return None
    wanted = {name for module in builds for name in packages[module]}
    runtime = {name: numbers for build in builds.values() for name, numbers in build.runtime.items()}
    old = before.building if before is not None and before.building is not None else Building()
    return Building(commands, tuple(sorted(wanted)), old.network, runtime, old.made_for)


def _patience(processes: Iterable[Process], tasks: Iterable[Task]) -> int:
    """How long the first start may take: what is of one order goes on at the same time."""
    longest: dict[tuple[str, int], int] = {}
    for process in processes:
        key = ("process", process.order)
        longest[key] = max(longest.get(key, 0), process.ready_seconds if process.ready else 5)
    spent = dict.fromkeys(When, 0)
    for task in tasks:
        spent[task.when] += task.seconds
    # Data that came from a backup is restored instead of installed; new data is of today's programs already.
    tail = spent[When.PREPARE] + max(spent[When.INSTALL], spent[When.RESTORE] + spent[When.UPGRADE])
    return max(READY_SECONDS, min(MOST_SECONDS, sum(longest.values()) + tail))


def _grace(processes: Iterable[Process]) -> int:
    longest: dict[int, int] = {}
    for process in processes:
        longest[process.order] = max(longest.get(process.order, 0), process.stop_seconds or STOP_SECONDS)
    return max(STOP_SECONDS, min(MOST_SECONDS, sum(longest.values())))


@dataclass
class _Build:
    """What has been put together so far, and by which module each thing came."""

    solution: Solution
    worked: Worked
    context: SiteContext
    content: bool
    problems: list[Problem] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)
    for_building: dict[str, set[str]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    volumes: dict[str, VolumeMount] = field(default_factory=dict)
    files: dict[str, ConfigFile] = field(default_factory=dict)
    links: dict[str, FileLink] = field(default_factory=dict)
    checks: dict[str, HealthCheck] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    kept_files: dict[str, str] = field(default_factory=dict)
    least: int = 0
    stop_start: bool = False
    owners: dict[tuple[str, object], str] = field(default_factory=dict)
    restarts: list[tuple[str, FileEntry]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.uids = {each.name: each.uid for module in self.solution.modules for each in module.manifest.accounts}
        self.uids.update(USERS)

    def add(self, module: Module) -> None:
        manifest = module.manifest
        self.module = module
        self.seen = variables(module.name, self.worked.values, self.solution, self.context, self.content)
        own = {*manifest.packages.mandatory, *self._chosen(manifest.packages.optional, "packages")}
        self.packages |= own
        if manifest.build is not None:
            chosen = self._chosen(manifest.build.optional, "build")
            self.for_building[module.name] = {*own, *manifest.build.packages, *chosen}
        if manifest.least_plan in PLANS:
            self.least = max(self.least, PLANS.index(manifest.least_plan))
        else:
            self._wrong("least_plan", f"{manifest.least_plan!r} is not a plan", "one of " + ", ".join(PLANS))
        self.stop_start |= manifest.update is UpdateMode.STOP_START
        self._accounts()
        for name, source in manifest.env.items():
            value = self._text(source, f"env.{name}")
            if self.env.setdefault(name, value) != value:
                self._clash("env", name, f"the variable {name} of every process")
            elif self._mine("env", name):
                self.problems += [
                    Problem(f"{module.name}: {problem.field}", problem.message, problem.hint)
                    for problem in check_env(name, value)
                ]
        self._programs()
        self._operations()
        self._storage()
        for at, entry in enumerate(manifest.files):
            self._file(entry, f"file[{at}]")
        self._links()
        for at, log in enumerate(manifest.logs):
            self._uid(log.user, f"log[{at}].user")
            self.logs.append(log.path)

    def _chosen(self, packages: Sequence[OptionalPackage], key: str) -> list[str]:
        return [each.name for at, each in enumerate(packages) if self._holds(each.when, f"{key}.optional[{at}].when")]

    def finish(self, before: Application | None) -> None:
        """What can only be said once everything is there."""
        declared = {each.name for module in self.solution.modules for each in module.manifest.processes}
        for owner, entry in self.restarts:
            unknown = [name for name in entry.restarts if name not in declared]
            if unknown and not self._elsewhere(owner):
                self.problems.append(
                    Problem(f"{owner}: {entry.path}", f"restarts {unknown[0]!r}, which is no process", _AUTHOR)
                )
            if entry.path in self.files:
                kept = tuple(name for name in entry.restarts if name in self.processes)
                self.files[entry.path] = msgspec.structs.replace(self.files[entry.path], restarts=kept)
        paths = sorted((volume.path, name) for name, volume in self.volumes.items())
        for (path, name), (below, other) in itertools.pairwise(paths):
            if below.startswith(f"{path}/") or below == path:
                one, two = self.owners["volume", name], self.owners["volume", other]
                self.problems.append(
                    Problem("modules", f"the volume {below} of {two!r} lies in {path} of {one!r}", _AUTHOR)
                )
        for path, text in (before.kept_files if before else {}).items():
            if path in self.files:
                self.files[path] = msgspec.structs.replace(self.files[path], text=text)
                self.kept_files[path] = text

    def _elsewhere(self, owner: str) -> bool:
        """A file may restart what a module does that is only sometimes there."""
        module = next(each for each in self.solution.modules if each.name == owner)
        return bool(module.manifest.needs.optional or any("|" in need for need in module.manifest.needs.mandatory))

    def _accounts(self) -> None:
        for entry in self.module.manifest.accounts:
            account = Account(entry.name, entry.uid, entry.home)
            same = next((each for each in self.accounts.values() if each.uid == entry.uid), None)
            if same is not None and same != account:
                self._clash("account", entry.uid, f"the account id {entry.uid}")
            elif self.accounts.setdefault(entry.name, account) != account:
                self._clash("account-name", entry.name, f"an account named {entry.name!r}")
            self._mine("account", entry.uid)
            self._mine("account-name", entry.name)

    def _programs(self) -> None:
        manifest = self.module.manifest
        for at, process in enumerate(manifest.processes):
            key = f"process[{at}]"
            if not self._holds(process.when, f"{key}.when") or not self._new("process", process.name):
                continue
            self.processes[process.name] = Process(
                name=process.name,
                argv=self._argv(process.argv, f"{key}.argv"),
                uid=self._uid(process.user, f"{key}.user"),
                order=process.order,
                ready=self._argv(process.ready, f"{key}.ready"),
                ready_seconds=process.ready_seconds,
                stop_signal=process.stop_signal,
                stop_seconds=process.stop_seconds,
                env=self._env(process.env, key),
                cwd=process.cwd,
            )
        for at, task in enumerate(manifest.tasks):
            key = f"task[{at}]"
            if not self._holds(task.only, f"{key}.only") or not self._new("task", task.name):
                continue
            self.tasks[task.name] = Task(
                name=task.name,
                when=task.when,
                argv=self._argv(task.argv, f"{key}.argv"),
                uid=self._uid(task.user, f"{key}.user"),
                order=task.order,
                seconds=task.seconds,
                env=self._env(task.env, key),
            )
        for at, check in enumerate(manifest.checks):
            key = f"check[{at}]"
            if not self._holds(check.when, f"{key}.when") or not self._new("check", check.name):
                continue
            self.checks[check.name] = HealthCheck(
                name=check.name,
                argv=self._argv(check.argv, f"{key}.argv"),
                uid=self._uid(check.user, f"{key}.user"),
                path=self._text(check.path, f"{key}.path"),
                status=check.status,
                contains=self._text(check.contains, f"{key}.contains"),
            )

    def _operations(self) -> None:
        for at, entry in enumerate(self.module.manifest.operations):
            key = f"operation[{at}]"
            if not self._holds(entry.when, f"{key}.when") or not self._new("operation", entry.name):
                continue
            argv = self._argv(entry.argv, f"{key}.argv")
            self.operations[entry.name] = entry.made(argv, self._uid(entry.user, f"{key}.user"), self.module.name)

    def _storage(self) -> None:
        for at, volume in enumerate(self.module.manifest.volumes):
            key = f"volume[{at}]"
            if not self._holds(volume.when, f"{key}.when"):
                continue
            uid = self._uid(volume.user, f"{key}.user")
            mount = VolumeMount(volume.name, volume.path, uid, volume.backup)
            # What several modules describe alike they share: the files of the site's visitors, for one.
            if self.volumes.get(volume.name) == mount or not self._new("volume", volume.name):
                continue
            for problem in check_mount_path(volume.path, f"{self.module.name}: {key}.path"):
                self.problems.append(problem)
            self.volumes[volume.name] = mount

    def _file(self, entry: FileEntry, key: str) -> None:
        if not self._holds(entry.when, f"{key}.when"):
            return
        if not re.match(CONFIG_PATH, entry.path) or len(entry.path) > 200:
            self._wrong(f"{key}.path", f"{entry.path!r} is no path below /config", PATH_HINT)
            return
        if not self._new("file", entry.path):
            return
        self.restarts.append((self.module.name, entry))
        text = ""
        if entry.template:
            source = self.module.templates.get(entry.template, "")
            place = f"templates/{entry.template}"
            text = self._render(lambda: render_text(source, entry.format, self.seen), place, entry.path, "")
        else:
            text = self.module.files.get(entry.file, "")
        uid = self._uid(entry.user, f"{key}.user")
        self.files[entry.path] = ConfigFile(entry.path, text, uid, int(entry.mode, 8))

    def _links(self) -> None:
        for at, link in enumerate(self.module.manifest.links):
            key = f"link[{at}]"
            if not self._holds(link.when, f"{key}.when") or not self._new("link", link.path):
                continue
            for problem in check_link(link.path, link.target):
                self._wrong(f"{key}.{problem.field}", problem.message, problem.hint)
            self.links[link.path] = FileLink(link.path, link.target)

    # -- rendering ------------------------------------------------------------------------------------------

    def _render(self, work: Callable[[], T], place: str, target: str, otherwise: T) -> T:
        try:
            return work()
        except RenderError as error:
            cause = self._cause(error.value)
            at = f"{place}:{error.line}" if error.line else place
            if cause:
                self.problems.append(
                    Problem(cause, f"{error.message} ({self.module.name}: {target})", "give another answer")
                )
            else:
                self.problems.append(Problem(f"{self.module.name}: {at}", error.message, _AUTHOR))
            return otherwise

    def _cause(self, value: object) -> str:
        """The question whose answer is, or is in, what could not be written."""
        if not isinstance(value, str) or not value:
            return ""
        own = self.module.name
        order = [own, *(name for name in self.worked.values if name != own)]
        for exact in (True, False):
            for section in order:
                for name, answer in self.worked.values[section].items():
                    texts = [each for each in (answer if isinstance(answer, tuple) else (answer,)) if each]
                    if any(text == value if exact else isinstance(text, str) and text in value for text in texts):
                        return field_of(section, name)
        return ""

    def _holds(self, condition: str, key: str) -> bool:
        return self._render(lambda: holds(condition, self.seen), key, key, False)

    def _text(self, source: str, key: str) -> str:
        return self._render(lambda: render_argument(source, self.seen), key, key, "")

    def _argv(self, argv: tuple[str, ...], key: str) -> tuple[str, ...]:
        """Each element rendered by itself, so it stays one; what a shell reads as a script is quoted for it."""
        scripts = script_places(argv)

        def one(at: int, source: str) -> str:
            if at in scripts and "{" in source:
                return render_text(source, Format.SHELL, self.seen)
            return render_argument(source, self.seen)

        made = []
        for at, source in enumerate(argv):
            place = f"{key}[{at}]"
            made.append(self._render(functools.partial(one, at, source), place, place, ""))
        if made and not made[0] and not self.problems:
            self._wrong(key, "names no program", _AUTHOR)
        return tuple(made)

    def _env(self, env: Mapping[str, str], key: str) -> dict[str, str]:
        made = {name: self._text(source, f"{key}.env.{name}") for name, source in env.items()}
        for name, value in made.items():
            for problem in check_env(name, value, f"{self.module.name}: {key}.env"):
                self.problems.append(problem)
        return made

    def _uid(self, user: str, key: str) -> int:
        if user not in self.uids:
            self._wrong(key, f"there is no user {user!r}", "root, site, or an [[account]] of a module of the site")
        return self.uids.get(user, SITE_UID)

    # -- who did it -----------------------------------------------------------------------------------------

    def _mine(self, kind: str, name: object) -> bool:
        return self.owners.setdefault((kind, name), self.module.name) == self.module.name

    def _new(self, kind: str, name: str) -> bool:
        if (kind, name) in self.owners:
            self._clash(kind, name, f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} named {name!r}")
            return False
        self.owners[kind, name] = self.module.name
        return True

    def _clash(self, kind: str, name: object, what: str) -> None:
        other = self.owners.get((kind, name), "another module")
        if other == self.module.name:
            self._wrong(kind, f"has {what} twice", _AUTHOR)
        else:
            message = f"{other!r} and {self.module.name!r} both have {what}"
            self.problems.append(Problem("modules", message, "make a site of each"))

    def _wrong(self, key: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(f"{self.module.name}: {key}", message, hint))
