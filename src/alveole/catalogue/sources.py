"""Where modules come from: the package itself, ``/etc/alveole/modules``, and added sources.

A module that cannot be read, or that others than root could have changed, is set aside with the
reason; it never takes the catalogue down.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from alveole.catalogue.checks import check
from alveole.catalogue.manifest import Module
from alveole.catalogue.reading import read_module

OWN = "alveole"
OWN_FOLDER = Path(__file__).resolve().parent.parent / "data" / "modules"
ADMIN_FOLDER = Path("/etc/alveole/modules")


class Catalogue:
    """The modules by name. Immutable."""

    def __init__(self, modules: Iterable[Module], aside: Mapping[str, str] | None = None) -> None:
        self.aside: dict[str, str] = dict(aside or {})
        """Folders that hold no module that may be used, with the reason."""
        self.modules: dict[str, Module] = {}
        self.aliases: dict[str, str] = {}
        for module in modules:
            if module.name in self.modules:
                self.aside.setdefault(module.name, f"{module.origin} has a module of a name that is taken")
            else:
                self.modules[module.name] = module
        for module in self.modules.values():
            for alias in module.manifest.aliases:
                if alias not in self.modules:
                    self.aliases.setdefault(alias, module.name)

    def get(self, name: str) -> Module | None:
        """The module of that name or alias."""
        return self.modules.get(self.aliases.get(name, name))

    def providers(self, name: str) -> tuple[str, ...]:
        """Modules that provide ``name``, by name."""
        return tuple(sorted(each.name for each in self.modules.values() if name in each.manifest.provides))


def _owned_by_root(folder: Path) -> str:
    """Why what is in ``folder`` may not be believed; empty when it may. The folders above count too."""
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        if status.st_uid != 0:
            return f"{path} does not belong to root"
        if stat.S_IMODE(status.st_mode) & 0o022 and not stat.S_ISLNK(status.st_mode):
            return f"{path} may be written by others than root"
    return ""


def read_folder(folder: Path, origin: str, *, roots_only: bool) -> tuple[list[Module], dict[str, str]]:
    """The modules of ``folder/*/``, and those set aside with the reason."""
    modules: list[Module] = []
    aside: dict[str, str] = {}
    try:
        found = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        why = _writable(folder) if roots_only else ""
    except OSError:
        return modules, aside
    for each in found:
        if each.is_symlink():
            aside[each.name] = "it is a link: a module is a folder"
            continue
        if not each.is_dir():
            continue
        try:
            reason = why or (_owned_by_root(each) if roots_only else "")
        except OSError as error:
            reason = f"it cannot be read: {error.strerror}"
        if reason:
            aside[each.name] = reason
            continue
        reading = read_module(each, origin)
        wrong = list(reading.findings)
        if reading.module is not None:
            wrong += [finding for finding in check(reading.module, reading.source) if not finding.warning]
        if wrong or reading.module is None:
            first = sorted(wrong)[0]
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            aside[each.name] = f"{first.where}: {first.message}{more}"
        else:
            modules.append(reading.module)
    return modules, aside


def _writable(folder: Path) -> str:
    status = folder.lstat()
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
        return f"{folder} does not belong to root alone"
    return ""


_cache: dict[tuple[tuple[str, str, bool], ...], tuple[object, Catalogue]] = {}
_lock = threading.Lock()


def load(extra: Iterable[tuple[str, Path]] = (), *, own: Path = OWN_FOLDER, admin: Path = ADMIN_FOLDER) -> Catalogue:
    """The catalogue as it is now: read again only when something changed in its folders.

    ``extra``: added sources, already checked by who added them, as name and folder.
    """
    places = ((OWN, str(own), False), (str(admin), str(admin), True), *((name, str(at), False) for name, at in extra))
    with _lock:
        marks = tuple(_mark(Path(folder)) for _, folder, _ in places)
        kept = _cache.get(places)
        if kept and kept[0] == marks:
            return kept[1]
        modules: list[Module] = []
        aside: dict[str, str] = {}
        for origin, folder, roots_only in places:
            found, bad = read_folder(Path(folder), origin, roots_only=roots_only)
            modules += found
            aside.update({name: reason for name, reason in bad.items() if name not in aside})
        catalogue = Catalogue(modules, aside)
        _cache.clear()
        _cache[places] = (marks, catalogue)
        return catalogue


def _mark(folder: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """Changes when anything below does: what a stat says is enough, and quick (a hundred files: a millisecond)."""
    found = []
    for top, _, files in os.walk(folder):
        for path in (top, *(os.path.join(top, name) for name in files)):  # noqa: PTH118  hot path
            try:
                status = os.lstat(path)
            except OSError:
                continue
            found.append((path, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid))
    return tuple(sorted(found))
