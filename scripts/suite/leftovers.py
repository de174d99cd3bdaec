"""Did the tests clean up? What the machine had before, compared with what it has after."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
#: Things that end by themselves get this long.
_PATIENCE_SECONDS = 60.0

Picture = dict[str, set[str]]

#: Made by the first test that needs them and kept, as packages are: others on this machine may run as them.
_OURS = {"alveole", "alveole-edge", "alveole-log", "alveole-ssh"}


def adopt() -> None:
    """Become the parent of every orphan below: what a test leaves running ends up as our child."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def take() -> Picture:
    """What there is now that tests could forget, by kind."""
    return {
        "interface": {entry.name for entry in Path("/sys/class/net").iterdir()},
        "mount": _mounts(),
        "nftables table": _tables(),
        "cgroup": _cgroups(),
        "loop device": {
            f"{path.parent.parent.name}: {_read(path)}" for path in Path("/sys/block").glob("loop*/loop/backing_file")
        },
        "directory": {str(path) for path in Path("/tmp").glob("alv*")}  # noqa: S108  the tests' agreed place
        | {str(path) for path in Path("/run").glob("alv*")}
        | {str(path) for path in Path("/var/lib").glob("alv*")},
        "user": {entry.pw_name for entry in pwd.getpwall()} - _OURS,
    }


def compare(before: Picture) -> list[str]:
    """What is there now and was not before, processes of ours included; those are ended."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        processes = _descendants()
        after = take()
        left = [f"{kind} {name}" for kind, names in after.items() for name in sorted(names - before[kind])]
        if not (left or processes) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for pid, name in processes.items():
        left.append(f"process {pid} ({name})")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def _descendants() -> dict[int, str]:
    """Every living process below us, orphans of the tests included."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    parents: dict[int, tuple[int, str]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            text = _read(process / "stat")
            name, _, rest = text.partition("(")[2].rpartition(")")
            words = rest.split()
            # proc(5): state, parent. A zombie is dead already.
            if words and words[0] != "Z":
                parents[int(process.name)] = (int(words[1]), name)
    found: dict[int, str] = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor][0]
        if ancestor == os.getpid() and pid != ancestor:
            # With its arguments: they say whose it is.
            words = _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
            found[pid] = words[:200] or parents[pid][1]
    return found


def _mounts() -> set[str]:
    lines = _read(Path("/proc/self/mountinfo")).splitlines()
    return {line.split()[4] for line in lines}


def _tables() -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)  # noqa: S607  wherever it is
        return set(done.stdout.splitlines())
    return set()


def _cgroups() -> set[str]:
    """The first levels of every hierarchy; deeper ones go with these. Not those beside our own: whoever started us
    makes one for each thing it starts."""
    top = Path("/sys/fs/cgroup")
    own = {Path(line.split(":", 2)[2]).parent for line in _read(Path("/proc/self/cgroup")).splitlines()}
    beside = {str(place) for place in own if place != Path("/")}
    found = (path for pattern in ("*", "*/*", "*/*/*") for path in top.glob(pattern) if path.is_dir())
    return {str(path) for path in found if not any(str(path.parent).endswith(place) for place in beside)}


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
