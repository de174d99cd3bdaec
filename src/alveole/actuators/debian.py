"""Making the trees of Debian bases: the common one by mmdebstrap, a set of packages as a layer over it.

A layer is the upper directory of an overlay in which apt installed the set: only what the set adds or
changes, with the kernel's own marks for what it takes away. Nothing here gives a base its name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import selectors
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from alveole.agent.protocol import PackageChange
from alveole.backends.base import Say
from alveole.config import Settings
from alveole.errors import InvalidInput, Problem
from alveole.host import apt, bases, buildroot, userns
from alveole.host.aptcache import COMMON, FRESH_SECONDS, Cache, Workplace
from alveole.host.run import ENVIRONMENT, ProgramFailed, run, start

log = logging.getLogger("alveole.agent")
#: What every Debian base holds beside ``minbase``: the server of static content and the supervisor.
ALWAYS = ("nginx-light", "s6")
BUILD_SECONDS = 3600.0
_EXCLUDED = ("/usr/share/man/*", "/usr/share/locale/*")
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
#: The file of package sources that mmdebstrap is given; it keeps a copy of it under this name.
_SOURCES = "alveole.sources"
#: What building leaves and a base must not hold.
DROPPED = (
    # The machine's own sources may name a mirror with a password.
    f"etc/apt/sources.list.d/0000{_SOURCES}",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/preferences.d/alveole",
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
_STATUS = "var/lib/dpkg/status"
_NO_DAEMONS = "#!/bin/sh\nexit 101\n"
_BOOT = "import sys; sys.path.extend(sys.argv[2:]); from alveole.host.buildroot import main; main(sys.argv[1])"
#: Capabilities that mmdebstrap and the scripts of Debian's core packages need; capabilities(7).
_BOUNDING = (
    "-all,+chown,+dac_override,+dac_read_search,+fowner,+fsetid,+kill,+setgid,+setuid,+sys_chroot,+mknod,+setfcap"
    ",+sys_admin"  # mounts of the new root
)
#: ``Inst name [before] (after Origin:…/suite [amd64])`` and ``Remv name [before]``; apt-get(8), --simulate.
_SIMULATED = re.compile(r"^(Inst|Remv) (\S+)(?: \[([^]]+)\])?(?: \((\S+)([^)]*)\))?")
_ABSENT = re.compile(r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation")


class Debian:
    """Builds trees in a staging directory that the caller gives and removes."""

    def __init__(self, settings: Settings, cache: Cache) -> None:
        self._settings = settings
        self._cache = cache

    def make_common(self, staging: Path, say: Say, pins: Mapping[str, str] | None = None) -> None:
        """Fill ``staging/root`` with the base that all sets of packages lean on.

        ``pins`` are versions that are taken when they can still be had. Raises ``Refused`` without a
        source, ``ProgramFailed``.
        """
        list_file = staging / _SOURCES
        sources = apt.sources(apt.suite())
        if not sources:
            self._cache.sources()
        list_file.write_text(sources, encoding="utf-8")
        hooks: tuple[str, ...] = ()
        if pins:
            (staging / "preferences").write_text(preferences(pins), encoding="utf-8")
            hooks = (
                f'--setup-hook=mkdir -p "$1/etc/apt/preferences.d" && cp {staging}/preferences '
                '"$1/etc/apt/preferences.d/alveole"',
            )
        argv = [
            # Whatever it has started ends with it, and it with us: no build goes on that nobody waits for.
            *("setpriv", "--pdeathsig", "KILL", "--bounding-set", _BOUNDING),
            *("unshare", "--pid", "--fork", "--kill-child", "--mount", "--ipc", "--uts", "--mount-proc", "--"),
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
            f"--include={','.join(ALWAYS)}",
            '--aptopt=Acquire::Languages "none"',
            *(f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED),
            *(f"--aptopt={line}" for line in apt.settings()),
            *hooks,
            *(apt.suite(), str(staging / "root"), str(list_file)),
        ]
        _follow(argv, _Stages(say))
        for path in staging.iterdir():
            # Sources may name a mirror with a password.
            if path.is_file():
                path.unlink()

    def make_layer(
        self,
        staging: Path,
        lowers: Sequence[Sequence[Path]],
        packages: Sequence[str],
        say: Say,
        *,
        pins: Mapping[str, str] | None = None,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> int:
        """Make ``staging/root`` the layer that brings ``packages`` and all updates to one of ``lowers``; says to which.

        Each of ``lowers`` is the trees of a base. It is the first, unless all that another has would also come to
        the first, in the same versions: so the packages of a base never hang on which bases there were, but only on
        what was asked for and on the lists of the day (ADR 11). Raises ``InvalidInput`` with a package that does
        not exist, ``ProgramFailed`` with the tail of apt.
        """
        say("reading the package lists", 0.01)
        nearest = 0
        for seconds in (fresh_seconds, 0.0):
            with self._cache.workplace(fresh_seconds=seconds) as place:
                if pins:
                    (place.preferences / "alveole").write_text(preferences(pins), encoding="utf-8")
                nearest = self._nearest(place, lowers, packages)
                try:
                    self._download(place, bases.find(lowers[nearest], _STATUS), packages, say)
                except (InvalidInput, ProgramFailed):
                    # Lists of an hour ago name what a mirror has dropped since, and not what is new.
                    if place.fetched:
                        raise
                    continue
                self._install(staging, place, lowers[nearest], packages, say)
                break
        for name in ("mnt", "work"):
            shutil.rmtree(staging / name)
        return nearest

    def pending(self, trees: Sequence[Path], *, fresh_seconds: float, added: bool = True) -> tuple[PackageChange, ...]:
        """What an upgrade of the packages in ``trees`` would change, by lists no older than ``fresh_seconds``.

        ``added``: also by the sources that the settings add. Nothing is changed.
        """
        with self._cache.workplace(fresh_seconds=fresh_seconds, added=added) as place:
            configuration = place.configuration(bases.find(trees, _STATUS))
            done = run(["apt-get", "--simulate", "dist-upgrade"], env={"APT_CONFIG": str(configuration)}, timeout=300)
        found = []
        for verb, name, before, after, origin in _simulated(done.stdout):
            security = "-security" in origin or "Debian-Security" in origin
            found.append(PackageChange(name, before, after if verb == "Inst" else "", security))
        return tuple(found)

    def _nearest(self, place: Workplace, lowers: Sequence[Sequence[Path]], packages: Sequence[str]) -> int:
        """Which of ``lowers`` has most of what would come to the first, and nothing else, each in the same version."""
        with contextlib.suppress(ProgramFailed):
            # What is wrong with the packages or their sources, the download says.
            wanted = outcome(place, lowers[0], packages) if len(lowers) > 1 else {}
            held = {number: installed(bases.find(trees, _STATUS)) for number, trees in enumerate(lowers) if number}
            fitting = [number for number, found in held.items() if found and found.items() <= wanted.items()]
            nearest = max(fitting, key=lambda number: len(held[number]), default=0)
            # Of alternatives apt might choose others where some are there already.
            if nearest and outcome(place, lowers[nearest], packages) == wanted:
                return nearest
        return 0

    def _download(self, place: Workplace, status: Path, packages: Sequence[str], say: Say) -> None:
        configuration = place.configuration(status)
        argv = ["setpriv", "--pdeathsig", "KILL", "apt-get", "--download-only", "dist-upgrade", *packages]
        environment = {**ENVIRONMENT, **apt.environment(), "APT_CONFIG": str(configuration)}
        _follow(argv, _Progress(say, 0.03, 0.4, "downloading"), environment=environment)

    def _install(
        self, staging: Path, place: Workplace, lowers: Sequence[Path], packages: Sequence[str], say: Say
    ) -> None:
        (place.top / "inside.conf").write_text(inside_configuration(), encoding="utf-8")
        for path in (place.top / "inside.conf", place.sources / "alveole.sources"):
            path.chmod(0o644)
        script = staging / "root" / "usr" / "sbin" / "policy-rc.d"
        script.parent.mkdir(parents=True, mode=0o755)
        script.write_text(_NO_DAEMONS)
        script.chmod(0o755)
        # No manual is kept, but update-alternatives(1) of some packages (Java) wants to link into this directory.
        (staging / "root" / "usr" / "share" / "man" / "man1").mkdir(parents=True)
        for name in ("mnt", "work"):
            (staging / name).mkdir(0o755)
        space = userns.create(self._settings.uid_start(bases.NUMBER))
        reading, writing = os.pipe()
        try:
            order = {
                "lowers": [str(tree) for tree in lowers],
                "layer": str(staging),
                "start": self._settings.uid_start(bases.NUMBER),
                "space": space,
                "binds": {
                    "lists": str(place.lists),
                    "archives": str(place.archives),
                    "etc": str(place.top / "etc"),
                    "apt.conf": str(place.top / "inside.conf"),
                },
                "argv": [
                    *("/usr/bin/apt-get", "--no-download", "dist-upgrade"),
                    *("-o", f"APT::Status-Fd={writing}"),
                    *packages,
                ],
            }
            argv = [
                *("setpriv", "--pdeathsig", "KILL", sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT),
                *(msgspec.json.encode(order).decode(), str(Path(buildroot.__file__).parents[2])),
            ]
            progress = _Progress(say, 0.4, 0.9, "")
            _follow(argv, progress, pipe=(reading, writing), keep=(space,), shown=("apt-get", "install", *packages))
        finally:
            os.close(space)
            os.close(reading)
            os.close(writing)


def inside_configuration() -> str:
    """apt.conf(5) of the apt that runs in the new root: everything it needs lies in ``buildroot.PLACE``."""
    place = buildroot.PLACE
    lines = (
        'Dir::Etc::SourceList "/dev/null";',
        f'Dir::Etc::SourceParts "{place}/etc/sources.list.d";',
        f'Dir::Etc::PreferencesParts "{place}/etc/preferences.d";',
        f'Dir::State::lists "{place}/lists";',
        f'Dir::Cache::archives "{place}/archives";',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        'Dir::Log "/dev/null";',
        'Debug::NoLocking "1";',
        'APT::Sandbox::User "root";',
        'Dpkg::Use-Pty "0";',
        *COMMON,
        "DPkg::Options {",
        *(f' "--path-exclude={path}";' for path in _EXCLUDED),
        # All of it goes to the disk at once when it is finished.
        ' "--force-unsafe-io"; "--force-confold"; };',
    )
    return "\n".join(lines) + "\n"


def preferences(pins: Mapping[str, str]) -> str:
    """apt_preferences(5): take these versions where they can be had, even as a downgrade."""
    return "\n".join(f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in pins.items())


def installed(status: Path) -> dict[str, str]:
    """Package to version of what the dpkg status file ``status`` says is installed; ``{}`` without one."""
    found = {}
    try:
        text = status.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    for stanza in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in stanza.splitlines()
            if line.startswith(("Package: ", "Version: ", "Status: "))
        )
        if fields.get("Status", "").endswith(" installed") and "Version" in fields:
            found[fields["Package"]] = fields["Version"]
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[PackageChange, ...]:
    return tuple(
        PackageChange(name, before.get(name, ""), after.get(name, ""))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def no_package(name: str) -> Problem:
    return Problem("packages", f"there is no package {name!r}", f"apt-cache search {name}")


def outcome(place: Workplace, trees: Sequence[Path], packages: Sequence[str]) -> dict[str, str]:
    """Package to version of what there would be after ``packages`` and all updates were brought to ``trees``.

    Raises ``ProgramFailed``.
    """
    status = bases.find(trees, _STATUS)
    argv = ["apt-get", "--simulate", "dist-upgrade", *packages]
    done = run(argv, env={"APT_CONFIG": str(place.configuration(status))}, timeout=300)
    found = installed(status)
    for verb, name, _before, after, _origin in _simulated(done.stdout):
        if verb == "Inst":
            found[name] = after
        else:
            found.pop(name, None)
    return found


def _simulated(text: str) -> Iterator[tuple[str, ...]]:
    """Verb, package, version before, version after and origin of each line of ``apt-get --simulate``."""
    for line in text.splitlines():
        if match := _SIMULATED.match(line):
            yield tuple(part or "" for part in match.groups())


class _Stages:
    """Progress by what mmdebstrap prints."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def printed(self, text: str) -> None:
        if text.startswith("I: "):
            share = next((share for stage, share in _STAGES if stage in text), None)
            self._say(text.removeprefix("I: ").removesuffix("..."), share)

    def reported(self, line: str) -> None:
        """It reports nothing."""


class _Progress:
    """Progress by what apt reports (APT::Status-Fd: ``pmstatus:package:percent:text``, ``dlstatus:…``)."""

    def __init__(self, say: Say, begin: float, end: float, what: str) -> None:
        self._say, self._begin, self._end, self._what = say, begin, end, what
        self._share = begin

    def printed(self, text: str) -> None:
        if self._what and (match := re.match(r"Get:(\d+) \S+ \S+ \S+ (\S+)", text)):
            self._say(f"{self._what} {match[2]}", self._begin)

    def reported(self, line: str) -> None:
        kind, _, rest = line.partition(":")
        name, _, rest = rest.partition(":")
        percent, _, text = rest.partition(":")
        if kind not in ("pmstatus", "dlstatus"):
            return
        try:
            share = self._begin + (self._end - self._begin) * min(100.0, float(percent)) / 100
        except ValueError:
            return
        self._share = max(self._share, share)
        self._say(text or name, self._share)


def _follow(
    argv: list[str],
    progress: _Stages | _Progress,
    *,
    environment: Mapping[str, str] | None = None,
    pipe: tuple[int, int] | None = None,
    keep: Sequence[int] = (),
    shown: Sequence[str] = (),
) -> None:
    """Run a build to its end. ``pipe``: where it reports, both ends; the writing one is given to it.
    ``shown``: what a person is told was run.

    Raises ``InvalidInput`` for packages that do not exist and ``ProgramFailed`` with the tail.
    """
    own = {**ENVIRONMENT, **apt.environment(), "DEBIAN_FRONTEND": "noninteractive", **(environment or {})}
    process = start(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=own,
        pass_fds=(*keep, *((pipe[1],) if pipe else ())),
    )
    timer = threading.Timer(BUILD_SECONDS, process.kill)
    timer.start()
    tail: list[str] = []
    try:
        output = process.stdout.fileno() if process.stdout else -1
        for source, line in _lines(output, pipe[0] if pipe else None):
            if source == output:
                tail = [*tail[-199:], line]
                progress.printed(line)
            else:
                progress.reported(line)
        status = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    if status == 0:
        return
    absent = [match[1] or match[2] for line in tail if (match := _ABSENT.search(line))]
    if absent:
        raise InvalidInput(problems=[no_package(name) for name in dict.fromkeys(absent)])
    errors = [line for line in tail if line.startswith("E:")]
    raise ProgramFailed(shown or argv, status, "\n".join([*tail[-20:], *errors[:1]]))


def _lines(output: int, reports: int | None) -> Iterator[tuple[int, str]]:
    """The lines that come from either file, as they come, until ``output`` ends."""
    held = {fd: b"" for fd in (output, reports) if fd is not None}
    with selectors.DefaultSelector() as selector:
        for fd in held:
            selector.register(fd, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                data = os.read(key.fd, 65_536)
                if not data and key.fd == output:
                    return
                *lines, held[key.fd] = (held[key.fd] + data).split(b"\n")
                for line in lines:
                    if text := line.decode("utf-8", "replace").strip():
                        yield key.fd, text
