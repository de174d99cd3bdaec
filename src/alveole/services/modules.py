"""Modules: looking at the catalogue, and from modules and answers to what a site runs."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.catalogue.compose import Asked, Composition, SiteContext, compose, questions
from alveole.catalogue.content import Seen
from alveole.catalogue.detect import detail, detect
from alveole.catalogue.manifest import Module, Question, QuestionType, Text
from alveole.catalogue.questions import GENERIC
from alveole.catalogue.solve import solve
from alveole.catalogue.sources import OWN_FOLDER, Catalogue, load
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem
from alveole.loop.compile import site_domain
from alveole.masking import HIDDEN, mask
from alveole.model.names import check_site_name
from alveole.model.site import Answer, Application, Base, Limits, Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.draft import Draft
from alveole.services.flows import Flows
from alveole.store import Stored
from alveole.views import modules as module_views

DEFAULT_PLAN = "small"
#: Stands for the name of a site that nobody has named yet.
_EXAMPLE = "example"
#: An expression that hangs on what the site is called.
_OF_SITE = r"\bsite\.(?:name|domain|domains|url)\b"
Given = Mapping[str, Mapping[str, Answer]]


class Composed(msgspec.Struct, frozen=True):
    """What came of modules and answers: a composition, or all that is wrong."""

    plan: str
    composition: Composition | None = None
    problems: tuple[Problem, ...] = ()


class Compositions(Flows):
    """The catalogue as the verbs on sites use it."""

    def catalogue(self) -> Catalogue:
        """As it is now; it is read again only when something changed."""
        return load(self._sources(), own=OWN_FOLDER, admin=Path(self.settings.modules.directory))

    def _sources(self) -> tuple[tuple[str, Path], ...]:
        try:
            found = sorted(each for each in self.settings.module_sources.iterdir() if not each.name.startswith("."))
        except OSError:
            return ()
        return tuple((each.name, each) for each in found if each.is_dir())

    # --- looking ------------------------------------------------------------------------------
    def list_modules(self, caller: Actor) -> tuple[module_views.ModuleView, ...]:
        self._allow(caller, Right.CATALOGUE_LOOK)
        modules = sorted(self.catalogue().modules.values(), key=lambda each: each.name)
        sites = self._visible(caller)
        return tuple(self._module_view(each, sites) for each in modules)

    def show_module(self, caller: Actor, name: str) -> module_views.ModuleDetail:
        self._allow(caller, Right.CATALOGUE_LOOK)
        catalogue = self.catalogue()
        module = catalogue.get(name)
        if module is None:
            aside = catalogue.aside.get(name)
            raise NotFound(
                f"module {name!r} is set aside: {aside}" if aside else f"there is no module {name!r}",
                field="module",
                hint="see: alveole module lint" if aside else "see: alveole module list",
            )
        manifest = module.manifest
        worked: dict[str, module_views.QuestionView] = {}
        with contextlib.suppress(InvalidInput):
            context = self._context(_EXAMPLE, manifest.least_plan)
            found = asked_views(catalogue, (module.name,), {}, context)
            worked = {each.name: each for each in found if each.module == module.name}
        shown = tuple(worked.get(each.name) or question_view(module.name, each) for each in manifest.questions)
        return module_views.ModuleDetail(
            **msgspec.structs.asdict(self._module_view(module, self._visible(caller))),
            packages=manifest.packages.mandatory,
            optional_packages=tuple(each.name for each in manifest.packages.optional),
            needs=manifest.needs.mandatory,
            optional=manifest.needs.optional,
            provides=manifest.provides,
            conflicts=manifest.conflicts,
            update=str(manifest.update),
            questions=shown,
            processes=tuple(each.name for each in manifest.processes),
            volumes=tuple(each.name for each in manifest.volumes),
            files=tuple(each.path for each in manifest.files),
            content=bool(module.content),
            example=_example(module),
        )

    def _module_view(self, module: Module, sites: Sequence[Stored]) -> module_views.ModuleView:
        manifest = module.manifest
        users = sum(
            1
            for stored in sites
            if stored.site.application is not None and module.name in stored.site.application.modules
        )
        return module_views.ModuleView(
            name=module.name,
            title=text_view(manifest.title),
            description=text_view(manifest.description),
            category=str(manifest.category),
            icon=manifest.icon,
            version=manifest.version,
            digest=module.digest,
            origin=module.origin,
            aliases=manifest.aliases,
            least_plan=manifest.least_plan,
            sites=users,
        )

    def ask_modules(self, caller: Actor, request: ask.AskModules) -> module_views.QuestionsView:
        """What is still to be asked, so that a form and a terminal need no knowledge of their own."""
        self._allow(caller, Right.CATALOGUE_LOOK)
        catalogue = self.catalogue()
        name = _EXAMPLE if check_site_name(request.name) else request.name
        plan = self._least_of(catalogue, request.modules, request.plan)
        context = self._context(name, plan, request.domains, request.https_only, request.content)
        given = {"": dict(request.answers)}
        problems: tuple[Problem, ...] = ()
        try:
            compose(catalogue, request.modules, given, context)
        except InvalidInput as error:
            problems = error.problems
        return module_views.QuestionsView(
            modules=solve(catalogue, request.modules).names,
            questions=asked_views(catalogue, request.modules, given, context),
            problems=problems,
            plan=plan,
        )

    def detect_modules(self, caller: Actor, request: ask.DetectModules) -> module_views.DetectedView:
        """The modules that run a content, picked from its names and small texts. Raises ``InvalidInput``."""
        self._allow(caller, Right.CATALOGUE_LOOK)
        catalogue, seen = self.catalogue(), Seen(request.names, request.texts)
        if request.modules:
            found = detail(catalogue.modules, [catalogue.aliases.get(each, each) for each in request.modules], seen)
        else:
            found = detect(catalogue.modules, seen)
        answers = dict(found.answers)
        if found.front:
            front = solve(catalogue, request.modules or found.modules).front
            asks = {each.name for each in front.manifest.questions}
            beside = {question: answer for question, answer in found.front.items() if question in asks}
            answers[front.name] = beside | answers.get(front.name, {})
        return module_views.DetectedView(
            modules=found.modules,
            why=text_view(found.why),
            answers={
                f"{module}.{question}": answer
                for module, worked in answers.items()
                for question, answer in worked.items()
            },
        )

    # --- composing ----------------------------------------------------------------------------
    def _compose_new(self, request: ask.CreateSite, content: bool = False) -> Composed:
        """For a request that names modules. Never raises for what is wrong with it."""
        catalogue = self.catalogue()
        # The name has its own check; here it is only a value that templates print.
        name = _EXAMPLE if check_site_name(request.name) else request.name
        content = content or request.upload is not None
        plan = request.plan if request.plan in self.store.plans else None
        chosen = plan or DEFAULT_PLAN
        try:
            chosen = plan or self._least_of(catalogue, request.modules, None)
            context = self._context(name, chosen, request.domains, request.https_only, content)
            composition = compose(catalogue, request.modules, {"": request.answers}, context)
        except InvalidInput as error:
            return Composed(chosen, None, error.problems)
        application = msgspec.structs.replace(composition.application, why=request.why[:500], env=composition.env)
        if application.building is not None and request.build_network is not None:
            building = msgspec.structs.replace(application.building, network=request.build_network)
            application = msgspec.structs.replace(application, building=building)
        return Composed(chosen, msgspec.structs.replace(composition, application=application))

    def _compose_again(
        self,
        catalogue: Catalogue,
        asked: Sequence[str],
        answers: Mapping[str, Answer],
        context: SiteContext,
        before: Application,
    ) -> Composition:
        """For a site that exists. Raises ``InvalidInput``.

        What was once worked out from its name or its domain describes its data (a database's name, a
        directory's suffix): that stays as it is when the site gets another name, unless it is unset. What
        hangs on other answers or on the plan is worked out anew, and so is what templates take from the site.
        """
        fixed: dict[str, tuple[str, ...]] = {}
        for module, kept in before.answers.items():
            known = catalogue.get(module) if module else None
            asking = GENERIC if not module else known.manifest.questions if known is not None else ()
            of_site = {each.name for each in asking if re.search(_OF_SITE, each.default_from)}
            fixed[module] = tuple(name for name in kept if name in of_site and name not in before.given.get(module, ()))
        given = {module: (*before.given.get(module, ()), *names) for module, names in fixed.items()}
        made = compose(
            catalogue, asked, {"": answers}, context, msgspec.structs.replace(before, given=before.given | given)
        )
        # They are still nobody's answers.
        by_person = {
            module: tuple(
                name
                for name in names
                if name not in fixed.get(module, ())
                or made.application.answers[module].get(name) != before.answers[module].get(name)
            )
            for module, names in made.application.given.items()
        }
        application = msgspec.structs.replace(
            made.application, given={module: names for module, names in by_person.items() if names}
        )
        return msgspec.structs.replace(made, application=application)

    def _context(
        self,
        name: str,
        plan: str,
        domains: tuple[str, ...] = (),
        https_only: bool = False,
        content: bool = False,
    ) -> SiteContext:
        # What a program is told to be called: for all names below one few have a word.
        domains = tuple(each for each in domains if not each.startswith("*."))
        domain = domains[0] if domains else site_domain(name, self.settings)
        edge = self.settings.edge
        port = "" if edge.https_port == 443 else f":{edge.https_port}"
        return SiteContext(
            name=name,
            domain=domain,
            domains=(site_domain(name, self.settings), *domains),
            url=f"https://{domain}{port}",
            https_only=https_only,
            content=content,
            limits=self._limits(plan if plan in self.store.plans else DEFAULT_PLAN),
        )

    def _context_of(self, site: Site) -> SiteContext:
        return self._context(site.name, site.plan, site.domains, site.https_only, site.release is not None)

    def _least_of(self, catalogue: Catalogue, asked: Sequence[str], plan: str | None) -> str:
        """``plan`` when it is one, else the least that suits the modules."""
        if plan in self.store.plans:
            return str(plan)
        wanted = {each.manifest.least_plan for each in solve(catalogue, asked).modules}
        known = [name for name in wanted if name in self.store.plans]
        largest = max(known, key=lambda name: self._limits(name).memory_bytes, default=DEFAULT_PLAN)
        return largest

    def _check_plan(self, draft: Draft, plan: str, least: str) -> None:
        """A plan that is smaller than the modules need is refused, with what it lacks."""
        if plan not in self.store.plans or least not in self.store.plans:
            return
        if lacks := _lacks(self._limits(plan), self._limits(least)):
            draft.conflict("plan", f"{plan!r} is too small for these modules: {lacks}", f"take at least {least!r}")

    def _least_plan_of(self, site: Site) -> str:
        """The least plan of the modules of a site that exists, as far as they are still known."""
        catalogue = self.catalogue()
        names = site.application.modules if site.application is not None else {}
        found = [module.manifest.least_plan for name in names if (module := catalogue.get(name)) is not None]
        known = [name for name in found if name in self.store.plans]
        return max(known, key=lambda name: self._limits(name).memory_bytes, default="")

    # --- content of a module's own ---------------------------------------------------------------
    def _pack_content(self, folder: str) -> str:
        """A module's own content as an upload; gives its id. Raises ``AlveoleError``."""
        id = os.urandom(16).hex()
        self._uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._uploads / id
        try:
            with path.open("xb") as file:
                _pack(Path(folder), file)
        except OSError as error:
            self._drop_upload(id)
            raise AlveoleError(f"the module's own content cannot be read: {error.strerror}") from error
        return id

    # --- secrets ------------------------------------------------------------------------------

    def _secrets(self, application: Application | None) -> frozenset[str]:
        """The secret texts among the answers."""
        if application is None:
            return frozenset()
        found = set()
        catalogue = self.catalogue()
        for module, answers in application.answers.items():
            for question, answer in answers.items():
                if isinstance(answer, str) and answer and is_secret(catalogue, module, question):
                    found.add(answer)
        return frozenset(found)

    def _application_view(
        self, site: Site, show_secrets: bool = False, *, look: bool = False, catalogue: Catalogue | None = None
    ) -> views.ModulesView | None:
        """``look``: also ask the agent which files were changed by hand. ``catalogue``: read for a list of many."""
        application = site.application
        if application is None:
            return None
        known = catalogue if catalogue is not None else self.catalogue()
        changed = {each.path for each in self._config_states(site) if each.changed} if look else set()
        return views.ModulesView(
            asked=application.asked,
            modules=application.modules,
            answers=shown_answers(known, application, show_secrets),
            given=application.given,
            files=tuple(
                views.FileView(
                    path=each.path,
                    uid=each.uid,
                    mode=each.mode,
                    restarts=each.restarts,
                    kept=each.path in application.kept_files,
                    changed_by_hand=each.path in changed,
                )
                for each in site.files
            ),
            checks=site.run.checks,
            made_up=tuple(
                f"{module}.{question}"
                for module, answers in application.answers.items()
                for question, answer in answers.items()
                if answer and question not in application.given.get(module, ()) and is_secret(known, module, question)
            ),
            update=str(site.run.update),
            why=application.why,
        )

    def _config_states(self, site: Site) -> tuple[protocol.ConfigState, ...]:
        """Files as they lie there; nothing is known of them while the agent is down."""
        if not site.files:
            return ()
        with contextlib.suppress(AlveoleError):
            states: tuple[protocol.ConfigState, ...] = self.agent.call(protocol.ReadConfig(site.id, site.number))
            return states
        return ()

    def _new_files(self, site: Site) -> tuple[views.FileChange, ...]:
        """The files of a site that is not made yet, secrets masked."""
        hidden = self._secrets(site.application)
        return tuple(
            views.FileChange(
                path=each.path,
                fate=views.FileFate.ADDED,
                diff=unified("", mask(each.text, hidden), each.path),
                restarts=each.restarts,
            )
            for each in site.files
        )

    def site_answers(self, caller: Actor, site: str, *, show_secrets: bool = False) -> module_views.AnswersView:
        found = self._stored(caller, Right.SITE_SECRETS if show_secrets else Right.SITE_LOOK, site).site
        application = found.application
        if application is None:
            raise InvalidInput(f"site {found.name} is not made of modules", field="site")
        return module_views.AnswersView(
            site=found.name,
            modules=tuple(application.modules),
            answers=shown_answers(self.catalogue(), application, show_secrets),
            given=application.given,
        )


def is_secret(catalogue: Catalogue, module: str, question: str) -> bool:
    """Whether an answer is one; all of a module that is not known any more are."""
    if not module:
        return False
    found = catalogue.get(module)
    if found is None:
        return True
    asked = next((each for each in found.manifest.questions if each.name == question), None)
    return asked is None or asked.type is QuestionType.PASSWORD


def shown_answers(
    catalogue: Catalogue, application: Application, show_secrets: bool = False
) -> dict[str, dict[str, Answer]]:
    return {
        module: {
            question: HIDDEN
            if answer is not None and not show_secrets and is_secret(catalogue, module, question)
            else answer
            for question, answer in answers.items()
        }
        for module, answers in application.answers.items()
    }


def recomposed(site: Site, made: Composition, base: Base) -> Site:
    """``site`` as it was composed anew; variables that a person set stay."""
    before = site.application.env if site.application is not None else {}
    by_person = {key: value for key, value in site.env.items() if before.get(key) != value}
    return msgspec.structs.replace(
        site,
        base=base,
        earlier=site.earlier if base.key == site.base.key else None,
        run=made.run,
        volumes=made.volumes,
        files=made.files,
        env={**made.env, **by_person},
        application=msgspec.structs.replace(made.application, env=made.env),
    )


def with_texts(site: Site, texts: Mapping[str, str]) -> Site:
    """``site`` with these hand-made texts as kept files."""
    if site.application is None or not texts:
        return site
    files = tuple(
        msgspec.structs.replace(each, text=texts[each.path]) if each.path in texts else each for each in site.files
    )
    application = msgspec.structs.replace(site.application, kept_files={**site.application.kept_files, **texts})
    return msgspec.structs.replace(site, files=files, application=application)


def unified(old: str, new: str, path: str) -> str:
    """The difference of two texts as ``diff -u`` writes it."""
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}", n=3
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def asked_views(
    catalogue: Catalogue, asked: Sequence[str], given: Given, context: SiteContext, before: Application | None = None
) -> tuple[module_views.QuestionView, ...]:
    return tuple(_asked_view(each) for each in questions(catalogue, asked, given, context, before))


def _asked_view(asked: Asked) -> module_views.QuestionView:
    view = question_view(asked.module, asked.question)
    return msgspec.structs.replace(
        view,
        default=None if view.secret else asked.value,
        shown="" if view.secret else asked.shown,
        answered=asked.answered,
        must=asked.must,
        problem=asked.problem,
    )


def question_view(module: str, question: Question) -> module_views.QuestionView:
    return module_views.QuestionView(
        module=module,
        name=question.name,
        type=str(question.type),
        title=text_view(question.title),
        description=text_view(question.description) if question.description else None,
        required=question.required,
        secret=question.type is QuestionType.PASSWORD,
        choices=tuple(
            module_views.ChoiceView(value=each.value, title=text_view(each.title)) for each in question.choices
        ),
        min=question.min,
        max=question.max,
        pattern=question.pattern,
        pattern_says=text_view(question.pattern_says) if question.pattern_says else None,
        when=question.when,
    )


def text_view(text: Text) -> module_views.TextView:
    return module_views.TextView(en=text.en, fr=text.fr)


def _lacks(have: Limits, need: Limits) -> str:
    found = []
    if have.memory_bytes < need.memory_bytes:
        found.append(f"{have.memory_bytes >> 20} MiB of memory, {need.memory_bytes >> 20} are needed")
    if have.pids < need.pids:
        found.append(f"{have.pids} processes, {need.pids} are needed")
    if have.disk_bytes is not None and (need.disk_bytes is None or have.disk_bytes < need.disk_bytes):
        wanted = "no limit" if need.disk_bytes is None else f"{need.disk_bytes >> 20} MiB"
        found.append(f"{have.disk_bytes >> 20} MiB of disk, {wanted} needed")
    return "; ".join(found)


def _example(module: Module) -> str:
    words = f"alveole site create my-{module.name} --module {module.name}"
    for each in module.manifest.questions:
        open_ = each.required and each.default is None and not each.default_from and not each.when
        if open_ and each.type is not QuestionType.PASSWORD:
            return f"{words} --set {each.name}=…"
    return f"{words} --defaults"


def _pack(folder: Path, file: io.BufferedWriter) -> None:
    """A tar of the files and directories below ``folder``; links and the rest are no content of a module."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for top, directories, names in os.walk(folder):
            directories.sort()
            for name in sorted([*directories, *names]):
                path = Path(top, name)
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    continue
                entry = archive.gettarinfo(path, str(path.relative_to(folder)))
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                if entry.isreg():
                    with path.open("rb") as content:
                        archive.addfile(entry, content)
                else:
                    archive.addfile(entry)
