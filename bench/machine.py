"""Looking at processes, mounts and cgroups, and ending what a benchmark has started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from ctypes import CDLL, c_char_p, c_int, get_errno
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")
_MNT_DETACH = 2
_libc = CDLL(None, use_errno=True)
_libc.umount2.argtypes = (c_char_p, c_int)


class BenchError(Exception):
    """What is measured did not do what it is measured for; the figure is left out and says why."""


def run(*argv: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, output captured as text. Raises ``BenchError`` with its last lines."""
    done = subprocess.run([str(each) for each in argv], text=True, capture_output=True, check=False, **options)
    if check and done.returncode != 0:
        raise BenchError(f"{argv[0]} {argv[1] if len(argv) > 1 else ''}: {(done.stderr or done.stdout)[-800:]}")
    return done


# --- HTTP -----------------------------------------------------------------------------------------
def fetch(address: tuple[str, int], host: str, path: str = "/", seconds: float = 5.0) -> tuple[int, bytes]:
    """One request on a new connection; (status, body). Raises ``OSError``."""
    with socket.create_connection(address, timeout=seconds) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while block := connection.recv(65536):
            answer += block
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body


def pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  pathlib costs more than the read here
            return file.read()
    except OSError:
        return b""


def has_open(pid: int, place: Path) -> bool:
    """Whether a process holds a file below ``place`` open."""
    with contextlib.suppress(OSError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if each.readlink().is_relative_to(place):
                    return True
    return False


def parent(pid: int) -> int:
    stat = read_bytes(f"/proc/{pid}/stat")
    return int(stat[stat.rfind(b")") + 2 :].split()[1]) if stat else 0


def command(pid: int) -> str:
    return read_bytes(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def alive(pid: int) -> bool:
    """Whether it is there and no zombie."""
    stat = read_bytes(f"/proc/{pid}/stat")
    return bool(stat) and stat[stat.rfind(b")") + 2 : stat.rfind(b")") + 3] not in (b"Z", b"X")


def descendants(roots: Iterable[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in pids():
        children.setdefault(parent(pid), []).append(pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue.extend(children.get(pid, ()))
    return found


def pss(found: Iterable[int]) -> int:
    """Proportional set size of these processes together, in bytes: shared pages count in parts (proc(5))."""
    total = 0
    for pid in found:
        for line in read_bytes(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def private(found: Iterable[int]) -> int:
    """Memory that only these processes hold, in bytes: what would come back if they ended."""
    total = 0
    for pid in found:
        for line in read_bytes(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith((b"Private_Clean:", b"Private_Dirty:")):
                total += int(line.split()[1]) * 1024
    return total


def cpu_seconds(found: Iterable[int]) -> float:
    """User and system time of these processes and of their children that ended."""
    ticks = 0
    for pid in found:
        stat = read_bytes(f"/proc/{pid}/stat")
        if stat:
            ticks += sum(int(field) for field in stat[stat.rfind(b")") + 2 :].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def available_bytes() -> int:
    """``MemAvailable`` after the kernel has freed what it was still about to free."""
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    for line in read_bytes("/proc/meminfo").splitlines():
        if line.startswith(b"MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise BenchError("the kernel does not tell MemAvailable")


def pin(found: Iterable[int], core: int) -> None:
    for pid in found:
        with contextlib.suppress(OSError):
            for thread in os.scandir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread.name), {core})


def unpin(found: Iterable[int]) -> None:
    for pid in found:
        with contextlib.suppress(OSError):
            for thread in os.scandir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread.name), range(os.cpu_count() or 1))


def end(found: Callable[[], Iterable[int]], seconds: float = 15.0) -> None:
    """Kill what ``found`` gives until it gives nothing alive."""
    until = time.monotonic() + seconds
    while left := [pid for pid in found() if pid not in (os.getpid(), os.getppid(), 1) and alive(pid)]:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until:
            raise BenchError(f"processes do not end: {[(pid, command(pid)[:80]) for pid in left[:5]]}")
        time.sleep(0.05)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait until the block is left: a second Ctrl-C must not leave half of it behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_cgroup(name: str) -> set[int]:
    """Every process in the cgroup ``name`` (below the root) or one below it, in any hierarchy."""
    found: set[int] = set()
    for top in cgroup_tops(name):
        for directory, _, files in os.walk(top):
            if "cgroup.procs" in files:
                found.update(int(word) for word in read_bytes(f"{directory}/cgroup.procs").split())
    return found


def cgroup_tops(name: str) -> list[Path]:
    tops = [CGROUPS / name, *(each / name for each in CGROUPS.iterdir() if each.is_dir() and not each.is_symlink())]
    return [top for top in tops if top.is_dir()]


def remove_cgroup(name: str) -> None:
    for top in cgroup_tops(name):
        for directory, _, _ in os.walk(top, topdown=False):
            for _try in range(50):
                try:
                    os.rmdir(directory)  # noqa: PTH106  a name, by the thousand
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)


def remove_mounts(below: Path) -> None:
    """Unmount everything at or under ``below``, and free the loop devices of files there."""
    text = str(below)
    for _round in range(5):
        places = [line.split()[4].decode() for line in read_bytes("/proc/self/mountinfo").splitlines()]
        places = [place for place in places if place == text or place.startswith(text + "/")]
        if not places:
            break
        for place in reversed(places):
            if _libc.umount2(place.encode(), _MNT_DETACH) != 0 and get_errno() not in (2, 22):
                raise BenchError(f"cannot unmount {place}: {os.strerror(get_errno())}")
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        if read_bytes(str(device)).decode(errors="replace").startswith(text + "/"):
            run("losetup", "-d", f"/dev/{device.parent.parent.name}", check=False)


def interfaces(wanted: Callable[[str], bool]) -> list[str]:
    return [entry.name for entry in os.scandir("/sys/class/net") if wanted(entry.name)]
