"""Bases: shared read-only root file systems, each named by a key that says what determines it.

``host`` is a skeleton of links around the machine's own ``/usr``; ``debian`` is made by mmdebstrap
from the machine's own apt sources; ``oci`` comes in by ``actuators.images``. A base is made in a
directory that nothing uses and gets its name by one rename, when everything is on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import platform
import re
import secrets
import shutil
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from alveole import failpoints, wholefile
from alveole.actuators.debian import ALWAYS, DROPPED, Debian, differences, installed, no_package
from alveole.actuators.hostbase import DATA, STATIC_CONFIG, host_parts, make_host
from alveole.actuators.releases import room
from alveole.agent.agent import check_spec
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, InvalidInput, NoRoom, NotFound, Problem, Refused, Temporary
from alveole.host import apt, bases, paths, syscalls
from alveole.host.aptcache import FRESH_SECONDS, Cache
from alveole.host.bases import BaseRecord, mapped_tree, read_record, write_record
from alveole.host.run import ProgramFailed
from alveole.host.sandbox import Sandbox, as_root
from alveole.host.tree import size_text, sync
from alveole.model.names import DIGEST, PACKAGE
from alveole.model.resource import (
    PLATFORM,
    Action,
    BaseSpec,
    Defect,
    Kind,
    Observation,
    Observed,
    Outcome,
    ResourceId,
    Step,
    stamp,
)
from alveole.model.site import MIB, Base, BaseKind

log = logging.getLogger("alveole.agent")
_IMPORT = "import it again: alveole image import"
#: Rise when the way a base is made changes what comes out.
HOST_VERSION = 1
DEBIAN_VERSION = 2
#: A minimal root with a server takes some 200 MB, and its packages 60 while it is made.
DEBIAN_BYTES = 400 * MIB
#: How much of a building of a layer is that of the base below, when that has to be made as well.
_COMMON_SHARE = 0.5


class Bases:
    """Resolves, builds, adopts and drops bases."""

    kinds = frozenset({Kind.BASE})

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._cache = Cache(settings)
        self.debian = Debian(settings, self._cache)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.running: Callable[[], Iterable[tuple[str, float]]] = tuple
        """The base of each running instance and since when it runs."""
        self._leaning: Counter[str] = Counter()
        """Bases that a layer is being made over, and by how many builds."""
        self._leaning_lock = threading.Lock()

    def recover(self) -> None:
        """Remove what builds and removals left that a death cut short. Once, at the start of the agent."""
        self.sweep()
        for path in sorted(paths.bases(self._settings).glob(".*")):
            if path.name.startswith(".aside."):
                continue
            log.info("removing %s, left by an interrupted build", path)
            self._remove(path)
        self._cache.recover()

    def resolve(self, kind: str, packages: Sequence[str] = ()) -> Base:
        """The key of the host's base or of a set of Debian packages; builds and contacts nothing.

        Raises ``InvalidInput`` with every name that is no package, or none that this machine's
        package lists know.
        """
        if kind == BaseKind.HOST:
            if packages:
                raise InvalidInput("the base host takes no packages", field="packages", hint="use --base debian")
            return Base(BaseKind.HOST, f"host-{_hex(['host', HOST_VERSION, *host_parts()])}")
        if kind != BaseKind.DEBIAN:
            raise InvalidInput(f"{kind!r} is not a kind of base", field="base", hint="use host, debian or an image")
        wanted = tuple(sorted(set(packages)))
        wrong = [name for name in wanted if not re.match(PACKAGE, name)]
        if wrong:
            raise InvalidInput(problems=[Problem("packages", f"{name!r} is not a package name") for name in wrong])
        key = debian_key(wanted)
        if not paths.base_record(self._settings, key).exists() and (absent := self._unknown(wanted)):
            raise InvalidInput(problems=[no_package(name) for name in absent])
        return Base(BaseKind.DEBIAN, key, wanted)

    def _unknown(self, packages: Sequence[str]) -> list[str]:
        # What further sources bring, the machine's own lists do not know: then the build finds out.
        return [] if self._settings.bases.sources else apt.unknown(packages)

    def build(self, base: Base, say: Say = quiet) -> BaseRecord:
        """Make ``base`` unless it is there; a second caller for the same key waits for the first.

        Raises ``InvalidInput`` for a package that does not exist, ``NoRoom``, ``Refused`` for an
        image (it cannot be made from its name), ``ProgramFailed`` with the tail of the build.
        """
        with self._locks[base.key]:
            pins: dict[str, str] = {}
            if paths.base(self._settings, base.key).exists():
                record, defects = self.look(base.key)
                if record is not None and not defects:
                    return record
                if record is not None and record.lower and self._mend_below(record, say):
                    return record
                if base.kind is BaseKind.OCI:
                    causes = "; ".join(defect.cause for defect in defects)
                    raise Refused(f"the image {base.label} is damaged: {causes}", field="base", hint=_IMPORT)
                pins = self.packages(base.key)
                self._set_aside(base.key)
            if base.kind is BaseKind.OCI:
                raise Refused(f"the image {base.label} is not here", field="base", hint=_IMPORT)
            left, _ = room(self._settings, self._prepare())
            if base.kind is BaseKind.HOST:
                return self._build_host(base, say)
            if left < DEBIAN_BYTES:
                raise NoRoom(f"a Debian base needs {size_text(DEBIAN_BYTES)}, {size_text(left)} are left", field="disk")
            say(f"building {base.label}", 0.0)
            make = self._build_layer if base.packages else self._build_common
            return make(base, say, pins)

    def _mend_below(self, record: BaseRecord, say: Say) -> bool:
        """Make what a sound layer leans on anew where that is damaged; whether the layer still fits then."""
        if self.own_defects(record):
            return False
        with contextlib.suppress(AlveoleError, ValueError):
            lowers = tuple(bases.below(self._settings, record))
            if not self.defects(lowers[0]):
                return False
            # That one mends what is below it in its turn.
            self.build(lowers[0].base, say)
        return not self.defects(record)

    def look(self, key: str) -> tuple[BaseRecord | None, tuple[Defect, ...]]:
        """The record of a base that is there, unless it cannot be read, and what is wrong with the base."""
        try:
            record = read_record(self._settings, key)
        except (AlveoleError, ValueError) as error:
            return None, (Defect("damaged", f"the base's record: {error}"),)
        return record, self.defects(record)

    def packages(self, key: str) -> dict[str, str]:
        """Package to version of what a base holds; ``{}`` when it cannot be told."""
        with contextlib.suppress(AlveoleError, ValueError, OSError):
            return installed(bases.find(bases.trees(self._settings, key), "var/lib/dpkg/status"))
        return {}

    def _build_host(self, base: Base, say: Say) -> BaseRecord:
        with self.staging(base.key) as staging:
            say("making the base host", None)
            make_host(staging / "root")
            sync([str(staging)])
            record = BaseRecord(base, time.time(), 0, 0)
            self.adopt(staging, record)
            return record

    def _build_common(self, base: Base, say: Say, pins: Mapping[str, str]) -> BaseRecord:
        with self.staging(base.key) as staging:
            return self.adopt(staging, self.fill_common(staging, base, say, pins))

    def fill_common(self, staging: Path, base: Base, say: Say, pins: Mapping[str, str] | None = None) -> BaseRecord:
        """Make the tree of a common base in ``staging``; gives its record, and no name yet."""
        self.debian.make_common(staging, say, pins)
        say("finishing", 0.95)
        used = self.finish(staging / "root", drop=DROPPED)
        versions = versions_of(installed(staging / "root" / "var/lib/dpkg/status"))
        return BaseRecord(base, time.time(), used["bytes"], used["files"], versions=versions)

    def _build_layer(self, base: Base, say: Say, pins: Mapping[str, str]) -> BaseRecord:
        with self._common(say) as (common, begin):

            def tell(text: str, share: float | None = None) -> None:
                say(text, None if share is None else begin + share * (1 - begin))

            with self.lowers_of(base, common) as lowers, self.staging(base.key) as staging:
                return self.adopt(staging, self.fill_layer(staging, base, lowers, tell, pins=pins))

    def fill_layer(
        self,
        staging: Path,
        base: Base,
        lowers: Sequence[BaseRecord],
        say: Say,
        *,
        pins: Mapping[str, str] | None = None,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> BaseRecord:
        """Make the tree of a layer over one of ``lowers`` in ``staging``; gives its record, and no name yet."""
        trees = [bases.trees(self._settings, lower.base.key) for lower in lowers]
        chosen = self.debian.make_layer(staging, trees, base.packages, say, pins=pins, fresh_seconds=fresh_seconds)
        lower, below = lowers[chosen], trees[chosen]
        say("finishing", 0.95)
        used = self.finish(staging / "root", drop=DROPPED, layer=True)
        return BaseRecord(
            base,
            time.time(),
            used["bytes"],
            used["files"],
            lower=lower.base.key,
            versions=versions_of(installed(bases.find([staging / "root", *below], "var/lib/dpkg/status"))),
            lower_versions=lower.versions,
        )

    @contextlib.contextmanager
    def _common(self, say: Say) -> Iterator[tuple[BaseRecord, float]]:
        """The newest base that stands alone, made when there is none, and the share of the work that this was.

        It is not dropped inside.
        """
        lower = self.newest_common()
        begin = 0.0
        if lower is None:
            begin = _COMMON_SHARE

            def tell(text: str, share: float | None = None) -> None:
                say(text, None if share is None else share * begin)

            lower = self.build(self.resolve(BaseKind.DEBIAN), tell)
        with self.leaning_on(lower.base.key):
            yield lower, begin

    def newest_common(self) -> BaseRecord | None:
        found = [record for record in self.records() if _is_common(record)]
        return max(found, key=lambda record: record.made_at) if found else None

    @contextlib.contextmanager
    def lowers_of(self, base: Base, common: BaseRecord) -> Iterator[tuple[BaseRecord, ...]]:
        """What a layer of the packages of ``base`` may lie over: ``common``, then each sound layer over it of some of
        them, unless so many lie over each other already. None of them is dropped inside."""
        over = {base.key, *self.layers_over(base.key)}
        found = [
            record
            for record in self.records()
            if set(record.base.packages) < set(base.packages)
            and record.base.key not in over
            and self._is_over(record, common)
        ]
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.leaning_on(common.base.key))
            there = [common]
            for record in found:
                with contextlib.suppress(NotFound, ValueError):
                    stack.enter_context(self.leaning_on(record.base.key))
                    there.append(record)
            yield tuple(there)

    def _is_over(self, record: BaseRecord, common: BaseRecord) -> bool:
        """Whether the base is a layer over ``common``, and one more may lie over it."""
        with contextlib.suppress(NotFound, ValueError):
            below = [each.base.key for each in bases.below(self._settings, record)]
            return common.base.key in below and len(below) + 1 < bases.DEPTH
        return False

    @contextlib.contextmanager
    def leaning_on(self, key: str) -> Iterator[None]:
        """The base is not dropped inside. Raises ``NotFound`` when it is not there."""
        with self._leaning_lock:
            read_record(self._settings, key)
            self._leaning[key] += 1
        try:
            yield
        finally:
            with self._leaning_lock:
                self._leaning[key] -= 1

    def records(self) -> list[BaseRecord]:
        """Of every sound base on the disk."""
        found = []
        for path in sorted(paths.bases(self._settings).glob("[a-z]*-*")):
            with contextlib.suppress(AlveoleError, ValueError):
                if not self.defects(record := read_record(self._settings, path.name)):
                    found.append(record)
        return found

    def own_defects(self, record: BaseRecord) -> tuple[Defect, ...]:
        """What is wrong with the base's own files, as far as a glance tells."""
        key = record.base.key
        if not any((paths.base_root(self._settings, key) / name).is_dir() for name in ("etc", "usr", "var")):
            return (Defect("damaged", "the base's files are gone"),)
        with contextlib.suppress(FileNotFoundError):
            return (Defect("damaged", paths.base_damage(self._settings, key).read_text(encoding="utf-8")),)
        return ()

    def defects(self, record: BaseRecord) -> tuple[Defect, ...]:
        """What is wrong with a base or what it leans on."""
        if own := self.own_defects(record):
            return own
        over = record
        try:
            for lower in bases.below(self._settings, record):
                words = f"the base it leans on, {lower.base.key}"
                if damage := self.own_defects(lower):
                    return (Defect("damaged", f"{words}: {damage[0].cause}"),)
                if lower.versions != over.lower_versions:
                    return (Defect("damaged", f"{words}, was made anew with other packages"),)
                over = lower
        except (AlveoleError, ValueError) as error:
            return (Defect("damaged", f"the base it leans on: {error}"),)
        return ()

    def _prepare(self) -> Path:
        top = paths.bases(self._settings)
        top.mkdir(parents=True, exist_ok=True)
        top.chmod(0o700)
        return top

    @contextlib.contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A new directory with an empty ``root`` (0755, root's), removed at the end unless it was adopted."""
        path = self._prepare() / f".new.{name}.{secrets.token_hex(4)}"
        path.mkdir(0o700)
        try:
            (path / "root").mkdir(0o755)
            (path / "root").chmod(0o755)
            yield path
        finally:
            self._remove(path)

    def finish(self, root: Path, *, drop: Sequence[str] = (), layer: bool = False) -> dict[str, int]:
        """Make a tree fit to be a base (``host.layers.finish_root``), as root of the bases' range."""
        files = {"etc/alveole/nginx.conf": STATIC_CONFIG.read_text(encoding="utf-8")}
        if not (DATA / "skeleton" / "etc" / "nginx" / "mime.types").exists():
            raise Temporary("Alvéole's data files are incomplete", hint="install it again")
        args = {"drop": list(drop), "layer": True} if layer else {"drop": list(drop), "files": files}
        with mapped_tree(self._settings, root) as fd:
            found = self._sandbox.run("finish", fd, as_root(self._settings, bases.NUMBER), args)
        return {"bytes": int(found["bytes"]), "files": int(found["files"])}

    def adopt(self, staging: Path, record: BaseRecord) -> BaseRecord:
        """Give a finished tree its name, and a list of its files' digests beside it. One that is there is set aside."""
        with (staging / "manifest").open("xb") as file, mapped_tree(self._settings, staging / "root") as tree:
            ids = as_root(self._settings, bases.NUMBER)
            made = self._sandbox.run("manifest", tree, ids, {}, fds=(file.fileno(),))
        record = msgspec.structs.replace(record, manifest=str(made["digest"]))
        write_record(staging / "base.json", record)
        wholefile.sync_directory(staging)
        failpoints.hit("base-built")
        target = paths.base(self._settings, record.base.key)
        if target.exists():
            self._set_aside(record.base.key)
        staging.rename(target)
        wholefile.sync_directory(target.parent)
        return record

    def adopt_once(self, staging: Path, record: BaseRecord) -> BaseRecord:
        """Adopt a base that is named by the versions that came out, unless the same is there already."""
        key = debian_key(record.base.packages, record.versions)
        record = msgspec.structs.replace(record, base=msgspec.structs.replace(record.base, key=key))
        with self._locks[key]:
            if paths.base(self._settings, key).exists():
                there, defects = self.look(key)
                if there is not None and not defects:
                    return there
            return self.adopt(staging, record)

    def _set_aside(self, key: str) -> None:
        """Take a base's name away from its files. They stay while an instance runs from them."""
        path = paths.base(self._settings, key)
        path.rename(path.with_name(f".aside.{key}.{int(time.time())}.{secrets.token_hex(4)}"))
        wholefile.sync_directory(path.parent)
        self.sweep()

    def set_aside(self) -> dict[str, float]:
        """Bases whose damaged files instances still run from, and since when (seconds since the epoch)."""
        found: dict[str, float] = {}
        for path in paths.bases(self._settings).glob(".aside.*"):
            _, _, key, at, _ = path.name.split(".")
            found[key] = max(found.get(key, 0.0), float(at))
        return found

    def sweep(self) -> None:
        """Remove what was set aside and nothing runs from any more."""
        asides = sorted(paths.bases(self._settings).glob(".aside.*"))
        if not asides:
            return
        running = list(self.running())
        for path in asides:
            _, _, key, at, _ = path.name.split(".")
            keys = {key, *self.layers_over(key)}
            if not any(base in keys and since <= float(at) + 1 for base, since in running):
                self._remove(path)

    def drop(self, key: str) -> None:
        """Remove a base; an absent one is fine. Whether a site still uses it is control's to know.

        Raises ``Refused`` while a layer leans on it.
        """
        with self._locks[key]:
            path = paths.base(self._settings, key)
            gone = path.with_name(f".gone.{key}.{secrets.token_hex(4)}")
            with self._leaning_lock:
                if self._leaning[key] or (layers := self.layers_over(key)):
                    names = ", ".join(layers[:3]) if not self._leaning[key] else "one that is being built"
                    raise Refused(f"other bases lean on {key}: {names}", field="base", hint="drop them first")
                if path.exists():
                    path.rename(gone)
            wholefile.sync_directory(gone.parent)
            self._remove(gone)
        self.sweep()

    def layers_over(self, key: str) -> list[str]:
        """The bases that lie over ``key``, and those over them."""
        lowers: dict[str, str] = {}
        for path in sorted(paths.bases(self._settings).glob("debian-*")):
            with contextlib.suppress(AlveoleError, ValueError):
                lowers[path.name] = read_record(self._settings, path.name).lower
        found = [key]
        for under in found:
            found += [name for name, lower in lowers.items() if lower == under and name not in found]
        return found[1:]

    def _remove(self, path: Path) -> None:
        if not path.is_dir():
            return
        for point in syscalls.mount_points(path):
            syscalls.umount(point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        root = path / "root"
        if root.is_dir() and not root.is_symlink():
            with mapped_tree(self._settings, root) as fd:
                self._sandbox.run("remove", fd, as_root(self._settings, bases.NUMBER), {"paths": None})
        shutil.rmtree(path)

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        if scopes is not None and PLATFORM not in scopes:
            return Observation(())
        found = []
        for path in sorted(paths.bases(self._settings).glob("[a-z]*-*")):
            id = ResourceId(Kind.BASE, PLATFORM, path.name)
            record, defects = self.look(path.name)
            if record is None:
                found.append(Observed(id, "", False, defects))
                continue
            detail: dict[str, str | int | float] = {
                "bytes": record.bytes,
                "files": record.files,
                "made_at": record.made_at,
                "label": record.base.label,
                **({"lower": record.lower} if record.lower else {}),
            }
            uses = (ResourceId(Kind.BASE, PLATFORM, record.lower),) if record.lower else ()
            found.append(Observed(id, stamp(BaseSpec(record.base)), not defects, defects, uses, detail))
        return Observation(tuple(found))

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        if step.action is Action.DELETE:
            self.drop(step.id.name)
            return Outcome(True)
        spec: BaseSpec = check_spec(step, BaseSpec)
        key = spec.base.key
        before = self.packages(key) if step.action is not Action.CREATE else {}
        try:
            self.build(spec.base, say)
        except ProgramFailed as error:
            return Outcome(False, str(error), tail=error.tail)
        except (InvalidInput, Refused) as error:
            return Outcome(False, str(error), temporary=isinstance(error, NoRoom))
        if not before:
            return Outcome(True)
        changed = differences(before, self.packages(key))
        told = ", ".join(f"{each.name} {each.before} → {each.after}" for each in changed[:10])
        what = f"{len(changed)} packages could not be had as they were: {told}" if changed else "the same packages"
        return Outcome(True, f"made anew with {what}")


def _is_common(record: BaseRecord) -> bool:
    return record.base.kind is BaseKind.DEBIAN and not record.lower and not record.base.packages


def debian_key(packages: Sequence[str], versions: str = "") -> str:
    """The key of a set of packages; with ``versions`` that of the set as it was made anew with these."""
    parts = ["debian", DEBIAN_VERSION, apt.suite(), platform.machine(), *ALWAYS, *packages]
    return f"debian-{_hex([*parts, [versions]] if versions else parts)}"


def versions_of(packages: dict[str, str]) -> str:
    """Names a set of packages with their versions, in 16 hex digits."""
    return _hex(sorted(packages.items()))


def _hex(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def check_digest(text: object) -> str:
    """A digest that came out of a child, checked before it becomes a name. Raises ``Temporary``."""
    if not isinstance(text, str) or not re.match(DIGEST, text):
        raise Temporary("the content has no digest")
    return text
