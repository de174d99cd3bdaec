"""Composing a site of modules again: other answers, other modules, and files that somebody changed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.catalogue.compose import Composition
from alveole.catalogue.sources import Catalogue
from alveole.errors import InvalidInput, Problem, Refused
from alveole.journal import Live, Work
from alveole.masking import mask, mask_by_name
from alveole.model.change import Change
from alveole.model.site import Answer, Application, ConfigFile, Site, Wanted
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.draft import Draft
from alveole.services.modules import asked_views, recomposed, shown_answers, unified, with_texts
from alveole.services.sites import SiteVerbs
from alveole.store import Transaction
from alveole.views import FileFate
from alveole.views import modules as module_views

_BY_HAND = "was changed by hand, and would be overwritten"


class Reconfigured(msgspec.Struct, frozen=True):
    """What a request to configure comes to. ``old`` is the site that it was worked out for."""

    old: Site
    new: Site
    undo: Site
    """Where a failure leads back to: as before, but for hand-made texts, which stay."""
    plan: module_views.ConfigurePlan
    take_back: tuple[str, ...]


class ConfigureVerbs(SiteVerbs):
    def preview_configure(self, caller: Actor, site: str, request: ask.ConfigureSite) -> module_views.ConfigurePlan:
        # Not for readers: what was typed into a file by hand is shown, and may be anything.
        told = self._answered_there(
            caller, Right.SITE_CHANGE, site, "/configure?dry_run=true", request, module_views.ConfigurePlan
        )
        if told is not None:
            here = self._stored(caller, Right.SITE_CHANGE, site, elsewhere=True).site
            return msgspec.structs.replace(told, version=here.version)
        return self._reconfigured(self._stored(caller, Right.SITE_CHANGE, site).site, request).plan

    def site_questions(self, caller: Actor, site: str, answers: Mapping[str, Answer]) -> module_views.QuestionsView:
        """The questions of a site of modules as they stand, with ``answers`` over its own. No password is shown."""
        asked = ask.ConfigureSite(answers=dict(answers))
        if told := self._answered_there(
            caller, Right.SITE_CHANGE, site, "/questions", asked, module_views.QuestionsView
        ):
            return told
        found = self._stored(caller, Right.SITE_CHANGE, site).site
        application = found.application
        if application is None:
            raise Refused(
                f"site {found.name} is not made of modules", field="site", hint="see: alveole site set --help"
            )
        catalogue, context = self.catalogue(), self._context_of(found)
        problems: tuple[Problem, ...] = ()
        try:
            self._compose_again(catalogue, application.asked, answers, context, application)
        except InvalidInput as error:
            problems = error.problems
        return module_views.QuestionsView(
            modules=tuple(application.modules),
            questions=asked_views(catalogue, application.asked, {"": dict(answers)}, context, application),
            problems=problems,
            plan=self._least_plan_of(found),
        )

    def configure_site(
        self,
        caller: Actor,
        site: str,
        request: ask.ConfigureSite,
        *,
        key: str | None = None,
        version: int | None = None,
    ) -> Change:
        there = self._there(caller, Right.SITE_CHANGE, "configure", site, "POST", "/configure", request, key, version)
        if there is not None:
            return there
        found: list[Reconfigured] = []

        def before() -> None:
            found.append(self._reconfigured(self._free_to_change(caller, Right.SITE_CHANGE, site, version), request))
            self._need_room()
            if found[0].plan.refused:
                hint = "--keep PATH lets it stay as it is, --take-back PATH gives it up"
                raise Refused(problems=[Problem(path, _BY_HAND, hint) for path in found[0].plan.refused])

        def build(transaction: Transaction) -> Live:
            done = found[0]
            old = self._free_to_change(caller, Right.SITE_CHANGE, site, version)
            if old.version != done.old.version:
                raise Refused(f"site {old.name} was changed meanwhile", field="site", hint="try again")
            new = self._flipped(old, msgspec.structs.replace(done.new, version=old.version + 1))
            transaction.save_site(new, self._names(new))
            work = Work(stored=True, undo=done.undo, take_back=done.take_back)
            # Names of questions only: their answers may be secrets.
            words = [f"{each.module}.{each.question}".lstrip(".") for each in done.plan.answers]
            return self.journal.begin(
                "configure",
                caller,
                site=new,
                reason=", ".join([*done.plan.modules, *words])[:500],
                work=work,
                result={"site": new.id, "version": new.version},
                transaction=transaction,
            )

        return self._accept(caller, self._digest("configure", site, request.digest(), str(version)), key, build, before)

    def _reconfigured(self, old: Site, request: ask.ConfigureSite) -> Reconfigured:
        """Raises ``InvalidInput`` and ``Refused`` with all that is wrong; files in the way are in the plan."""
        application = old.application
        if application is None:
            raise Refused(f"site {old.name} is not made of modules", field="site", hint="see: alveole site set --help")
        states: dict[str, protocol.ConfigState] = {}
        if old.files:
            found: tuple[protocol.ConfigState, ...] = self.agent.call(protocol.ReadConfig(old.id, old.number))
            states = {each.path: each for each in found}
        draft = Draft(self.settings, self.store.owner_of, old.id)
        keep, take_back = _by_hand(draft, application, states, request)
        texts = {path: text for path in keep if (text := states[path].text) is not None}
        kept = {path: text for path, text in application.kept_files.items() if path not in take_back} | texts
        catalogue = self.catalogue()
        asked = _asked(draft, catalogue, application, request)
        answers: dict[str, Answer] = {**request.answers, **dict.fromkeys(request.unset)}
        for name in request.unset:
            if name in request.answers:
                draft.wrong(f"answers.{name}", "is given and unset at once")
        try:
            made = self._compose_again(
                catalogue, asked, answers, self._context_of(old), msgspec.structs.replace(application, kept_files=kept)
            )
        except InvalidInput as error:
            raise InvalidInput(problems=(*draft.problems, *error.problems)) from None
        self._check_plan(draft, old.plan, made.least_plan)
        if made.content and old.release is None:
            draft.conflict("modules", "bring content, and this site has none", "give it content: alveole site update")
        draft.finish()
        new = self._recomposed(old, made)
        # A failure must not lose what somebody typed: it goes on as a kept text.
        undo = with_texts(old, {path: text for path in (*keep, *take_back) if (text := _text(states, path))})
        plan = self._plan_of(old, new, states, keep, take_back)
        forget = tuple(path for path in take_back if path in states and states[path].changed)
        return Reconfigured(old, new, undo, plan, forget)

    def _recomposed(self, old: Site, made: Composition) -> Site:
        # The same packages keep the base as it is: that is upgraded by a wish of its own.
        same = old.base.packages == tuple(sorted(set(made.packages)))
        base = old.base if same else self._resolve_base("debian", made.packages, not made.run.processes)
        return recomposed(old, made, base)

    def _plan_of(
        self,
        old: Site,
        new: Site,
        states: Mapping[str, protocol.ConfigState],
        keep: Sequence[str],
        take_back: Sequence[str],
    ) -> module_views.ConfigurePlan:
        hide = partial(mask, secrets=self._secrets(old.application) | self._secrets(new.application))
        before = {each.path: each for each in old.files}
        after = {each.path: each for each in new.files}
        files = []
        for path in sorted(before.keys() | after.keys()):
            one, other, state = before.get(path), after.get(path), states.get(path)
            fate = _fate(one, other, state, path in keep, path in take_back)
            if fate is None:
                continue
            shown = ""
            if fate not in (FileFate.KEPT, FileFate.CHANGED_BY_HAND):
                there = one.text if one else ""
                if state is not None and state.changed:
                    there = state.text or ""
                text = other.text if other else ""
                if fate is not FileFate.CHANGED and one is not None:
                    # A person typed it: its secrets are known by their names at most.
                    there, text = mask_by_name(there), mask_by_name(text)
                shown = unified(hide(there), hide(text), path)
            there_now = other or one
            restarts = there_now.restarts if there_now is not None and fate in _WRITTEN else ()
            files.append(views.FileChange(path=path, fate=fate, diff=shown, restarts=restarts))
        instance = self._why_anew(old, new)
        running = {each.name for each in new.run.processes} if old.wanted is Wanted.RUNNING else set()
        again = sorted({name for each in files for name in each.restarts if name in running})
        return module_views.ConfigurePlan(
            site=old.name,
            version=old.version,
            modules=_module_changes(old.application, new.application),
            answers=self._answer_changes(old.application, new.application),
            files=tuple(files),
            restarts=() if instance else tuple(again),
            instance=instance,
            refused=tuple(each.path for each in files if each.fate is FileFate.IN_THE_WAY),
            base=new.base.label if new.base.key != old.base.key else "",
        )

    def _why_anew(self, old: Site, new: Site) -> str:
        """Why the whole instance is made anew; empty when it goes on."""
        if old.wanted is not Wanted.RUNNING or self._workload_stamp(old) == self._workload_stamp(new):
            return ""
        causes = {
            "other packages": old.base.key != new.base.key,
            "other processes": old.run != new.run,
            "other volumes": old.volumes != new.volumes,
            "other directories": old.shared != new.shared,
            "other variables": old.env != new.env,
        }
        return ", ".join(cause for cause, there in causes.items() if there) or "another specification"

    def _answer_changes(
        self, old: Application | None, new: Application | None
    ) -> tuple[module_views.AnswerChange, ...]:
        if old is None or new is None:
            return ()
        found = []
        catalogue = self.catalogue()
        shown_old, shown_new = shown_answers(catalogue, old), shown_answers(catalogue, new)
        for module in dict.fromkeys((*new.answers, *old.answers)):
            one, other = old.answers.get(module, {}), new.answers.get(module, {})
            for question in dict.fromkeys((*other, *one)):
                if one.get(question) != other.get(question):
                    found.append(
                        module_views.AnswerChange(
                            module=module,
                            question=question,
                            before=shown_old.get(module, {}).get(question),
                            after=shown_new.get(module, {}).get(question),
                        )
                    )
        return tuple(found)


#: What makes processes start anew; a hand-made text that is kept too, for they may not have read it yet.
_WRITTEN = (FileFate.ADDED, FileFate.CHANGED, FileFate.REMOVED, FileFate.TAKEN_BACK, FileFate.KEPT)


def _fate(
    old: ConfigFile | None,
    new: ConfigFile | None,
    state: protocol.ConfigState | None,
    keep: bool,
    take_back: bool,
) -> FileFate | None:
    """What becomes of one file; ``None``: nothing, and there is nothing to say."""
    by_hand = state is not None and state.changed
    if keep:
        return FileFate.KEPT
    if take_back:
        return FileFate.TAKEN_BACK
    touched = old is None or new is None or old.text != new.text
    if by_hand:
        return FileFate.IN_THE_WAY if touched else FileFate.CHANGED_BY_HAND
    if old is None:
        return FileFate.ADDED
    if new is None:
        return FileFate.REMOVED
    return FileFate.CHANGED if old != new else None


def _by_hand(
    draft: Draft, application: Application, states: Mapping[str, protocol.ConfigState], request: ask.ConfigureSite
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files to keep and to take back; what cannot be either is a problem."""
    changed = [path for path, state in states.items() if state.changed]
    keep = tuple(dict.fromkeys((*request.keep, *(changed if request.keep_all else ()))))
    back = (*changed, *application.kept_files) if request.take_back_all else ()
    take_back = tuple(dict.fromkeys((*request.take_back, *back)))
    if request.keep_all and request.take_back_all:
        draft.wrong("keep_all", "cannot be given together with take_back_all", "one of the two")
        return (), ()
    for path in keep:
        if path in take_back and not (request.keep_all or request.take_back_all):
            draft.wrong("keep", f"{path} is to be kept and taken back at once")
        elif path not in changed:
            draft.wrong("keep", f"{path} was not changed by hand", "alveole site show lists those that were")
        elif states[path].text is None:
            draft.wrong("keep", f"{path} is gone, or is no text: it cannot be kept", "--take-back makes it again")
    for path in take_back:
        if path not in changed and path not in application.kept_files:
            draft.wrong("take_back", f"{path} is as it was rendered", "alveole site show lists those that are not")
    # What is named by itself is an exception to what is said of all.
    if request.keep_all:
        keep = tuple(path for path in keep if path not in take_back)
    if request.take_back_all:
        take_back = tuple(path for path in take_back if path not in keep)
    return tuple(path for path in keep if path in changed), take_back


def _asked(draft: Draft, catalogue: Catalogue, application: Application, request: ask.ConfigureSite) -> tuple[str, ...]:
    """The modules asked for from now on."""

    def real(name: str) -> str:
        module = catalogue.get(name)
        return module.name if module is not None else name

    asked = list(application.asked)
    for name in map(real, request.add_modules):
        if name in asked:
            draft.wrong("add_modules", f"{name!r} is among its modules already")
        else:
            asked.append(name)
    for name in map(real, request.remove_modules):
        if name in asked:
            asked.remove(name)
        elif name in application.modules:
            draft.wrong("remove_modules", f"{name!r} is needed by its other modules", "remove those that need it")
        else:
            draft.wrong("remove_modules", f"{name!r} is not one of its modules", "see: alveole site show")
    return tuple(asked)


def _text(states: Mapping[str, protocol.ConfigState], path: str) -> str | None:
    state = states.get(path)
    return state.text if state is not None and state.changed else None


def _module_changes(old: Application | None, new: Application | None) -> dict[str, str]:
    before, after = (each.modules if each is not None else {} for each in (old, new))
    found = {name: "added" for name in after if name not in before}
    found.update({name: "removed" for name in before if name not in after})
    found.update({name: "changed" for name in after if before.get(name, after[name]) != after[name]})
    return found
