"""The writable part of a site: its volumes and the changes of its root.

A directory, or where the plan has a disk limit a file of the host mounted as a partition. The
stamp of each generation is a file beside it, ``S/sites/<id>/storage.<generation>.json``: it goes
before what it stands for is removed and comes after it is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import msgspec

from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import InvalidInput
from alveole.failpoints import hit
from alveole.host import disk, instances, mounts, paths
from alveole.host.run import ProgramFailed, run
from alveole.model.resource import (
    Action,
    Defect,
    Kind,
    Observation,
    Observed,
    Outcome,
    ResourceId,
    Step,
    StorageSpec,
)

_STAMP = re.compile(r"^storage\.(\d{1,18})\.json\Z")
_MOVING, _ASIDE = "disk.moving", "data.moved"
_BUSY = "the site runs or is being saved: its writable part can be exchanged only while it is stopped"


class _Stamp(msgspec.Struct, frozen=True):
    digest: str
    spec: StorageSpec


_stamps: msgspec.json.Decoder[_Stamp] = msgspec.json.Decoder(_Stamp)


class Storage:
    kinds = frozenset({Kind.STORAGE})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    # Looking

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        found: list[Observed] = []
        unknown: list[tuple[Kind, str]] = []
        try:
            if scopes is None:
                scopes = [entry.name for entry in os.scandir(paths.sites(self._settings)) if entry.is_dir()]
            for site in sorted(scopes):
                found.extend(self._observe_site(site))
        except FileNotFoundError:
            pass
        except OSError as error:
            unknown.append((Kind.STORAGE, f"{error.filename}: {error.strerror}"))
        return Observation(tuple(found), tuple(unknown))

    def _observe_site(self, site: str) -> list[Observed]:
        found = []
        for generation, path in self._stamps(site):
            id = ResourceId(Kind.STORAGE, site, str(generation))
            try:
                stamp = _stamps.decode(path.read_bytes())
            except msgspec.DecodeError:
                defect = Defect("damaged", f"{path.name} cannot be read")
                found.append(Observed(id, "", False, (defect,)))
                continue
            defects = self._defects(stamp.spec)
            found.append(Observed(id, stamp.digest, not defects, defects))
        return found

    def _defects(self, spec: StorageSpec) -> tuple[Defect, ...]:
        if spec.disk_bytes is not None:
            # What is inside is looked at when it is mounted, which it is while the site runs.
            image = paths.disk_image(self._settings, spec.site)
            if not image.exists():
                return (Defect("missing", "the file of the disk is gone"),)
            if not disk.is_attached(paths.disk_mount(self._settings, spec.site)):
                return ()
        data = paths.data_dir(self._settings, spec.site, spec.disk_bytes is not None)
        return tuple(
            Defect("missing", f"the directory of the volume {volume.name} is gone")
            for volume in spec.volumes
            if not paths.volume(data, spec.generation, volume.name).is_dir()
        )

    def _stamps(self, site: str) -> list[tuple[int, Path]]:
        found = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(paths.site(self._settings, site)):
                if match := _STAMP.match(entry.name):
                    found.append((int(match[1]), Path(entry.path)))
        return sorted(found)

    # Acting

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        site = step.id.scope
        with self._locks[site]:
            if step.action is Action.DELETE:
                self._delete(site, int(step.id.name))
                return Outcome(True)
            if not isinstance(step.spec, StorageSpec):
                raise InvalidInput(f"{step.action} {step.id} needs a specification", field="step.spec")
            return self._keep(step.spec, step.digest, say)

    def _keep(self, spec: StorageSpec, digest: str, say: Say) -> Outcome:
        place = paths.site(self._settings, spec.site)
        place.mkdir(mode=0o711, parents=True, exist_ok=True)
        hit("storage-begin")
        problem = self._ensure_place(spec, say)
        if problem:
            return Outcome(False, problem)
        with disk.borrowed(self._settings, spec.site) as data:
            data.chmod(0o711)
            start = self._settings.uid_start(spec.number)
            generation = paths.volumes(data, spec.generation)
            generation.mkdir(parents=True, exist_ok=True)
            # mkdir's mode goes through the umask. The site's own root lists the names for a backup;
            # what the volumes hold is closed to others by themselves.
            for directory in (generation.parent, generation):
                directory.chmod(0o755)
            for volume in spec.volumes:
                _ensure_volume(generation / volume.name, start + volume.uid)
        hit("storage-made")
        instances.write(self._stamp(spec.site, spec.generation), msgspec.json.encode(_Stamp(digest, spec)))
        return Outcome(True)

    def _ensure_place(self, spec: StorageSpec, say: Say) -> str:
        """Make or resize the directory or the file; gives why it cannot be done now, or nothing."""
        image = paths.disk_image(self._settings, spec.site)
        target = paths.disk_mount(self._settings, spec.site)
        plain = paths.data_dir(self._settings, spec.site, False)
        self._finish_move(image, plain)
        runs = self._runs(spec.site)
        if spec.disk_bytes is None:
            if image.exists():
                return _BUSY if runs else self._move_out(image, plain, target, say)
            plain.mkdir(mode=0o711, exist_ok=True)
            return ""
        if not image.exists():
            if plain.exists():
                return _BUSY if runs else self._move_in(image, plain, target, spec.disk_bytes, say)
            disk.create(image, spec.disk_bytes)
            return ""
        have = disk.size(image)
        if have == spec.disk_bytes:
            return ""
        say(f"resizing the disk to {spec.disk_bytes >> 20} MiB", None)
        if have < spec.disk_bytes and disk.is_attached(target):
            try:
                disk.grow(image, target, spec.disk_bytes)
                return ""
            except ProgramFailed:
                if runs:
                    return _BUSY
        with disk.exclusive(target):
            if runs or not disk.detach(target):
                return _BUSY
            disk.resize(image, spec.disk_bytes)
        return ""

    def _finish_move(self, image: Path, plain: Path) -> None:
        """Complete what a crash cut between the two renames of a move: nothing of it is ever lost."""
        moving, aside = image.with_name(_MOVING), plain.with_name(_ASIDE)
        if aside.exists() and not plain.exists():
            if moving.exists():
                moving.rename(image)
            elif not image.exists():
                aside.rename(plain)
        if image.exists() and plain.exists():
            # The directory got its name when it was whole; the file had only to go.
            image.unlink()
        mounts.remove_tree(aside)

    def _move_in(self, image: Path, plain: Path, target: Path, size: int, say: Say) -> str:
        """From the directory into a file. Nothing of the site runs meanwhile."""
        say("moving the site's data into a disk of its own", None)
        moving, aside = image.with_name(_MOVING), plain.with_name(_ASIDE)
        moving.unlink(missing_ok=True)
        disk.create(moving, size)
        disk.attach(moving, target)
        try:
            _copy(plain, target)
        except ProgramFailed:
            return "the site's data does not fit into the disk of its plan"
        finally:
            disk.detach(target)
        plain.rename(aside)
        hit("storage-moved")
        moving.rename(image)
        mounts.remove_tree(aside)
        return ""

    def _move_out(self, image: Path, plain: Path, target: Path, say: Say) -> str:
        """From the file into a directory. Nothing of the site runs meanwhile."""
        say("moving the site's data out of its disk", None)
        moving = plain.with_name("data.moving")
        mounts.remove_tree(moving)
        moving.mkdir(mode=0o711)
        disk.attach(image, target)
        try:
            _copy(target, moving)
        finally:
            disk.detach(target)
        mounts.remove_tree(moving / "lost+found")
        moving.rename(plain)
        image.unlink()
        return ""

    def _delete(self, site: str, generation: int) -> None:
        hit("storage-delete")
        others = [number for number, _ in self._stamps(site) if number != generation]
        with contextlib.suppress(FileNotFoundError), disk.borrowed(self._settings, site) as data:
            mounts.remove_tree(paths.volumes(data, generation))
        if not others:
            # The last one takes everything along, the changes of the root too.
            target = paths.disk_mount(self._settings, site)
            disk.detach(target)
            with contextlib.suppress(OSError):
                # Mounting it once more has made this anew, after the end of the last instance.
                target.parent.rmdir()
            paths.disk_image(self._settings, site).unlink(missing_ok=True)
            mounts.remove_tree(paths.data_dir(self._settings, site, False))
        self._stamp(site, generation).unlink(missing_ok=True)

    def _stamp(self, site: str, generation: int) -> Path:
        return paths.site(self._settings, site) / f"storage.{generation}.json"

    def _runs(self, site: str) -> bool:
        # Who works on its files leans on the disk as much as what runs.
        return bool(instances.of_site(self._settings, site)) or (paths.visits(self._settings) / site).exists()


def _ensure_volume(path: Path, owner: int) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o750)
        os.chown(path, owner, owner, follow_symlinks=False)


def _copy(source: Path, target: Path) -> None:
    """All of ``source`` with owners, modes, times, holes and attributes; links are copied as links."""
    run(("cp", "-a", "--sparse=always", "--reflink=auto", "-T", "--", str(source), str(target)), timeout=3600)
