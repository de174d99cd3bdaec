"""Read the folder of a module strictly: everything that is wrong with it, at once, with file and line.

This module reads files; what it gives (:class:`~alveole.catalogue.manifest.Module`) is a value.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
import tomllib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from alveole.catalogue.manifest import Manifest, Module
from alveole.errors import Problem

MANIFEST = "module.toml"
#: The most of everything a folder may hold.
MOST_MANIFEST = 256 * 1024
MOST_FILE = 1024 * 1024
MOST_FILES = 2_000
MOST_BYTES = 64 * 1024 * 1024
_HINT = "docs/reference/module.md has every key"


class Finding(msgspec.Struct, frozen=True, order=True):
    """One thing wrong with a module: the file of its folder, the line (0: unknown), the key, and why."""

    file: str
    line: int
    key: str
    message: str
    hint: str = ""
    warning: bool = False

    @property
    def where(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}" if self.key else place

    def problem(self, folder: str = "") -> Problem:
        return Problem(f"{folder}/{self.where}" if folder else self.where, self.message, self.hint)


@dataclass
class Reading:
    """What was found in a folder. ``module`` is there when its manifest and its files could be read."""

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    module: Module | None = None
    source: str = ""
    """The text of the manifest."""
    unused: tuple[str, ...] = ()
    """Templates and files that the manifest does not name."""

    def add(self, key: str, message: str, hint: str = "", *, file: str = MANIFEST, line: int = 0) -> None:
        if file == MANIFEST and not line:
            line = line_of(self.source, key)
        self.findings.append(Finding(file, line, key, message, hint))


def read_module(folder: Path, origin: str) -> Reading:
    """Read ``folder``. Never raises for what is in it: see ``findings``."""
    reading = Reading(folder)
    try:
        entries = list(_entries(folder))
    except OSError as error:
        reading.add("", f"cannot be read: {error.strerror}", file=str(folder))
        return reading
    except ValueError as error:
        reading.add("", str(error), file=str(folder))
        return reading
    manifest = _manifest(reading)
    if manifest is None:
        return reading
    if manifest.name != folder.name:
        reading.add("name", f"is {manifest.name!r}, and the folder is {folder.name!r}", "name both the same")
    try:
        digest = _digest(folder, entries)
        texts = {kind: _texts(reading, entries, kind) for kind in ("templates", "files")}
    except OSError as error:
        reading.add("", f"cannot be read: {error.strerror}", file=str(error.filename or folder))
        return reading
    wanted = {
        "templates": {entry.template for entry in manifest.files if entry.template},
        "files": {entry.file for entry in manifest.files if entry.file},
    }
    for kind, key in (("templates", "template"), ("files", "file")):
        for at, entry in enumerate(manifest.files):
            name = getattr(entry, key)
            if name and name not in texts[kind]:
                near = _near(name, texts[kind])
                reading.add(f"file[{at}].{key}", f"there is no {kind}/{name}", near or f"put it into {kind}/")
    reading.unused = tuple(
        f"{kind}/{name}" for kind in texts for name in sorted(texts[kind]) if name not in wanted[kind]
    )
    known = {"templates", "files", "content", MANIFEST, "README.md"}
    for name in sorted({path.split("/")[0] for path, _ in entries} - known):
        reading.add("", "does not belong in a module", _near(name, known), file=name)
    content = folder / "content"
    reading.module = Module(
        manifest, digest, origin, texts["templates"], texts["files"], str(content) if content.is_dir() else ""
    )
    return reading


#: Kept beside a module by git and by an interpreter that compiled its scripts, and no part of it.
_NOT_ITS_OWN = frozenset({".git", "__pycache__"})


def _entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below, as relative path and status. Raises ``ValueError`` for what no module holds."""
    size = count = 0
    for top, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if name not in _NOT_ITS_OWN)
        for name in sorted([*folders, *files]):
            path = Path(top, name)
            status = path.lstat()
            relative = str(path.relative_to(folder))
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{relative} is neither a file nor a folder; links are not followed")
            size, count = size + status.st_size, count + 1
            if size > MOST_BYTES or count > MOST_FILES:
                raise ValueError(f"holds more than {MOST_BYTES >> 20} MiB or {MOST_FILES:,} files")
            yield relative, status


def _raise(error: OSError) -> None:
    raise error


def _digest(folder: Path, entries: list[tuple[str, os.stat_result]]) -> str:
    """Of paths, the right to execute, and contents; order and dates of files do not matter."""
    whole = hashlib.sha256()
    for path, status in sorted(entries):
        content = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        whole.update(f"{path}\0{bool(status.st_mode & 0o100):d}\0{content}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _texts(reading: Reading, entries: list[tuple[str, os.stat_result]], kind: str) -> dict[str, str]:
    found = {}
    for path, status in entries:
        if not path.startswith(f"{kind}/"):
            continue
        if status.st_size > MOST_FILE:
            reading.add("", f"is larger than {MOST_FILE >> 20} MiB", file=path)
            continue
        try:
            found[path.removeprefix(f"{kind}/")] = (reading.folder / path).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            reading.add("", "is not UTF-8", "put binary files into content/", file=path)
    return found


def _manifest(reading: Reading) -> Manifest | None:
    path = reading.folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        reading.add("", f"cannot be read: {error.strerror}", "every module has one")
        return None
    if len(data) > MOST_MANIFEST:
        reading.add("", f"is larger than {MOST_MANIFEST >> 10} KiB")
        return None
    try:
        reading.source = data.decode("utf-8")
        raw = tomllib.loads(reading.source)
    except UnicodeDecodeError:
        reading.add("", "is not UTF-8")
        return None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"line (\d+)", str(error))
        reading.add("", f"is not TOML: {error}", line=int(at.group(1)) if at else 0)
        return None
    try:
        return msgspec.convert(raw, Manifest)
    except msgspec.ValidationError:
        convert(raw, Manifest, "", reading)
        return None


def convert(raw: Any, kind: Any, key: str, reading: Reading) -> None:
    """Say all that keeps ``raw`` from being a ``kind``: msgspec itself is quick, and stops at the first."""
    struct = _struct(kind)
    if struct is not None and isinstance(raw, dict):
        fields = {each.encode_name: each for each in msgspec.structs.fields(struct)}
        for name, value in raw.items():
            below = f"{key}.{name}" if key else name
            if name in fields:
                convert(value, fields[name].type, below, reading)
            else:
                reading.add(below, "is not a key of a module", _near(name, fields) or _HINT)
        for name, each in fields.items():
            if each.required and name not in raw:
                reading.add(f"{key}.{name}" if key else name, "is missing", _HINT)
        return
    item = _item(kind)
    if item is not None and _struct(item) is not None and isinstance(raw, list):
        for at, each in enumerate(raw):
            convert(each, item, f"{key}[{at}]", reading)
        return
    try:
        msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        message = re.sub(r" - at `\$\.*(.*)`$", lambda found: f" (at {found.group(1)})", str(error))
        message = message.replace("Expected `array`", "a list is expected").replace("Expected", "expected")
        reading.add(key, message, _HINT)


def _parts(kind: Any) -> tuple[Any, ...]:
    """``X | None`` and ``Annotated[X, …]`` taken apart."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _parts(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(part for each in typing.get_args(kind) for part in _parts(each))
    return (kind,)


def _struct(kind: Any) -> type[msgspec.Struct] | None:
    found = [each for each in _parts(kind) if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    return found[0] if found else None


def _item(kind: Any) -> Any:
    for each in _parts(kind):
        if typing.get_origin(each) is tuple:
            return typing.get_args(each)[0]
    return None


def _near(name: str, known: typing.Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {found[0]!r}?" if found else ""


def line_of(source: str, key: str) -> int:
    """The line of ``module.toml`` where ``question[1].type`` or ``web.port`` is written; 0 when not found."""
    parts = [(name, int(at) if at else None) for name, at in re.findall(r"([A-Za-z0-9_-]+)(?:\[(\d+)\])?", key)]
    if not parts:
        return 0
    lines = source.splitlines()
    start, best = 0, 0
    name, at = parts[0]
    head = rf"\s*\[\[\s*{re.escape(name)}\s*\]\]" if at is not None else rf"\s*\[\s*{re.escape(name)}\s*\]"
    seen = -1
    for number, text in enumerate(lines):
        if re.match(head, text):
            seen += 1
            if at is None or seen == at:
                start = best = number + 1
                break
    else:
        for number, text in enumerate(lines):
            if text.lstrip().startswith("["):
                break
            if re.match(rf"\s*{re.escape(name)}\s*[.=]", text):
                return number + 1
        return 0
    wanted = [each for each, _ in parts[1:]]
    dotted = re.escape(name) + "".join(rf"\.{re.escape(each)}" for each in wanted[:1])
    for number, text in enumerate(lines[start:], start + 1):
        if re.match(r"\s*\[", text) and not re.match(rf"\s*\[{{1,2}}\s*{dotted}", text):
            if not re.match(rf"\s*\[{{1,2}}\s*{re.escape(name)}\.", text):
                break
            continue
        if wanted and re.match(rf"\s*(?:\[{{1,2}}\s*{dotted}|{re.escape(wanted[0])}\s*[.=])", text):
            return number
    return best
