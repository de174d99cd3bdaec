"""Limits, figures and the end of everything an instance runs: cgroups v1 (also hybrid) and v2.

One cgroup an instance, named like it, below ``settings.cgroup.parent`` from the root of each
hierarchy. The runtime does not manage them (``--cgroup-manager=disabled``): what it starts is born
in them. On v1 a thread joins and spawns from there, on v2 the forked child joins before it execs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from alveole.config import Settings
from alveole.errors import Temporary
from alveole.host.netns import in_thread
from alveole.host.run import start
from alveole.model.site import Limits

ROOT = Path("/sys/fs/cgroup")
#: The controllers that are used; ``freezer`` is a controller on v1 only.
V1 = ("cpu", "cpuacct", "memory", "pids", "blkio", "freezer")
V2 = ("cpu", "memory", "pids", "io")
#: CFS period in microseconds, the kernel's default (sched-bwc.rst); 1 ms is its smallest quota.
PERIOD = 100_000
#: One core: an instance that starts works for nobody yet, and somebody waits for it.
START_MILLIS = 1000
#: The runtime's own processes share the instance's cgroup while it starts or joins one.
RUNTIME_PIDS = 8
_DEADLINE = 5.0
_BESIDE = "beside"


class Stats(msgspec.Struct, frozen=True):
    """``memory_bytes`` is without the page cache that nobody has touched lately (as ``docker stats``)."""

    memory_bytes: int
    cpu_seconds: float
    pids: int


#: Constant text; what it starts stays an argument vector.
_JOINED = ("/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"')


class Cgroups:
    """The cgroups of all instances of one Alvéole. Thread-safe; every method may raise ``OSError``."""

    def __init__(self, settings: Settings, *, root: Path = ROOT) -> None:
        self.parent = settings.cgroup.parent
        self._disk = _block_device(settings.state)
        controllers, unified = _hierarchies(root)
        if controllers:
            self.mode = "hybrid" if unified else "v1"
            self._paths = {name: controllers[name] / self.parent for name in V1 if name in controllers}
            for needed in ("cpu", "memory", "pids"):
                if needed not in self._paths:
                    raise Temporary(f"the cgroup controller {needed} is not mounted", hint=f"mount it in {root}")
        elif unified is not None:
            self.mode = "v2"
            self._paths = {"": unified / self.parent}
        else:
            raise Temporary("no cgroup hierarchy is mounted", hint=f"mount one in {root}")
        self._unified = unified
        #: Each directory once: v1 controllers may be mounted together.
        self._tops = tuple(dict.fromkeys(self._paths.values()))
        self._ready = False
        self._lock = threading.Lock()

    @property
    def v2(self) -> bool:
        return self.mode == "v2"

    def names(self) -> set[str]:
        """Instances that have a cgroup in any hierarchy."""
        found: set[str] = set()
        for top in self._tops:
            with contextlib.suppress(FileNotFoundError):
                found.update(entry.name for entry in os.scandir(top) if entry.is_dir() and entry.name != _BESIDE)
        return found

    def create(self, name: str, limits: Limits) -> None:
        """Make the cgroup with its memory and io limits; :meth:`settle` sets the others.

        While the runtime starts the instance it counts in: a small share of processor time or a few
        processes must not stop it half-way.
        """
        self._prepare()
        for top in self._tops:
            (top / name).mkdir(exist_ok=True)
        loose = Limits(1_000_000, limits.memory_bytes, limits.pids + RUNTIME_PIDS, limits.io_bytes_per_second)
        (self._limit_v2 if self.v2 else self._limit_v1)(name, loose, settled=False)

    def settle(self, name: str, limits: Limits, *, starting: bool = False) -> None:
        """All limits as the plan has them; while it is ``starting`` up to :data:`START_MILLIS` of processor time.

        Where processors are short its weight against others is the plan's from the first moment on.
        """
        millis = max(limits.cpu_millis, START_MILLIS) if starting else limits.cpu_millis
        if self.v2:
            self._limit_v2(name, limits, settled=True, millis=millis)
        else:
            self._limit_v1(name, limits, settled=True, millis=millis)

    def spawn(self, name: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start ``argv`` inside the cgroup; ``options`` are those of ``subprocess.Popen``."""
        if self.v2:
            # Not preexec_fn: between fork and exec it runs Python, which another thread's lock can stop for ever.
            return start([*_JOINED, str(self._paths[""] / name / "cgroup.procs"), *argv], **options)
        return in_thread(lambda: self._spawn_joined(name, argv, options))

    def spawn_beside(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that serves instances and must outlive the agent.

        On v2 in a cgroup of its own: systemd ends whatever is in that of the agent's unit with it.
        """
        if not self.v2:
            return start(argv, **options)
        self._prepare()
        (self._paths[""] / _BESIDE).mkdir(exist_ok=True)
        return self.spawn(_BESIDE, argv, **options)

    def _spawn_joined(self, name: str, argv: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
        # This thread ends here, so there is no way back to find. A child is born where its parent
        # thread is (fork(2)); the memory of the agent itself goes on being charged to the agent.
        thread = str(threading.get_native_id())
        for top in self._tops:
            _write(top / name / "tasks", thread)
        return start(argv, **options)

    def stats(self, name: str) -> Stats | None:
        """``None`` when the instance has no cgroup."""
        try:
            if self.v2:
                top = self._paths[""] / name
                usage = _number(top / "memory.current") - _field(top / "memory.stat", "inactive_file")
                cpu = _field(top / "cpu.stat", "usage_usec") / 1e6
                pids = _number(top / "pids.current")
            else:
                memory = self._paths["memory"] / name
                usage = _number(memory / "memory.usage_in_bytes") - _field(
                    memory / "memory.stat", "total_inactive_file"
                )
                accounts = self._paths.get("cpuacct")
                cpu = _number(accounts / name / "cpuacct.usage") / 1e9 if accounts else 0.0
                pids = _number(self._paths["pids"] / name / "pids.current")
        except (FileNotFoundError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            return None
        return Stats(max(usage, 0), cpu, pids)

    def all_stats(self, names: Collection[str] | None = None) -> dict[str, Stats]:
        """Figures of many instances; about 60 µs each."""
        found = {}
        for name in self.names() if names is None else names:
            stats = self.stats(name)
            if stats is not None:
                found[name] = stats
        return found

    def io(self, name: str) -> tuple[int, int]:
        """Bytes read from and written to block devices since the cgroup was made; zeros where nobody counts."""
        if self.v2:
            text = _text(self._paths[""] / name / "io.stat")
            pairs = [word.partition("=") for line in text.splitlines() for word in line.split()[1:]]
            read = sum(int(count) for way, _, count in pairs if way == "rbytes")
            return read, sum(int(count) for way, _, count in pairs if way == "wbytes")
        if "blkio" not in self._paths:
            return 0, 0
        # Bytes of the block layer's throttling counter: counted with and without a limit.
        lines = _text(self._paths["blkio"] / name / "blkio.throttle.io_service_bytes").splitlines()
        found = [line.split() for line in lines if len(line.split()) == 3]
        read = sum(int(count) for _device, way, count in found if way == "Read")
        return read, sum(int(count) for _device, way, count in found if way == "Write")

    def oom_kills(self, name: str) -> int:
        """How many processes the kernel has ended for want of memory."""
        try:
            if self.v2:
                return _field(self._paths[""] / name / "memory.events", "oom_kill")
            return _field(self._paths["memory"] / name / "memory.oom_control", "oom_kill")
        except OSError:
            return 0

    def pids(self, name: str) -> list[int]:
        """The processes of the instance. Never our own, which may be there for a moment: the thread that went in to
        start something ends a little later than it says."""
        top = self._paths["" if self.v2 else "pids"]
        try:
            found = map(int, (top / name / "cgroup.procs").read_text().split())
        except FileNotFoundError:
            return []
        return [pid for pid in found if pid != os.getpid()]

    def freeze(self, name: str, *, seconds: float = _DEADLINE) -> None:
        """Stop every process of the instance between two instructions, for a consistent copy.

        Raises ``Temporary`` (and thaws) when they do not all stop within ``seconds``.
        """
        self._freeze(name, True)
        deadline = time.monotonic() + seconds
        while not self._is_frozen(name):
            if time.monotonic() > deadline:
                self.thaw(name)
                raise Temporary(f"{name} could not be frozen within {seconds:g} s")
            time.sleep(0.001)

    def thaw(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._freeze(name, False)

    def _freeze(self, name: str, frozen: bool) -> None:
        if self.v2:
            _write(self._paths[""] / name / "cgroup.freeze", "1" if frozen else "0")
        elif "freezer" in self._paths:
            _write(self._paths["freezer"] / name / "freezer.state", "FROZEN" if frozen else "THAWED")

    def _is_frozen(self, name: str) -> bool:
        if self.v2:
            return _field(self._paths[""] / name / "cgroup.events", "frozen") == 1
        if "freezer" not in self._paths:
            return True
        return (self._paths["freezer"] / name / "freezer.state").read_text().strip() == "FROZEN"

    def kill(self, name: str) -> None:
        """End every process of the instance at once, a fork bomb included. Idempotent.

        Returns when none is left; raises ``Temporary`` when the kernel does not let go of one.
        """
        deadline = time.monotonic() + _DEADLINE
        pause = 0.0005
        frozen = False
        while pids := self.pids(name):
            if time.monotonic() > deadline:
                self.thaw(name)
                raise Temporary(f"{len(pids)} processes of {name} do not end", hint=f"look at /proc/{pids[0]}/stack")
            if self.v2 and (self._paths[""] / name / "cgroup.kill").exists():
                _write(self._paths[""] / name / "cgroup.kill", "1")
            else:
                if frozen:
                    # What forks faster than it is killed cannot fork while it is frozen. A signal
                    # to a frozen process of v1 is only carried out when it thaws.
                    with contextlib.suppress(Temporary, FileNotFoundError):
                        self.freeze(name, seconds=0.2)
                    pids = self.pids(name)
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if frozen:
                    self.thaw(name)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
            frozen = pause > 0.004

    def remove(self, name: str) -> None:
        """Take the cgroup away; its processes must have ended. Idempotent."""
        deadline = time.monotonic() + _DEADLINE
        for top in self._tops:
            pause = 0.0005
            while True:
                try:
                    (top / name).rmdir()
                except FileNotFoundError:
                    pass
                except OSError as error:
                    # A process that has ended leaves its cgroup a moment later.
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise
                    time.sleep(pause)
                    pause = min(pause * 2, 0.02)
                    continue
                break

    def remove_parent(self) -> None:
        """Take away the directory of this Alvéole itself, when nothing is left in it."""
        for top in self._tops:
            for directory in (top / _BESIDE, top):
                with contextlib.suppress(OSError):
                    directory.rmdir()

    # Parts

    def _prepare(self) -> None:
        if self._ready:
            return
        with self._lock:
            for top in self._tops:
                top.mkdir(parents=True, exist_ok=True)
            if self.v2 and self._unified is not None:
                base = self._unified
                available = set((base / "cgroup.controllers").read_text().split())
                for part in ("", *Path(self.parent).parts):
                    base = base / part
                    for controller in V2:
                        if controller in available:
                            _enable(base, controller)
            self._ready = True

    def _limit_v1(self, name: str, limits: Limits, *, settled: bool, millis: int = 0) -> None:
        memory = self._paths["memory"] / name
        if not settled:
            # Memory with swap may never be below memory alone: the order matters only when it falls,
            # and a new cgroup starts without limit.
            _write(memory / "memory.limit_in_bytes", limits.memory_bytes)
            with contextlib.suppress(OSError):  # absent when the kernel does not count swap
                _write(memory / "memory.memsw.limit_in_bytes", limits.memory_bytes)
            if limits.io_bytes_per_second and self._disk and "blkio" in self._paths:
                for way in ("read", "write"):
                    with contextlib.suppress(FileNotFoundError):
                        _write(
                            self._paths["blkio"] / name / f"blkio.throttle.{way}_bps_device",
                            f"{self._disk} {limits.io_bytes_per_second}",
                        )
        if settled:
            cpu = self._paths["cpu"] / name
            with contextlib.suppress(FileNotFoundError):  # a kernel without CONFIG_CFS_BANDWIDTH
                _write(cpu / "cpu.cfs_period_us", PERIOD)
                _write(cpu / "cpu.cfs_quota_us", _quota(millis))
            _write(cpu / "cpu.shares", _shares(limits))
        _write(self._paths["pids"] / name / "pids.max", limits.pids)

    def _limit_v2(self, name: str, limits: Limits, *, settled: bool, millis: int = 0) -> None:
        top = self._paths[""] / name
        if not settled:
            _write(top / "memory.max", limits.memory_bytes)
            with contextlib.suppress(FileNotFoundError):
                _write(top / "memory.swap.max", 0)
            if limits.io_bytes_per_second and self._disk and (top / "io.max").exists():
                bps = limits.io_bytes_per_second
                _write(top / "io.max", f"{self._disk} rbps={bps} wbps={bps}")
        if settled:
            _write(top / "cpu.max", f"{_quota(millis)} {PERIOD}")
            # 1024 shares of v1 are a weight of 100 on v2.
            _write(top / "cpu.weight", max(1, min(10_000, _shares(limits) * 100 // 1024)))
        _write(top / "pids.max", limits.pids)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _quota(millis: int) -> int:
    return max(1000, millis * PERIOD // 1000)


def _shares(limits: Limits) -> int:
    """Weight against others when processors are short: one core is 1024, as Docker and Kubernetes count."""
    return max(2, min(262_144, limits.cpu_millis * 1024 // 1000))


def _hierarchies(root: Path) -> tuple[dict[str, Path], Path | None]:
    """Mount points below ``root``: of each v1 controller, and of v2."""
    controllers: dict[str, Path] = {}
    unified: Path | None = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point, kind = Path(before.split(" ")[4]), after.split(" ")[0]
        if point != root and root not in point.parents:
            continue
        if kind == "cgroup2":
            unified = point
        elif kind == "cgroup":
            for option in after.split(" ")[2].split(","):
                if option in V1:
                    controllers[option] = point
    return controllers, unified


def _enable(top: Path, controller: str) -> None:
    """Let the children of ``top`` have the controller."""
    control = top / "cgroup.subtree_control"
    if controller in control.read_text().split():
        return
    try:
        _write(control, f"+{controller}")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A cgroup that is not the real root may not have both processes and controlled children
        # (cgroup-v2.rst, "No Internal Process Constraint"): we run in a container ourselves.
        aside = top / "aside"
        aside.mkdir(exist_ok=True)
        for pid in (top / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                _write(aside / "cgroup.procs", pid)
        _write(control, f"+{controller}")


def _block_device(path: Path) -> str:
    """``major:minor`` of the whole disk that holds ``path``; empty when there is none (tmpfs, overlay)."""
    while not path.exists():
        path = path.parent
    device = path.stat().st_dev
    system = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not system.exists():
        return ""
    if (system / "partition").exists():
        return (system.resolve().parent / "dev").read_text().strip()
    return f"{os.major(device)}:{os.minor(device)}"


def _write(path: Path, value: int | str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, f"{path}: {value}: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(fd)


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 16_384)
    finally:
        os.close(fd)


def _number(path: Path) -> int:
    return int(_read(path))


def _field(path: Path, name: str) -> int:
    """The value of ``name`` in a file of "name value" lines; 0 when it is not there."""
    wanted = name.encode() + b" "
    for line in _read(path).splitlines():
        if line.startswith(wanted):
            return int(line[len(wanted) :])
    return 0
