"""The rendered configuration files of sites of modules: ``S/sites/<id>/config/files``, seen as ``/config``.

Written in place, each as a whole, so that a change of a file starts only the processes anew that
read it. ``stamp.json`` beside the files, out of the container's reach, remembers what was written:
what differs from that was changed by hand and is never overwritten without a word. Which processes
have to be started anew is remembered before the first file is written, so that a death in between
loses none of them; what each instance has read is kept with the instance.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from alveole.agent.protocol import ConfigState
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import InvalidInput, NotFound
from alveole.failpoints import hit
from alveole.host import configfiles, configstamp, instances, mounts, paths
from alveole.host.configstamp import FileRecord, Readers, Stamp
from alveole.host.sandbox import Sandbox, as_root
from alveole.host.tree import write_all
from alveole.loop.plan import BY_HAND
from alveole.model.names import SiteId
from alveole.model.resource import (
    Action,
    ConfigSpec,
    Defect,
    Kind,
    Observation,
    Observed,
    Outcome,
    ResourceId,
    Step,
)
from alveole.model.site import ConfigFile

NAME = "config"
_HAND = "was changed by hand"


class _State(msgspec.Struct, frozen=True):
    """A file as it lies there now. ``sha256`` is empty for what is no plain file."""

    sha256: str
    uid: int
    mode: int
    mark: tuple[int, ...]
    text: str | None = None


class Failure(Protocol):
    @property
    def message(self) -> str: ...
    @property
    def tail(self) -> tuple[str, ...]: ...


class Instances(Protocol):
    """What is asked of the back end: run change tasks, and start anew who has read something else than ``readers``."""

    def refresh(
        self, site: SiteId, readers: Readers, forced: Collection[str] = (), say: Say = quiet
    ) -> Failure | None: ...


_states: msgspec.json.Decoder[dict[str, _State]] = msgspec.json.Decoder(dict[str, _State])
_Seen = dict[str, tuple[tuple[int, ...], str]]


class ConfigFiles:
    kinds = frozenset({Kind.CONFIG})

    def __init__(self, settings: Settings, sandbox: Sandbox, running: Instances) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._running = running
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._busy: set[str] = set()
        # By site: the stamp as it was read, and by file what a closer look found at a mark other than written.
        self._read: dict[str, tuple[tuple[int, int, int], Stamp]] = {}
        self._looked: dict[str, _Seen] = {}

    # Looking

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        found: list[Observed] = []
        try:
            if scopes is None:
                with os.scandir(paths.sites(self._settings)) as entries:
                    scopes = [entry.name for entry in entries if entry.name.startswith("s")]
            for site in sorted(scopes):
                if (seen := self._observe(site)) is not None:
                    found.append(seen)
        except FileNotFoundError:
            pass
        except OSError as error:
            return Observation(tuple(found), ((Kind.CONFIG, f"{error.filename}: {error.strerror}"),))
        return Observation(tuple(found))

    def _observe(self, site: str) -> Observed | None:
        id = ResourceId(Kind.CONFIG, site, NAME)
        try:
            stamp = self._load(site)
        except msgspec.DecodeError:
            return Observed(id, "", False, (Defect("damaged", "its record cannot be read"),))
        if stamp is None:
            return None
        if site in self._busy:
            return Observed(id, stamp.digest, True)
        defects = tuple(self._defects(site, stamp))
        return Observed(id, stamp.digest, all(defect.code == BY_HAND for defect in defects), defects)

    def _defects(self, site: str, stamp: Stamp) -> Iterator[Defect]:
        top = os.fspath(paths.config_files(self._settings, site))
        touched = []
        for path, record in stamp.files.items():
            try:
                mark = tuple(configfiles.mark(os.lstat(f"{top}/{path}")))
            except (FileNotFoundError, NotADirectoryError):
                yield Defect("missing", f"{path} is gone")
                continue
            if mark != record.mark:
                touched.append((path, mark))
        if touched:
            known = self._looked.get(site, {})
            if any(known.get(path, ((), ""))[0] != mark for path, mark in touched):
                known = self._closer(site, stamp, [path for path, _ in touched])
            for path, _ in touched:
                if code := known.get(path, ((), ""))[1]:
                    text = _HAND if code == BY_HAND else "has another owner or mode"
                    yield Defect(code, f"{path} {text}")
        if stamp.changed:
            yield Defect("pending", "processes have yet to take the new files over")

    def _closer(self, site: str, stamp: Stamp, touched: list[str]) -> _Seen:
        seen: _Seen = {}
        states = self._states(site, stamp.number, touched)
        for path in touched:
            state, record = states.get(path), stamp.files[path]
            if state is None:
                continue
            code = ""
            if not stamp.knows(path, state.sha256):
                code = BY_HAND
            elif (state.uid, state.mode) != (record.uid, record.mode):
                code = "owner"
            seen[path] = (state.mark, code)
        self._looked[site] = seen
        return seen

    # Acting

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        site = step.id.scope
        with self._locks[site]:
            if step.action is Action.DELETE:
                self._delete(site)
                return Outcome(True)
            if not isinstance(step.spec, ConfigSpec) or step.spec.site != site:
                raise InvalidInput(f"{step.action} {step.id} needs a specification", field="step.spec")
            self._busy.add(site)
            try:
                return self._keep(step.spec, step, say)
            finally:
                self._busy.discard(site)

    def _keep(self, spec: ConfigSpec, step: Step, say: Say) -> Outcome:
        try:
            stamp = self._load(spec.site)
        except msgspec.DecodeError:
            stamp = None
        before = stamp or Stamp("", spec.number)
        self._ensure_place(spec)
        wanted = {file.path: file for file in spec.files}
        states = self._states(spec.site, spec.number, wanted)
        write: list[ConfigFile] = []
        records: dict[str, FileRecord] = {}
        forced = set(before.forced)
        for path, file in wanted.items():
            record, state = before.files.get(path), states.get(path)
            sha256 = hashlib.sha256(file.text.encode()).hexdigest()
            mark = state.mark if state is not None else ()
            records[path] = FileRecord(sha256, file.uid, file.mode, file.restarts, mark)
            if state is not None and state.sha256 == sha256:
                if not before.knows(path, sha256) and stamp is not None:
                    # What somebody typed is wanted by now: who reads it may have started before that.
                    forced.update(file.restarts)
                if (state.uid, state.mode) != (file.uid, file.mode):
                    write.append(file)
            elif state is not None and stamp is not None and not before.knows(path, state.sha256):
                if record is None or record.sha256 != sha256:
                    return Outcome(False, f"{path} {_HAND}", temporary=False)
                # A defect that is told: it stays until somebody decides.
                records[path] = msgspec.structs.replace(record, restarts=file.restarts)
            else:
                write.append(file)
        gone = [path for path in before.files if path not in wanted]
        left = self._states(spec.site, spec.number, gone)
        remove = [path for path, state in left.items() if before.knows(path, state.sha256)]
        done = Stamp(step.digest, spec.number, records)
        changed = before.changed or bool(forced) or done.readers() != before.readers() or before.digest != step.digest
        between = msgspec.structs.replace(
            before,
            digest="",  # what is half done is neither the old nor the new
            changed=changed,
            forced=tuple(sorted(forced)),
            writing=before.writing | {each.path: records[each.path].sha256 for each in write},
        )
        return self._carry_out(spec, between, done, write, remove, say, quietly=step.quiet)

    def _carry_out(
        self,
        spec: ConfigSpec,
        between: Stamp,
        done: Stamp,
        write: list[ConfigFile],
        remove: list[str],
        say: Say,
        *,
        quietly: bool,
    ) -> Outcome:
        if between.changed or write:
            self._save(spec.site, between)
        hit("config-remembered")
        marks = self._write(spec, write, remove)
        hit("config-written")
        files = {
            path: msgspec.structs.replace(record, mark=marks.get(path, record.mark))
            for path, record in done.files.items()
        }
        done = msgspec.structs.replace(done, files=files)
        self._looked.pop(spec.site, None)
        if between.changed and not quietly:
            self._save(
                spec.site, msgspec.structs.replace(done, digest="", changed=between.changed, forced=between.forced)
            )
            failure = self._running.refresh(spec.site, done.readers(), between.forced, say)
            if failure is not None:
                return Outcome(False, failure.message, tail=failure.tail)
            hit("config-refreshed")
        self._save(spec.site, done)
        return Outcome(True)

    def _write(self, spec: ConfigSpec, write: list[ConfigFile], remove: list[str]) -> dict[str, tuple[int, ...]]:
        if not write and not remove:
            return {}
        order = {
            "write": [{"path": each.path, "text": each.text, "uid": each.uid, "mode": each.mode} for each in write],
            "remove": remove,
        }
        with _memory(msgspec.json.encode(order)) as fd:
            done = self._sandbox.run(
                "config-write",
                paths.config_files(self._settings, spec.site),
                as_root(self._settings, spec.number),
                {},
                fds=(fd,),
            )
        return {path: tuple(mark) for path, mark in done["marks"].items()}

    def _ensure_place(self, spec: ConfigSpec) -> None:
        place, files = paths.config(self._settings, spec.site), paths.config_files(self._settings, spec.site)
        place.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        place.mkdir(exist_ok=True)
        place.chmod(0o711)
        start = self._settings.uid_start(spec.number)
        with contextlib.suppress(FileExistsError):
            files.mkdir(mode=0o755)
        if files.lstat().st_uid != start:
            os.chown(files, start, start, follow_symlinks=False)
            files.chmod(0o755)

    def _states(self, site: str, number: int, wanted: Iterable[str], *, texts: bool = False) -> dict[str, _State]:
        """The files as they lie there, without those that are gone. Read by a confined child."""
        asked = sorted(wanted)
        files = paths.config_files(self._settings, site)
        if not asked or not files.is_dir():
            return {}
        with _memory(msgspec.json.encode({"paths": asked})) as fd, _memory(b"") as answer:
            self._sandbox.run("config-read", files, as_root(self._settings, number), {"texts": texts}, fds=(fd, answer))
            os.lseek(answer, 0, os.SEEK_SET)
            with os.fdopen(os.dup(answer), "rb") as file:
                return _states.decode(file.read())

    # Verbs

    def read(self, site: SiteId, number: int) -> tuple[ConfigState, ...]:
        """The files that were written and what became of them."""
        with self._locks[site]:
            stamp = self._load(site)
            if stamp is None:
                return ()
            states = self._states(site, number, stamp.files, texts=True)
        found = []
        for path in stamp.files:
            state = states.get(path)
            changed = state is None or not stamp.knows(path, state.sha256)
            found.append(ConfigState(path, changed, state.text if changed and state is not None else None))
        return tuple(found)

    def forget(self, site: SiteId, number: int, files: Collection[str]) -> None:
        """Remove files that were changed by hand; the next pass writes them again. Raises ``NotFound``."""
        with self._locks[site]:
            stamp = self._load(site)
            if unknown := sorted(set(files) - set(stamp.files if stamp is not None else ())):
                raise NotFound(f"there is no configuration file {unknown[0]}")
            if stamp is None:
                return
            states = self._states(site, number, files)
            touched = [path for path, state in states.items() if not stamp.knows(path, state.sha256)]
            if not touched:
                return
            restarts = {name for path in touched for name in stamp.files[path].restarts}
            forced = tuple(sorted(restarts.union(stamp.forced)))
            self._save(site, msgspec.structs.replace(stamp, changed=True, forced=forced))
            self._write(ConfigSpec(site, number, ()), [], touched)

    def _delete(self, site: str) -> None:
        place, files = paths.config(self._settings, site), paths.config_files(self._settings, site)
        stamp: Stamp | None = None
        with contextlib.suppress(msgspec.DecodeError):
            stamp = self._load(site)
        self._read.pop(site, None)
        self._looked.pop(site, None)
        if stamp is not None and files.is_dir():
            self._sandbox.run("remove", files, as_root(self._settings, stamp.number), {"paths": None})
        mounts.remove_tree(place)

    # The record

    def _load(self, site: str) -> Stamp | None:
        """``None``: there are no files. Raises ``DecodeError`` for a damaged record."""
        file = self._stamp(site)
        try:
            info = os.stat(file)  # noqa: PTH116  of every site, in every pass
        except (FileNotFoundError, NotADirectoryError):
            return None
        key = (info.st_ino, info.st_mtime_ns, info.st_size)
        known = self._read.get(site)
        if known is None or known[0] != key:
            known = self._read[site] = (key, configstamp.stamps.decode(Path(file).read_bytes()))
        return known[1]

    def _save(self, site: str, stamp: Stamp) -> None:
        instances.write(Path(self._stamp(site)), msgspec.json.encode(stamp))

    def _stamp(self, site: str) -> str:
        return f"{self._settings.state}/sites/{site}/config/stamp.json"


@contextlib.contextmanager
def _memory(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("config", os.MFD_CLOEXEC)
    try:
        write_all(fd, data)
        yield fd
    finally:
        os.close(fd)
