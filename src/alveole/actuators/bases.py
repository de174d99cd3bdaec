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
import os
import platform
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from alveole import failpoints
from alveole.actuators.releases import room, sync_directory
from alveole.agent.agent import check_spec
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, InvalidInput, NoRoom, Problem, Refused, Temporary
from alveole.host import apt, bases, layers, paths, syscalls
from alveole.host.bases import Record, mapped_tree, read_record, write_record
from alveole.host.run import ENVIRONMENT, ProgramFailed, start
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
DATA = Path(__file__).parents[1] / "data"
STATIC_CONFIG = DATA / "static-nginx.conf"
#: Rise when the way a base is made changes what comes out.
HOST_VERSION = 1
DEBIAN_VERSION = 1
#: What every Debian base holds beside ``minbase``: the server of static content and the supervisor.
ALWAYS = ("nginx-light", "s6")
#: A minimal root with a server takes some 200 MB, and its packages 60 while it is made.
DEBIAN_BYTES = 400 * MIB
BUILD_SECONDS = 3600.0
_STAGES = (
    ("running apt-get update", 0.05),
    ("downloading packages with apt", 0.15),
    ("extracting archives", 0.35),
    ("installing essential packages", 0.45),
    ("downloading apt", 0.6),
    ("installing apt", 0.62),
    ("installing remaining packages", 0.65),
    ("cleaning package lists", 0.9),
)
_DROPPED = (
    # The machine's own sources may name a mirror with a password.
    "etc/apt/sources.list.d/0000apt.sources",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/apt/lists",
    "var/lib/dpkg/status-old",
    "var/log/apt",
    "var/log/dpkg.log",
    "usr/sbin/policy-rc.d",
)


class Bases:
    """Resolves, builds, adopts and drops bases."""

    kinds = frozenset({Kind.BASE})

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def recover(self) -> None:
        """Remove what builds and removals left that a death cut short. Once, at the start of the agent."""
        for path in sorted(paths.bases(self._settings).glob(".*")):
            log.info("removing %s, left by an interrupted build", path)
            self._remove(path)

    def resolve(self, kind: str, packages: Sequence[str] = ()) -> Base:
        """The key of the host's base or of a set of Debian packages; builds and contacts nothing.

        Raises ``InvalidInput`` with every name that is no package, or none that this machine's
        package lists know.
        """
        if kind == BaseKind.HOST:
            if packages:
                raise InvalidInput("the base host takes no packages", field="packages", hint="use --base debian")
            return Base(BaseKind.HOST, f"host-{_hex(['host', HOST_VERSION, *_host_parts()])}")
        if kind != BaseKind.DEBIAN:
            raise InvalidInput(f"{kind!r} is not a kind of base", field="base", hint="use host, debian or an image")
        wanted = tuple(sorted(set(packages)))
        wrong = [name for name in wanted if not re.match(PACKAGE, name)]
        if wrong:
            raise InvalidInput(problems=[Problem("packages", f"{name!r} is not a package name") for name in wrong])
        key = f"debian-{_hex(['debian', DEBIAN_VERSION, apt.suite(), platform.machine(), *ALWAYS, *wanted])}"
        if not paths.base_record(self._settings, key).exists() and (absent := apt.unknown(wanted)):
            raise InvalidInput(problems=[_no_package(name) for name in absent])
        return Base(BaseKind.DEBIAN, key, wanted)

    def build(self, base: Base, say: Say = quiet) -> Record:
        """Make ``base`` unless it is there; a second caller for the same key waits for the first.

        Raises ``InvalidInput`` for a package that does not exist, ``NoRoom``, ``Refused`` for an
        image (it cannot be made from its name), ``ProgramFailed`` with the tail of the build.
        """
        with self._locks[base.key]:
            with contextlib.suppress(AlveoleError, msgspec.DecodeError):
                return read_record(self._settings, base.key)
            if base.kind is BaseKind.OCI:
                raise Refused(f"the image {base.label} is not here", field="base", hint="import it again")
            left, _ = room(self._settings, self._prepare())
            if base.kind is BaseKind.DEBIAN and left < DEBIAN_BYTES:
                raise NoRoom(f"a Debian base needs {size_text(DEBIAN_BYTES)}, {size_text(left)} are left", field="disk")
            with self.staging(base.key) as staging:
                if base.kind is BaseKind.HOST:
                    say("making the base host", None)
                    _make_host(staging / "root")
                    sync([str(staging)])
                    used = {"bytes": 0, "files": 0}
                else:
                    self._make_debian(base, staging, say)
                    used = self.finish(staging / "root", drop=_DROPPED)
                record = Record(base, time.time(), used["bytes"], used["files"])
                self.adopt(staging, record)
                return record

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

    def finish(self, root: Path, *, drop: Sequence[str] = ()) -> dict[str, int]:
        """Make a tree fit to be a base (``host.layers.finish_root``), as root of the bases' range."""
        files = {"etc/alveole/nginx.conf": STATIC_CONFIG.read_text(encoding="utf-8")}
        if not (DATA / "skeleton" / "etc" / "nginx" / "mime.types").exists():
            raise Temporary("Alvéole's data files are incomplete", hint="install it again")
        with mapped_tree(self._settings, root) as fd:
            found = self._sandbox.run(
                "finish", fd, as_root(self._settings, bases.NUMBER), {"drop": list(drop), "files": files}
            )
        return {"bytes": int(found["bytes"]), "files": int(found["files"])}

    def adopt(self, staging: Path, record: Record) -> None:
        """Give a finished tree its name. A base of that key that has lost its record is replaced."""
        write_record(staging / "base.json", record)
        sync_directory(staging)
        failpoints.hit("base-built")
        target = paths.base(self._settings, record.base.key)
        if target.exists():
            target.rename(target.with_name(f".gone.{target.name}.{secrets.token_hex(4)}"))
        staging.rename(target)
        sync_directory(target.parent)

    def _make_debian(self, base: Base, staging: Path, say: Say) -> None:
        suite = apt.suite()
        sources = apt.sources(suite)
        if not sources:
            raise Refused(
                f"this machine has no apt source for {suite}", field="base", hint="add one to /etc/apt/sources.list.d"
            )
        list_file = staging / "apt.sources"
        list_file.write_text(sources, encoding="utf-8")
        argv = [
            # Whatever it has started ends with it, and it with us: no build goes on that nobody waits for.
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--"),
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
            f"--include={','.join(sorted({*ALWAYS, *base.packages}))}",
            '--aptopt=Acquire::Languages "none"',
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            *(f"--aptopt={line}" for line in apt.settings()),
            *(suite, str(staging / "root"), str(list_file)),
        ]
        say(f"building {base.label}", 0.0)
        lines = _follow(argv, say)
        for line in lines:
            if match := re.search(r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation", line):
                raise InvalidInput(problems=[_no_package(match[1] or match[2])])

    def drop(self, key: str) -> None:
        """Remove a base; an absent one is fine. Whether something still leans on it is control's to know."""
        with self._locks[key]:
            path = paths.base(self._settings, key)
            if path.exists():
                gone = path.with_name(f".gone.{key}.{secrets.token_hex(4)}")
                path.rename(gone)
                sync_directory(gone.parent)
                self._remove(gone)

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
            try:
                record = read_record(self._settings, path.name)
            except (AlveoleError, msgspec.DecodeError) as error:
                found.append(Observed(id, "", False, (Defect("damaged", f"the base's record: {error}"),)))
                continue
            defects = () if (path / "root" / "etc").is_dir() else (Defect("damaged", "the base's files are gone"),)
            detail: dict[str, str | int | float] = {
                "bytes": record.bytes,
                "files": record.files,
                "made_at": record.made_at,
            }
            found.append(Observed(id, stamp(BaseSpec(record.base)), not defects, defects, detail=detail))
        return Observation(tuple(found))

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        if step.action is Action.DELETE:
            self.drop(step.id.name)
            return Outcome(True)
        spec: BaseSpec = check_spec(step, BaseSpec)
        if step.action is not Action.CREATE and spec.base.kind is not BaseKind.OCI:
            self.drop(spec.base.key)
        try:
            self.build(spec.base, say)
        except ProgramFailed as error:
            return Outcome(False, str(error), tail=error.tail)
        except (InvalidInput, Refused) as error:
            return Outcome(False, str(error), temporary=isinstance(error, NoRoom))
        return Outcome(True)


def _no_package(name: str) -> Problem:
    return Problem("packages", f"there is no package {name!r}", f"apt-cache search {name}")


def _hex(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _follow(argv: list[str], say: Say) -> list[str]:
    """Run a build to its end; raises ``ProgramFailed``.

    Gives its last lines when it failed because a package is absent, else nothing.
    """
    environment = {**ENVIRONMENT, **apt.environment(), "DEBIAN_FRONTEND": "noninteractive"}
    process = start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    timer = threading.Timer(BUILD_SECONDS, process.kill)
    timer.start()
    tail: list[str] = []
    try:
        for line in process.stdout or ():
            text = line.decode("utf-8", "replace").strip()
            if not text:
                continue
            tail = [*tail[-199:], text]
            if text.startswith("I: "):
                share = next((share for stage, share in _STAGES if stage in text), None)
                say(text.removeprefix("I: ").removesuffix("..."), share)
        status = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if status != 0 and not any("Unable to locate package" in line for line in tail):
        errors = [line for line in tail if line.startswith("E:")]
        raise ProgramFailed(argv, status, "\n".join([*tail[-20:], *errors[:1]]))
    return tail if status != 0 else []


def _alternatives() -> list[tuple[str, str]]:
    """The machine's choices among programs (update-alternatives(1)): names and what they lead to."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir("/etc/alternatives") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink() and (target := str(Path(entry.path).readlink())).startswith("/usr/"):
                found.append((entry.name, target))
    return found


def _skeleton() -> list[tuple[str, bytes]]:
    top = DATA / "skeleton"
    return [(str(path.relative_to(top)), path.read_bytes()) for path in sorted(top.rglob("*")) if path.is_file()]


def _host_parts() -> list[object]:
    return [
        Path("/usr/sbin/nginx").exists(),
        hashlib.sha256(STATIC_CONFIG.read_bytes()).hexdigest(),
        *((name, hashlib.sha256(data).hexdigest()) for name, data in _skeleton()),
        *_alternatives(),
    ]


def _make_host(root: Path) -> None:
    """The skeleton around ``/usr``: links, mount points, and of ``/etc`` what programs cannot do without."""
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/usr", name).is_dir():
            (root / name).symlink_to(f"usr/{name}")
    places = ("usr", "home", "mnt", "opt", "root", "srv", "var/cache", "var/lib", "var/log", "var/tmp", "var/www")
    for name in (*layers.MOUNT_POINTS, *places, "etc/alternatives", "etc/ssl/certs"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    (root / "var/run").symlink_to("/run")
    (root / "var/lock").symlink_to("/run/lock")
    for name, data in _skeleton():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "etc/alveole/nginx.conf").write_bytes(STATIC_CONFIG.read_bytes())
    for name, target in _alternatives():
        (root / "etc/alternatives" / name).symlink_to(target)
    for path in Path("/etc/ssl/certs").glob("*"):
        copy = root / "etc/ssl/certs" / path.name
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_file():
            copy.write_bytes(path.read_bytes())
    (root / "etc/ssl/cert.pem").symlink_to("certs/ca-certificates.crt")
    for name in ("etc/ssl/openssl.cnf", "etc/services", "etc/protocols", "etc/mime.types"):
        if Path("/", name).is_file():
            (root / name).write_bytes(Path("/", name).read_bytes())
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")


def check_digest(text: object) -> str:
    """A digest that came out of a child, checked before it becomes a name. Raises ``Temporary``."""
    if not isinstance(text, str) or not re.match(DIGEST, text):
        raise Temporary("the content has no digest")
    return text
