"""From the modules that were asked for to all that are needed, in the order in which they build on each other."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import msgspec

from alveole.catalogue.grammar import alternatives
from alveole.catalogue.manifest import Module
from alveole.catalogue.sources import Catalogue
from alveole.errors import InvalidInput, Problem

#: Answers the requests of a site none of whose modules does.
DEFAULT_FRONT = "nginx"


class Solution(msgspec.Struct, frozen=True):
    """``modules`` in order of need; ``front`` is the one that answers requests; ``why`` names who needs the others."""

    modules: tuple[Module, ...]
    asked: tuple[str, ...]
    front: Module
    why: dict[str, str]
    """Of each module that nobody asked for: ``needed by 'wordpress'``."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(module.name for module in self.modules)


def solve(catalogue: Catalogue, asked: Sequence[str]) -> Solution:
    """Every module of the site. Raises ``InvalidInput`` with all problems (field ``modules``)."""
    problems: list[Problem] = []
    names: list[str] = []
    for name in asked:
        module = catalogue.get(name)
        if module is None:
            problems.append(_unknown(catalogue, name))
        elif module.name not in names:
            names.append(module.name)
    if not asked:
        problems.append(Problem("modules", "no module is named", "give at least one, such as 'wordpress'"))
    if problems:
        raise InvalidInput(problems=problems)
    why: dict[str, str] = {}
    chosen = _close(catalogue, names, names, why, problems)
    if not problems and not any(module.manifest.web for module in chosen.values()):
        if catalogue.get(DEFAULT_FRONT) is None:
            problems.append(
                Problem(
                    "modules",
                    f"none of {_list(chosen)} answers requests, and the catalogue has no {DEFAULT_FRONT!r}",
                    "add a module with a [web] table",
                )
            )
        else:
            why[DEFAULT_FRONT] = "a site always answers at its name"
            chosen = _close(catalogue, [*chosen, DEFAULT_FRONT], names, why, problems)
    problems.extend(_conflicts(chosen.values()))
    edges = {name: _met_by(catalogue, module, chosen) for name, module in chosen.items()}
    order = _order(chosen, edges, problems)
    front = _front(chosen, edges, problems) if not problems else None
    if problems or front is None:
        raise InvalidInput(problems=problems)
    modules = tuple(chosen[name] for name in order)
    return Solution(modules, tuple(names), front, {name: why[name] for name in order if name not in names})


def _unknown(catalogue: Catalogue, name: str) -> Problem:
    providers = catalogue.providers(name)
    if providers:
        return Problem("modules", f"{name!r} is what several modules provide", f"choose {_either(providers)}")
    aside = catalogue.aside.get(name)
    if aside:
        return Problem("modules", f"module {name!r} is set aside: {aside}", "see 'alveole module lint'")
    near = difflib.get_close_matches(name, [*catalogue.modules, *catalogue.aliases], 3)
    hint = f"did you mean {_either(near)}?" if near else "'alveole module list' shows them all"
    return Problem("modules", f"there is no module {name!r}", hint)


def _candidates(catalogue: Catalogue, need: str) -> tuple[str, ...]:
    """Names of the modules that meet ``need``, the preferred first."""
    found: list[str] = []
    for name in alternatives(need):
        module = catalogue.get(name)
        for each in (module.name,) if module else catalogue.providers(name):
            if each not in found:
                found.append(each)
    return tuple(found)


def _close(
    catalogue: Catalogue, start: Iterable[str], asked: Sequence[str], why: dict[str, str], problems: list[Problem]
) -> dict[str, Module]:
    """``start`` and everything it needs. What leaves no choice comes first, so that a choice can fall on it."""
    chosen = {name: catalogue.modules[name] for name in start}
    told: set[tuple[str, str]] = set()
    while True:
        open_needs = []
        for name, module in chosen.items():
            for need in module.manifest.needs.mandatory:
                candidates = _candidates(catalogue, need)
                if not candidates:
                    if (name, need) not in told:
                        told.add((name, need))
                        problems.append(
                            Problem(
                                "modules", f"{name!r} needs {need!r}, which no module of the catalogue is or provides"
                            )
                        )
                elif not any(each in chosen for each in candidates):
                    open_needs.append((name, candidates))
        if not open_needs:
            return chosen
        name, candidates = next((each for each in open_needs if len(each[1]) == 1), open_needs[0])
        taken = next((each for each in candidates if each in asked), None)
        if taken is None:
            clash = [each for each in candidates if not _clashes(catalogue.modules[each], chosen.values())]
            taken = clash[0] if clash else candidates[0]
        why.setdefault(taken, f"needed by {name!r}")
        chosen[taken] = catalogue.modules[taken]


def _is(module: Module, name: str) -> bool:
    return name in (module.name, *module.manifest.aliases, *module.manifest.provides)


def _clash(one: Module, other: Module) -> bool:
    return one.name != other.name and (
        any(_is(other, name) for name in one.manifest.conflicts)
        or any(_is(one, name) for name in other.manifest.conflicts)
    )


def _clashes(module: Module, others: Iterable[Module]) -> bool:
    return any(_clash(module, other) for other in others)


def _conflicts(modules: Iterable[Module]) -> list[Problem]:
    found = list(modules)
    return [
        Problem("modules", f"{one.name!r} and {other.name!r} cannot be in one site", "make a site of each")
        for at, one in enumerate(found)
        for other in found[at + 1 :]
        if _clash(one, other)
    ]


def _met_by(catalogue: Catalogue, module: Module, chosen: dict[str, Module]) -> tuple[str, ...]:
    """Which of ``chosen`` meet the module's needs."""
    found: list[str] = []
    for need in module.manifest.needs.mandatory:
        met = [name for name in _candidates(catalogue, need) if name in chosen and name != module.name]
        found.extend(name for name in met[:1] if name not in found)
    return tuple(found)


def _order(chosen: dict[str, Module], edges: dict[str, tuple[str, ...]], problems: list[Problem]) -> list[str]:
    """What is needed first. An optional need orders too, unless that would make a circle."""
    after = {name: list(needed) for name, needed in edges.items()}
    for name, module in chosen.items():
        for wished in module.manifest.needs.optional:
            other = next((each for each in chosen if each != name and _is(chosen[each], wished)), None)
            if other and name not in _reach(after, other):
                after[name].append(other)
    order: list[str] = []
    path: list[str] = []
    told = False

    def visit(name: str) -> None:
        nonlocal told
        if name in order:
            return
        if name in path:
            if not told:
                told = True
                circle = " -> ".join([*path[path.index(name) :], name])
                problems.append(Problem("modules", f"modules need each other in a circle: {circle}", "break it"))
            return
        path.append(name)
        for needed in after[name]:
            visit(needed)
        path.pop()
        order.append(name)

    for name in chosen:
        visit(name)
    return order


def _reach(edges: dict[str, list[str]] | dict[str, tuple[str, ...]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(edges[name])
    return seen


def _front(chosen: dict[str, Module], edges: dict[str, tuple[str, ...]], problems: list[Problem]) -> Module | None:
    """The one that answers requests; of several, the one that needs all the others (and passes on to them)."""
    fronts = [name for name, module in chosen.items() if module.manifest.web]
    for name in fronts:
        if set(fronts) <= _reach(edges, name):
            return chosen[name]
    problems.append(
        Problem(
            "modules",
            f"{_list(fronts)} would all answer the site's requests",
            "keep one of them, or make a site of each",
        )
    )
    return None


def _list(names: Iterable[str]) -> str:
    found = [repr(name) for name in names]
    return found[0] if len(found) == 1 else ", ".join(found[:-1]) + f" and {found[-1]}"


def _either(names: Iterable[str]) -> str:
    found = [repr(name) for name in names]
    return found[0] if len(found) == 1 else ", ".join(found[:-1]) + f" or {found[-1]}"
